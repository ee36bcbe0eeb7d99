"""Spaces and their keys, as the HTTP API has them: one method, one request. Only the root key may do this.

Owns the mapping of the operator's verbs to paths and of answers to structs. A key that was made is in the answer of its
making and nowhere else: nothing here keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Self
from urllib.parse import quote

import msgspec

from ..configuration.settings import load
from ..errors import NotConfigured
from .http_client import Http
from .response_decoding import decoded
from .response_structs import Space, SpaceStats, Token

SCOPES = (
    "jobs:create",
    "jobs:read",
    "jobs:poll",
    "jobs:ack",
    "jobs:progress",
    "jobs:event",
    "jobs:complete",
    "jobs:fail",
    "jobs:kill",
    "jobs:keepalive",
    "jobs:read:progress",
    "jobs:retry",
    "jobs:worker",
    "jobs:write",
)
"""What a key may do; the last two stand for several."""


class Admin:
    """The spaces of a server and the keys of its spaces: `Admin(url, root_key)`, or `Admin.from_env()`.

    `space` is the one that is meant when a call names none. Every method raises `NotDone`, `OutcomeUnknown` or
    `Refused`.
    """

    def __init__(self, url: str, key: str | None, space: str | None = None, *, http: Http | None = None) -> None:
        self.http = http or Http(url, key)
        self._space = space

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """From JOBWIRE_URL, JOBWIRE_KEY and JOBWIRE_SPACE, else from the local server's. Raises `NotConfigured`."""
        config = load(os.environ if environ is None else environ, "root")
        return cls(config.url, config.key, config.space)

    def create_space(self, name: str) -> Space:
        """A new space; `public_token` is a key of it that may only read progress."""
        return decoded(self.http.call("POST", "/spaces", body=msgspec.json.encode({"name": name})), Space)

    def spaces(self) -> list[Space]:
        """All spaces, oldest first, with their jobs by status."""
        return decoded(self.http.call("GET", "/spaces"), list[Space])

    def space(self, space: str | None = None) -> Space:
        """One space, with its jobs by status."""
        return decoded(self.http.call("GET", self.path(space)), Space)

    def stats(self, space: str | None = None) -> SpaceStats:
        """How the jobs of a space ended lately and how long they took, by name. A key with `jobs:read` may ask, too."""
        return decoded(self.http.call("GET", self.path(space, "/stats")), SpaceStats)

    def rename_space(self, space: str, name: str) -> Space:
        """Give a space another name; its id stays."""
        return decoded(self.http.call("PATCH", self.path(space), body=msgspec.json.encode({"name": name})), Space)

    def delete_space(self, space: str) -> None:
        """Remove a space, its keys, its jobs and their logs."""
        self.http.call("DELETE", self.path(space))

    def create_token(
        self, name: str, scopes: Iterable[str], *, expires_at: str | None = None, space: str | None = None
    ) -> Token:
        """A new key; `expires_at` is RFC 3339. Its `key` is shown this once."""
        fields: dict[str, Any] = {"name": name, "scopes": [*scopes]}
        if expires_at is not None:
            fields["expiresAt"] = expires_at
        body = msgspec.json.encode(fields)
        return decoded(self.http.call("POST", self.path(space, "/tokens"), body=body), Token)

    def tokens(self, space: str | None = None) -> list[Token]:
        """The keys of a space that work, oldest first, without the keys themselves."""
        return decoded(self.http.call("GET", self.path(space, "/tokens")), list[Token])

    def revoke_token(self, token: str, space: str | None = None) -> None:
        """Let a key work no more, by its id."""
        self.http.call("DELETE", self.path(space, "/tokens/" + quote(token, safe="")))

    def path(self, space: str | None = None, rest: str = "") -> str:
        """`/spaces/<id><rest>`; raises `NotConfigured` without a space."""
        chosen = space or self._space
        if not chosen:
            raise NotConfigured("This needs a space: name it, or set JOBWIRE_SPACE to its id.")
        return f"/spaces/{quote(chosen, safe='')}{rest}"
