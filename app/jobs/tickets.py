"""One-time tickets for a key: what a link carries in the place of the key.

Owns: how a ticket is kept. A ticket is 256 random bits that only its holder knows; Redis has the key under the ticket's
digest, encrypted with the ticket, so that neither Redis nor its files ever hold the key. It is taken once, atomically,
and lives five minutes.
"""

import hashlib
import secrets

from app.model.errors import Refusal
from app.model.redis_keys import Keys
from app.redis_links.link import Link

LIVES_MS = 300_000
_TICKET_BYTES = 32


class Tickets:
    """Tickets of one Redis."""

    def __init__(self, control: Link, keys: Keys) -> None:
        self._control = control
        self._keys = keys

    async def issue(self, key: str) -> str:
        """A ticket that `exchange` answers with this key, once, within five minutes."""
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        await self._control.call("SET", self._name(ticket), _mixed(key.encode(), ticket), "PX", LIVES_MS)
        return ticket

    async def exchange(self, ticket: str) -> str:
        """The key; the ticket is used by it. Refusal `unauthorized` for one that is used, too old, or none."""
        encrypted = await self._control.call("GETDEL", self._name(ticket))
        if encrypted is None:
            raise Refusal(
                "unauthorized", "This link was already used, or is older than five minutes: sign in with a key."
            )
        return str(_mixed(encrypted, ticket).decode())

    def _name(self, ticket: str) -> str:
        return self._keys.ticket(hashlib.sha256(ticket.encode()).hexdigest())


def _mixed(text: bytes, ticket: str) -> bytes:
    """Encrypt, or decrypt: a stream of its own for each ticket, which is used for one text only."""
    stream = hashlib.shake_256(b"jobwire ticket " + ticket.encode()).digest(len(text))
    return bytes(a ^ b for a, b in zip(text, stream, strict=True))
