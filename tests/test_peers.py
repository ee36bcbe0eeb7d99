"""`python -m bench peers`: it measures each queue that is installed, and says which one is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.peers import BULLMQ, PEERS

LIFE = "Valkey's CPU for a life"
LINES = {LIFE, "taken, begun, completed", "created in bulk", "memory of a pending job"}


def figures(folder: Path) -> dict[str, Any]:
    """The figures of a short run, by their names."""
    main(["peers", "--quick", "--json", str(folder)])
    found = json.loads((folder / "peers.json").read_text())["figures"]
    return {figure["name"]: figure for figure in found}


def lines_of(name: str, found: dict[str, Any]) -> set[str]:
    """Which lines a queue has."""
    return {line for line in LINES if f"{line}: {name}" in found}


def test_each_queue_has_all_lines_or_is_left_out_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = figures(tmp_path)
    said = capsys.readouterr().out
    assert lines_of("ours", found) == LINES
    for peer in PEERS:
        why = peer.missing()
        assert lines_of(peer.name, found) == (set() if why else LINES)
        assert (f"{peer.name} is left out: {why}." in said) == bool(why)
    assert ("ratio" in found[f"{LIFE}: ours"]) == (not BULLMQ.missing())


def test_without_node_there_is_no_bullmq_and_nothing_to_compare_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = figures(tmp_path)
    assert "BullMQ is left out: there is no node." in capsys.readouterr().out
    assert lines_of("BullMQ", found) == set()
    assert lines_of("ours", found) == LINES
    assert found[f"{LIFE}: ours"].keys() == {"name", "value", "unit"}
