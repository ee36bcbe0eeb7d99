"""The only place that spells a key or a channel.

Keys of a space share the hash tag {S}, log keys of a job share {J}: see docs/redis.md, which promises this layout to
other programs. Lua scripts build the keys of a space from `Keys.space`, whose last word they cut off.
"""


def moving(key: str) -> str:
    """A key that never exists, in the slot of one that has a hash tag: jw:{S}:moving, jw:{J}:moving.

    Every script that makes names of keys itself has it in KEYS. While a slot is moved key by key, Redis looks only for
    the keys of KEYS before it runs a script: with one of them missing it says TRYAGAIN and runs nothing. Without, a
    script would fail in its middle, or make keys anew that have not come yet.
    https://valkey.io/topics/cluster-spec/#multi-key-operations
    """
    return f"{key[: key.index('}') + 1]}:moving"


class Keys:
    """Names under one prefix. S is a space id, J a job id, both ULIDs of 26 characters."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.spaces = f"{prefix}:spaces"
        self.deleting = f"{prefix}:deleting"
        self.missing = f"{prefix}:missing"
        self.due = f"{prefix}:due"
        self.due_callbacks = f"{prefix}:due:callbacks"
        self.hooks = f"{prefix}:hooks"
        self.probe = f"{prefix}:probe"
        self.ready_probe = f"{prefix}:probe:ready"
        self.sweeper = f"{prefix}:sweeper"
        self.outage = f"{prefix}:outage"
        self.pusher = f"{prefix}:pusher"
        self.epoch = f"{prefix}:epoch"
        self.secret = f"{prefix}:secret"

    def outage_of(self, tag: str) -> str:
        """Hash: as `outage`, of the server of a cluster on which the tag lies; `outage` itself without one."""
        return f"{self.prefix}:{{{tag}}}:outage" if tag else self.outage

    def probe_of(self, tag: str) -> str:
        """Channel: as `probe`, of the server of a cluster on which the tag lies."""
        return f"{self.prefix}:{{{tag}}}:probe"

    def due_of(self, tag: str) -> str:
        """Zset: as `due`, likewise."""
        return f"{self.prefix}:{{{tag}}}:due" if tag else self.due

    def due_callbacks_of(self, tag: str) -> str:
        """Zset: as `due_callbacks`, likewise."""
        return f"{self.prefix}:{{{tag}}}:due:callbacks" if tag else self.due_callbacks

    def sweeper_of(self, tag: str) -> str:
        """Hash: `leader`, `until`, and every candidate, when it was last seen; without a tag `sweeper`, a string."""
        return f"{self.prefix}:{{{tag}}}:sweeper" if tag else self.sweeper

    def pusher_of(self, tag: str) -> str:
        """Hash: as `sweeper_of`; without a tag `pusher`, a string."""
        return f"{self.prefix}:{{{tag}}}:pusher" if tag else self.pusher

    def mending_of(self, tag: str) -> str:
        """String: how far the sweeper has looked for lost halves on the server on which the tag lies."""
        return f"{self.prefix}:{{{tag}}}:mending"

    def ready_probe_of(self, tag: str) -> str:
        """String with PX: as `ready_probe`, of the server on which the tag lies; `ready_probe` itself without one."""
        return f"{self.prefix}:{{{tag}}}:probe:ready" if tag else self.ready_probe

    def token(self, digest: str) -> str:
        """Hash: one key's space, scopes and dates, by the SHA-256 of the key."""
        return f"{self.prefix}:token:{digest}"

    def ticket(self, digest: str) -> str:
        """String with PX: an encrypted key, by the SHA-256 of the ticket that is exchanged for it."""
        return f"{self.prefix}:ticket:{digest}"

    def rate(self, digest: str) -> str:
        """Hash: the units of work of one key in this second and the one before."""
        return f"{self.prefix}:rate:{digest}"

    def space(self, space: str) -> str:
        """Hash: the space's name, dates and counters."""
        return f"{self.prefix}:{{{space}}}:space"

    def tokens(self, space: str) -> str:
        """Hash: token id -> digest of the key."""
        return f"{self.prefix}:{{{space}}}:tokens"

    def idem(self, space: str, key: str) -> str:
        """String: what a create under this Idempotency-Key did."""
        return f"{self.prefix}:{{{space}}}:idem:{key}"

    def batch(self, space: str, first: str) -> str:
        """Hash: key and left, the Idempotency-Key of a create of several jobs, and how many of them there are still."""
        return f"{self.prefix}:{{{space}}}:batch:{first}"

    def job(self, space: str, job: str) -> str:
        """Hash: one job, a field per attribute."""
        return f"{self.prefix}:{{{space}}}:job:{job}"

    def events(self, space: str, job: str) -> str:
        """List: one event an item, oldest first."""
        return f"{self.prefix}:{{{space}}}:job:{job}:events"

    def lease(self, space: str, job: str) -> str:
        """String with PX: the lease token."""
        return f"{self.prefix}:{{{space}}}:lease:{job}"

    def deadlines(self, space: str) -> str:
        """Zset: job by the end of its lease, ms."""
        return f"{self.prefix}:{{{space}}}:deadlines"

    def scheduled(self, space: str) -> str:
        """Zset: job by the time it becomes pending, ms."""
        return f"{self.prefix}:{{{space}}}:scheduled"

    def ended(self, space: str) -> str:
        """Zset: ended job by the time of its end, ms."""
        return f"{self.prefix}:{{{space}}}:ended"

    def logs(self, space: str) -> str:
        """Zset: jobs with a log by the time of its newest lines, ms, if the space has a bound."""
        return f"{self.prefix}:{{{space}}}:logs"

    def log_bytes(self, space: str) -> str:
        """Hash: job -> bytes that its log holds, and their total, if the space has a bound."""
        return f"{self.prefix}:{{{space}}}:log_bytes"

    def log_work(self, space: str) -> str:
        """Zset: job whose log is to be looked at (it ended, runs again, or is gone), by when, ms."""
        return f"{self.prefix}:{{{space}}}:log_work"

    def callbacks(self, space: str) -> str:
        """Zset: ended job whose callback has still to be sent, by the moment of the next try, ms."""
        return f"{self.prefix}:{{{space}}}:callbacks"

    def ends(self, space: str, span: str) -> str:
        """Hash: ends of an hour or of ten minutes, by outcome, duration and name."""
        return f"{self.prefix}:{{{space}}}:ends:{span}"

    def pending(self, space: str, name: str = "") -> str:
        """Zset: pending job by queue counter; of one name, or of all."""
        return f"{self.prefix}:{{{space}}}:pending:{name}" if name else f"{self.prefix}:{{{space}}}:pending"

    def jobs(self, space: str, status: str = "") -> str:
        """Zset: job by creation counter; of one status, or of all."""
        return f"{self.prefix}:{{{space}}}:jobs:{status}" if status else f"{self.prefix}:{{{space}}}:jobs"

    def feed(self, space: str) -> str:
        """Stream: the newest events of the space, id <seq>-0."""
        return f"{self.prefix}:{{{space}}}:feed"

    def live(self, space: str, job: str = "") -> str:
        """Channel: events and progress of one job, or of the whole space."""
        return f"{self.prefix}:{{{space}}}:live:{job}" if job else f"{self.prefix}:{{{space}}}:live"

    def wake(self, space: str) -> str:
        """Channel: the name of a job that became pending."""
        return f"{self.prefix}:{{{space}}}:wake"

    def log(self, job: str) -> str:
        """Stream: record batches, id <seq of the batch's last line>-0."""
        return f"{self.prefix}:{{{job}}}:log"

    def log_blocks(self, job: str) -> str:
        """List: sealed blocks, oldest first."""
        return f"{self.prefix}:{{{job}}}:log:blocks"

    def log_meta(self, job: str) -> str:
        """Hash: lastSeq, firstSeq, sealed, bytes, hot, the index of the blocks, and the Idempotency-Keys of batches."""
        return f"{self.prefix}:{{{job}}}:log:meta"

    def log_gone(self, job: str) -> str:
        """String with EX: the log was deleted a moment ago."""
        return f"{self.prefix}:{{{job}}}:log:gone"

    def log_live(self, job: str) -> str:
        """Channel: `first last ms` of each append, and its lines while they are few."""
        return f"{self.prefix}:{{{job}}}:log:live"
