"""The ceilings: what the same machine does when nothing but the bare minimum is done."""

from collections.abc import Sequence
from functools import partial

from bench.harness import Rig, Trial, post
from bench.load import Load, RedisFraming, repeat

ECHO = "bare Starlette POST echo"
XADD = "raw pipelined XADD"
PIPELINE = 1000


def echo(rig: Rig, body: bytes, connections: int) -> Trial:
    """The same request as the product's, answered by a bare Starlette route with its own body."""
    request = post("/echo", rig.service.worker_key, body, "A" * 22)

    def prepare() -> Load:
        return Load(rig.service.echo, [partial(repeat, (request,))] * connections)

    return Trial(ECHO, "requests/s", prepare)


def xadd(rig: Rig, lines: Sequence[bytes], connections: int = 4, name: str = XADD) -> Trial:
    """Each line as one field of an entry of its own, a thousand commands in flight on each connection."""

    def prepare() -> Load:
        flows = [partial(repeat, (_pipeline(f"bench:{i}".encode(), lines),)) for i in range(connections)]
        return Load(rig.service.socket, flows, partial(RedisFraming, 2 * PIPELINE))

    return Trial(name, "lines/s", prepare, units=PIPELINE, tidy=True)


def _pipeline(key: bytes, lines: Sequence[bytes]) -> bytes:
    commands = []
    for i in range(PIPELINE):
        words = (b"XADD", key, b"*", b"line", lines[i % len(lines)])
        commands.append(b"*5\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    return b"".join(commands)
