"""`jobwire send`: a pipe's lines into a job's log."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import click

from .. import exit_codes
from ..api.jobs import Jobs
from ..log_lines.byte_lines import LineSplitter
from ..log_lines.entry import LEVELS
from ..log_shipping.shipper import LogShipper, ShipperStopped
from ..run.spool_file import KEYS_LIVE_S, Spool
from .completion import a_job
from .run import link_to
from .standard_descriptors import notice

_CHUNK_BYTES = 256 * 1024
_SPOOL_PATIENCE_S = 10.0
_TICK_S = 1.0
"""How long a line without its end waits, at least, before it is sent as a part."""


@click.command()
@click.argument("job", required=False, shell_complete=a_job)
@click.option("--source", help="The lines' source.")
@click.option("--level", type=click.Choice(LEVELS), default="info", show_default=True, help="The lines' level.")
@click.option(
    "--spool",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Deliver the file that `run` wrote when the server was away.",
)
@click.option("--tee", is_flag=True, help="Also copy standard input to standard output.")
@click.pass_context
def send(ctx: click.Context, *, job: str | None, source: str | None, level: str, spool: Path | None, tee: bool) -> None:
    """Add the lines of standard input to the log of JOB, and print a link to its page when all of them are stored.

    Ctrl-C ends the input; what was read is still sent. With --tee all lines are sent even if nobody reads the copy.

    \b
    some-command 2>&1 | jobwire send JOB
    some-command | jobwire send JOB --tee | grep -i error
    jobwire send --spool ~/.local/state/jobwire/spool/20260301T092101Z-5f1c09ab.jsonl
    """
    if (job is None) == (spool is None):
        raise click.UsageError("Name a job, or a file with --spool.")
    if job is None:
        _deliver(spool)
        return
    jobs = Jobs.from_env("worker")
    shipper = LogShipper(jobs, job, on_outage=_tell_outage)
    splitter = LineSplitter(source=source, level=level)
    copy = _Copy(wanted=tee)
    code = exit_codes.OK
    try:
        for chunk in _pieces():
            shipper.put(splitter.feed(chunk) if chunk else splitter.flush())
            copy(chunk)
        shipper.put(splitter.end())
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    except ShipperStopped as stopped:
        raise shipper.error or stopped from None
    if not shipper.close() and shipper.error is not None:
        raise shipper.error
    if shipper.refused_lines:
        notice(f"{shipper.refused_lines} lines were refused by the server")
        code = exit_codes.REFUSED
    notice(link_to(jobs, job))
    ctx.exit(code)


def _pieces() -> Iterator[bytes]:
    """Standard input as it comes; an empty piece for each second in which nothing does."""
    while True:
        if not select.select([0], [], [], _TICK_S)[0]:
            yield b""
        elif chunk := os.read(0, _CHUNK_BYTES):
            yield chunk
        else:
            return


def _deliver(path: Path | None) -> None:
    """Deliver a spool, once, and remove it."""
    assert path is not None
    jobs = Jobs.from_env("root")
    spool = Spool(path)
    if spool.age_s > KEYS_LIVE_S:
        notice("this spool is older than 24 hours: what arrived without an answer may arrive twice")
    job = spool.deliver(jobs, patience_s=_SPOOL_PATIENCE_S, notice=notice)
    notice(f"job {job.id}")
    notice(link_to(jobs, job.id))


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
