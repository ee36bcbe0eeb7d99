"""`jobwire run`: a command as a job."""

from __future__ import annotations

import os

import click

from ..api.jobs import Jobs
from ..api.response_structs import Job
from ..run.command_as_job import Options, Runner
from ..run.output_mirror import Mirror
from ..run.process_tree import adopt_orphans

_LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--name", help="Name of the job.  [default: the command's own name]")
@click.option(
    "--retries", type=click.IntRange(0, 25), default=0, show_default=True, help="How often a failed attempt is retried."
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(1, 86400),
    default=300,
    show_default=True,
    help="Lease in seconds: how long the server waits for a sign of life of `run`. No limit for the command.",
)
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(0),
    default=300.0,
    show_default=True,
    help="Seconds to wait for an absent server once the command has ended.",
)
@click.option("--require-server", is_flag=True, help="Do not run the command without a server; exit 69 without one.")
@click.option("--tty", "terminal", is_flag=True, help="Give the command a terminal: colours, lines as they come.")
@click.option("--no-env", is_flag=True, help="Add nothing to the command's environment.")
@click.option(
    "--levels",
    type=click.Choice(("words", "off")),
    default="words",
    show_default=True,
    help="Take a line's level from the word that it begins with (ERROR, warning: ...).",
)
@click.option(
    "--stderr-level",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    help="Level of the other lines of standard error.",
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
    require_server: bool,
    terminal: bool,
    no_env: bool,
    levels: str,
    stderr_level: str,
    quiet: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND as a job: its output becomes the job's log, its end the job's end.

    Exits with the command's own code (128 + N if signal N ended it), 75 if another worker has the job, 143 if the job
    was killed from outside. A server that is away does not stop the command: what could not be sent is written to a
    file for `jobwire send --spool`. Ctrl-C goes to the command; a second one ends it at once.

    \b
    jobwire run -- make test
    jobwire run --name nightly --retries 2 -- ./backup.sh
    """
    mirror = Mirror(quiet=quiet)
    jobs = Jobs.from_env("root")
    options = Options(
        _shown(name) if name else default_name(command),
        retries,
        timeout_s,
        patience_s,
        require_server=require_server,
        terminal=terminal,
        find_levels=levels == "words",
        stderr_level=stderr_level,
        adds_to_environ=not no_env,
        owns_process=True,
    )

    def announce(job: Job) -> None:
        if not quiet:
            mirror.notice(f"job {job.id}")
            mirror.notice(link_to(jobs, job.id))

    adopt_orphans()
    try:
        code = Runner(jobs, command, options, mirror=mirror, notice=mirror.notice, on_created=announce).run()
    finally:
        mirror.close()
    ctx.exit(code)


def link_to(jobs: Jobs, job_id: str) -> str:
    """The page of a job."""
    return f"{jobs.http.url}/#/jobs/{job_id}"


def default_name(command: tuple[str, ...]) -> str:
    """The last part of the command's path, as a job's name may be: 1 to 200 characters."""
    return _shown(os.path.basename(command[0])) or "command"


def _shown(text: str) -> str:
    return os.fsencode(text).decode(errors="replace")[:200]
