"""The release before this one, and this one: which programs they are.

The release before lies beside this file, as the wheel that was built of it. It runs from a folder into which the wheel
is unpacked, on the packages that this one runs on.

    with unpacked() as previous:
        Popen([sys.executable, "-m", "jobwire", "web"], cwd=previous.folder, env=previous.environ(os.environ))
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jobwire.version import __version__

HERE = Path(__file__).parent

Version = tuple[int, ...]


class Release(NamedTuple):
    """A version of jobwire, and the folder that has its packages; None where the tests' own Python has them."""

    version: str
    folder: Path | None = None

    def environ(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """What a Python gets that is to run this release. It must run in `folder`, too: `-m` looks there first."""
        return dict(inherited) if self.folder is None else {**inherited, "PYTHONPATH": str(self.folder)}

    def told(self, expression: str) -> str:
        """What an expression is in a Python of this release; `app` and `jobwire` are imported."""
        program = f"import app, jobwire, app.redis_links.scripts; print({expression})"
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ({}), capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


THIS = Release(__version__)


def wheel() -> Path:
    """The wheel of the release before."""
    (found,) = HERE.glob("jobwire-*.whl")
    return found


def version_of(text: str) -> Version:
    """A version that can be compared: (0, 1, 0) of 0.1.0."""
    return tuple(map(int, text.split(".")))


@contextlib.contextmanager
def unpacked() -> Iterator[Release]:
    """The release before, in a folder that is there while the block runs."""
    with tempfile.TemporaryDirectory(prefix="jobwire-previous-") as folder:
        with zipfile.ZipFile(wheel()) as archive:
            archive.extractall(folder)
        yield Release(wheel().name.split("-")[1], Path(folder))
