"""`docs/cli.md` names every command, every option and every exit code there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from app.jobs import keys_and_scopes
from app.local.credentials import ROLES
from jobwire import exit_codes
from jobwire.api.admin import SCOPES
from jobwire.commands import cli
from jobwire.commands.server import find_server_half
from tests.client.fake import FakeService

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def commands(group: click.Group, path: str = "jobwire") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(("path", "command"), [pytest.param(*found, id=found[0]) for found in commands(cli)])
def test_every_command_and_option_stands_in_the_page(path: str, command: click.Command) -> None:
    start = re.search(rf"^(## |\| )`{path}[ `\[]", PAGE, re.MULTILINE)
    assert start is not None, path
    section = PAGE[start.start() :].partition("\n## " if start[1] == "## " else "\n")[0]
    for option in command.params:
        if isinstance(option, click.Option):
            for spelling in (*option.opts, *option.secondary_opts):
                assert f"`{spelling}`" in section or f"`{spelling} " in section, f"{path} {spelling}"


def test_the_page_names_no_command_that_does_not_exist() -> None:
    existing = {path for path, _ in commands(cli)}
    for named in re.findall(r"^(?:## |\| )`(jobwire [a-z]+(?: [a-z]+)?)", PAGE, re.MULTILINE):
        assert named in existing or any(path.startswith(f"{named} ") for path in existing), named


def test_every_exit_code_stands_in_the_page() -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    assert codes == {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}


def test_the_page_has_the_scopes_of_the_keys_that_up_makes() -> None:
    for role, scopes in ROLES.items():
        assert f"| `{role}` | {', '.join(f'`{scope}`' for scope in scopes)} |\n" in PAGE


def test_the_server_half_is_there() -> None:
    assert find_server_half().trouble == ""


@pytest.mark.parametrize(("path", "command"), [pytest.param(*found, id=found[0]) for found in commands(cli)])
def test_every_commands_help_has_an_example(path: str, command: click.Command) -> None:
    if path != "jobwire demo":
        assert re.search(
            rf"^ *(?:\S+=\S+ |[\w-]+ \| |\S+=\$\(|export \S+=\$\()?{path}\b", command.help or "", re.MULTILINE
        ), path


@pytest.mark.parametrize(
    ("words", "at", "wanted"),
    [
        ("jobwire jo", 1, "jobs"),
        ("jobwire jobs list --status de", 4, "dead"),
        ("jobwire tokens create x --sc", 4, "--scope"),
        ("jobwire up --lo", 2, "--log"),
        ("jobwire tokens create x --scope jobs:pr", 5, "jobs:progress"),
    ],
)
def test_a_shell_completes_commands_options_and_values(words: str, at: int, wanted: str) -> None:
    asked = {"_JOBWIRE_COMPLETE": "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    command = [sys.executable, "-m", "jobwire"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, timeout=30, check=False)
    assert wanted in done.stdout.split("\n")


@pytest.mark.parametrize("words", ["jobwire tail ", "jobwire jobs show ", "jobwire logs -f ", "jobwire send "])
def test_a_shell_completes_ids_of_jobs(service: FakeService, environ: dict[str, str], words: str) -> None:
    job = service.add_job(name="build\x1b[2J")
    asked = {"_JOBWIRE_COMPLETE": "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
    command = [sys.executable, "-m", "jobwire"]
    done = subprocess.run(command, env=environ | asked, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split("\n")[1:3] == [job.id, "delivered build\\x1b[2J"]


def test_a_shell_is_told_nothing_when_no_server_answers(service: FakeService, environ: dict[str, str]) -> None:
    service.down()
    asked = {"_JOBWIRE_COMPLETE": "zsh_complete", "COMP_WORDS": "jobwire tail ", "COMP_CWORD": "2"}
    command = [sys.executable, "-m", "jobwire"]
    done = subprocess.run(command, env=environ | asked, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_the_clients_scopes_are_the_servers() -> None:
    assert set(SCOPES) == {*keys_and_scopes.SCOPES, *keys_and_scopes.SHORTHANDS}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_line_for_the_shells_start_file_gives_a_script(shell: str) -> None:
    assert f"_JOBWIRE_COMPLETE={shell}_source jobwire" in PAGE
    asked = os.environ | {"_JOBWIRE_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "jobwire"]
    done = subprocess.run(command, env=asked, capture_output=True, text=True, timeout=30, check=False)
    assert f"{shell}_complete" in done.stdout
