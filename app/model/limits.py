"""Every limit of the API that is no setting: how large, how many, how long. No I/O."""

KIB = 1024
MIB = 1024 * KIB

NAME_CHARS = 200
PAYLOAD_BYTES = MIB
RETRIES_MOST = 25
TIMEOUT_S_MOST = 86_400
LIMIT_S_MOST = 604_800
URL_CHARS = 2048
CALLBACK_HEADERS_MOST = 32
CALLBACK_HEADERS_BYTES = 8 * KIB
BATCH_JOBS = 1000
BATCH_CLAIMS = 100
BATCH_BYTES = 8 * MIB
RESULT_BYTES = MIB
ERROR_BYTES = 64 * KIB
PROGRESS_BYTES = 16 * KIB
STAGES_MOST = 100
CHECKPOINT_BYTES = 256 * KIB
EVENT_BYTES = 256 * KIB
POLL_JOBS = 50
BATCH_CALLS = 1000
RETRY_JOBS = 10_000
POLL_NAMES = 50
WAIT_S_MOST = 30
PAGE_BYTES = 8 * MIB
POLLED_BYTES = 8 * MIB
EVENTS_ANSWERED = 1000
EVENTS_ANSWERED_BYTES = 4 * MIB
NESTING_MOST = 64
SEQ_MOST = 2**53
IDEMPOTENCY_MS = 86_400_000

JOB_BYTES = KIB
"""What a job is counted at beside what it holds: what Redis needs for the smallest. See lua/include/space_bytes.lua."""

TEXT_BODY_BYTES = 8 * ERROR_BYTES
"""A body with one text of 64 KiB: every character of it may have been escaped."""

IGNORED_BYTES = 64 * KIB
"""A body that has nothing to say."""

UNIT_BYTES = 64 * KIB
"""Bytes of an inflated body that are one unit more of a key's rate."""

UNIT_JOBS = 10
"""Jobs of one call, beside the first, that are one unit more."""

CALLS_SCRIPT = 100
CALLS_SCRIPT_BYTES = MIB
"""How many calls of a batch, and how many bytes of them, one script does: it holds Redis for some ms."""
