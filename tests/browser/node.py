"""Node, as far as it is on this machine: programs that use /jobwire.js as a server serves it, and what they say."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.skipping import skip
from tests.valkey import until

FOLLOW = """
import { follow } from "./jobwire.mjs";
const say = (what) => console.log(JSON.stringify(what));
const stream = follow(JSON.parse(process.argv[2]), {
  frame: (frame) => say({ frame }),
  state: (state, detail) => {
    say({ state, detail });
    if (state === "over") say({ position: stream.position });
  },
});
process.on("SIGTERM", () => {
  stream.close();
  say({ position: stream.position });
});
"""


def program(name: str) -> str:
    """The path of node, or of what comes with it; without it the test is skipped, unless JOBWIRE_TESTS_MAY_SKIP=0."""
    found = shutil.which(name)
    return found or skip(f"No {name} on this machine: apt-get install nodejs npm")


class Follower:
    """A node that follows, until it is over or closed. `said` is all that it has said."""

    def __init__(self, folder: Path, module: str, options: dict[str, Any], flags: Sequence[str] = ()) -> None:
        (folder / "jobwire.mjs").write_text(module)
        (folder / "follow.mjs").write_text(FOLLOW)
        self.said: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [program("node"), *flags, str(folder / "follow.mjs"), json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.said.extend(json.loads(line) for line in iter(self._process.stdout.readline, b""))

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Every frame."""
        return [each["frame"] for each in tuple(self.said) if "frame" in each]

    @property
    def states(self) -> list[tuple[str, dict[str, Any]]]:
        """Every state, and what was said of it."""
        return [(each["state"], each["detail"]) for each in tuple(self.said) if "state" in each]

    def until(self, type_: str, within_s: float = 20.0) -> dict[str, Any]:
        """The first frame of a type."""
        until(lambda: any(frame["type"] == type_ for frame in self.frames), within_s)
        return next(frame for frame in self.frames if frame["type"] == type_)

    def end(self, *, by_itself: bool = False) -> dict[str, Any]:
        """Where it stood when it ended. A stream that is closed, or over, keeps no process alive."""
        if not by_itself:
            self._process.terminate()
        assert self._process.wait(20) == 0, self._process.stderr and self._process.stderr.read()
        self._reading.join(10)
        position: dict[str, Any] = self.said[-1]["position"]
        return position

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.join(10)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
