"""The envelopes of a text on its way to a viewer: a WebSocket frame, an event, a chunk. No I/O."""


def websocket_frame(text: bytes, _: str = "") -> bytes:
    """One unmasked text frame. https://www.rfc-editor.org/rfc/rfc6455#section-5.2"""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 65_536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), text)


def server_sent_event(text: bytes, position: str) -> bytes:
    """One event with its id, if it has a position, as a chunk of HTTP/1.1."""
    return chunk(unchunked_event(text, position))


def unchunked_event(text: bytes, position: str) -> bytes:
    """One event with its id, if it has a position. https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    return b"id: %b\ndata: %b\n\n" % (position.encode(), text) if position else b"data: %b\n\n" % text


def chunk(text: bytes) -> bytes:
    """A chunk of a body of unknown length. https://www.rfc-editor.org/rfc/rfc9112#section-7.1"""
    return b"%x\r\n%b\r\n" % (len(text), text)


def end_text(status: str) -> bytes:
    """How a job ended, for narrow callers: the reason of a WebSocket's close, and the data of the event `end`."""
    return b'{"status":"%b"}' % status.encode()
