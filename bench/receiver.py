"""A receiver of callbacks that costs little: `python -m bench.receiver HEALTHY HANGING` listens on so many loopback
addresses each, 127.0.1.* and 127.0.2.*, and prints its port.

The healthy answer 200 at once and count; the hanging take connections and never answer. `GET /` on any healthy one
tells `{count, lateMs, seconds}`: how many came, how long after the end of its job each did, and from the first to the
last of them; it begins anew at each GET.
"""

import asyncio
import socket
import sys
import time
from datetime import datetime
from typing import Any, cast

import msgspec
import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BACKLOG = 1024


class CallbackDelays:
    """What has come since the last question."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self.first_s = self.last_s = 0.0

    def add(self, body: bytes) -> None:
        """One callback."""
        at_s = time.time()
        begin = body.rfind(b'"timestamp":"') + 13
        end_s = datetime.fromisoformat(body[begin : begin + 24].decode()).timestamp()
        self.late_ms.append((at_s - end_s) * 1000)
        self.first_s = self.first_s or at_s
        self.last_s = at_s

    def reset(self) -> dict[str, Any]:
        """All of it; from here on a new one begins."""
        delays = {"count": len(self.late_ms), "lateMs": self.late_ms, "seconds": self.last_s - self.first_s}
        self.late_ms, self.first_s, self.last_s = [], 0.0, 0.0
        return delays


class Healthy(asyncio.Protocol):
    """One connection of those who answer."""

    def __init__(self, delays: CallbackDelays) -> None:
        self._delays = delays
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, blank, rest = self._data.partition(b"\r\n\r\n")
        if not blank:
            return
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return
        self._data = rest[length:]
        if head.startswith(b"GET"):
            body = msgspec.json.encode(self._delays.reset())
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        else:
            self._delays.add(rest[:length])
            self._transport.write(ANSWER)


def listening(host: str, port: int) -> socket.socket:
    """A listening socket."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


async def main(healthy: int, hanging: int) -> None:
    """Listen until killed."""
    loop, delays, port = asyncio.get_running_loop(), CallbackDelays(), 0
    for number in range(healthy):
        sock = listening(f"127.0.1.{number + 1}", port)
        port = sock.getsockname()[1]
        await loop.create_server(lambda: Healthy(delays), sock=sock)
    for number in range(hanging):
        await loop.create_server(asyncio.Protocol, sock=listening(f"127.0.2.{number + 1}", port))
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
