"""For those who log and those who read logs: append, page, download."""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator

from starlette.types import Send

from app.api.call import Call
from app.api.log_schemas import LogCursor, LogsAppended, RowPage
from app.api.query_parameters import Query
from app.api.responses import JSON, NDJSON, Answer, Streamed, json_answer
from app.logs.intake import decode_batch_steps
from app.logs.log_store import BatchKey, LogStore, batch_key
from app.logs.page_scan import PageQuery
from app.logs.search import LineFilter, parse_levels, parse_q
from app.logs.unreadable_logs import Unreadable
from app.loop.turns import in_turns
from app.model.errors import invalid
from app.model.limits import KIB, MIB, SEQ_MOST

APPEND_WIRE_BYTES = 5 * MIB
APPEND_BODY_BYTES = 32 * MIB
LINES_DEFAULT = 200
LINES_MOST = 500

LARGE_BODY_BYTES = MIB
LARGE_PACKED_BYTES = 32 * KIB
LARGE_AT_ONCE = 4
"""Bodies that are large, or may inflate to be, and are worked on at once: each may take a hundred MiB for a moment."""

GZIP_LEVEL = 1

COPIES = 2
"""As what lines of a page count while it is made: what they took stays with the process a while, beside the JSON."""

DOWNLOAD_BYTES = 2 * MIB
"""What a download holds at most: what was read (READ_BYTES in app/logs/log_store.py), and a piece as it is sent."""


class LogHandlers:
    """The handlers of /jobs/:jobId/logs."""

    def __init__(self, logs: LogStore) -> None:
        self._logs = logs
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def append(self, call: Call) -> Answer:
        """POST /jobs/:jobId/logs"""
        sent = await call.read_sent(APPEND_WIRE_BYTES, (JSON, NDJSON))
        async with self._turn(len(sent), packed=b"content-encoding" in call.headers):
            return await self._append(call, sent)

    async def _append(self, call: Call, sent: bytes) -> Answer:
        body = await call.inflate(sent, APPEND_BODY_BYTES)
        batch = await in_turns(decode_batch_steps(body, ndjson=NDJSON in call.get_header(b"content-type").lower()))
        done = await self._logs.append(call.space, call.job, batch, await batch_key_of(call.idempotency_key(), body))
        headers = ((b"idempotency-replayed", b"true"),) if done.replayed else ()
        shown = LogsAppended(done.inserted, done.first, done.last, done.truncated, done.status)
        return json_answer(shown, headers=headers)

    async def read(self, call: Call) -> Answer | Streamed:
        """GET /jobs/:jobId/logs"""
        query = Query(call)
        wanted = LineFilter(parse_levels(query.get_texts("level")), parse_q(query.get_text("q") or ""))
        page = page_query(query, wanted)
        if NDJSON in call.get_header(b"accept").lower():
            if page.mode == "before":
                raise invalid("A download takes `after` only, not `before`.")
            return await self._download(call, page)
        lines = await self._logs.read_page(call.space, call.job, page, lambda size: call.hold(COPIES * size))
        at = lines.cursor
        cursor = LogCursor(at.mode, at.oldest, at.newest, at.more, at.first_kept)
        return json_answer(RowPage(lines.rows, cursor))

    async def _download(self, call: Call, page: PageQuery) -> Streamed:
        pieces = await self._logs.download(call.space, call.job, page.position, page.wanted)
        packed = "gzip" in call.get_header(b"accept-encoding").lower()
        sent = compress_pieces(pieces) if packed else pieces
        return Streamed(lambda send: send_pieces(call, send, sent, packed), held_bytes=DOWNLOAD_BYTES)

    @contextlib.asynccontextmanager
    async def _turn(self, size_bytes: int, *, packed: bool) -> AsyncIterator[None]:
        """Wait for one's turn if the body is large."""
        if size_bytes <= (LARGE_PACKED_BYTES if packed else LARGE_BODY_BYTES):
            yield
            return
        async with self._large:
            yield


def page_query(query: Query, wanted: LineFilter) -> PageQuery:
    """What the parameters ask for. Refusal `invalid_request`."""
    limit = query.get_integer("limit", LINES_DEFAULT, 1, LINES_MOST)
    after = query.get_integer("after", -1, 0, SEQ_MOST)
    before = query.get_integer("before", -1, 1, SEQ_MOST)
    if after >= 0 and before >= 0:
        raise invalid("Give after or before, not both.")
    if after >= 0:
        return PageQuery("after", after, limit, wanted)
    if before >= 0:
        return PageQuery("before", before, limit, wanted)
    return PageQuery("tail", 0, limit, wanted)


async def batch_key_of(text: str, body: bytes) -> BatchKey | None:
    """The Idempotency-Key of a request, if it has one."""
    if not text:
        return None
    return batch_key(text, body) if len(body) < LARGE_BODY_BYTES else await asyncio.to_thread(batch_key, text, body)


async def compress_pieces(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces as one gzip stream, packed in a thread."""
    packer = zlib.compressobj(GZIP_LEVEL, wbits=31)
    async for piece in pieces:
        yield await asyncio.to_thread(packer.compress, piece)
    yield packer.flush()


async def send_pieces(call: Call, send: Send, pieces: AsyncIterator[bytes], packed: bool) -> None:
    """Send a download at the pace at which it is taken; stop when nobody takes it.

    A fault on the way is raised: the server then breaks the connection, so that half a log never looks like a whole. So
    does what ends before its last piece, as a log does that cannot be read on.
    """
    headers = [(b"content-type", NDJSON.encode()), (b"vary", b"accept, accept-encoding")]
    if packed:
        headers.append((b"content-encoding", b"gzip"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    gone = asyncio.create_task(call.wait_until_gone())
    try:
        async for piece in pieces:
            if gone.done():
                return
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except Unreadable:
        pass  # it has been told
    finally:
        gone.cancel()
