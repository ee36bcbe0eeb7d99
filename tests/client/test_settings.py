"""Where the keys come from, and where they never go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobwire import NotConfigured
from jobwire.settings import data_folder, load

LOCAL = {
    "url": "http://127.0.0.1:7000",
    "rootKey": "emit_root",
    "spaceId": "local-space",
    "keys": {"producer": "emit_p", "worker": "emit_w", "reader": "emit_r", "public": "emit_pub"},
}


@pytest.fixture
def local(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "credentials.json").write_text(json.dumps(LOCAL))
    return {"JOBWIRE_DATA": str(tmp_path)}


def test_the_environment_is_enough_by_itself() -> None:
    environ = {"JOBWIRE_URL": "http://host", "JOBWIRE_KEY": "emit_k", "JOBWIRE_SPACE": "s"}
    assert load(environ, "root") == ("http://host", "emit_k", "s")
    assert load({**environ, "JOBWIRE_SPACE": " "}, "root").space is None


@pytest.mark.parametrize(
    ("role", "key"), [("root", "emit_root"), ("producer", "emit_p"), ("worker", "emit_w"), ("reader", "emit_r")]
)
def test_the_local_server_gives_each_role_its_least_key(local: dict[str, str], role: str, key: str) -> None:
    assert load(local, role) == ("http://127.0.0.1:7000", key, "local-space")


def test_a_local_key_is_never_sent_to_another_address(local: dict[str, str]) -> None:
    with pytest.raises(NotConfigured, match="JOBWIRE_KEY"):
        load({**local, "JOBWIRE_URL": "http://elsewhere"}, "root")
    assert load({**local, "JOBWIRE_URL": "http://127.0.0.1:7000"}, "root").key == "emit_root"


def test_a_key_alone_goes_to_the_local_server(local: dict[str, str]) -> None:
    assert load({**local, "JOBWIRE_KEY": "emit_mine"}, "root") == ("http://127.0.0.1:7000", "emit_mine", "local-space")


def test_the_local_space_is_not_taken_for_another_servers(local: dict[str, str]) -> None:
    assert load({**local, "JOBWIRE_URL": "http://elsewhere", "JOBWIRE_KEY": "emit_k"}, "root").space is None


def test_without_anything_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="jobwire up"):
        load({"JOBWIRE_DATA": str(tmp_path)}, "root")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1}', '{"url":"http://x"}', "\udcff"])
def test_a_broken_file_is_said_to_be_broken(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(NotConfigured, match="cannot be read"):
        load({"JOBWIRE_DATA": str(tmp_path)}, "root")


def test_a_key_that_would_break_a_header_is_refused(local: dict[str, str]) -> None:
    with pytest.raises(NotConfigured):
        load({**local, "JOBWIRE_KEY": "emit_a\r\nx: y"}, "root")


def test_the_folder_is_where_up_puts_it() -> None:
    assert data_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/jobwire")
    assert data_folder({}) == Path.home() / ".local/state/jobwire"
    assert data_folder({"JOBWIRE_DATA": "/d", "XDG_STATE_HOME": "/state"}) == Path("/d")
