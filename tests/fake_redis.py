"""A fakeredis that listens on a port until its standard input ends: `python -m tests.fake_redis` prints the port."""

from __future__ import annotations

import sys
import threading
from typing import Any

import fakeredis
import redis


def _steady(handler: Any) -> Any:
    """fakeredis's handler of a connection, which hangs up after each error reply, as one that goes on as Redis does."""

    class Steady(handler):  # type: ignore[misc]  # a class that only fakeredis knows
        def setup(self) -> None:
            super().setup()
            read = self.current_client.read_response

            def read_response() -> Any:
                try:
                    return read()
                except redis.ResponseError as error:
                    return error

            self.current_client.read_response = read_response

    return Steady


def main() -> None:
    """Serve until whoever started this closes the pipe, or is gone."""
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    server.RequestHandlerClass = _steady(server.RequestHandlerClass)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
