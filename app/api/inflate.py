"""Compressed request bodies: gzip and zstd to bytes, refused while they inflate and not after.

Owns: which content encodings there are, and what counts as a whole body. Several gzip members (RFC 1952) or zstd frames
(RFC 8878) after each other are one body; a stream that is cut short, damaged, or followed by anything else is refused.

Never: holds more than the limit and one step beyond it, however small the body that asks for it.
"""

import asyncio
import zlib
from collections.abc import Callable, Iterator

import zstandard

from app.loop.turns import in_turns
from app.model.errors import Refusal, too_large
from app.model.steps import Steps, exhaust

STEP_IN_BYTES = 65_536
STEP_OUT_BYTES = 1_048_576

ZSTD_STEP_IN_BYTES = 256
"""zstd has no limit on what one call may return, but 4 bytes of it hold at most 128 KiB: 256 bytes at most 8 MiB."""

PARTS_MOST = 4096
"""Members or frames in one body. Each costs a decoder, so a body of a million empty ones would be work for nothing."""

ZSTD_WINDOW_BYTES = 33_554_432
"""The largest zstd window we make room for; RFC 9659 asks for 8 MiB, one-shot encoders take the size of the content."""

INLINE_BYTES = 4096
"""Bodies up to this size are inflated on the event loop, for a thread takes longer than most of them."""


def inflate(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """As `inflate_steps`, at once."""
    return exhaust(inflate_steps(body, encoding, limit_bytes))


def inflate_steps(body: bytes, encoding: str, limit_bytes: int) -> Steps[bytes]:
    """The bytes that `body` stands for under the content encoding `encoding` ("" or identity: as it is).

    An empty body is empty in every encoding. Raises Refusal: `unsupported_media_type` for another encoding,
    `too_large` above `limit_bytes`, `invalid_json` for a stream that is not whole. Keeps at most the limit in memory,
    twice while it joins the parts.
    """
    pieces = ENCODINGS.get(encoding.strip().lower())
    if pieces is None:
        raise Refusal("unsupported_media_type", f"The content encoding {encoding!r} is not gzip, zstd or identity.")
    whole, size = [], 0
    for piece in pieces(body):
        size += len(piece)
        if size > limit_bytes:
            raise too_large(f"The body is larger than {limit_bytes} bytes.", "bodyBytes", limit_bytes)
        whole.append(piece)
        yield
    return whole[0] if len(whole) == 1 else b"".join(whole)


async def inflate_aside(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """As `inflate`, in a thread when the body is long enough to be felt by others (both libraries free the GIL)."""
    if len(body) <= INLINE_BYTES or encoding.strip().lower() in ("", "identity"):
        return await in_turns(inflate_steps(body, encoding, limit_bytes))
    return await asyncio.to_thread(inflate, body, encoding, limit_bytes)


def damaged_stream(kind: str) -> Refusal:
    return Refusal("invalid_json", f"The body is not a whole {kind} stream.")


def pass_through(body: bytes) -> Iterator[bytes]:
    yield body


def inflate_gzip(body: bytes) -> Iterator[bytes]:
    """The content of all members, in pieces of at most STEP_OUT_BYTES."""
    view, member, members = memoryview(body), zlib.decompressobj(wbits=31), 1
    try:
        for start in range(0, len(body), STEP_IN_BYTES):
            rest: bytes | memoryview = view[start : start + STEP_IN_BYTES]
            while rest:
                if member.eof:
                    member, members = zlib.decompressobj(wbits=31), members + 1
                    check_parts(members)
                yield member.decompress(rest, STEP_OUT_BYTES)
                rest = member.unused_data or member.unconsumed_tail
        while body and not member.eof:
            last = member.decompress(b"", STEP_OUT_BYTES)
            if not last and not member.eof:
                raise damaged_stream("gzip")
            yield last
    except zlib.error:
        raise damaged_stream("gzip") from None


def inflate_zstd(body: bytes) -> Iterator[bytes]:
    """The content of all frames, in pieces of at most 8 MiB."""
    decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    view, frame, frames = memoryview(body), decoder.decompressobj(), 1
    try:
        for start in range(0, len(body), ZSTD_STEP_IN_BYTES):
            rest: bytes | memoryview = view[start : start + ZSTD_STEP_IN_BYTES]
            while rest:
                if frame.eof:
                    frame, frames = decoder.decompressobj(), frames + 1
                    check_parts(frames)
                yield frame.decompress(rest)
                rest = frame.unused_data if frame.eof else b""
    except zstandard.ZstdError:
        raise damaged_stream("zstd") from None
    if body and not frame.eof:
        raise damaged_stream("zstd")


def check_parts(parts: int) -> None:
    """Refuse a body of more than PARTS members or frames."""
    if parts > PARTS_MOST:
        raise too_large(f"The body has more than {PARTS_MOST} compressed parts.", "bodyParts", PARTS_MOST)


ENCODINGS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "": pass_through,
    "identity": pass_through,
    "gzip": inflate_gzip,
    "x-gzip": inflate_gzip,
    "zstd": inflate_zstd,
}
