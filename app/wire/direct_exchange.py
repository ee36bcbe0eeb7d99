"""A request that is read and answered on its connection at once, without messages of ASGI, where both are whole.

Owns: when that goes. What does not go at once is left to the messages, untouched. Never: does anything that a client
could tell from the way by messages.
Always: what becomes of the connection is the same; a small call is spared two coroutines, two messages, and a look at
each of its answer's headers.
"""

from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

DIRECT = "jobwire.direct"
"""The name of the extension, among those of a scope, that has the cycle of a request for which this may be done."""

CLOSING = (b"connection", b"close")
"""The header that ends a connection behind an answer: all answers have it once the server is to leave."""


def take_body(cycle: RequestResponseCycle, most_bytes: int) -> bytes | None:
    """The body, once. None while it is not whole, where it is larger, or where the client has gone."""
    if cycle.more_body or cycle.disconnected or len(cycle.body) > most_bytes:
        return None
    body, cycle.body = bytes(cycle.body), bytearray()
    cycle.message_event.clear()
    return body


def write_answer(cycle: RequestResponseCycle, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
    """Write a whole answer, to anything but HEAD. False, and nothing was done, for one that cannot be written now, or
    that is to end the connection.

    `headers` are sent as they are: in lower case, checked by who made them, with the length of the body.
    """
    if cycle.flow.write_paused or cycle.disconnected or not cycle.keep_alive or CLOSING in cycle.default_headers:
        return False
    lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
    cycle.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], b"".join(lines), body))
    cycle.response_started = cycle.response_complete = True
    cycle.message_event.set()
    cycle.on_response()
    return True
