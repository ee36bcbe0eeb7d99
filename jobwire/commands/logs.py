"""`jobwire logs`: a whole log out, or a pipe's lines in."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from itertools import islice

import click
import msgspec

from .. import exits
from ..follow import all_lines
from ..jobs import Jobs
from ..lines import LineSplitter
from ..record import LogLine
from ..shipper import LogShipper, ShipperStopped
from .run import notice
from .tail import Printer

_CHUNK_BYTES = 256 * 1024
_GROUP_LINES = 1000
_LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")


@click.command()
@click.argument("job")
@click.option("--send/--print", "send", default=None, help="Say which way, instead of letting standard input decide.")
@click.option("--raw", is_flag=True, help="Print the very bytes that went in.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--source", help="Print only lines of this source (stdout, stderr); when sending, the lines' source.")
@click.option("--after", type=click.IntRange(0), help="Print only lines after this seq.")
@click.option("--level", help="Print only these levels, comma-separated; when sending (one), the lines' level.")
@click.option(
    "-q", "--grep", "q", help='Print only lines with these words ("a phrase" in quotes), compared without case.'
)
@click.option("-t", "--timestamps", is_flag=True, help="Print when each line was logged.")
@click.option("--tee", is_flag=True, help="When sending, also copy standard input to standard output.")
@click.pass_context
def logs(
    ctx: click.Context,
    *,
    job: str,
    send: bool | None,
    raw: bool,
    as_json: bool,
    source: str | None,
    after: int | None,
    level: str | None,
    q: str | None,
    timestamps: bool,
    tee: bool,
) -> None:
    """Print the whole log of JOB, or add to it.

    Lines are sent if standard input is a pipe or a file, and no option that only makes sense for printing is given
    (--raw, --json, --after, --grep, --timestamps); else they are printed. --send and --print decide it outright.

    \b
    some-command | jobwire logs JOB        send
    jobwire logs JOB --raw > output.bin    print
    """
    prints = raw or as_json or timestamps or after is not None or q is not None
    if prints and (send or tee):
        raise click.UsageError("--send and --tee do not go together with options for printing.")
    if send is None:
        send = tee or (not prints and _stdin_has_data())
    if send:
        ctx.exit(_send(job, source, level or "info", tee))
    lines = all_lines(Jobs.from_env("reader"), job, after=after or 0, level=level, q=q)
    if source is not None:
        lines = (line for line in lines if line.source == source)
    _print(lines, Printer(timestamps=timestamps, raw=raw), as_json)


def _stdin_has_data() -> bool:
    """Whether standard input is a pipe, a file or a socket: not a terminal, not /dev/null, not closed."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _print(lines: Iterator[LogLine], printer: Printer, as_json: bool) -> None:
    encoder = msgspec.json.Encoder()
    while group := list(islice(lines, _GROUP_LINES)):
        if as_json:
            sys.stdout.buffer.write(encoder.encode_lines(group))
        else:
            printer.print(group)


def _send(job: str, source: str | None, level: str, tee: bool) -> int:
    """Ship standard input to its end; Ctrl-C ends the input, what was read is still sent."""
    if level not in _LEVELS:
        raise click.UsageError(f"When sending, --level is one of {', '.join(_LEVELS)}.")
    shipper = LogShipper(Jobs.from_env("worker"), job, on_outage=_tell_outage)
    splitter = LineSplitter(source=source, level=level)
    code = exits.OK
    try:
        while chunk := os.read(0, _CHUNK_BYTES):
            shipper.put(splitter.feed(chunk))
            if tee:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
        shipper.put(splitter.end())
    except KeyboardInterrupt:
        code = exits.INTERRUPTED
    except ShipperStopped as stopped:
        raise shipper.error or stopped from None
    if not shipper.close() and shipper.error is not None:
        raise shipper.error
    if shipper.refused_lines:
        notice(f"{shipper.refused_lines} lines were refused by the server")
        return exits.REFUSED
    return code


def _tell_outage(away: bool) -> None:
    notice("the server is away; lines wait here" if away else "the server is back")
