"""`jobwire logs`: the lines of a log, from its beginning."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from itertools import islice

import click
import msgspec

from ..api.jobs import Jobs
from ..api.response_structs import LogLine
from ..reading.log_following import Follow, all_lines
from .completion import a_job
from .tail import Printer, exit_as, tell_outage
from .terminal_text import harmless_json
from .typed_times import moment

_GROUP_LINES = 1000


@click.command()
@click.argument("job", shell_complete=a_job)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--head", type=click.IntRange(1), metavar="N", help="Only the first N lines that match.")
@click.option("--after", type=click.IntRange(0), default=0, help="Only lines after this seq.")
@click.option("--since", metavar="WHEN", help="Only lines logged then or later: RFC 3339, or ago: 15m, 12h, 30d.")
@click.option("--until", metavar="WHEN", help="Only lines logged before that time.")
@click.option("--source", help="Only lines of this source (stdout, stderr).")
@click.option("--level", help="Only these levels, comma-separated.")
@click.option("-q", "--grep", "q", help='Only lines with these words ("a phrase" in quotes), compared without case.')
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was logged.")
@click.option("--raw", is_flag=True, help="The exact bytes that were sent.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def logs(
    ctx: click.Context,
    *,
    job: str,
    follow: bool,
    head: int | None,
    after: int,
    since: str | None,
    until: str | None,
    source: str | None,
    level: str | None,
    q: str | None,
    timestamps: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Print the log of JOB from its first line. It ignores standard input; `jobwire send` adds lines.

    With -f it follows the job and exits 0 if it completed, 1 if it died or was killed.

    \b
    jobwire logs JOB --grep "disk full" --since 1h
    jobwire logs JOB --raw --source stdout > output.bin
    """
    if follow and head is not None:
        raise click.UsageError("--head ends the output and --follow continues it: choose one.")
    span = _Span(_when(since, "--since"), _when(until, "--until"))
    printer = Printer(timestamps=timestamps, raw=raw)
    show = _show_json if as_json else partial(printer.print, is_live=follow)
    jobs = Jobs.from_env("reader")

    def chosen(lines: Iterable[LogLine]) -> Iterator[LogLine]:
        return (line for line in lines if source in (None, line.source) and line in span)

    if not follow:
        lines = islice(chosen(all_lines(jobs, job, after=after, level=level, q=q)), head)
        while group := list(islice(lines, _GROUP_LINES)):
            show(group)
        printer.close()
        return
    following = Follow(jobs, job, after=after, level=level, q=q, on_outage=tell_outage)
    for batch in following:
        show(chosen(batch))
    exit_as(ctx, following.job)


class _Span:
    """From a moment on, and up to another; either may be open."""

    def __init__(self, since: datetime | None, until: datetime | None) -> None:
        self._since = since
        self._until = until

    def __contains__(self, line: LogLine) -> bool:
        if self._since is None and self._until is None:
            return True
        at = datetime.fromisoformat(line.logged_at or line.created_at or "0001-01-01T00:00:00Z")
        return (self._since is None or at >= self._since) and (self._until is None or at < self._until)


def _when(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(moment(text, -1) or "")
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time: use RFC 3339, or a time ago: 15m, 12h, 30d.", param_hint=option
        ) from None
    return parsed.astimezone()


def _show_json(lines: Iterable[LogLine]) -> None:
    sys.stdout.buffer.write(harmless_json(msgspec.json.Encoder().encode_lines(list(lines))))
    sys.stdout.buffer.flush()
