"""A job as docs/states.md tells it, with nothing of Redis: what the model test holds the service against.

Each verb returns the new status, or raises Refused with the code that the service must answer.
"""

from dataclasses import dataclass, field

ENDED = ("completed", "dead", "killed")
LEASED = ("delivered", "running")
DELIVERIES_MOST = 100


class Refused(Exception):
    """The call is not done, and this is the code of its refusal."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Job:
    """One job. `token` is the lease token of its latest delivery; `lapsed` whether that lease has ended meanwhile."""

    name: str
    max_retries: int
    delay: bool = False
    status: str = "pending"
    attempt: int = 0
    deliveries: int = 0
    token: str = ""
    lapsed: bool = False
    claimed: tuple[str, str] | None = None
    released: str = ""
    result: bytes | None = None
    events: list[str] = field(default_factory=lambda: ["created"])
    runs: int = 0
    allowed_runs: int = 0

    def __post_init__(self) -> None:
        self.allowed_runs = self.max_retries + 1

    def deliver(self, token: str) -> None:
        """pending -> delivered, by poll or claim."""
        self._expect("pending")
        self.token, self.lapsed = token, False
        self.deliveries += 1
        self._go("delivered", "delivered")

    def deliver_acked(self, token: str) -> None:
        """pending -> running, by a poll with ack."""
        self._expect("pending")
        self.token, self.lapsed = token, False
        self.deliveries = 0
        self.runs += 1
        self._go("running", "started")

    def ack(self, token: str) -> None:
        """delivered -> running; repeated with the lease token it changes nothing."""
        self._fence(token)
        if self.status == "running" and token:
            return
        self._expect("delivered")
        self.deliveries, self.lapsed = 0, False
        self.runs += 1
        self._go("running", "started")

    def renew(self, token: str) -> None:
        """Keepalive and progress: the lease anew, also after it lapsed."""
        self._fence(token)
        self._expect(*LEASED)
        self.lapsed = False

    def complete(self, token: str, result: bytes) -> None:
        """-> completed; repeated with the same result it changes nothing."""
        self._fence(token)
        if self.status == "completed" and self.result == result:
            return
        self._expect(*LEASED)
        self.result = result
        self._go("completed", "completed")

    def release(self, token: str, waits: bool) -> None:
        """-> pending or scheduled, without a retry; the token that released is answered again while nobody took it."""
        self._fence(token)
        if token and token == self.released and self.status in ("pending", "scheduled"):
            return
        self._expect(*LEASED)
        self.released = self.token
        self.deliveries = 0
        self.allowed_runs += self.status == "running"
        self._go("scheduled" if waits else "pending", "released")

    def fail(self, token: str, may_retry: bool) -> None:
        """-> pending or scheduled while a retry is left, else dead."""
        self._fence(token)
        self._expect(*LEASED)
        self._end_attempt(may_retry)

    def fail_and_claim(self, token: str, may_retry: bool, fresh: str) -> None:
        """Fail, and take the retry in the same step; the token that failed is answered again while that lease lives."""
        if token and (token, self.token) == self.claimed and self.status in LEASED:
            return
        self._fence(token)
        self._expect(*LEASED)
        if self.delay:
            raise Refused("invalid_request")
        failed = self.token
        self._end_attempt(may_retry)
        if self.status == "pending":
            self.deliver(fresh)
            self.claimed = (failed, fresh)

    def learn(self, token: str) -> None:
        """The lease token of a claimed retry, which only the service knows."""
        assert self.claimed is not None
        self.token, self.claimed = token, (self.claimed[0], token)

    def kill(self, token: str) -> None:
        """-> killed, from anything that is no end."""
        self._fence(token)
        if self.status in ENDED:
            raise Refused("invalid_state")
        self.result = b"killed"
        self._go("killed", "killed")

    def retry(self) -> None:
        """dead or killed -> pending."""
        self._expect("dead", "killed")
        self.max_retries = self.attempt + 1
        self.allowed_runs = self.runs + 2
        self.deliveries, self.result = 0, None
        self._go("pending", "requeued")

    def lapse(self) -> None:
        """The lease ends, and nobody has acted on it yet."""
        self.lapsed = True

    def end_lease(self) -> bool:
        """What the sweeper makes of a lease that ended; whether it did anything."""
        if self.status not in LEASED or not self.lapsed:
            return False
        if self.status == "running" or self.deliveries >= DELIVERIES_MOST:
            self._end_attempt(self.status == "running")
        else:
            self._go("pending", "delivery_timeout")
        return True

    def promote(self) -> bool:
        """scheduled -> pending; whether it was scheduled."""
        if self.status != "scheduled":
            return False
        self._go("pending", "pending")
        return True

    def _end_attempt(self, may_retry: bool) -> None:
        if not may_retry or self.attempt >= self.max_retries:
            self.result = b"dead"
            self._go("dead", "dead")
            return
        self.attempt += 1
        self.deliveries = 0
        self._go("scheduled" if self.delay else "pending", "retried")

    def _fence(self, token: str) -> None:
        if token and token != self.token:
            raise Refused("lease_lost")

    def _expect(self, *statuses: str) -> None:
        if self.status not in statuses:
            raise Refused("invalid_state")

    def _go(self, status: str, event: str) -> None:
        self.status = status
        self.events.append(event)
