"""Which commands name a job, as Valkey itself notes them.

Its log of large requests, set to note requests of every size, has each command of a client once, and not what scripts
call: https://valkey.io/commands/commandlog-get/

Owns: what counts as a read for the sake of viewers: every command of any process that names the job, but for these:
the POST of an event (one script), subscribing, and the looks at the store which every process takes 40 times a minute
at every job that is watched, however many watch it; those are counted apart.
"""

from collections import Counter
from types import TracebackType
from typing import Any, Self

import redis

from app.redis_links.scripts import SCRIPTS

EVENT = "job_event"
SUBSCRIPTIONS = frozenset({"SUBSCRIBE", "UNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE"})
LOOKS = ((b"eventSeq", b"progressAt"), (b"lastSeq",))
"""What the looks ask for: app/streams/history.py, `read_standings` and `read_newest_lines`."""

NOTES_MOST = 100_000
_NAMES = {script.sha.encode(): script.name for script in SCRIPTS.values()}


class JobReads:
    """Counts between `with` and its end. `reads` are by script or command, `looks` in all."""

    def __init__(self, client: redis.Redis, job: str) -> None:
        self._client: Any = client
        self._job = job.encode()
        self._settings: dict[str, Any] = {
            "commandlog-request-larger-than": 1,
            "commandlog-large-request-max-len": NOTES_MOST,
        }
        self.reads: Counter[str] = Counter()
        self.looks = 0

    def __enter__(self) -> Self:
        before = {name: self._client.config_get(name)[name] for name in self._settings}
        for name, value in self._settings.items():
            self._client.config_set(name, value)
        self._client.execute_command("COMMANDLOG", "RESET", "large-request")
        self._settings = before
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        notes = self._client.execute_command("COMMANDLOG", "GET", NOTES_MOST, "large-request")
        for name, value in self._settings.items():
            self._client.config_set(name, value)
        for words in (note[3] for note in notes):
            self._count(words)

    def _count(self, words: list[bytes]) -> None:
        if not any(self._job in word for word in words):
            return
        name = words[0].decode().upper()
        name = _NAMES.get(words[1], "a script") if name == "EVALSHA" else name
        if tuple(words[2:]) in LOOKS:
            self.looks += 1
        elif name != EVENT and name not in SUBSCRIPTIONS:
            self.reads[name] += 1
