"""Every knob of the server, in one frozen struct.

A setting is read once, at the start, from one environment variable. A value that cannot be used stops the start with
a sentence that names the variable: nothing is clamped, nothing is guessed. `docs/settings.md` lists the same table.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from ipaddress import ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

ROOT_KEY_CHARS = 16
ROOT_KEY_RULE = f"it has at least {ROOT_KEY_CHARS} characters, all of ASCII, and no blanks."

DELAYS_S = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds from one try of a callback to the next; the first is from the job's end. As many are the tries."""

DELAY_MOST_S = 86_400
"""The longest that a schedule of callbacks, or a receiver's Retry-After, may make us wait."""

NUMBER_MOST = 2**53
"""Up to here a whole number is the same in Redis's scripts, too."""


class BadSetting(ValueError):
    """A variable holds a value that cannot be used; the text says which and why."""


def knob(variable: str, default: Any, meaning: str, *, least: float | None = None, most: float | None = None) -> Any:
    """One setting: its variable, its default, one sentence (with the unit), and the range of a number."""
    return field(default=default, metadata={"variable": variable, "meaning": meaning, "least": least, "most": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can change. The metadata of each field is its documentation."""

    redis_url: str = knob(
        "REDIS_URL",
        "",
        "Redis to use: redis://, rediss://, unix://, redis+sentinel://, redis+cluster://; or rediss+ for TLS.",
    )
    prefix: str = knob("JOBWIRE_PREFIX", "jw", "First part of every key and channel.")
    root_key: str = knob(
        "JOBWIRE_ROOT_KEY", "", "The key that manages spaces and keys, at least 16 characters; without it nobody can."
    )
    public_url: str = knob(
        "JOBWIRE_PUBLIC_URL",
        "",
        "Address at which clients reach the server: for realtimeUrl (else the Host header), and an allowed origin.",
    )
    origins: tuple[str, ...] = knob(
        "JOBWIRE_ORIGINS", ("*",), "Origins of web pages that may call the API, comma-separated."
    )
    rate: int = knob(
        "JOBWIRE_RATE",
        1000,
        "Units of work that a key may spend per second, over all processes; 0 = no limit.",
        least=0,
    )
    retention_s: int = knob(
        "JOBWIRE_RETENTION",
        604_800,
        "Seconds from a job's end until it is deleted with all its data.",
        least=1,
        most=3_153_600_000,
    )
    redis_timeout_s: float = knob(
        "JOBWIRE_REDIS_TIMEOUT",
        3.0,
        "Seconds without an answer after which Redis counts as stalled.",
        least=0.1,
        most=3600,
    )
    sharded_pubsub: bool = knob(
        "JOBWIRE_SHARDED_PUBSUB",
        False,
        "1 uses sharded pub/sub (SSUBSCRIBE); set the same in all processes. On a cluster it is always used.",
    )
    appendfsync: str = knob(
        "JOBWIRE_APPENDFSYNC", "everysec", "When the embedded Valkey flushes to disk: always or everysec."
    )
    maxmemory_bytes: int = knob(
        "JOBWIRE_MAXMEMORY", 0, "Memory limit of the embedded Valkey in bytes; 0 = none.", least=0
    )
    mask_callback_headers: bool = knob(
        "JOBWIRE_MASK_CALLBACK_HEADERS", False, "1 masks callback header values for keys without jobs:create."
    )
    callback_allow: tuple[str, ...] = knob(
        "JOBWIRE_CALLBACK_ALLOW", (), "Networks that callbacks may reach besides the public ones, comma-separated."
    )
    callback_timeout_s: float = knob(
        "JOBWIRE_CALLBACK_TIMEOUT",
        15.0,
        "Seconds that a try of a callback may take in all; at most a third of them to connect.",
        least=0.1,
        most=300,
    )
    callback_schedule: tuple[str, ...] = knob(
        "JOBWIRE_CALLBACK_SCHEDULE",
        tuple(str(delay) for delay in DELAYS_S),
        "Seconds before each try of a callback, comma-separated, one for each try; the first from the job's end.",
    )
    callback_connections: int = knob(
        "JOBWIRE_CALLBACK_CONNECTIONS", 512, "Callbacks and pushes that one process sends at the same time.", least=1
    )
    log: str = knob("JOBWIRE_LOG", "text", "Form of the service's own log: text, or json with a line for each request.")
    metrics_folder: str = knob(
        "JOBWIRE_METRICS_FOLDER", "", "Folder in which the processes of one machine add up their metrics."
    )
    viewer_timeout_s: float = knob(
        "JOBWIRE_VIEWER_TIMEOUT",
        30.0,
        "Seconds after which a viewer that accepts not one byte of what is to be sent is closed with 1013.",
        least=1,
        most=3600,
    )
    anonymous_progress: bool = knob(
        "JOBWIRE_ANONYMOUS_PROGRESS", True, "0 forbids watching a job's progress without a key."
    )
    anonymous_viewers: int = knob(
        "JOBWIRE_ANONYMOUS_VIEWERS",
        10_000,
        "Viewers without a key at the same time, for each process; one more gets 503.",
        least=0,
    )
    inflight_bytes: int = knob(
        "JOBWIRE_INFLIGHT_BYTES",
        167_772_160,
        "Bytes of bodies and answers in flight in a process, of all keys together.",
        least=83_886_080,
    )
    key_inflight_bytes: int = knob(
        "JOBWIRE_KEY_INFLIGHT_BYTES",
        83_886_080,
        "The same for each key; in addition, no key gets more than it leaves free for all others.",
        least=41_943_040,
    )
    log_lines: int = knob("JOBWIRE_LOG_LINES", 1_000_000, "Log lines kept per job; the oldest go first.", least=1000)
    log_bytes: int = knob(
        "JOBWIRE_LOG_BYTES",
        2_147_483_648,
        "Log bytes kept per job, before compression; the oldest lines go first.",
        least=1_048_576,
    )
    space_bytes: int = knob(
        "JOBWIRE_SPACE_BYTES", 0, "Bytes that the jobs and events of a space may take; 0 = no limit.", least=0
    )
    space_log_bytes: int = knob(
        "JOBWIRE_SPACE_LOG_BYTES",
        0,
        "Log bytes kept per space, before compression; the oldest lines go first; 0 = no limit.",
        least=0,
    )
    log_hot_lines: int = knob(
        "JOBWIRE_LOG_HOT_LINES",
        10_000,
        "Newest log lines per job that stay in the Redis stream, not sealed.",
        least=100,
    )

    @property
    def callback_delays_s(self) -> tuple[float, ...]:
        """The seconds of `callback_schedule`."""
        return tuple(float(delay) for delay in self.callback_schedule)

    def __post_init__(self) -> None:
        for knob_ in fields(self):
            check(knob_, getattr(self, knob_.name))
        if self.log not in ("text", "json"):
            raise BadSetting(f"JOBWIRE_LOG is text or json, not {self.log!r}.")
        if self.appendfsync not in ("always", "everysec"):
            raise BadSetting(f"JOBWIRE_APPENDFSYNC is always or everysec, not {self.appendfsync!r}.")
        if not self.prefix or not self.prefix.isprintable() or any(c in self.prefix for c in "{}* ?[]\\"):
            raise BadSetting("JOBWIRE_PREFIX is a word without blanks, braces, brackets, backslashes, * and ?.")
        if self.root_key and not is_root_key(self.root_key):
            raise BadSetting(f"JOBWIRE_ROOT_KEY is no root key: {ROOT_KEY_RULE}")
        self._check_addresses()
        self._check_callbacks()

    def _check_addresses(self) -> None:
        url = split_url(self.public_url)
        if self.public_url and (url is None or url.scheme not in ("http", "https") or url.query or url.fragment):
            raise BadSetting(f"JOBWIRE_PUBLIC_URL is like https://jobs.example.org, not {self.public_url!r}.")
        for origin in self.origins:
            if origin not in ("*", "null") and not is_origin(origin):
                raise BadSetting(f"JOBWIRE_ORIGINS is * or a list of origins as https://example.org, not {origin!r}.")

    def _check_callbacks(self) -> None:
        try:
            _ = [ip_network(network) for network in self.callback_allow]
        except ValueError as error:
            raise BadSetting(f"JOBWIRE_CALLBACK_ALLOW is a list of networks as 10.0.0.0/8: {error}.") from None
        try:
            delays_s = self.callback_delays_s
        except ValueError:
            delays_s = ()
        if not delays_s or not all(0 <= delay_s <= DELAY_MOST_S for delay_s in delays_s):
            raise BadSetting(f"JOBWIRE_CALLBACK_SCHEDULE is a list of numbers from 0 to {DELAY_MOST_S}.")


def split_url(url: str) -> SplitResult | None:
    """The parts of a url with a host; None for what is no such url."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.hostname and url.isprintable() and " " not in url else None


def is_origin(text: str) -> bool:
    """Whether it is what browsers send as Origin: a scheme, a host and perhaps a port, nothing behind."""
    url = split_url(text)
    return url is not None and f"{url.scheme}://{url.netloc}".lower() == text.lower()


def is_root_key(text: str) -> bool:
    """Whether it is long enough not to be guessed, and can be sent in a header."""
    return len(text) >= ROOT_KEY_CHARS and text.isascii() and text.isprintable() and " " not in text


def check(knob_: "Field[Any]", value: Any) -> None:
    """Raise BadSetting unless the value lies within the range of its field."""
    least, most = knob_.metadata["least"], knob_.metadata["most"]
    if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= NUMBER_MOST):
        raise BadSetting(f"{knob_.metadata['variable']} is no number that can be used: {value}.")
    if (least is not None and value < least) or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise BadSetting(f"{knob_.metadata['variable']} is {bounds}, not {value}.")


def parse_setting(knob_: "Field[Any]", text: str) -> Any:
    """The value that a variable's text stands for; its type is that of the default."""
    variable, default = knob_.metadata["variable"], knob_.default
    kind: type = type(default)
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise BadSetting(f"{variable} is not in UTF-8.")
    try:
        if isinstance(default, bool):
            return {"0": False, "false": False, "1": True, "true": True}[text.lower()]
        if isinstance(default, tuple):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return kind(text)
    except (KeyError, ValueError):
        wanted = {bool: "0 or 1", int: "a whole number", float: "a number"}[kind]
        raise BadSetting(f"{variable} is {wanted}, not {text!r}.") from None


def variables() -> list[tuple[str, str, Any, str]]:
    """Each setting as (field, variable, default, meaning), in the order of the struct."""
    return [
        (knob_.name, knob_.metadata["variable"], knob_.default, knob_.metadata["meaning"]) for knob_ in fields(Settings)
    ]


def read(environ: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
    """The settings of this environment; `overrides` (field names) win. Raises BadSetting."""
    values = {
        knob_.name: parse_setting(knob_, environ[knob_.metadata["variable"]])
        for knob_ in fields(Settings)
        if environ.get(knob_.metadata["variable"], "") != ""
    }
    return Settings(**(values | overrides))
