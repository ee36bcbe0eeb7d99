"""The three standard descriptors, open whatever our caller closed, and what the commands say on the last of them.

A descriptor below 3 that is closed is given to whatever is opened next: the command's stderr would then be written into
the connection to the server.
"""

from __future__ import annotations

import os
import sys


def open_standard_descriptors() -> None:
    """Open /dev/null in the place of those that are closed. To be called before anything else opens something."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd < 3:
        os.set_inheritable(fd, True)
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # as Python's own, for as long as the process lives
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def notice(text: str) -> None:
    """One line of our own on standard error. Nobody need read it there."""
    try:
        os.write(2, f"jobwire: {text}\n".encode(errors="replace"))
    except OSError:
        pass
