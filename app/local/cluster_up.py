"""`jobwire cluster up`: an embedded cluster that serves until a signal, for trying and for tests."""

import asyncio
from collections.abc import Callable

from app.local.embedded_cluster import EmbeddedCluster
from app.local.up import until_signal
from app.loop.background import until_first_ends


async def cluster_up(cluster: EmbeddedCluster, announce: Callable[[EmbeddedCluster], None]) -> None:
    """Serve until a signal; `announce` is called when the cluster works. A node that ends is started again.

    Raises EmbeddedError.
    """

    async def serve() -> None:
        await asyncio.to_thread(cluster.start)
        announce(cluster)
        await cluster.supervise()

    try:
        await until_first_ends(until_signal(), serve())
    finally:
        await asyncio.to_thread(cluster.stop)
