"""The command line `jobwire`: its commands, and what a person sees of them on a terminal.

Never: needs the server half.

The commands of that half (`up`, `demo`, ...) are found by the entry-point group `jobwire.commands` and loaded only when
asked for. Without it, or with another package called `app` in its place, the client's commands work all the same.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import click

from .. import exit_codes
from ..errors import JobwireError
from ..version import __version__
from .server import ServerHalf, find_server_half
from .standard_descriptors import notice, open_standard_descriptors

CLIENT_COMMANDS = ("run", "tail", "logs", "send", "jobs", "spaces", "tokens", "status")
"""Each is in the module of its name, which is imported when it is asked for."""


class _Commands(click.Group):
    """Client commands first; the server half is imported only for a name that is not theirs, or for the list of all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*CLIENT_COMMANDS, *_server_half().commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in CLIENT_COMMANDS:
            command: click.Command = getattr(import_module(f".{cmd_name}", __name__), cmd_name)
            return command
        half = _server_half()
        if cmd_name not in half.commands and half.trouble and not ctx.resilient_parsing:
            raise _failed(f"`{cmd_name}` is no command of the client, and {half.trouble}", exit_codes.NOT_CONFIGURED)
        return half.commands.get(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except JobwireError as error:
            raise _failed(str(error), exit_codes.code_of(error)) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(exit_codes.INTERRUPTED) from None


def _failed(message: str, exit_code: int) -> click.exceptions.Exit:
    notice(message)
    return click.exceptions.Exit(exit_code)


@cache
def _server_half() -> ServerHalf:
    return find_server_half()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="jobwire")
def cli() -> None:
    """Watch work happen: jobs, their progress and their logs.

    \b
    jobwire up                          start a server here
    jobwire run -- make test            run a command as a job
    jobwire tail JOB -f                 follow its log until it ends
    some-command | jobwire send JOB     add lines to a job's log
    jobwire status                      is the server ready, and how many jobs have which status
    """


def main() -> None:
    """The entry point of the command `jobwire`."""
    open_standard_descriptors()
    cli.main(prog_name="jobwire")
