"""`jobwire tokens`: make, list and revoke the keys of a space, with the root key."""

from __future__ import annotations

import click
import msgspec

from ..api.admin import Admin
from ..api.response_structs import Token
from .completion import a_scope, a_space
from .terminal_text import Paint, age, echo_facts, harmless, print_json, table
from .typed_times import moment

in_space = click.option(
    "--space", shell_complete=a_space, help="Id of the space.  [default: JOBWIRE_SPACE, or the local server's]"
)


@click.group()
def tokens() -> None:
    """Create, list and revoke the keys of a space. Needs the root key.

    \b
    jobwire tokens create ci --scope jobs:create --scope jobs:read --expires 30d
    jobwire tokens list
    """


@tokens.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    shell_complete=a_scope,
    help="What the key may do; may be repeated.",
)
@click.option("--expires", metavar="WHEN", help="RFC 3339 with offset, or from now: 90s, 15m, 12h, 30d.")
@in_space
@click.option("-q", "--quiet", is_flag=True, help="Print the key alone.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def create(
    *, name: str, scopes: tuple[str, ...], expires: str | None, space: str | None, quiet: bool, as_json: bool
) -> None:
    """Create a key. It is shown this once, and can be revoked by its id.

    \b
    export JOBWIRE_KEY=$(jobwire tokens create builder --scope jobs:worker -q)
    """
    admin = Admin.from_env()
    created = admin.create_token(name, scopes, expires_at=moment(expires, 1), space=space)
    if as_json:
        print_json(msgspec.json.encode(created))
    elif quiet:
        click.echo(created.key)
    else:
        echo_facts([*_facts(created), ("key", created.key or "-")])


@tokens.command("list")
@in_space
@click.option("--json", "as_json", is_flag=True, help="The JSON array as the server answers it.")
def list_(space: str | None, as_json: bool) -> None:
    """The valid keys of a space, oldest first, but not the keys themselves.

    \b
    jobwire tokens list --space SPACE
    """
    admin = Admin.from_env()
    if as_json:
        print_json(admin.http.call("GET", admin.path(space, "/tokens")).body)
        return
    rows = [_row(token) for token in admin.tokens(space)]
    head, *lines = table(("ID", "AGE", "USED", "EXPIRES", "SCOPES", "NAME"), rows)
    click.echo(Paint.for_stdout().dim(head))
    for line in lines:
        click.echo(line)


@tokens.command()
@click.argument("token", nargs=-1, required=True)
@in_space
def revoke(token: tuple[str, ...], space: str | None) -> None:
    """Revoke keys by their ids. They stop working within one second.

    \b
    jobwire tokens revoke TOKEN
    """
    admin = Admin.from_env()
    for token_id in token:
        admin.revoke_token(token_id, space)
        click.echo(f"{token_id} revoked")


def _facts(token: Token) -> list[tuple[str, str]]:
    return [
        ("id", token.id),
        ("name", token.name),
        ("scopes", " ".join(token.scopes)),
        ("expires", token.expires_at or "never"),
    ]


def _row(token: Token) -> tuple[str, ...]:
    expires = harmless(token.expires_at or "never")
    scopes = harmless(",".join(token.scopes))
    return harmless(token.id), age(token.created_at), age(token.last_used_at), expires, scopes, harmless(token.name)
