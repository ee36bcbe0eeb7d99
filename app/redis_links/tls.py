"""TLS to Redis by the redis package, with one context for all connections that are alike.

To make a context reads all certificates that the machine trusts: 25 ms of the event loop. The redis package makes one
for each connection, and a cluster or a Sentinel is asked over a new connection every second or two.

Always: what is renewed in a file counts for the next connection.
"""

import os
from typing import Any

from redis.asyncio.connection import RedisSSLContext, SSLConnection

MOST_CONTEXTS = 8

_contexts: dict[str, RedisSSLContext] = {}


class TlsConnection(SSLConnection):
    """SSLConnection with a context that others may have, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context = shared(self.ssl_context)


def shared(context: RedisSSLContext) -> RedisSSLContext:
    """The one of those alike that came first."""
    told = [getattr(context, name) for name in RedisSSLContext.__slots__ if name != "context"]
    read = [stamp(path) for path in (context.certfile, context.keyfile, context.ca_certs, context.ca_path)]
    if (known := _contexts.get(text := repr((told, read)))) is None:
        if len(_contexts) >= MOST_CONTEXTS:
            _contexts.pop(next(iter(_contexts)))
        known = _contexts[text] = context
    return known


def stamp(path: str | None) -> tuple[int, ...]:
    """What is another when a file or a folder has changed."""
    try:
        found = os.stat(path or "")
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size
