"""The keys of a local server: made at its first start, kept in its data folder, readable by its owner only.

A file that is damaged costs no start: what can still be read of it is used, the rest is made anew.
"""

import logging
import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.jobs.spaces import PUBLIC_SCOPES, Spaces
from app.settings import ROOT_KEY_RULE, is_root_key

log = logging.getLogger("jobwire.up")

CREDENTIALS_FILE = "credentials.json"
SPACE = "default"
ROLES = {
    "producer": ("jobs:create", "jobs:read", "jobs:kill", "jobs:retry"),
    "worker": ("jobs:worker",),
    "reader": ("jobs:read",),
    "public": PUBLIC_SCOPES,
}

_MEMBER = re.compile(r'"(\w+)"\s*:\s*"([\x21\x23-\x5b\x5d-\x7e]+)"')


class Credentials(msgspec.Struct, rename="camel"):
    """What `up --json` prints: `url` is where it listens; `keys` has producer, worker, reader and public."""

    url: str = ""
    public_url: str | msgspec.UnsetType = msgspec.UNSET
    root_key: str = ""
    space_id: str = ""
    keys: dict[str, str] = {}


class CredentialsError(Exception):
    """The file cannot be used; the text says why."""


class Loaded(NamedTuple):
    """What an earlier start left; `damaged` when not all of it could be read."""

    credentials: Credentials
    damaged: bool


def load_credentials(data: Path, root_key: str) -> Loaded:
    """What an earlier start left, else a new root key. `root_key`, if any, wins. Raises CredentialsError."""
    path = data / CREDENTIALS_FILE
    damaged = False
    try:
        text = path.read_bytes()
        credentials = msgspec.json.decode(text, type=Credentials)
    except FileNotFoundError:
        credentials = Credentials()
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        credentials, damaged = salvage(text), True
    credentials.root_key = root_key or credentials.root_key or f"emit_{secrets.token_urlsafe(32)}"
    if not is_root_key(credentials.root_key):
        raise CredentialsError(f"The rootKey in {path} is no root key: {ROOT_KEY_RULE}")
    return Loaded(credentials, damaged)


def salvage(text: bytes) -> Credentials:
    """What stands in a file that is cut or overwritten, as far as it does."""
    members = dict(_MEMBER.findall(text.decode("latin-1")))
    keys = {role: members[role] for role in ROLES if role in members}
    return Credentials(root_key=members.get("rootKey", ""), space_id=members.get("spaceId", ""), keys=keys)


def set_damaged_aside(data: Path, credentials: Credentials) -> None:
    """Keep a copy of a damaged file, before it is written anew, and say so."""
    kept = data / f"{CREDENTIALS_FILE}.damaged"
    (data / CREDENTIALS_FILE).replace(kept)
    log.warning(
        "%s was damaged and is written anew: what could not be read of its keys is new, for the space %s. "
        "Keys that were given to others go on, but for the root key if it has changed. The damaged file is %s now.",
        data / CREDENTIALS_FILE,
        credentials.space_id,
        kept,
    )


def save_credentials(data: Path, credentials: Credentials) -> None:
    """Write the file, whole or not at all, for the owner only."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = data / f".{CREDENTIALS_FILE}.{os.getpid()}"
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(credentials)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(data / CREDENTIALS_FILE)


async def create_missing_keys(credentials: Credentials, spaces: Spaces, *, damaged: bool = False) -> None:
    """Make the space `default` and its keys, as far as they are not there.

    Of a damaged file the space may be unknown: then it is the oldest of that name, if there is one.
    """
    if not (credentials.space_id and await spaces.exists(credentials.space_id)):
        known = (
            [space.id for space in await spaces.list_spaces() if space.fields["name"] == SPACE.encode()]
            if damaged
            else []
        )
        credentials.keys = credentials.keys if known else {}
        credentials.space_id = known[0] if known else await create_first_space(credentials, spaces)
    keys = credentials.keys
    for role, scopes in ROLES.items():
        if role not in keys:
            keys[role] = (await spaces.create_token(credentials.space_id, role, scopes, None)).key
    credentials.keys = {role: keys[role] for role in ROLES}


async def create_first_space(credentials: Credentials, spaces: Spaces) -> str:
    """The id of a new space, whose public key is among the credentials."""
    space, public = await spaces.create(SPACE)
    credentials.keys["public"] = public.key
    return space.id
