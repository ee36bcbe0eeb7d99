"""`jobwire status`: whether the server can do its work, and how its jobs or the shards of its Redis cluster stand."""

from __future__ import annotations

import click
import msgspec

from .. import exit_codes
from ..api.jobs import Jobs
from ..api.response_decoding import decoded
from ..api.response_structs import STATUSES, Readiness, Shard
from ..errors import Outage
from .terminal_text import echo_facts, harmless, size, table


@click.command()
@click.option("--shards", "of_shards", is_flag=True, help="The shards of the Redis cluster in place of the jobs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: url, ready, problem, and counts or shards.")
@click.pass_context
def status(ctx: click.Context, of_shards: bool, as_json: bool) -> None:
    """Is the server ready, and how many jobs of the space are in which status? Exits 69 if it is not ready.

    \b
    jobwire status
    jobwire status --json | jq .counts.dead
    jobwire status --shards
    """
    api = Jobs.from_env("reader")
    problem, counts, shards = "", {}, None
    try:
        shards = decoded(api.http.probe("/readyz"), Readiness).shards
        if not of_shards:
            counts = {name: api.count(name) for name in STATUSES}
    except Outage as outage:
        problem, shards = str(outage), _shards_beside(outage)
    if as_json:
        told = {"shards": shards} if of_shards else {"counts": counts or None}
        report = {"url": api.http.url, "ready": not problem, "problem": problem or None, **told}
        click.echo(msgspec.json.encode(report).decode())
    else:
        echo_facts([("server", api.http.url), ("ready", problem or "yes"), *((n, str(c)) for n, c in counts.items())])
        if of_shards:
            _echo_shards(shards, answered=not problem or bool(shards))
    if problem or (of_shards and not all(shard.ok for shard in shards or ())):
        ctx.exit(exit_codes.UNAVAILABLE)


def _shards_beside(outage: Outage) -> list[Shard] | None:
    """What a server that is not ready says of its shards."""
    try:
        return msgspec.convert(outage.details, Readiness).shards
    except msgspec.ValidationError:
        return None


def _echo_shards(shards: list[Shard] | None, *, answered: bool) -> None:
    """One line a shard, or why there is none."""
    if shards:
        rows = [
            (harmless(s.server), _slots(s), _memory(s), "-" if s.ok else harmless(s.why or "not ok")) for s in shards
        ]
        click.echo("\n".join(table(("shard", "slots", "memory", "problem"), rows)))
    elif answered:
        click.echo("The server runs on one Redis, not on a cluster.")


def _slots(shard: Shard) -> str:
    return "-" if shard.slots is None else str(shard.slots)


def _memory(shard: Shard) -> str:
    """What is used, and the limit if there is one."""
    return size(shard.used_bytes) + (f" of {size(shard.max_bytes)}" if shard.max_bytes else "")
