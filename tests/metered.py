"""`jobwire`, with a note of each turn of its event loop that took long: `python -m tests.metered up ...`.

A turn counts by the CPU that the loop's thread used in it, whatever else the machine does. Each of LONG_S or more is
a line of the file that $TURNS_FILE names: CPU and wall-clock in ms. The loop never rests meanwhile, for a callback that
comes again in every turn is what measures it.
"""

import asyncio
import os
from pathlib import Path
from time import perf_counter, thread_time

from app.loop.lag import LoopLag

LONG_S = 0.01


class Metered(LoopLag):
    """The measurement of the loop's lag, and of every turn."""

    def start(self) -> None:
        super().start()
        self._loop = asyncio.get_running_loop()
        self._file = Path(os.environ["TURNS_FILE"])
        self._cpu_s, self._wall_s = thread_time(), perf_counter()
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        cpu_s, wall_s = thread_time(), perf_counter()
        if cpu_s - self._cpu_s >= LONG_S:
            with self._file.open("a") as file:
                file.write(f"{1000 * (cpu_s - self._cpu_s):.1f} {1000 * (wall_s - self._wall_s):.1f}\n")
        self._cpu_s, self._wall_s = thread_time(), perf_counter()
        self._loop.call_soon(self._turn)


if __name__ == "__main__":
    import app.backend
    from jobwire.commands import main

    app.backend.LoopLag = Metered  # type: ignore[attr-defined]  # the one place where it is made
    main()
