"""The exit codes of the commands, in one place; `docs/cli.md` explains them.

Numbers from 64 on follow sysexits.h, those from 124 on timeout(1) and a shell. `run` exits with its command's own
code, whatever it is.
"""

from __future__ import annotations

from .errors import AccessDenied, JobwireError, NotConfigured, NotFound, Outage, Refused

OK = 0
JOB_FAILED = 1
USAGE = 2
REFUSED = 65
NO_SUCH_JOB = 66
UNAVAILABLE = 69
LEASE_LOST = 75
NO_PERMISSION = 77
NOT_CONFIGURED = 78
TIMED_OUT = 124
NOT_EXECUTABLE = 126
NOT_FOUND = 127
INTERRUPTED = 130
KILLED = 143


def code_of(error: JobwireError) -> int:
    """The exit code that tells a script what kind of failure it was."""
    kinds: tuple[tuple[type[JobwireError], int], ...] = (
        (NotConfigured, NOT_CONFIGURED),
        (Outage, UNAVAILABLE),
        (AccessDenied, NO_PERMISSION),
        (NotFound, NO_SUCH_JOB),
        (Refused, REFUSED),
    )
    return next((code for kind, code in kinds if isinstance(error, kind)), REFUSED)


def code_of_process(returncode: int) -> int:
    """A process's return code as a shell shows it: 128 + the signal that ended it."""
    return returncode if returncode >= 0 else 128 - returncode
