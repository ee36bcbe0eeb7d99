"""Where the keys come from, and where they never go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobwire import NotConfigured
from jobwire.configuration.settings import data_folder, load

LOCAL = {
    "url": "http://127.0.0.1:7000",
    "rootKey": "emit_root",
    "spaceId": "local-space",
    "keys": {"producer": "emit_p", "worker": "emit_w", "reader": "emit_r", "public": "emit_pub"},
}


@pytest.fixture
def local(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "credentials.json").write_text(json.dumps(LOCAL))
    return {"JOBWIRE_DATA": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def configured(environ: dict[str, str], text: str, mode: int = 0o600) -> dict[str, str]:
    """The same environment with a configuration file."""
    path = Path(environ["XDG_CONFIG_HOME"]) / "jobwire" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return environ


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


CONFIG = 'url = "http://host"\nkey = "emit_c"\nspace = "c"\n'


def test_the_configuration_file_goes_before_the_local_server(local: dict[str, str]) -> None:
    assert load(configured(local, CONFIG), "reader") == ("http://host", "emit_c", "c")


def test_the_environment_goes_before_the_configuration_file(local: dict[str, str]) -> None:
    environ = configured(local, CONFIG)
    assert load({**environ, "JOBWIRE_KEY": "emit_e", "JOBWIRE_SPACE": "e"}, "root") == ("http://host", "emit_e", "e")
    assert load({**environ, "JOBWIRE_URL": "http://e", "JOBWIRE_KEY": "emit_e"}, "root") == ("http://e", "emit_e", None)


def test_a_configured_key_is_never_sent_to_another_address(local: dict[str, str]) -> None:
    with pytest.raises(NotConfigured, match="JOBWIRE_KEY"):
        load({**configured(local, CONFIG), "JOBWIRE_URL": "http://elsewhere"}, "root")
    assert load({**local, "JOBWIRE_URL": "http://127.0.0.1:7000"}, "root").key == "emit_root"


def test_a_configuration_file_that_others_may_read_holds_no_key(local: dict[str, str]) -> None:
    with pytest.raises(NotConfigured, match="chmod 600"):
        load(configured(local, CONFIG, 0o644), "root")
    environ = configured(local, 'url = "http://host"', 0o644)
    assert load({**environ, "JOBWIRE_KEY": "emit_e"}, "root").url == "http://host"
    with pytest.raises(NotConfigured, match="no key"):
        load(environ, "root")


@pytest.mark.parametrize("text", ["url =", "urls = 'x'", "url = 7", "key = 'emit_\xe9'\nurl = 'http://host'"])
def test_a_configuration_file_that_cannot_be_used_is_named(local: dict[str, str], text: str) -> None:
    with pytest.raises(NotConfigured, match=r"config\.toml|characters"):
        load(configured(local, text), "root")


def test_the_file_may_lie_elsewhere(local: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(CONFIG)
    (tmp_path / "mine.toml").chmod(0o600)
    assert load({**local, "JOBWIRE_CONFIG": str(tmp_path / "mine.toml")}, "root").space == "c"


def test_who_needs_no_key_gets_the_address_without_one(local: dict[str, str]) -> None:
    assert load({"JOBWIRE_URL": "http://host"}, "reader", needs_key=False) == ("http://host", None, None)
    only_url = configured(local, 'url = "http://host"\nspace = "c"\n')
    assert load(only_url, "reader", needs_key=False) == ("http://host", None, "c")
    assert load({**local, "JOBWIRE_URL": "http://elsewhere"}, "root", needs_key=False).key is None
