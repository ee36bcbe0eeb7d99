"""Who gets in: key, scope, space, rate, checked in this order, for every route and both streams."""

from collections.abc import Awaitable, Callable

from app.api.call import Call
from app.jobs.keys_and_scopes import Identity, Keyring
from app.jobs.rate_limit import Rate
from app.model.errors import space_not_found
from app.model.ids import is_ulid, space_tag_of
from app.model.job import NO_SPACE
from app.settings import Settings
from app.wire.bytes_in_flight import BytesInFlight


class Gate:
    """Lets a call in: key, scope, space, rate, in this order."""

    def __init__(
        self,
        keyring: Keyring,
        rate: Rate,
        space_of: Callable[[str], Awaitable[str | None]],
        exists: Callable[[str], Awaitable[bool]],
        settings: Settings,
    ) -> None:
        self._keyring = keyring
        self._rate = rate
        self.space_of = space_of
        self._exists = exists
        self._bytes_in_flight = BytesInFlight(settings.inflight_bytes, settings.key_inflight_bytes)
        self.settings = settings

    async def admit(self, call: Call, scope: str) -> Identity:
        """Set the call's identity and space; who it is.

        Refusals: unauthorized, missing_scope, wrong_space, space_not_found (told to the root key only), rate_limited.
        """
        identity = call.identity = await self._keyring.identify(call.key)
        call.bytes_in_flight = self._bytes_in_flight
        identity.require(scope)
        if "job_id" in call.params:
            space = await self._space_of_job(call.job, identity)
            if space is not None:
                identity.require_space(space)
            call.space = space or NO_SPACE
        elif "space_id" in call.params:
            call.space = call.params["space_id"]
            identity.require_space(call.space)
            if identity.is_root and not await self._exists(call.space):
                raise space_not_found()
        await call.spend_from(self._rate)
        return identity

    async def _space_of_job(self, job: str, identity: Identity) -> str | None:
        """As space_of; whoever calls about a job of their own space needs no look-up."""
        own = identity.space
        return (
            own
            if own is not None and is_ulid(job) and space_tag_of(job) == space_tag_of(own)
            else await self.space_of(job)
        )
