"""docs/states.md says what app/model/job.py's table of transitions says, and every transition has its script."""

import re
from collections.abc import Iterator
from pathlib import Path

from app.model.job import TRANSITION_TABLE, Status, Transition
from app.redis_links.scripts import SCRIPTS

PAGE = Path(__file__).parents[2] / "docs" / "states.md"


def rows() -> Iterator[str]:
    """The page's table, a row for each transition."""
    for step in TRANSITION_TABLE:
        sources = ", ".join(f"`{status}`" for status in Status if status in step.sources) or "-"
        yield f"| {sources} | {step.by} | `{step.target}` | `{step.event}` | {step.when} |"


def arrows() -> Iterator[str]:
    """The page's diagram, an arrow for each way from one status to another."""
    ways: dict[tuple[str, str], list[str]] = {}
    for step in TRANSITION_TABLE:
        for source in [str(status) for status in Status if status in step.sources] or ["[*]"]:
            by = ways.setdefault((source, str(step.target)), [])
            by += [step.by] if step.by not in by else []
    for (source, target), by in ways.items():
        yield f"    {source} --> {target}: {', '.join(by)}"


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    head, *told = re.findall(r"^\| .* \|$", PAGE.read_text(), re.MULTILINE)
    assert head == "| from | by | to | event | when |"
    assert told == list(rows())


def test_the_diagram_of_the_page_is_that_of_the_code() -> None:
    assert re.findall(r"^    .* --> .*$", PAGE.read_text(), re.MULTILINE) == list(arrows())


def test_every_transition_has_its_script_which_emits_its_event() -> None:
    for step in TRANSITION_TABLE:
        text = SCRIPTS[f"job_{step.by}"].text
        assert f"'{step.event}'" in text or f"'{step.target}'" in text, step


def test_an_ended_job_is_left_by_retry_only_and_never_when_completed() -> None:
    ended = {Status.COMPLETED, Status.DEAD, Status.KILLED}
    leaving: list[Transition] = [step for step in TRANSITION_TABLE if step.sources & ended]
    assert [(step.by, set(step.sources)) for step in leaving] == [("retry", {Status.DEAD, Status.KILLED})]


if __name__ == "__main__":
    print("\n".join([*arrows(), "", *rows()]))  # noqa: T201  # what to put into the page
