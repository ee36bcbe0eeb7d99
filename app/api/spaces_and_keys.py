"""For the operator: spaces and keys. Only the root key gets here, but for the question what a key may do."""

from app.api.body_reading import decode_body
from app.api.call import Call
from app.api.request_schemas import SPACE_BODY, TOKEN_BODY, TokenRequest, time_ms
from app.api.response_schemas import WhoAmI, space_answer, token_answer
from app.api.responses import NO_CONTENT, Answer, json_answer
from app.jobs.keys_and_scopes import ROOT
from app.jobs.spaces import Spaces
from app.model.limits import KIB

ADMIN_BYTES = 64 * KIB


class AdminHandlers:
    """The handlers of spaces and tokens."""

    def __init__(self, spaces: Spaces) -> None:
        self._spaces = spaces

    async def create_space(self, call: Call) -> Answer:
        """POST /spaces"""
        request = decode_body(SPACE_BODY, await call.read_body(ADMIN_BYTES))
        space, public = await self._spaces.create(request.name)
        return json_answer(space_answer(space, public.key), 201)

    async def list_spaces(self, call: Call) -> Answer:
        """GET /spaces"""
        return json_answer([space_answer(space) for space in await self._spaces.list_spaces()])

    async def get_space(self, call: Call) -> Answer:
        """GET /spaces/:spaceId"""
        return json_answer(space_answer(await self._spaces.get(call.space)))

    async def delete_space(self, call: Call) -> Answer:
        """DELETE /spaces/:spaceId"""
        await self._spaces.delete(call.space)
        return NO_CONTENT

    async def create_token(self, call: Call) -> Answer:
        """POST /spaces/:spaceId/tokens"""
        request: TokenRequest = decode_body(TOKEN_BODY, await call.read_body(ADMIN_BYTES))
        request.check()
        expires_ms = None if request.expires_at is None else time_ms(request.expires_at, "expiresAt")
        return json_answer(
            token_answer(await self._spaces.create_token(call.space, request.name, request.scopes, expires_ms)), 201
        )

    async def list_tokens(self, call: Call) -> Answer:
        """GET /spaces/:spaceId/tokens"""
        return json_answer([token_answer(token) for token in await self._spaces.list_tokens(call.space)])

    async def whoami(self, call: Call) -> Answer:
        """GET /whoami"""
        identity = call.identity
        space = None if identity.space is None else await self._spaces.get(identity.space)
        name = None if space is None else space.fields["name"].decode()
        return json_answer(WhoAmI(identity.space, name, sorted(identity.scopes - {ROOT}), identity.is_root))

    async def revoke_token(self, call: Call) -> Answer:
        """DELETE /spaces/:spaceId/tokens/:tokenId"""
        await self._spaces.revoke_token(call.space, call.params["token_id"])
        return NO_CONTENT
