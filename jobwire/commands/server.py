"""Finding the server half, and keeping clear of strangers with its name.

Owns the look-up of the entry-point group `jobwire.commands`. The server's package is called `app`, as many others
are: before anything is imported, the `app` that would be found must be the one that the entry point's own
distribution brought along.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import click
import msgspec

GROUP = "jobwire.commands"


class ServerHalf(NamedTuple):
    """The server's commands by name, and what kept some of them away (empty: nothing did)."""

    commands: Mapping[str, click.Command]
    trouble: str


def find_server_half() -> ServerHalf:
    """Load every entry point of the group; one that cannot be loaded becomes a sentence, never an exception."""
    commands: dict[str, click.Command] = {}
    trouble = ""
    with _uncollected():
        for point in entry_points(group=GROUP):
            try:
                _check_for_strangers(point)
                commands.update(_named(point.load()))
            except Exception as error:
                trouble = f"the server half could not be loaded: {error}"
    if not commands and not trouble:
        trouble = "the server half is not installed here."
    return ServerHalf(commands, trouble)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is looked for while modules are loaded, nor among them later: they stay, and walking through all of
    them again and again would be a quarter of what loading them costs."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _check_for_strangers(point: EntryPoint) -> None:
    """Put the server half's home first in the search path; ImportError if another package is found all the same."""
    package = point.module.partition(".")[0]
    home = None if point.dist is None else _home(point.dist, package)
    if home is None:
        raise ImportError(f"it was installed without its package `{package}`.")
    if sys.path[:1] != [str(home)]:
        sys.path.insert(0, str(home))
    spec = importlib.util.find_spec(package)
    place = Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
    if place != home / package:
        raise ImportError(f"{place or 'nothing'} was found under the name `{package}`, which is not jobwire's.")


def _home(dist: Distribution, package: str) -> Path | None:
    """The folder that holds a distribution's package: where its files went, or its checkout if it is editable."""
    for file in dist.files or ():
        if file.parts == (package, "__init__.py"):
            return Path(str(dist.locate_file(file))).resolve().parents[1]
    origin: dict[str, Any] = msgspec.json.decode(dist.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(url2pathname(urlsplit(origin["url"]).path)).resolve()


def _named(loaded: Mapping[str, click.Command] | Iterable[click.Command]) -> dict[str, click.Command]:
    if isinstance(loaded, Mapping):
        return dict(loaded)
    return {command.name: command for command in loaded if command.name}
