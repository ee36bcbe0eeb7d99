"""`jobwire status`: whether the server can do its work, and how its jobs stand."""

from __future__ import annotations

import click
import msgspec

from .. import exit_codes
from ..api.jobs import Jobs
from ..api.response_structs import STATUSES
from ..errors import Outage
from .terminal_text import echo_facts


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: url, ready, problem, counts.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Is the server ready, and how many jobs of the space are in which status? Exits 69 if it is not ready.

    \b
    jobwire status
    jobwire status --json | jq .counts.dead
    """
    api = Jobs.from_env("reader")
    problem, counts = "", {}
    try:
        api.http.probe("/readyz")
        counts = {name: api.count(name) for name in STATUSES}
    except Outage as outage:
        problem = str(outage)
    if as_json:
        report = {"url": api.http.url, "ready": not problem, "problem": problem or None, "counts": counts or None}
        click.echo(msgspec.json.encode(report).decode())
    else:
        echo_facts([("server", api.http.url), ("ready", problem or "yes"), *((n, str(c)) for n, c in counts.items())])
    if problem:
        ctx.exit(exit_codes.UNAVAILABLE)
