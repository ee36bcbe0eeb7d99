"""`jobwire run`: a command as a job."""

from __future__ import annotations

import os
import select
import sys

import click

from ..jobs import Jobs
from ..record import Job
from ..runner import Options, Runner

_FDS = {"stdout": 1, "stderr": 2}


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--name", help="Name of the job.  [default: the command's own name]")
@click.option("--retries", type=click.IntRange(0, 25), default=0, show_default=True, help="Tries after a failed one.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(1, 86400),
    default=300,
    show_default=True,
    help="Lease in seconds: how long the server waits for a sign of life of this program (not of the command).",
)
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(0),
    default=300.0,
    show_default=True,
    help="Seconds to wait for an absent server once the command has ended.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not repeat the command's output here.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    *,
    name: str | None,
    retries: int,
    timeout_s: int,
    patience_s: float,
    quiet: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND as a job: its output becomes the job's log, its end the job's end.

    Exits with the command's own code (128 + N if signal N ended it), 75 if the job's lease was lost, 143 if the job was
    killed from outside, 69 if the server stayed away. Ctrl-C goes to the command; a second one ends it at once.

    \b
    jobwire run -- make test
    jobwire run --name nightly --retries 2 -- ./backup.sh
    """
    runner = Runner(
        Jobs.from_env("root"),
        command,
        Options(name or default_name(command), retries, timeout_s, patience_s),
        mirror=_Mirror(quiet),
        notice=notice,
        on_created=lambda job: None if quiet else _announce(job),
    )
    ctx.exit(runner.run())


def default_name(command: tuple[str, ...]) -> str:
    """The last part of the command's path, as a job's name may be: 1 to 200 characters."""
    text = os.fsencode(os.path.basename(command[0])).decode(errors="replace")
    return text[:200] or "command"


def notice(text: str) -> None:
    """One line of our own beside the command's output."""
    click.echo(f"jobwire: {text}", err=True)


def _announce(job: Job) -> None:
    notice(f"job {job.id}")


class _Mirror:
    """Repeats the command's bytes on our own stdout and stderr. Whoever stops reading there does not stop the job."""

    def __init__(self, quiet: bool) -> None:
        self._open = set() if quiet else set(_FDS)
        sys.stdout.flush()

    def __call__(self, name: str, chunk: bytes) -> None:
        if name not in self._open:
            return
        try:
            _write_all(_FDS[name], chunk)
        except OSError:
            self._open.discard(name)


def _write_all(fd: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            select.select([], [fd], [])
