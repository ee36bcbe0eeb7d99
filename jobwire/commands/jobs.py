"""`jobwire jobs`: look at jobs, and act on them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from ..jobs import Jobs, job_path
from ..moment import moment
from ..record import STATUSES, Job
from ..screen import Paint, age, harmless, print_json, table

_SHOWN_EVENTS = 20


@click.group()
def jobs() -> None:
    """List, show, create, kill and retry jobs.

    \b
    jobwire jobs list --status running
    jobwire jobs show JOB
    """


@jobs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs of this status.")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, show_default=True, help="How many of the newest to skip.")
@click.option("--json", "as_json", is_flag=True, help="The JSON array as the server answers it.")
def list_(status: str | None, limit: int, offset: int, as_json: bool) -> None:
    """The newest jobs first.

    \b
    jobwire jobs list --status dead --limit 20
    jobwire jobs list --json | jq -r '.[].id'
    """
    api = Jobs.from_env("reader")
    if as_json:
        query = {"status": status, "limit": limit, "offset": offset}
        print_json(api.http.call("GET", f"{api.space_path}/jobs", query=query).body)
        return
    rows = [_row(job) for job in api.list_jobs(status=status, limit=limit, offset=offset)]
    paint = Paint.for_stdout()
    head, *lines = table(("ID", "STATUS", "RETRIES", "AGE", "NAME"), rows)
    click.echo(paint.dim(head))
    for row, line in zip(rows, lines, strict=True):
        click.echo(paint.status(row[1], line))


@jobs.command()
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="The JSON object as the server answers it.")
def show(job: str, as_json: bool) -> None:
    """One job with its newest events.

    \b
    jobwire jobs show JOB
    jobwire jobs show JOB --json | jq .result
    """
    api = Jobs.from_env("reader")
    if as_json:
        print_json(api.http.call("GET", job_path(job)).body)
        return
    found = api.get(job)
    paint = Paint.for_stdout()
    for name, value in _facts(found):
        click.echo(f"{paint.dim(name.ljust(10))} {paint.status(value) if name == 'status' else value}")
    for event in found.events[-_SHOWN_EVENTS:]:
        data = "" if event.get("data") is None else _short_json(event["data"])
        click.echo(
            f"{paint.dim(harmless(str(event.get('createdAt'))))} {harmless(str(event.get('type')))} {data}".rstrip()
        )


@jobs.command()
@click.argument("name")
@click.option("--payload", help="JSON; @FILE reads it from a file, - from standard input.")
@click.option("--retries", type=click.IntRange(0, 25), help="Tries after a failed one.  [default: 3]")
@click.option("--timeout", type=click.IntRange(1, 86400), help="Lease in seconds.  [default: 300]")
@click.option("--at", help="Not before this time (RFC 3339 with offset).")
@click.option("--callback-url", help="Told when the job ends.")
@click.option("--json", "as_json", is_flag=True, help="The JSON object as the server answers it, not the id alone.")
def create(
    *,
    name: str,
    payload: str | None,
    retries: int | None,
    timeout: int | None,
    at: str | None,
    callback_url: str | None,
    as_json: bool,
) -> None:
    """Create a job for some worker, and print its id.

    \b
    jobwire jobs create resize --payload '{"image": 7}'
    jobwire jobs create report --at 2030-01-01T06:00:00Z --payload @report.json
    """
    fields = {
        "name": name,
        "payload": None if payload is None else _json_argument(payload),
        "maxRetries": retries,
        "timeoutSeconds": timeout,
        "scheduledFor": at,
        "callbackUrl": callback_url,
    }
    api = Jobs.from_env("producer")
    body = msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
    answer = api.http.call("POST", f"{api.space_path}/jobs", body=body).body
    if as_json:
        print_json(answer)
    else:
        click.echo(msgspec.json.decode(answer, type=Job).id)


@jobs.command()
@click.argument("job", nargs=-1, required=True)
@click.option("--reason", help="Kept as the job's result.")
def kill(job: tuple[str, ...], reason: str | None) -> None:
    """End jobs from outside; their workers learn it and stop.

    \b
    jobwire jobs kill JOB --reason "not needed any more"
    """
    api = Jobs.from_env("producer")
    for job_id in job:
        click.echo(f"{job_id} {api.kill(job_id, reason).status}")


@jobs.command()
@click.argument("job", nargs=-1)
@click.option("--status", type=click.Choice(("dead", "killed")), help="All jobs of this status, oldest first.")
@click.option("--name", help="Only jobs of this name.")
@click.option("--after", metavar="WHEN", help="Only jobs created then or later: RFC 3339, or ago: 15m, 12h, 30d.")
@click.option("--before", metavar="WHEN", help="Only jobs created before.")
@click.option("--limit", type=click.IntRange(1, 10_000), help="How many at most.  [default: 1000]")
def retry(
    *,
    job: tuple[str, ...],
    status: str | None,
    name: str | None,
    after: str | None,
    before: str | None,
    limit: int | None,
) -> None:
    """Put dead or killed jobs back to pending: those named, or many by status.

    \b
    jobwire jobs retry 01JXYZ...
    jobwire jobs retry --status dead --name resize --after 12h --limit 100
    """
    if bool(job) == bool(status) or (job and (name or after or before or limit)):
        raise click.UsageError("Name the jobs, or say which with --status and what goes with it.")
    api = Jobs.from_env("producer")
    for job_id in job:
        click.echo(f"{job_id} {api.retry(job_id).status}")
    if status:
        done = api.retry_many(status, name=name, after=moment(after, -1), before=moment(before, -1), limit=limit)
        click.echo(f"{done.retried} retried{', more are left' if done.more else ''}")


def _json_argument(text: str) -> msgspec.Raw:
    """JSON from the argument, a file or standard input, handed on as written (big numbers too)."""
    try:
        if text == "-":
            raw = sys.stdin.buffer.read()
        else:
            raw = Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
        msgspec.json.decode(raw)
    except (OSError, UnicodeError, msgspec.DecodeError) as error:
        raise click.BadParameter(str(error), param_hint="--payload") from None
    return msgspec.Raw(raw)


def _row(job: Job) -> tuple[str, ...]:
    retries = f"{job.attempt_number}/{job.max_retries}"
    return harmless(job.id), harmless(job.status), retries, age(job.created_at), harmless(job.name)


def _facts(job: Job) -> list[tuple[str, str]]:
    facts = [
        ("id", job.id),
        ("name", harmless(job.name)),
        ("status", job.status),
        ("retries", f"{job.attempt_number} of {job.max_retries}"),
        ("lease", f"{job.timeout_seconds} s"),
    ]
    times = [
        ("created", job.created_at),
        ("scheduled", job.scheduled_for),
        ("delivered", job.delivered_at),
        ("started", job.started_at),
        ("ended", job.completed_at),
    ]
    values = [("payload", job.payload), ("result", job.result)]
    facts += [(name, harmless(time)) for name, time in times if time]
    return facts + [(name, _short_json(value)) for name, value in values if value is not None]


def _short_json(value: Any) -> str:
    text = harmless(msgspec.json.encode(value).decode())
    return text if len(text) <= 2000 else text[:2000] + "..."
