"""What a power cut leaves of the append-only file: whole commands stay, what is behind them is cut, nothing else is."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.local.append_only_files import (
    FOLDER,
    MANIFEST,
    has_command,
    list_files,
    measure_whole,
    mend_files,
    read_command,
)
from app.local.embedded_valkey import EmbeddedError, EmbeddedServer
from tests.valkey import Valkey, until

RANDOM = random.Random(7)
GARBAGE = {
    "nothing": b"",
    "one NUL": b"\0",
    "a page of NULs": bytes(4096),
    "noise": RANDOM.randbytes(1000),
}


def resp(*words: bytes) -> bytes:
    """A command as the file holds it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


WHOLE = [
    resp(b"SELECT", b"0"),
    resp(b"SET", b"first", b"1"),
    b"#TS:1795720213\r\n",
    resp(b"HSET", b"job", b"payload", b"*1\r\n$4\r\nPING\r\n", b"nuls", bytes(9), b"empty", b""),
    resp(b"MULTI") + resp(b"SET", b"both", b"1") + resp(b"RPUSH", b"events", b"x" * 40) + resp(b"EXEC"),
    resp(b"SET", b"last", b"1"),
]
"""What is only ever kept whole: single commands, and all of a transaction."""

TEXT = b"".join(WHOLE)


def kept_of(size: int) -> int:
    """How many bytes of TEXT stay when it ends after `size` bytes."""
    ends = [sum(map(len, WHOLE[:n])) for n in range(len(WHOLE) + 1)]
    return max(end for end in ends if end <= size)


@pytest.mark.parametrize("tail", GARBAGE.values(), ids=GARBAGE)
def test_whatever_the_length_all_whole_commands_stay_and_no_half_of_a_transaction(tail: bytes) -> None:
    for size in range(len(TEXT) + 1):
        assert measure_whole(TEXT[:size] + tail) == (kept_of(size), True), f"{size} bytes"


def test_nuls_in_the_place_of_the_last_bytes_are_no_part_of_a_command() -> None:
    for size in range(len(TEXT)):
        assert measure_whole(TEXT[:size] + bytes(len(TEXT) - size)) == (kept_of(size), True), f"{size} bytes"


@given(st.integers(0, len(TEXT)), st.binary(max_size=200))
def test_whatever_is_behind_never_costs_a_whole_command(size: int, tail: bytes) -> None:
    text = TEXT[:size] + tail
    whole, ends_there = measure_whole(text)
    assert whole >= kept_of(size)
    assert ends_there or has_command(text, size)


def test_damage_with_whole_commands_behind_it_is_not_the_end() -> None:
    damaged = bytearray(TEXT)
    damaged[len(WHOLE[0]) : len(WHOLE[0]) + 9] = bytes(9)
    assert measure_whole(bytes(damaged)) == (len(WHOLE[0]), False)


def test_a_command_is_read_to_its_end() -> None:
    assert read_command(TEXT, len(WHOLE[0])) == (len(WHOLE[0] + WHOLE[1]), b"SET")


@pytest.mark.parametrize("place", ["", " startoffset 0", " startoffset 1024 endoffset 2048"])
def test_what_a_manifest_says_behind_the_type_of_a_file_hides_no_file(tmp_path: Path, place: str) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    base, last, old = (folder / f"appendonly.aof.{name}" for name in ("2.base.rdb", "2.incr.aof", "1.incr.aof"))
    entries = (f"{base.name} seq 2 type b", f"{old.name} seq 1 type h{place}", f"{last.name} seq 2 type i{place}")
    (folder / MANIFEST).write_text("".join(f"file {entry}\n" for entry in entries))
    base.write_bytes(b"REDIS0012")
    old.write_bytes(TEXT)
    last.write_bytes(TEXT + WHOLE[1][:-1])
    assert list_files(tmp_path) == [base, last]
    assert mend_files(tmp_path)
    assert last.read_bytes() == TEXT


# By the real server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder whose server has written `old` and then `new`, and was killed."""
    folder = tmp_path / "data"
    with Valkey(folder) as valkey:
        valkey.cli("SET", "old", "1")
        valkey.cli("SET", "new", "1")
    return folder


def last_file(data: Path) -> Path:
    return sorted((data / "appendonlydir").glob("*.incr.aof"))[-1]


def keys(data: Path) -> set[bytes]:
    with Valkey(data) as valkey:
        return set(valkey.cli("KEYS", "*"))


HALVES = {
    "nothing": b"",
    "a star": b"*",
    "a count": b"*3\r\n",
    "a name": b"*3\r\n$3\r\nSET\r\n",
    "half a value": resp(b"SET", b"half", b"value")[:-4],
    "a value without its line break": resp(b"SET", b"half", b"value")[:-2],
    "half a line break": resp(b"SET", b"half", b"value")[:-1],
    "a beginning of a transaction": resp(b"MULTI") + resp(b"SET", b"half", b"1"),
    "a cut transaction": resp(b"MULTI") + resp(b"SET", b"half", b"1") + resp(b"SET", b"old", b"2")[:-5],
}


@pytest.mark.parametrize("tail", [b"", bytes(2), bytes(100), b"\xff\x00garbage"], ids=["", "2 NULs", "NULs", "garbage"])
@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_the_server_starts_with_every_whole_command_and_what_was_cut_is_kept(
    data: Path, half: bytes, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = last_file(data)
    before = path.read_bytes()
    path.write_bytes(before + half + tail)
    with Valkey(data) as valkey:
        assert set(valkey.cli("KEYS", "*")) == {b"old", b"new"}
        valkey.cli("SET", "later", "1")
    told = [record.getMessage() for record in caplog.records if "no whole command" in record.getMessage()]
    if half + tail:
        kept = path.with_name(f"{path.name}.cut-1")
        assert kept.read_bytes() == half + tail
        assert told == [f"{path} ended in {len(half + tail)} bytes that are no whole command: they are in {kept} now."]
    else:
        assert told == []
    assert path.read_bytes()[: len(before)] == before
    assert keys(data) == {b"old", b"new", b"later"}


def test_a_second_cut_keeps_the_first_copy(data: Path) -> None:
    path = last_file(data)
    for tail in (b"one", b"two"):
        with path.open("ab") as file:
            file.write(tail)
        assert keys(data) == {b"old", b"new"}
    assert [path.with_name(f"{path.name}.cut-{n}").read_bytes() for n in (1, 2)] == [b"one", b"two"]


def test_half_a_transaction_does_not_come_back_with_the_next_one(data: Path) -> None:
    with last_file(data).open("ab") as file:
        file.write(resp(b"MULTI") + resp(b"SET", b"old", b"torn") + resp(b"SET", b"new", b"torn")[:-3])
    for _ in range(2):
        with Valkey(data) as valkey:
            valkey.cli("EVAL", "redis.call('SET', KEYS[1], 2) redis.call('SET', KEYS[2], 2)", 2, "a", "b")
            assert [valkey.cli("GET", key) for key in ("old", "new", "a", "b")] == [b"1", b"1", b"2", b"2"]


def test_a_server_that_is_started_again_cuts_too(data: Path) -> None:
    with Valkey(data) as valkey:
        valkey.kill()
        with last_file(data).open("ab") as file:
            file.write(bytes(50))
        valkey.server.start()
        assert valkey.cli("GET", "new") == b"1"


def rewritten(data: Path) -> None:
    """The folder has a snapshot with `old` and `new`, and a file with `later`."""
    with Valkey(data) as valkey:
        valkey.cli("BGREWRITEAOF")
        until(lambda: valkey.cli("INFO", "persistence")["aof_rewrite_in_progress"] == 0)
        valkey.cli("SET", "later", "1")


def test_nuls_inside_of_a_value_are_loaded_as_they_are(data: Path) -> None:
    with Valkey(data) as valkey:
        valkey.cli("SET", "value", "x" * 100)
        valkey.cli("SET", "later", "1")
    path = last_file(data)
    path.write_bytes(path.read_bytes().replace(b"x" * 50, bytes(50), 1))
    with Valkey(data) as valkey:
        assert valkey.cli("GET", "value") == bytes(50) + b"x" * 50
        assert valkey.cli("GET", "later") == b"1"


def refusal(data: Path) -> str:
    """What is said instead of a start, which changed nothing."""
    before = {path: path.read_bytes() for path in (data / "appendonlydir").iterdir()}
    with pytest.raises(EmbeddedError) as refused:
        EmbeddedServer(data).start()
    assert {path: path.read_bytes() for path in (data / "appendonlydir").iterdir()} == before
    assert "check-aof" not in str(refused.value)
    return str(refused.value)


def test_damage_in_the_middle_is_refused_with_what_to_do(data: Path) -> None:
    with Valkey(data) as valkey:
        valkey.cli("SET", "later", "1")
    path = last_file(data)
    content = bytearray(path.read_bytes())
    at = content.index(resp(b"SET", b"new", b"1"))
    content[at : at + 12] = bytes(12)
    path.write_bytes(content)
    said = refusal(data)
    assert f"{path} is damaged behind byte {at}" in said
    assert "\n" not in said
    os.truncate(path, at)
    assert keys(data) == {b"old"}


def test_only_the_last_file_of_the_manifest_is_cut(data: Path) -> None:
    rewritten(data)
    manifest = data / "appendonlydir" / "appendonly.aof.manifest"
    first = last_file(data)
    second = first.with_name("appendonly.aof.3.incr.aof")
    second.write_bytes(resp(b"SELECT", b"0") + resp(b"SET", b"newest", b"1") + bytes(9))
    with manifest.open("a") as lines:
        lines.write(f"file {second.name} seq 3 type i\n")
    assert keys(data) == {b"old", b"new", b"later", b"newest"}
    first.write_bytes(first.read_bytes() + bytes(9))
    assert f"{first} is damaged behind byte {first.stat().st_size - 9}" in refusal(data)


@pytest.mark.parametrize("way", ["NULs", "cut", "empty"])
def test_a_damaged_snapshot_is_named(data: Path, way: str) -> None:
    rewritten(data)
    (base,) = (data / "appendonlydir").glob("*.base.rdb")
    content = base.read_bytes()
    half = len(content) // 2
    base.write_bytes({"NULs": content[:half] + bytes(half), "cut": content[:half], "empty": b""}[way])
    said = refusal(data)
    assert said.startswith(f"The snapshot in {base.parent} (*.base.rdb) is damaged")
    assert "move" in said


@pytest.mark.parametrize("content", [b"", bytes(100), b"file \0.aof seq 1 type i\n"])
def test_a_damaged_manifest_is_named(data: Path, content: bytes) -> None:
    (data / "appendonlydir" / "appendonly.aof.manifest").write_bytes(content)
    assert refusal(data).startswith(f"The list of files in {data / 'appendonlydir'} (*.manifest) is damaged")
