"""What a viewer says on a WebSocket: frames, read as they come. https://www.rfc-editor.org/rfc/rfc6455#section-5

Owns: everything that a client must not do, found at the first byte that shows it. Never: keeps anything of a message,
which means nothing here; a message only has to be one, and text has to be text.
"""

import codecs
from collections.abc import Iterator
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
OPCODES = {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}
CONTROL = 0x8
"""The bit of an opcode that only control frames have."""

FIN, RESERVED, MASKED = 0x80, 0x70, 0x80
CONTROL_BYTES = 125
VIEWER_MESSAGE_BYTES = 4096
"""The longest message that a viewer may send."""

LENGTH_BYTES = {126: 2, 127: 8}
NEW_DECODER = codecs.getincrementaldecoder("utf-8")


class ProtocolViolation(Exception):
    """What was said breaks the protocol; `code` is that of the close that follows."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameHead(NamedTuple):
    """The beginning of a frame."""

    opcode: int
    fin: bool
    size_bytes: int
    mask: bytes


class FrameReader:
    """The frames of one connection. What is kept is less than a control frame."""

    __slots__ = ("_decoder", "_head", "_left_bytes", "_message_bytes", "_open", "_unread")

    def __init__(self) -> None:
        self._unread = bytearray()
        self._head: FrameHead | None = None
        self._left_bytes = 0
        self._open = False
        self._message_bytes = 0
        self._decoder: codecs.IncrementalDecoder | None = None

    def read(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The control frames (opcode, payload) that are complete by this data; after a close none.

        Raises ProtocolViolation.
        """
        self._unread += data
        while True:
            if self._head is None and not self._read_head():
                return
            assert self._head is not None
            if self._head.opcode & CONTROL:
                if len(self._unread) < self._head.size_bytes:
                    return
                yield self._read_control(self._head)
            else:
                self._skip_data(self._head)
                if self._left_bytes:
                    return
            self._head = None

    def _read_head(self) -> bool:
        """Whether the head of the next frame was there. Raises ProtocolViolation."""
        unread = self._unread
        if len(unread) < 2:
            return False
        first, second = unread[0], unread[1]
        self._check_start(first, second)
        size = second & ~MASKED
        length_bytes = LENGTH_BYTES.get(size, 0)
        if len(unread) < 2 + length_bytes + 4:
            return False
        if length_bytes:
            size = int.from_bytes(unread[2 : 2 + length_bytes])
        mask = bytes(unread[2 + length_bytes : 6 + length_bytes])
        del unread[: 6 + length_bytes]
        self._head = FrameHead(first & 0x0F, bool(first & FIN), size, mask)
        self._left_bytes = size
        if not first & CONTROL:
            self._begin_message(self._head)
        return True

    def _check_start(self, first: int, second: int) -> None:
        """What the first two bytes of a frame tell. Raises ProtocolViolation."""
        opcode = first & 0x0F
        if first & RESERVED:
            raise ProtocolViolation(1002, "reserved bits")
        if opcode not in OPCODES:
            raise ProtocolViolation(1002, "a reserved opcode")
        if not second & MASKED:
            raise ProtocolViolation(1002, "a frame that is not masked")
        if opcode & CONTROL:
            if not first & FIN or second & ~MASKED > CONTROL_BYTES:
                raise ProtocolViolation(1002, "a control frame in fragments, or too long")
        elif (opcode == CONTINUATION) != self._open:
            raise ProtocolViolation(1002, "a message inside a message, or a continuation of none")

    def _begin_message(self, head: FrameHead) -> None:
        """A frame of a message begins. Raises ProtocolViolation."""
        if head.opcode != CONTINUATION:
            self._message_bytes = 0
            self._decoder = NEW_DECODER() if head.opcode == TEXT else None
        self._message_bytes += head.size_bytes
        if self._message_bytes > VIEWER_MESSAGE_BYTES:
            raise ProtocolViolation(1009, f"a message of more than {VIEWER_MESSAGE_BYTES} bytes")
        self._open = not head.fin

    def _skip_data(self, head: FrameHead) -> None:
        """Pass over what has come of a message. Raises ProtocolViolation."""
        part = bytes(self._unread[: self._left_bytes])
        del self._unread[: len(part)]
        if self._decoder is not None:
            turn = (head.size_bytes - self._left_bytes) % 4
            text = unmask(part, head.mask[turn:] + head.mask[:turn])
            try:
                self._decoder.decode(text, final=head.fin and len(part) == self._left_bytes)
            except UnicodeDecodeError:
                raise ProtocolViolation(1007, "text that is not UTF-8") from None
        self._left_bytes -= len(part)

    def _read_control(self, head: FrameHead) -> tuple[int, bytes]:
        payload = unmask(bytes(self._unread[: head.size_bytes]), head.mask)
        del self._unread[: head.size_bytes]
        if head.opcode == CLOSE:
            check_close(payload)
        return head.opcode, payload


def unmask(data: bytes, mask: bytes) -> bytes:
    """https://www.rfc-editor.org/rfc/rfc6455#section-5.3"""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(size)


def check_close(payload: bytes) -> None:
    """Raise ProtocolViolation unless a close may say this: nothing, or a code of section 7.4 or IANA's, and a text."""
    if not payload:
        return
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ProtocolViolation(1002, "a code that no close may have")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolViolation(1007, "a reason that is not UTF-8") from None
