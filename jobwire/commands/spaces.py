"""`jobwire spaces`: make, look at and remove spaces, with the root key."""

from __future__ import annotations

import click
import msgspec

from ..admin import Admin
from ..record import STATUSES, Space
from ..screen import Paint, age, echo_facts, harmless, print_json, table
from .completion import a_space


@click.group()
def spaces() -> None:
    """Make, look at and remove spaces. Needs the root key.

    \b
    jobwire spaces create builds
    jobwire spaces list
    """


@spaces.command()
@click.argument("name")
@click.option("-q", "--quiet", is_flag=True, help="Print the id alone.")
@click.option("--json", "as_json", is_flag=True, help="The JSON object as the server answers it.")
def create(name: str, quiet: bool, as_json: bool) -> None:
    """Make a space; its public key, which may only read progress, is shown this once.

    \b
    SPACE=$(jobwire spaces create builds -q)
    """
    admin = Admin.from_env()
    if as_json:
        print_json(admin.http.call("POST", "/spaces", body=msgspec.json.encode({"name": name})).body)
        return
    made = admin.create_space(name)
    if quiet:
        click.echo(made.id)
    else:
        echo_facts([("id", made.id), ("name", made.name), ("public key", made.public_token or "-")])


@spaces.command("list")
@click.option("--json", "as_json", is_flag=True, help="The JSON array as the server answers it.")
def list_(as_json: bool) -> None:
    """All spaces, oldest first, with their jobs by status.

    \b
    jobwire spaces list
    """
    admin = Admin.from_env()
    if as_json:
        print_json(admin.http.call("GET", "/spaces").body)
        return
    head, *lines = table(("ID", *map(str.upper, STATUSES), "AGE", "NAME"), [_row(space) for space in admin.spaces()])
    click.echo(Paint.for_stdout().dim(head))
    for line in lines:
        click.echo(line)


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
    found = admin.space(space)
    counts = [(status, str(found.counts.get(status, 0))) for status in STATUSES]
    echo_facts([("id", found.id), ("name", found.name), ("created", found.created_at or "-"), *counts])


@spaces.command()
@click.argument("space", shell_complete=a_space)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(space: str, yes: bool) -> None:
    """Remove a space with its keys, its jobs and their logs. Nothing of it comes back.

    \b
    jobwire spaces delete SPACE --yes
    """
    admin = Admin.from_env()
    found = admin.space(space)
    if not yes:
        jobs = sum(found.counts.values())
        click.confirm(f"Remove space {harmless(found.name)} ({found.id}) with {jobs} jobs?", abort=True, err=True)
    admin.delete_space(space)
    click.echo(f"{found.id} removed")


def _row(space: Space) -> tuple[str, ...]:
    counts = (str(space.counts.get(status, 0)) for status in STATUSES)
    return harmless(space.id), *counts, age(space.created_at), harmless(space.name)
