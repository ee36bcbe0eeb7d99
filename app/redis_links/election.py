"""Which of several processes does a work that one is to do: it leads as long as it renews a lease.

Always: a leader that is killed is followed within HOLD_MS and one renewal. Two may lead for a moment, where one was
stopped longer than its lease: what they do must bear it.
"""

import secrets

from app.redis_links.link import Link
from app.redis_links.scripts import Scripts

HOLD_MS = 2000
RENEW_S = 0.5
"""How often a leader renews its lease, and how often the others ask for it."""


class Election:
    """One candidate for one work. `key` names who leads."""

    def __init__(self, link: Link, key: str) -> None:
        self._scripts = Scripts(link)
        self._key = key
        self.candidate = secrets.token_hex(8)

    async def lead(self) -> bool:
        """Whether the candidate leads for the next HOLD_MS. Raises what the link raises. Atomic."""
        return await self._hold(HOLD_MS)

    async def resign(self) -> None:
        """Let another lead at once, if the candidate leads. Raises what the link raises. Atomic."""
        await self._hold(0)

    async def _hold(self, for_ms: int) -> bool:
        (leads,) = await self._scripts.run("leader_hold", [self._key], [self.candidate, for_ms])
        return bool(leads)
