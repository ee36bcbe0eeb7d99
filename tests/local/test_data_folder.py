"""The data folder: for its owner alone, under any name, however long."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.local import data_folder as folder
from app.local.embedded_valkey import EmbeddedError, EmbeddedServer
from tests.valkey import EmbeddedValkey, until


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def short_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def test_everything_in_the_folder_is_for_its_owner_alone(data: Path) -> None:
    before = os.umask(0)
    try:
        with EmbeddedValkey(data) as valkey:
            valkey.cli("SET", "key", "value")
            valkey.cli("BGREWRITEAOF")
            until(lambda: valkey.cli("INFO", "persistence")["aof_rewrite_in_progress"] == 0)
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (data, *data.rglob("*"))}
    finally:
        os.umask(before)
    assert modes.pop(data) == 0o700
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}
    assert {path.name for path in modes} >= {"jobwire.lock", "valkey.lock", "valkey.log", "valkey.sock"}


def test_an_empty_folder_is_closed_and_one_in_other_use_is_refused_unchanged(data: Path) -> None:
    data.mkdir(mode=0o755)
    with EmbeddedValkey(data):
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
    others = data.parent / "others"
    others.mkdir(mode=0o755)
    (others / "letter").write_text("dear")
    with pytest.raises(EmbeddedError, match="holds other things"):
        EmbeddedServer(others).start()
    assert stat.S_IMODE(others.stat().st_mode) == 0o755
    assert [path.name for path in others.iterdir()] == ["letter"]


def test_a_file_in_the_folders_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(EmbeddedError, match="File exists"):
        EmbeddedServer(tmp_path / "data").start()


def test_a_path_too_long_for_a_socket_gets_a_private_runtime_folder(
    data: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    deep = data / ("x" * 60) / ("y" * 60)
    with EmbeddedValkey(deep) as valkey:
        valkey.cli("SET", "key", "value")
        (runtime,) = short_path.glob("jobwire-*")
        assert valkey.url == f"unix://{runtime}/valkey.sock"
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
        assert EmbeddedServer(deep).url == valkey.url
    assert not runtime.exists()
    runtime.symlink_to(data)
    with pytest.raises(EmbeddedError, match="closed to others"):
        EmbeddedServer(deep).start()


def test_where_all_places_are_too_long_the_socket_is_in_tmp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert str(folder.socket_path(deep)).startswith("/tmp/jobwire-")


@pytest.mark.parametrize("name", ["a b", 'quo"te', "back\\slash", "per%20cent", "ask?#hash", "Grüße", "new\nline"])
def test_any_folder_name_works(tmp_path: Path, name: str) -> None:
    with EmbeddedValkey(tmp_path / name) as valkey:
        assert valkey.cli("PING")
        assert (tmp_path / name / "valkey.sock").exists()
