"""What the operator should know of the Redis that is used: told in the log at the start, and by /readyz.

Owns: which servers are too old, and which eviction policy is safe. Never: refuses to work.
"""

import asyncio
import logging

from app.model.errors import Outage
from app.redis_links.info import parse_info
from app.redis_links.link import Link, RedisFault

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
    """Tell what is wrong with the Redis, once it is there."""
    infos = await _infos(control)
    for problem in dict.fromkeys(problem(info) for problem in (version_problem, policy_problem) for info in infos):
        if problem:
            log.warning("%s", problem)


async def _infos(control: Link) -> list[dict[str, str]]:
    while True:
        try:
            await control.ready(60)
            return [parse_info(await server.call("INFO")) for server in control.servers()]
        except Outage:
            if control.up:
                return []  # Redis is there, and does not let us ask
            await asyncio.sleep(AGAIN_S)
        except RedisFault:
            return []
