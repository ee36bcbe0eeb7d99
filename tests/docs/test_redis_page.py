"""The examples of docs/redis.md, run as they are printed there."""

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from app.model.ids import space_tag_of
from tests.room import new_room
from tests.valkey import Valkey, until

pytestmark = pytest.mark.one_server("the programs of the page connect to one server")

PAGE = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
EXAMPLES: dict[str, str] = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
SHELL = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in SHELL for line in block.splitlines()]
NASTY = ["", "\0", "a\nb", "emoji 😀", '"quoted" \\', "\u2028"]


class Example:
    """A running example and the lines that it has printed."""

    def __init__(self, folder: Path, name: str, *arguments: object) -> None:
        script = folder / name
        script.write_text(EXAMPLES[name])
        self._out = folder / f"{name}.{len(list(folder.iterdir()))}.out"
        with self._out.open("wb") as out:
            command = [sys.executable, str(script), *map(str, arguments)]
            self.process = subprocess.Popen(command, stdout=out)

    def __enter__(self) -> "Example":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def printed(self) -> list[tuple[int, str]]:
        """Seq and message of each whole line that was printed."""
        lines = self._out.read_text().rpartition("\n")[0].split("\n")
        pairs = (line.split(" ", 1) for line in lines if line and not line.startswith("#"))
        return [(int(seq), json.loads(message)) for seq, message in pairs]

    @property
    def remarks(self) -> list[str]:
        """What it printed besides lines."""
        return [line for line in self._out.read_text().splitlines() if line.startswith("#")]


def log_of(valkey: Valkey, *batches: list[str], sealed: bool = False, job: str = "") -> str:
    """A job with these batches in its log, or more of them for a job."""
    return asyncio.run(write_log(valkey, batches, sealed, job))


async def write_log(valkey: Valkey, batches: Iterable[list[str]], sealed: bool, job: str) -> str:
    """As log_of; with the prefix of the page."""
    async with new_room(valkey, prefix="jw") as room:
        id_ = job or await room.new_job()
        room.space = (await room.call("HGET", room.keys.spaces, space_tag_of(id_))).decode()
        for batch in batches:
            await room.append(id_, *batch)
        if sealed:
            await room.logs.settle(id_, 1000)
        return id_


def numbered(*batches: list[str]) -> list[tuple[int, str]]:
    return list(enumerate([text for batch in batches for text in batch], 1))


def test_following_prints_every_line_from_any_seq_and_then_each_new_one(valkey: Valkey, tmp_path: Path) -> None:
    first, more = [["a", "b"], NASTY], [["x"] * 3, ["late"]]
    job = log_of(valkey, *first)
    with (
        Example(tmp_path, "follow.py", valkey.url, job, 0) as whole,
        Example(tmp_path, "follow.py", valkey.url, job, 1) as from_the_middle,
    ):
        until(lambda: len(whole.printed) == 8 and len(from_the_middle.printed) == 7)
        log_of(valkey, *more, job=job)
        until(lambda: len(whole.printed) == 12 and len(from_the_middle.printed) == 11)
        assert whole.printed == numbered(*first, *more)
        assert from_the_middle.printed == numbered(*first, *more)[1:]


def test_following_says_which_lines_were_sealed(valkey: Valkey, tmp_path: Path) -> None:
    job = log_of(valkey, ["a", "b"], sealed=True)
    log_of(valkey, ["c"], job=job)
    with Example(tmp_path, "follow.py", valkey.url, job, 0) as example:
        until(lambda: example.printed == [(3, "c")])
        assert example.remarks == [f"# 1 to 2 are sealed: GET /jobs/{job}/logs?after=0 has them"]


def test_a_group_shares_the_lines_and_loses_none_in_a_crash(valkey: Valkey, tmp_path: Path) -> None:
    batches = [[f"{i} {k}" for k in range(10)] for i in range(40)]
    job = log_of(valkey, *batches[:20])
    log = f"jw:{{{job}}}:log"
    with Example(tmp_path, "share.py", valkey.url, job, "one") as one:
        until(lambda: len(one.printed) == 200)
        one.process.kill()
        one.process.wait()
        assert one.printed == numbered(*batches[:20])
    log_of(valkey, *batches[20:], job=job)
    # What a reader has when it is killed: batches that were given to it, and not acknowledged.
    valkey.cli("XREADGROUP", "GROUP", "readers", "one", "COUNT", 5, "STREAMS", log, ">")
    log_of(valkey, job=job, sealed=True)
    with (
        Example(tmp_path, "share.py", valkey.url, job, "one") as again,
        Example(tmp_path, "share.py", valkey.url, job, "two") as other,
    ):
        until(lambda: len(again.printed) + len(other.printed) == 200)
        assert again.printed[:50] == numbered(*batches)[200:250]
        assert sorted(again.printed + other.printed) == numbered(*batches)[200:]
        until(lambda: valkey.cli("XPENDING", log, "readers")["pending"] == 0)


def test_the_sealed_lines_are_all_in_the_blocks(valkey: Valkey, tmp_path: Path) -> None:
    batches = [[f"{i} {k} é" for k in range(700)] for i in range(5)]
    for texts in (batches, [NASTY, ["c"]]):
        job = log_of(valkey, *texts, sealed=True)
        with Example(tmp_path, "sealed.py", valkey.url, job) as example:
            assert example.process.wait(30) == 0
            assert example.printed == numbered(*texts)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_shell_command_does_what_the_page_says(valkey: Valkey, line: str) -> None:
    job = log_of(valkey, [f"line {i}" for i in range(1, 101)], [f"line {i}" for i in range(101, 151)])
    program, *words = shlex.split(line.replace("{J}", f"{{{job}}}"))
    assert program == "redis-cli"
    reply = valkey.cli(*words)
    if words[0] == "HMGET":
        assert reply == [b"1", b"150", b"0"]
        return
    ((id_, fields),) = reply if words[0] == "XRANGE" else reply[0][1]
    assert id_ == b"150-0"
    assert fields[b"first"] == b"101"
    assert json.loads(fields[b"lines"])[19] == {"message": "line 120"}


def test_every_example_of_the_page_is_run_here() -> None:
    source = Path(__file__).read_text()
    assert EXAMPLES
    assert all(f'"{name}"' in source for name in EXAMPLES)
