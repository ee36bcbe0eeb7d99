"""The rate of a key: how much work its calls may be a second, over all processes.

Owns: the share of a key's rate that this process holds. Never: lets one process spend what another was
granted, or decides what a call costs: app/api/call.py does.
"""

import asyncio
import math
from time import monotonic

from app.jobs.keys_and_scopes import Identity
from app.model.errors import Outage, Refusal
from app.model.redis_keys import Keys
from app.redis_links.link import Link, Word, is_away
from app.redis_links.scripts import Scripts
from app.settings import Settings

GRANT_S = 0.1
REFUSED_S = 0.05
OUTAGE_GRANT_S = 1.0
"""How long a second's rate lasts that a process grants by itself: the server of a cluster that counts is away."""
SHARES_MOST = 20_000


class _Share:
    """What one process may still let through for one key, and until when the grant counts.

    Of a key that is over its rate: until when it is refused unasked, and how long it has to wait.
    """

    __slots__ = ("left", "retry_ms", "until_s")

    def __init__(self, left: int, until_s: float, retry_ms: int = 0) -> None:
        self.left = left
        self.until_s = until_s
        self.retry_ms = retry_ms


class Rate:
    """The rate of each key, held over all processes: Redis counts, a process takes small shares in advance.

    A share is a fiftieth of the rate and lapses after a tenth of a second, so that the total stays within a tenth of
    the rate however many processes there are. A call that is more work than a share has left is granted all that it
    lacks at once, or takes nothing.
    """

    def __init__(self, control: Link, keys: Keys, settings: Settings) -> None:
        self._scripts = Scripts(control)
        self._keys = keys
        self._rate = settings.rate
        self._share = max(1, settings.rate // 50)
        self._shares: dict[str, _Share] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def spend(self, identity: Identity, units: int = 1, spent: int = 0) -> int:
        """Count the work of a call that has `spent` some units before; how many it has spent now.

        A call spends a second's rate at most, so that a rested key gets any call through. Refusal `rate_limited` over
        the key's rate; the root key is exempt.
        """
        if not self._rate or identity.is_root:
            return 0
        units = min(units, self._rate - spent)
        share = self._shares.get(identity.digest)
        if share is None or share.left < units or share.until_s <= monotonic():
            share = await self._acquire(identity.digest, units, spent)
        share.left -= units
        return spent + units

    async def charge(self, identity: Identity, units: int) -> None:
        """Count work that was done for a call which is refused all the same: as much of it as the key has left."""
        if not self._rate or identity.is_root:
            return
        share = self._shares.get(identity.digest)
        if share is not None:
            units, share.left = units - share.left, max(0, share.left - units)
        if units > 0:
            await self._scripts.run("rate_take", [self._keys.rate(identity.digest)], [self._rate, units, 0, 1])

    async def _acquire(self, hashed: str, units: int, spent: int) -> _Share:
        """A share of at least so many units. Refusal `rate_limited`."""
        async with self._locks.setdefault(hashed, asyncio.Lock()):
            share = self._shares.get(hashed)
            if share is None or share.until_s <= monotonic():
                share = _Share(0, 0.0)
            if share.left >= units:
                return share
            if share.retry_ms:
                raise self._over(share.retry_ms)
            return await self._grow(hashed, share, units, spent)

    async def _grow(self, hashed: str, share: _Share, units: int, spent: int) -> _Share:
        """A share with what was left in this one, and as much more as is needed at least. Refusal `rate_limited`."""
        left, share.left = share.left, 0
        needed = units - left
        args: list[Word] = [self._rate, max(self._share, needed), needed, units + spent]
        try:
            granted, retry_ms = await self._scripts.run("rate_take", [self._keys.rate(hashed)], args)
        except Outage:
            share.left = left
            if share.until_s > monotonic() or not is_away(self._scripts.link, self._keys.rate(hashed)):
                raise
            return self._keep(hashed, _Share(left + self._rate, monotonic() + OUTAGE_GRANT_S))
        except BaseException:
            share.left = left
            raise
        if granted:
            grown = _Share(left + granted, monotonic() + GRANT_S)
        elif units > 1:
            share.left = left
            raise self._over(retry_ms)
        else:
            grown = _Share(0, monotonic() + REFUSED_S, retry_ms)
        self._keep(hashed, grown)
        if not granted:
            raise self._over(retry_ms)
        return grown

    def _keep(self, hashed: str, share: _Share) -> _Share:
        if len(self._shares) >= SHARES_MOST:
            self._shares.clear()
            self._locks.clear()
        self._shares[hashed] = share
        return share

    def _over(self, retry_ms: int) -> Refusal:
        wait = {"retry-after": str(math.ceil(retry_ms / 1000))}
        return Refusal("rate_limited", f"Over {self._rate} units of work a second for this key.", headers=wait)
