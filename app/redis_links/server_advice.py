"""What the operator should know of the Redis that is used: told in the log at the start, and by /readyz.

Owns: which servers are too old, and which eviction policy is safe. Never: refuses to work.
"""

import asyncio
import logging

from app.model.errors import Outage
from app.redis_links.info import parse_info
from app.redis_links.link import Link, RedisFault, ServerLink

log = logging.getLogger("jobwire")

REDIS_LEAST = 7
VALKEY_LEAST = 8
"""Major versions."""


def policy_problem(info: dict[str, str]) -> str:
    """A sentence, or "". Other policies drop jobs: https://redis.io/docs/latest/develop/reference/eviction/"""
    policy = info.get("maxmemory_policy", "noeviction")
    return "" if policy == "noeviction" else f"Redis's eviction policy is {policy}: it may drop jobs."


def version_problem(info: dict[str, str]) -> str:
    """A sentence, or ""; also "" for a server that does not tell its version."""
    name, version, least = "Redis", info.get("redis_version", ""), REDIS_LEAST
    if info.get("server_name") == "valkey":
        name, version, least = "Valkey", info.get("valkey_version", ""), VALKEY_LEAST
    major = version.partition(".")[0]
    if not major.isdecimal() or int(major) >= least:
        return ""
    return f"{name} {version} is too old: jobwire needs Redis {REDIS_LEAST} or Valkey {VALKEY_LEAST}, or a later one."


AGAIN_S = 1.0
"""Between two tries to ask a Redis that is not there."""


async def advise(control: Link) -> None:
    """Tell what is wrong with the Redis, once it is there; of a cluster of each server, once that is there."""
    await _until_there(control)
    await asyncio.gather(*(_advise(control, server) for server in control.servers()))


async def _until_there(control: Link) -> None:
    while True:
        try:
            return await control.ready(AGAIN_S)
        except Outage:
            await asyncio.sleep(AGAIN_S)


async def _advise(control: Link, server: ServerLink) -> None:
    info = await _info(control, server)
    for problem in (version_problem(info), policy_problem(info)):
        if problem:
            log.warning("%s", f"{server.place}: {problem}" if server.place else problem)


async def _info(control: Link, server: ServerLink) -> dict[str, str]:
    while server in control.servers():
        try:
            await server.ready(60)
            return parse_info(await server.call("INFO"))
        except Outage:
            if server.up:
                return {}  # Redis is there, and does not let us ask
            await asyncio.sleep(AGAIN_S)
        except RedisFault:
            return {}
    return {}  # it has left the cluster
