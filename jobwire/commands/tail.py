"""`jobwire tail`: the newest lines of a log, and on."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from .. import exit_codes
from ..api.jobs import Jobs
from ..api.response_structs import Job, LogLine
from ..log_lines.byte_lines import Joined, Joiner, last_state, raw_bytes
from ..reading.log_following import Follow, newest_lines
from .completion import a_job
from .standard_descriptors import notice
from .terminal_text import Paint, harmless, harmless_lines


@click.command()
@click.argument("job", shell_complete=a_job)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=200, show_default=True, help="How many lines to begin with."
)
@click.option("--level", help="Only these levels, comma-separated (trace, debug, info, warn, error, fatal).")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was logged.")
@click.option("--raw", is_flag=True, help="The exact bytes, with control characters.")
@click.pass_context
def tail(
    ctx: click.Context, *, job: str, follow: bool, lines: int, level: str | None, timestamps: bool, raw: bool
) -> None:
    """Print the newest log lines of JOB.

    With -f it follows the job, also while the server restarts. It exits 0 if the job completed, 1 if it died or was
    killed.

    \b
    jobwire tail JOB -f
    jobwire tail JOB -n 20 --level error,fatal
    """
    jobs = Jobs.from_env("reader")
    printer = Printer(timestamps=timestamps, raw=raw)
    newest, resume_after = newest_lines(jobs, job, lines, level=level)
    printer.print(newest, is_live=follow)
    if not follow:
        printer.close()
        return
    following = Follow(jobs, job, after=resume_after, level=level, on_outage=tell_outage)
    for batch in following:
        printer.print(batch, is_live=True)
    exit_as(ctx, following.job)


def exit_as(ctx: click.Context, ended: Job | None) -> None:
    """Exit 1 with a word why if the job did not complete."""
    if ended is not None and ended.status != "completed":
        notice(f"job {ended.id} {ended.status}{reason_of(ended.result)}")
        ctx.exit(exit_codes.JOB_FAILED)


class Printer:
    """Log lines on standard output, harmless and coloured by level, or as raw bytes."""

    def __init__(self, *, timestamps: bool = False, raw: bool = False) -> None:
        self._timestamps = timestamps
        self._raw = raw
        self._paint = Paint.for_stdout()
        self._joiner = Joiner()

    def print(self, lines: Iterable[LogLine], *, is_live: bool = False) -> None:
        """Print and flush. Lines that were sent in parts are joined, and stand in their last state. One whose end has
        not come is shown as it is now if somebody watches (`is_live`)."""
        if self._raw:
            sys.stdout.buffer.writelines(map(raw_bytes, lines))
            sys.stdout.buffer.flush()
            return
        joined = [whole for line in lines if (whole := self._joiner.add(line)) is not None]
        self._write([*joined, *(self._joiner.open() if is_live else [])])

    def close(self) -> None:
        """Print what is still without its end, when no more lines come."""
        self._write(self._joiner.open())

    def _write(self, lines: Iterable[Joined]) -> None:
        text = "".join(self._shown(line) + "\n" for line in lines)
        sys.stdout.buffer.write(text.encode(errors="replace"))
        sys.stdout.buffer.flush()

    def _shown(self, joined: Joined) -> str:
        line: LogLine = joined.line
        message = "\n".join(map(last_state, joined.text.split("\n"))) if "\r" in joined.text else joined.text
        text = self._paint.level(line.level, harmless_lines(message))
        if not self._timestamps:
            return text
        return f"{self._paint.dim(harmless(line.logged_at or ''))} {text}"


def reason_of(result: object) -> str:
    """`: <error or reason>` out of the result of a job that did not complete; empty if it has none.

    Of a traceback that is its last line, which says what happened.
    """
    if isinstance(result, dict):
        text = result.get("error") or result.get("reason")
        if isinstance(text, str):
            return f": {harmless(last_line(text))}"
    return ""


def last_line(text: str) -> str:
    """The last line that is not blank; "" if there is none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def tell_outage(away: bool) -> None:
    """Say that the server went, or came back."""
    notice("the server is away; waiting" if away else "the server is back")
