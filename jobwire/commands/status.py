"""`jobwire status`: whether the server can do its work, and how its jobs or the shards of its Redis cluster stand."""

from __future__ import annotations

import os

import click
import msgspec

from .. import exit_codes
from ..api.jobs import Jobs
from ..api.readiness import read_readiness
from ..api.response_structs import STATUSES, Shard
from ..configuration.settings import load
from ..errors import Outage
from .terminal_text import echo_facts, harmless, size, table


@click.command()
@click.option("--shards", "of_shards", is_flag=True, help="The shards of the Redis cluster in place of the jobs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: url, ready, problem(s), and counts or shards.")
@click.pass_context
def status(ctx: click.Context, of_shards: bool, as_json: bool) -> None:
    """Is the server ready, and how many jobs of the space are in which status? Exits 69 if it is not ready.

    Whether it is ready is told without a key, too; jobs are counted with a key and a space.

    \b
    jobwire status
    jobwire status --json | jq .counts.dead
    jobwire status --shards
    """
    config = load(os.environ, "reader", needs_key=False)
    api = Jobs(config.url, config.key, config.space)
    unset = [f"JOBWIRE_{name}" for name in ("KEY", "SPACE") if not getattr(config, name.lower())]
    readiness, problem = read_readiness(api.http)
    counts = {}
    if not (of_shards or problem or unset):
        try:
            counts = {name: api.count(name) for name in STATUSES}
        except Outage as outage:
            problem = str(outage)
    lost, shards = readiness.lost_shards, readiness.shards
    if as_json:
        told = {"shards": shards} if of_shards else {"counts": counts or None}
        report = {"url": api.http.url, "ready": not problem, "problem": problem or None}
        report |= {"problems": readiness.problems} | told
        click.echo(msgspec.json.encode(report).decode())
    else:
        facts = [("server", api.http.url), ("ready", problem or "yes"), *((n, str(c)) for n, c in counts.items())]
        if lost and not of_shards:
            facts.append(("shards", f"{len(lost)} of {len(shards or ())} with a problem: see --shards"))
        if unset and not of_shards and not problem:
            facts.append(("jobs", f"not counted: {' and '.join(unset)} not set"))
        echo_facts(facts)
        if of_shards:
            _echo_shards(shards, answered=not problem or bool(shards))
    if problem or (of_shards and lost):
        ctx.exit(exit_codes.UNAVAILABLE)


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
