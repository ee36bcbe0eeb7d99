"""Compressed bodies: whole ones come out as they went in, all others are refused at a bounded price."""

import gzip
import os
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from app.api.inflate import PARTS_MOST, inflate
from app.model.errors import Refusal

LIMIT = 33_554_432
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "zstd": zstandard.compress,
    "": bytes,
    "identity": bytes,
}
RANDOM = os.urandom(300_000)


def refusal(body: bytes, encoding: str, limit_bytes: int = LIMIT) -> Refusal:
    with pytest.raises(Refusal) as caught:
        inflate(body, encoding, limit_bytes)
    return caught.value


def deflated(size: int, packer: "zlib._Compress | zstandard.ZstdCompressionObj") -> bytes:
    """`size` zero bytes, packed without ever being held."""
    chunk = bytes(1 << 20)
    return b"".join(packer.compress(chunk) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize("encoding", PACK)
@given(parts=st.lists(st.binary(max_size=3000), min_size=1, max_size=5))
def test_several_members_or_frames_are_one_body(encoding: str, parts: list[bytes]) -> None:
    assert inflate(b"".join(PACK[encoding](part) for part in parts), encoding, LIMIT) == b"".join(parts)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("body", [RANDOM, bytes(20_000_000), RANDOM + bytes(3_000_000) + RANDOM])
def test_long_bodies_come_out_whole(encoding: str, body: bytes) -> None:
    assert inflate(PACK[encoding](body), encoding, LIMIT) == body


@pytest.mark.parametrize("encoding", PACK)
def test_an_empty_body_is_empty_in_every_encoding(encoding: str) -> None:
    assert inflate(b"", encoding, LIMIT) == b""


@pytest.mark.parametrize("encoding", PACK)
def test_the_limit_is_the_last_size_that_passes(encoding: str) -> None:
    body = PACK[encoding](b"x" * 5000)
    assert len(inflate(body, encoding, 5000)) == 5000
    refused = refusal(body, encoding, 4999)
    assert refused.code == "too_large"
    assert refused.more == {"limit": {"bodyBytes": 4999}}


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("content", [b"", b"hello " * 50, RANDOM])
def test_a_body_cut_short_anywhere_is_refused(encoding: str, content: bytes) -> None:
    whole = PACK[encoding](content)
    for size in {1, 2, 5, len(whole) // 2, 65_536, len(whole) - 1}:
        if 0 < size < len(whole):
            assert refusal(whole[:size], encoding).code == "invalid_json"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("rest", [b"\0", b"garbage", b"\n", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"])
def test_anything_after_the_stream_is_refused(encoding: str, rest: bytes) -> None:
    assert refusal(PACK[encoding](b"hello") + rest, encoding).code == "invalid_json"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_damage_is_refused(encoding: str) -> None:
    assert refusal(b"not compressed at all", encoding).code == "invalid_json"
    damaged = bytearray(gzip.compress(RANDOM)) if encoding == "gzip" else bytearray(zstandard.compress(b"ab" * 9999))
    damaged[len(damaged) // 2] ^= 0xFF
    if encoding == "gzip":  # a zstd frame has a checksum only when its writer asked for one
        assert refusal(bytes(damaged), encoding).code == "invalid_json"


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "gzip,zstd"])
def test_another_encoding_is_an_unsupported_media_type(encoding: str) -> None:
    assert refusal(b"x", encoding).code == "unsupported_media_type"


def test_encodings_have_no_case() -> None:
    assert inflate(gzip.compress(b"hello"), " GZip ", LIMIT) == b"hello"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_of_a_gigabyte_is_refused_cheaply(encoding: str) -> None:
    packer = zlib.compressobj(1, wbits=31) if encoding == "gzip" else zstandard.ZstdCompressor().compressobj()
    bomb = deflated(1 << 30, packer)
    begun = time.thread_time()
    assert refusal(bomb, encoding).code == "too_large"
    assert time.thread_time() - begun < 0.3
    tracemalloc.start()
    refusal(bomb, encoding)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 64 << 20


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_of_countless_empty_parts_is_refused_cheaply(encoding: str) -> None:
    body = PACK[encoding](b"") * (5_000_000 // len(PACK[encoding](b"")))
    begun = time.thread_time()
    refused = refusal(body, encoding)
    assert refused.more == {"limit": {"bodyParts": PARTS_MOST}}
    assert time.thread_time() - begun < 0.5


def test_a_zstd_frame_of_a_window_beyond_our_memory_is_refused() -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1, write_content_size=0)
    packer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    assert refusal(packer.compress(RANDOM) + packer.flush(), "zstd").code == "invalid_json"
