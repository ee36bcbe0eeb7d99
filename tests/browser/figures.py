"""Measures the dashboard: `python -m tests.browser.figures [JOBS] [LINES]`, a million of each unless told otherwise.

How long a space with many jobs and a job with many lines take to be usable, how long a search through the whole log
takes, and what following a log at 1000 lines a second costs: frames a second, and memory over time.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from tests.browser.chromium import Chromium, Page, find
from tests.factories import Json, Space
from tests.server import Server
from tests.valkey import Valkey

FLOOD_S = 20
BATCH = 50
LINES_PER_S = 1000

SEEN = """new Promise((done) => {{
  const look = () => ({}) ? done(performance.now()) : requestAnimationFrame(look);
  look();
}})"""
COUNT_FRAMES = "window.seen = []; (function tick(at) { seen.push(at); requestAnimationFrame(tick) })(performance.now())"
FRAMES = "(seen.length - 1) * 1000 / (seen.at(-1) - seen[0])"


def say(text: str) -> None:
    """One line of the result."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def furnish(space: Space, jobs: int, lines: int) -> Json:
    """Many jobs, and one with many lines, which is answered."""
    body = json.dumps([{"name": f"job {i}"} for i in range(1000)])
    for _ in range(jobs // 1000):
        assert space.all.post(space.jobs, content=body).status_code == 201
    job = space.job_in("running", name="long", timeoutSeconds=86_400)
    for start in range(0, lines, 10_000):
        entries = [
            f"\x1b[36mline\x1b[0m {i}, as long as lines are{' needle' * (i == 7)}" for i in range(start, start + 10_000)
        ]
        space.do(job, "logs", entries)
    return job


def usable_ms(page: Page, address: str, there: str) -> float:
    """From the start of a load to the moment when an expression is true."""
    page.js(f"location.hash = '{address}'")
    page.reload()
    return float(page.js(SEEN.format(there)))


def flood(space: Space, job: Json, until_s: float) -> None:
    """Append LINES_PER_S."""
    began_s = time.monotonic()
    sent = 0
    while time.monotonic() < until_s:
        space.do(job, "logs", [f"\x1b[36mwrote\x1b[0m row {sent + i} of \x1b[33morders\x1b[0m" for i in range(BATCH)])
        sent += BATCH
        time.sleep(max(0.0, began_s + sent / LINES_PER_S - time.monotonic()))


def measure(page: Page, space: Space, job: Json) -> None:
    """Say all figures."""
    rows = "document.querySelectorAll('.jobs tbody tr').length > 1"
    lines = "document.querySelectorAll('.line').length > 100"
    for name, address, there in (("space", f"#/spaces/{space.id}", rows), ("job", f"#/jobs/{job['id']}", lines)):
        times = [usable_ms(page, address, there) for _ in range(4)]
        say(f"{name}: usable after {', '.join(f'{ms:.0f}' for ms in times)} ms")
    began_s = time.monotonic()
    page.fill(".toolbar input", "needle")
    page.until("document.querySelector('.end').innerText.includes('begins')", 120)
    say(f"search through the whole log: {time.monotonic() - began_s:.1f} s")
    fast = space.job_in("running", name="fast", timeoutSeconds=86_400)
    page.js(f"location.hash = '#/jobs/{fast['id']}'")
    writer = threading.Thread(target=flood, args=(space, fast, time.monotonic() + FLOOD_S + 3))
    writer.start()
    page.until("document.querySelectorAll('.line').length > 500", 30)
    page.js(COUNT_FRAMES)
    for _ in range(4):
        time.sleep(FLOOD_S / 4)
        page.collect_garbage()
        now = page.metrics()
        say(f"{LINES_PER_S} lines/s: heap {now['JSHeapUsedSize'] / 1e6:.1f} MB, {now['Nodes']:.0f} nodes")
    say(f"{LINES_PER_S} lines/s: {page.js(FRAMES):.0f} frames/s")
    writer.join()


def main(jobs: int = 1_000_000, lines: int = 1_000_000) -> None:
    """Furnish a server of its own, and measure."""
    program = find()
    assert program, "No Chromium on this machine"
    with Valkey() as valkey, Server(valkey.url) as server, Chromium(program) as chromium:
        space = Space(server, "large")
        job = furnish(space, jobs, lines)
        page = chromium.page()
        page.goto(server.url)
        page.fill(".sign-in input[type=password]", server.root_key)
        page.press("Enter")
        page.until("document.querySelector('.card')")
        measure(page, space, job)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
