"""The keys of a local server: made at its first start, kept in its data folder, readable by its owner only."""

import os
import secrets
from pathlib import Path

import msgspec

from app.spaces import Spaces

FILE = "credentials.json"
ROLES = {
    "producer": ("jobs:create", "jobs:read", "jobs:kill", "jobs:retry"),
    "worker": ("jobs:worker",),
    "reader": ("jobs:read",),
}


class Credentials(msgspec.Struct, rename="camel"):
    """What `up --json` prints: `keys` has producer, worker, reader and public."""

    url: str = ""
    root_key: str = ""
    space_id: str = ""
    keys: dict[str, str] = {}


class CredentialsError(Exception):
    """The file cannot be used; the text says why."""


def load(data: Path, root_key: str) -> Credentials:
    """What an earlier start left, else a new root key. `root_key`, if any, wins. Raises CredentialsError."""
    path = data / FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Credentials)
    except FileNotFoundError:
        found = Credentials()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CredentialsError(f"{path} cannot be read: {error}.") from None
    found.root_key = root_key or found.root_key or f"emit_{secrets.token_urlsafe(32)}"
    return found


def save(data: Path, credentials: Credentials) -> None:
    """Write the file, whole or not at all, for the owner only."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = data / f".{FILE}.{os.getpid()}"
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(credentials)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(data / FILE)


async def furnish(credentials: Credentials, spaces: Spaces) -> None:
    """Make the space `default` and its keys, unless they are there. Keys are only ever made together with the space."""
    if credentials.space_id and await spaces.exists(credentials.space_id):
        return
    space, public = await spaces.create("default")
    keys = {role: (await spaces.create_token(space.id, role, scopes, None)).key for role, scopes in ROLES.items()}
    credentials.space_id = space.id
    credentials.keys = keys | {"public": public.key}
