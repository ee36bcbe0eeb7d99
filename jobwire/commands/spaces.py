"""`jobwire spaces`: make, look at, rename and remove spaces, with the root key."""

from __future__ import annotations

import click
import msgspec

from ..api.admin import Admin
from ..api.http_client import Http
from ..api.readiness import read_readiness
from ..api.response_structs import STATUSES, Ends, NameStats, Space
from ..errors import JobwireError
from .completion import a_space
from .standard_descriptors import notice
from .terminal_text import Paint, age, duration, echo_facts, harmless, print_json, table

_FARES = ("OVER", "COMPLETED", "DEAD", "KILLED", "P50", "P95", "PENDING", "OLDEST", "NAME")


@click.group()
def spaces() -> None:
    """Create, show, rename and delete spaces. Needs the root key, except for `stats`.

    \b
    jobwire spaces create builds
    jobwire spaces list
    """


@spaces.command()
@click.argument("name")
@click.option("-q", "--quiet", is_flag=True, help="Print the id alone.")
@click.option("--json", "as_json", is_flag=True, help="The JSON object as the server answers it.")
def create(name: str, quiet: bool, as_json: bool) -> None:
    """Create a space; its public key, which may only read progress, is shown this once.

    \b
    SPACE=$(jobwire spaces create builds -q)
    """
    admin = Admin.from_env()
    if as_json:
        print_json(admin.http.call("POST", "/spaces", body=msgspec.json.encode({"name": name})).body)
        return
    created = admin.create_space(name)
    if quiet:
        click.echo(created.id)
    else:
        echo_facts([("id", created.id), ("name", created.name), ("public key", created.public_token or "-")])


@spaces.command("list")
@click.option("--json", "as_json", is_flag=True, help="The JSON array as the server answers it.")
def list_(as_json: bool) -> None:
    """All spaces, oldest first, with their jobs by status. A shard whose spaces may be missing is told on stderr.

    \b
    jobwire spaces list
    """
    admin = Admin.from_env()
    if as_json:
        print_json(admin.http.call("GET", "/spaces").body)
        _tell_of_lost_shards(admin.http)
        return
    head, *lines = table(("ID", *map(str.upper, STATUSES), "AGE", "NAME"), [_row(space) for space in admin.spaces()])
    click.echo(Paint.for_stdout().dim(head))
    for line in lines:
        click.echo(line)
    _tell_of_lost_shards(admin.http)


def _tell_of_lost_shards(http: Http) -> None:
    """A server leaves out the spaces of a shard that is away. One that does not say how it is lists what it has."""
    try:
        lost = read_readiness(http)[0].lost_shards
    except JobwireError:
        return
    for shard in lost:
        notice(f"spaces on {harmless(shard.server)} may be missing: {harmless(shard.why or 'it is not ok')}")


@spaces.command()
@click.argument("space", required=False, shell_complete=a_space)
@click.option("--json", "as_json", is_flag=True, help="The JSON object as the server answers it.")
def show(space: str | None, as_json: bool) -> None:
    """One space; without SPACE the one of JOBWIRE_SPACE or of the local server.

    \b
    jobwire spaces show --json | jq .counts
    """
    admin = Admin.from_env()
    if as_json:
        print_json(admin.http.call("GET", admin.path(space)).body)
        return
    record = admin.space(space)
    counts = [(status, str(record.counts.get(status, 0))) for status in STATUSES]
    echo_facts([("id", record.id), ("name", record.name), ("created", record.created_at or "-"), *counts])


@spaces.command()
@click.argument("space", required=False, shell_complete=a_space)
@click.option("--json", "as_json", is_flag=True, help="The JSON object as the server answers it.")
def stats(space: str | None, as_json: bool) -> None:
    """How jobs ended and how long they took: for each name a line for the last hour and one for the last day.

    The busiest name is first. Half of the completed jobs took no longer than P50, 95 of 100 no longer than P95; OLDEST
    is how long the oldest pending job has waited. A key with jobs:read is enough. Without SPACE the one of
    JOBWIRE_SPACE or of the local server.

    \b
    jobwire spaces stats
    jobwire spaces stats SPACE --json | jq '.names[] | {name, p95: .lastHour.p95Ms}'
    """
    admin = Admin.from_env()
    if as_json:
        print_json(admin.http.call("GET", admin.path(space, "/stats")).body)
        return
    rows = [line for name in admin.stats(space).names for line in _fares(name)]
    head, *lines = table(_FARES, rows)
    click.echo(Paint.for_stdout().dim(head))
    for line in lines:
        click.echo(line)


@spaces.command()
@click.argument("space", shell_complete=a_space)
@click.argument("name")
def rename(space: str, name: str) -> None:
    """Give a space another name. Its id, keys and jobs stay as they are.

    \b
    jobwire spaces rename SPACE nightly-builds
    """
    renamed = Admin.from_env().rename_space(space, name)
    click.echo(f"{renamed.id} is now {harmless(renamed.name)}")


@spaces.command()
@click.argument("space", shell_complete=a_space)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(space: str, yes: bool) -> None:
    """Delete a space with its keys, its jobs and their logs. This cannot be undone.

    \b
    jobwire spaces delete SPACE --yes
    """
    admin = Admin.from_env()
    record = admin.space(space)
    if not yes:
        jobs = sum(record.counts.values())
        click.confirm(f"Remove space {harmless(record.name)} ({record.id}) with {jobs} jobs?", abort=True, err=True)
    admin.delete_space(space)
    click.echo(f"{record.id} removed")


def _row(space: Space) -> tuple[str, ...]:
    counts = (str(space.counts.get(status, 0)) for status in STATUSES)
    return harmless(space.id), *counts, age(space.created_at), harmless(space.name)


def _fares(stats: NameStats) -> list[tuple[str, ...]]:
    """The two lines of a name; each tells all that is known, so that either may be picked out."""
    waits = (str(stats.pending), age(stats.oldest_pending_at))
    name = "all other names" if stats.name is None else harmless(stats.name)
    return [(over, *_ends(ends), *waits, name) for over, ends in (("1h", stats.last_hour), ("24h", stats.last_day))]


def _ends(ends: Ends) -> tuple[str, ...]:
    return str(ends.completed), str(ends.dead), str(ends.killed), duration(ends.p50_ms), duration(ends.p95_ms)
