"""`jobwire send`: a pipe's lines into a job's log."""

from __future__ import annotations

import os

import click

from .. import exits
from ..jobs import Jobs
from ..lines import LineSplitter
from ..shipper import LogShipper, ShipperStopped
from .completion import a_job
from .run import notice

_CHUNK_BYTES = 256 * 1024
_LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")


@click.command()
@click.argument("job", shell_complete=a_job)
@click.option("--source", help="The lines' source.")
@click.option("--level", type=click.Choice(_LEVELS), default="info", show_default=True, help="The lines' level.")
@click.option("--tee", is_flag=True, help="Also copy standard input to standard output.")
@click.pass_context
def send(ctx: click.Context, *, job: str, source: str | None, level: str, tee: bool) -> None:
    """Add the lines of standard input to the log of JOB. Exits when all of them are stored.

    Ctrl-C ends the input; what was read is still sent. Whoever reads the copy of --tee may leave: all lines are sent.

    \b
    some-command 2>&1 | jobwire send JOB
    some-command | jobwire send JOB --tee | grep -i error
    """
    shipper = LogShipper(Jobs.from_env("worker"), job, on_outage=_tell_outage)
    splitter = LineSplitter(source=source, level=level)
    copy = _Copy(wanted=tee)
    code = exits.OK
    try:
        while chunk := os.read(0, _CHUNK_BYTES):
            shipper.put(splitter.feed(chunk))
            copy(chunk)
        shipper.put(splitter.end())
    except KeyboardInterrupt:
        code = exits.INTERRUPTED
    except ShipperStopped as stopped:
        raise shipper.error or stopped from None
    if not shipper.close() and shipper.error is not None:
        raise shipper.error
    if shipper.refused_lines:
        notice(f"{shipper.refused_lines} lines were refused by the server")
        code = exits.REFUSED
    ctx.exit(code)


class _Copy:
    """Standard input on standard output, until nobody reads it there."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted

    def __call__(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        while self._wanted and left:
            try:
                left = left[os.write(1, left) :]
            except OSError:
                self._wanted = False


def _tell_outage(away: bool) -> None:
    notice("the server is away; lines wait here" if away else "the server is back")
