"""Finding the server half, and keeping clear of strangers with its name.

Owns the look-up of the entry-point group `jobwire.commands`. The server's package is called `app`, as many others
are: before anything is imported, the `app` that would be found must be the one that was installed beside this
package.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NamedTuple

import click

GROUP = "jobwire.commands"
_HOME = Path(__file__).resolve().parents[2]


class ServerHalf(NamedTuple):
    """The server's commands by name, and what kept some of them away (empty: nothing did)."""

    commands: Mapping[str, click.Command]
    trouble: str


def find_server_half() -> ServerHalf:
    """Load every entry point of the group; one that cannot be loaded becomes a sentence, never an exception."""
    commands: dict[str, click.Command] = {}
    trouble = ""
    for point in entry_points(group=GROUP):
        try:
            _check_for_strangers(point)
            commands.update(_named(point.load()))
        except Exception as error:
            trouble = f"the server half could not be loaded: {error}"
    if not commands and not trouble:
        trouble = "the server half is not installed here."
    return ServerHalf(commands, trouble)


def _check_for_strangers(point: EntryPoint) -> None:
    """Put our own home first in the search path; raises ImportError if another package is found all the same."""
    package = point.module.partition(".")[0]
    if (_HOME / package).is_dir() and sys.path[:1] != [str(_HOME)]:
        sys.path.insert(0, str(_HOME))
    spec = importlib.util.find_spec(package)
    place = Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
    if place != _HOME / package:
        raise ImportError(f"{place or 'nothing'} was found under the name `{package}`, which is not jobwire's.")


def _named(loaded: Mapping[str, click.Command] | Iterable[click.Command]) -> dict[str, click.Command]:
    if isinstance(loaded, Mapping):
        return dict(loaded)
    return {command.name: command for command in loaded if command.name}
