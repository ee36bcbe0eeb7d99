"""The configuration file of the commands: which server, which key, which space, for a person who works with one.

    # ~/.config/jobwire/config.toml
    url = "https://jobs.example.org"
    key = "emit_..."
    space = "01JXYZ..."

Owns: where the file is, and what may stand in it. Never: takes a key from a file that others may read.
"""

from __future__ import annotations

import os
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..errors import NotConfigured


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """What the file says; everything may be left out."""

    url: str | None = None
    key: str | None = None
    space: str | None = None


def config_path(environ: Mapping[str, str]) -> Path:
    """JOBWIRE_CONFIG, else `jobwire/config.toml` in the user's configuration directory."""
    if environ.get("JOBWIRE_CONFIG"):
        return Path(environ["JOBWIRE_CONFIG"])
    home = environ.get("XDG_CONFIG_HOME")
    return Path(home if home else home_folder() / ".config") / "jobwire" / "config.toml"


def home_folder() -> Path:
    """The user's own folder, or one of his among the temporary ones where he has none (no HOME, no such user)."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"jobwire-{os.getuid()}"


def read_config(environ: Mapping[str, str]) -> Config:
    """The file's content, nothing without a file. Raises `NotConfigured` for one that cannot be used."""
    path = config_path(environ)
    try:
        with path.open("rb") as file:
            others_may = os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            config = msgspec.convert(tomllib.load(file), Config)
    except FileNotFoundError:
        return Config()
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise NotConfigured(f"{path} cannot be used: {error}") from None
    if config.key is not None and others_may:
        raise NotConfigured(f"{path} holds a key and others may read it: chmod 600 {path}")
    return config
