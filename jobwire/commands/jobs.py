"""`jobwire jobs`: look at jobs, and act on them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from .. import exit_codes
from ..api.jobs import Jobs, job_path
from ..api.response_decoding import decoded
from ..api.response_structs import STATUSES, Job, Progress, value_of
from ..reading.log_following import until_ended
from .completion import a_job
from .standard_descriptors import notice
from .tail import exit_as, last_line, reason_of, tell_outage
from .terminal_text import Paint, age, harmless, harmless_lines, print_json, table
from .typed_times import moment

_SHOWN_EVENTS = 20


@click.group()
def jobs() -> None:
    """List, show, create, wait for, kill, retry and delete jobs.

    \b
    jobwire jobs list --status running
    jobwire jobs show JOB
    """


@jobs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs of this status.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, show_default=True, help="How many of the newest to skip.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array of what the server answers.")
def list_(status: str | None, limit: int, offset: int, as_json: bool) -> None:
    """The newest jobs first.

    \b
    jobwire jobs list --status dead --limit 20
    jobwire jobs list --json | jq -r '.[].id'
    """
    api = Jobs.from_env("reader")
    if as_json:
        pages = api.list_pages(status=status, limit=limit, offset=offset)
        print_json(msgspec.json.encode([job for page in pages for job in decoded(page, list[msgspec.Raw])]))
        return
    rows = [_row(job) for job in api.list_jobs(status=status, limit=limit, offset=offset)]
    paint = Paint.for_stdout()
    head, *lines = table(("ID", "STATUS", "RETRIES", "AGE", "NAME"), rows)
    click.echo(paint.dim(head))
    for row, line in zip(rows, lines, strict=True):
        click.echo(paint.status(row[1], line))


@jobs.command()
@click.argument("job", shell_complete=a_job)
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
    record = api.get(job)
    paint = Paint.for_stdout()
    for name, value in [*_facts(record), *_progress(api.progress_of(job))]:
        click.echo(f"{paint.dim(name.ljust(10))} {paint.status(value) if name == 'status' else value}")
    for event in map(value_of, record.events_json[-_SHOWN_EVENTS:]):
        at, kind = harmless(str(event.get("createdAt"))), harmless(str(event.get("type")))
        click.echo(f"{paint.dim(at)} {kind} {_event_data(event.get('data'))}".rstrip())


@jobs.command()
@click.argument("name")
@click.option("--payload", help="JSON; @FILE reads it from a file, - from standard input.")
@click.option("--retries", type=click.IntRange(0, 25), help="How often a failed attempt is retried.  [default: 3]")
@click.option("--timeout", type=click.IntRange(1, 86400), help="Lease in seconds.  [default: 300]")
@click.option(
    "--at", metavar="WHEN", help="Not before this time: RFC 3339 with offset, or from now: 90s, 10m, 12h, 30d."
)
@click.option("--callback-url", help="URL that gets a message when the job ends.")
@click.option("--wait", is_flag=True, help="Wait until the job has ended; exit 0 if it completed, 1 otherwise.")
@click.option("--json", "as_json", is_flag=True, help="The JSON object as the server answers it, not the id alone.")
@click.pass_context
def create(
    ctx: click.Context,
    *,
    name: str,
    payload: str | None,
    retries: int | None,
    timeout: int | None,
    at: str | None,
    callback_url: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Create a job for some worker, and print its id.

    \b
    jobwire jobs create resize --payload '{"image": 7}'
    jobwire jobs create report --at 10m --payload @report.json
    jobwire jobs create resize --wait && echo done
    """
    fields = {
        "name": name,
        "payload": None if payload is None else _json_argument(payload),
        "maxRetries": retries,
        "timeoutSeconds": timeout,
        "scheduledFor": moment(at, 1),
        "callbackUrl": callback_url,
    }
    api = Jobs.from_env("producer")
    body = msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
    answer = api.http.call("POST", f"{api.space_path}/jobs", body=body).body
    created = msgspec.json.decode(answer, type=Job)
    if as_json:
        print_json(answer)
    else:
        click.echo(created.id)
    sys.stdout.flush()
    if wait:
        exit_as(ctx, until_ended(Jobs.from_env("reader"), created.id, on_outage=tell_outage))


@jobs.command()
@click.argument("job", nargs=-1, required=True, shell_complete=a_job)
@click.option(
    "--timeout", "within_s", type=click.FloatRange(0), metavar="SECONDS", help="Give up after this time: exit 124."
)
@click.pass_context
def wait(ctx: click.Context, *, job: tuple[str, ...], within_s: float | None) -> None:
    """Wait until jobs have ended. Exits 0 if all of them completed, 1 if one did not.

    If the server restarts, it waits.

    \b
    jobwire jobs wait JOB && deploy
    jobwire jobs wait JOB --timeout 600
    """
    api = Jobs.from_env("reader")
    begun_s, code = time.monotonic(), exit_codes.OK
    for job_id in job:
        left_s = None if within_s is None else max(0.0, within_s - (time.monotonic() - begun_s))
        record = until_ended(api, job_id, within_s=left_s, on_outage=tell_outage)
        if not record.has_ended:
            notice(f"job {record.id} is still {record.status} after {within_s:g} s")
            ctx.exit(exit_codes.TIMED_OUT)
        click.echo(f"{record.id} {record.status}{reason_of(record.result) if record.status != 'completed' else ''}")
        sys.stdout.flush()
        code = code if record.status == "completed" else exit_codes.JOB_FAILED
    ctx.exit(code)


@jobs.command()
@click.argument("job", nargs=-1, required=True, shell_complete=a_job)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(job: tuple[str, ...], yes: bool) -> None:
    """Delete ended jobs with their events and logs. This cannot be undone. Needs the root key.

    \b
    jobwire jobs delete JOB --yes
    """
    api = Jobs.from_env("root")
    if not yes:
        click.confirm(f"Remove {' '.join(map(harmless, job))}, with events and log?", abort=True, err=True)
    for job_id in job:
        api.delete(job_id)
        click.echo(f"{job_id} removed")


@jobs.command()
@click.argument("job", nargs=-1, required=True, shell_complete=a_job)
@click.option("--reason", help="Kept as the job's result.")
def kill(job: tuple[str, ...], reason: str | None) -> None:
    """End jobs from outside. Their workers are told, and stop.

    \b
    jobwire jobs kill JOB --reason "not needed any more"
    """
    api = Jobs.from_env("producer")
    for job_id in job:
        click.echo(f"{job_id} {api.kill(job_id, reason).status}")


@jobs.command()
@click.argument("job", nargs=-1, shell_complete=a_job)
@click.option("--status", type=click.Choice(("dead", "killed")), help="All jobs of this status, oldest first.")
@click.option("--name", help="Only jobs of this name.")
@click.option("--after", metavar="WHEN", help="Only jobs created then or later: RFC 3339, or ago: 15m, 12h, 30d.")
@click.option("--before", metavar="WHEN", help="Only jobs created before that time.")
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
    """Put dead or killed jobs back to pending: those named, or many by status (bulk retry).

    \b
    jobwire jobs retry 01JXYZ...
    jobwire jobs retry --status dead --name resize --after 12h --limit 100
    """
    if bool(job) == bool(status) or (job and (name or after or before or limit)):
        raise click.UsageError("Name the jobs, or select them with --status and the options for it.")
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
    facts += [(name, harmless(time)) for name, time in times if time]
    if bytes(job.payload_json) != b"null":
        facts.append(("payload", _compact(job.payload_json)))
    return facts if bytes(job.result_json) == b"null" else [*facts, _outcome(job)]


def _outcome(job: Job) -> tuple[str, str]:
    """The result; an error or a reason as the text that it is, a traceback with its lines."""
    result = job.result
    if isinstance(result, dict) and len(result) == 1:
        ((name, text),) = result.items()
        if name in ("error", "reason") and isinstance(text, str):
            return name, harmless_lines(text.rstrip())
    return "result", _compact(job.result_json)


def _progress(found: Progress) -> list[tuple[str, str]]:
    if found.progress is None:
        return []
    return [
        ("progress", f"{_how_far(found.progress)} ({age(found.timestamp)} ago)"),
        *(
            ("", f"{harmless(stage)}: {_how_far(of)}")
            for stage, of in (found.progress.get("subProgress") or {}).items()
        ),
    ]


def _how_far(progress: dict[str, Any]) -> str:
    return f"{progress.get('percent')} % {harmless(str(progress.get('message') or ''))}".rstrip()


def _event_data(data: Any) -> str:
    """An event's data on one line: of an error the last line, which says what happened."""
    if data is None:
        return ""
    if isinstance(data, dict) and isinstance(data.get("error"), str) and "\n" in data["error"]:
        data = {**data, "error": last_line(data["error"])}
    return _short_json(data)


def _short_json(value: Any) -> str:
    return _short(msgspec.json.encode(value).decode())


def _compact(raw: msgspec.Raw) -> str:
    return _short(msgspec.json.format(bytes(raw), indent=-1).decode())


def _short(text: str) -> str:
    text = harmless(text)
    return text if len(text) <= 2000 else text[:2000] + "..."
