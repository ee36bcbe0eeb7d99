"""Why a Redis cannot be used, as a sentence for the operator: in the log, and in the `problems` of /readyz.

Always: there is a sentence, whatever went wrong. Never: it has a user or a password of REDIS_URL; a server tells the
arguments of a command that it does not know.
"""

import os
import re
from collections.abc import Hashable, Mapping, Sequence

from redis.exceptions import AuthenticationError

from app.model.errors import Outage, OutcomeUnknown

CLOSED = "The connection was closed before an answer came."
SILENT = "No answer came in time."
MAY_WANT_TLS = "It may want TLS: then write rediss:// for redis://, or rediss+cluster:// for redis+cluster://."
MAY_HAVE_NO_TLS = "It may speak no TLS."

NO_NODE = "This server is no node of a cluster: write redis:// in REDIS_URL (with TLS rediss://)."
NODE_OF_CLUSTER = (
    "This server is a node of a cluster: write redis+cluster:// in REDIS_URL (with TLS rediss+cluster://)."
)

REPLIES = {
    "Authentication required": "Redis wants a password, and REDIS_URL has none.",
    "invalid username-password pair": "It does not accept the user and the password in REDIS_URL.",
    "without any password configured": "It has no password, and REDIS_URL has one.",
    "cluster support disabled": NO_NODE,
}
"""Parts of replies, and what they say of REDIS_URL."""

CONNECTING = re.compile(r"Error (-?\d+) connecting to \S+ (.*)", re.DOTALL)
"""What the redis package says where the system refused a connection."""

USER = re.compile(r"^User \S+")
ARGUMENTS = re.compile(r",? with args beginning with.*", re.DOTALL)

NAMED = 3
"""Servers that a sentence names; of others it has the number."""


def reason(error: BaseException, *, by_tls: bool = False) -> str:
    """The sentence for what went wrong with a connection that speaks TLS, or does not."""
    if isinstance(error, OutcomeUnknown):
        return CLOSED
    if isinstance(error, Outage):
        return error.why
    text = ARGUMENTS.sub("", str(error)).strip()
    for part, sentence in REPLIES.items():
        if part in text:
            return sentence
    if isinstance(error, AuthenticationError):
        return "It does not accept the login in REDIS_URL."
    if isinstance(error, TimeoutError) and not text:
        return f"{SILENT} {MAY_HAVE_NO_TLS}" if by_tls else SILENT
    if "closed by server" in text or "reset by peer" in text:
        return CLOSED if by_tls else f"{CLOSED} {MAY_WANT_TLS}"
    if refused := CONNECTING.fullmatch(text):
        number = int(refused[1])
        text = os.strerror(number) if number > 0 and "SSL" not in refused[2] else refused[2]
    return sentence_of(USER.sub("The user of REDIS_URL", text) or type(error).__name__)


def sentence_of(text: str) -> str:
    """The text with a capital at its beginning and a full stop at its end."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def by_reason(servers: Mapping[str, Sequence[Hashable]]) -> list[str]:
    """A sentence for each reason, which names the servers that it is true of."""
    return [f"{_some(found)}: {why}" for why, found in servers.items()]


def _some(servers: Sequence[Hashable]) -> str:
    more = len(servers) - NAMED
    return ", ".join(map(str, servers[:NAMED])) + (f" and {more} more" if more > 0 else "")
