"""Which of several processes does a work that one is to do: it leads as long as it renews a lease.

On a cluster there is one such work for each server, each with a leader of its own; all together they are spread evenly
over those who would lead, and spread anew when one comes or goes.

Always: a leader that is killed is followed within HOLD_MS and one renewal. Two may lead for a moment, where one was
stopped longer than its lease: what they do must bear it.
"""

import secrets

from app.redis_links.link import Link, Word
from app.redis_links.scripts import Scripts

HOLD_MS = 2000
RENEW_S = 0.5
"""How often a leader renews its lease, and how often the others ask for it."""


def new_candidate() -> str:
    """A name for one who would lead."""
    return secrets.token_hex(8)


class Election:
    """One candidate for one work. `key` names who leads."""

    def __init__(self, link: Link, key: str, candidate: str, tag: str = "") -> None:
        """With the tag of a server of a cluster it is the work for that server; the key lies there."""
        self._scripts = Scripts(link)
        self._key = key
        self._tag = tag
        self._candidate = candidate

    async def lead(self) -> bool:
        """Whether the candidate leads for the next HOLD_MS. Raises what the link raises. Atomic."""
        return await self._hold(HOLD_MS)

    async def resign(self) -> None:
        """Let another lead at once, if the candidate leads. Raises what the link raises. Atomic."""
        await self._hold(0)

    async def _hold(self, for_ms: int) -> bool:
        if self._tag:
            args: list[Word] = [self._candidate, for_ms, self._turn()]
            (leads,) = await self._scripts.run("leader_share", [self._key], args)
        else:
            (leads,) = await self._scripts.run("leader_hold", [self._key], [self._candidate, for_ms])
        return bool(leads)

    def _turn(self) -> int:
        """The number of the server: its work is for the candidate with that number, counted round."""
        tags = sorted(self._scripts.link.tags().values())
        return tags.index(self._tag) if self._tag in tags else 0
