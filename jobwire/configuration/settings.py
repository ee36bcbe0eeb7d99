"""Where the service is and which key to use.

Owns the order in which they are looked for: JOBWIRE_URL, JOBWIRE_KEY, JOBWIRE_SPACE, then the configuration file, then
the credentials file that the local `jobwire up` leaves in its data folder. Always: a key from a file is sent to the
address in that file only, never to another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..errors import NotConfigured
from .config_file import config_path, home_folder, read_config

ROLES = ("root", "producer", "worker", "reader")


class Settings(NamedTuple):
    """An address, a key (None: go without one) and a space (None: calls that need one refuse)."""

    url: str
    key: str | None
    space: str | None


class Credentials(msgspec.Struct, rename="camel"):
    """What `up` writes to `credentials.json`, and prints with --json."""

    url: str
    root_key: str
    space_id: str
    keys: dict[str, str] = {}

    def key(self, role: str) -> str:
        """The least key of a role; the root key when there is none of its own."""
        return self.keys.get(role, self.root_key)


def load(environ: Mapping[str, str], role: str, *, needs_key: bool = True) -> Settings:
    """The settings for a role (root, producer, worker, reader). Raises `NotConfigured` with what to do about it.

    Who `needs_key` not gets an address without a key, too.
    """
    url, key, space = (environ.get(f"JOBWIRE_{name}", "").strip() or None for name in ("URL", "KEY", "SPACE"))
    _checked(key)
    if url is not None and key is not None:
        return Settings(url, key, space)
    config = read_config(environ)
    if config.url is not None and url in (None, config.url):
        if key or config.key or not needs_key:
            return Settings(config.url, _checked(key or config.key), space or config.space)
        raise NotConfigured(f"{config_path(environ)} names a server but no key: add one, or set JOBWIRE_KEY.")
    local = local_credentials(environ)
    if local is not None and url in (None, local.url):
        return Settings(local.url, key or local.key(role), space or local.space_id)
    if url is not None and not needs_key:
        return Settings(url, None, space)
    if url is not None:
        raise NotConfigured("JOBWIRE_URL is set, but JOBWIRE_KEY is not: set the key for that server.")
    raise NotConfigured(
        f"No jobwire server is known here: set JOBWIRE_URL and JOBWIRE_KEY, write {config_path(environ)}, or start one "
        f"with `jobwire up` (it leaves its keys in {data_folder(environ)})."
    )


def _checked(key: str | None) -> str | None:
    if key is not None and not (key.isascii() and key.isprintable()):
        raise NotConfigured("JOBWIRE_KEY holds characters that no key has.")
    return key


def data_folder(environ: Mapping[str, str]) -> Path:
    """The local server's folder: JOBWIRE_DATA, else `jobwire` in the user's state directory."""
    if environ.get("JOBWIRE_DATA"):
        return Path(environ["JOBWIRE_DATA"])
    return state_folder(environ)


def state_folder(environ: Mapping[str, str]) -> Path:
    """`jobwire` in the user's state directory."""
    state = environ.get("XDG_STATE_HOME")
    return Path(state if state else home_folder() / ".local" / "state") / "jobwire"


def local_credentials(environ: Mapping[str, str]) -> Credentials | None:
    """The local server's credentials, None if there are none. Raises `NotConfigured` if they cannot be read."""
    path = data_folder(environ) / "credentials.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Credentials)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotConfigured(f"The local credentials in {path} cannot be read: {error}") from None
