"""Takes the pictures of docs/screenshots: `python -m tests.browser.pictures docs/screenshots`.

A space with a story is made on a server of its own, then every page is opened, in the light and in the dark, on a desk
and on a phone.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.browser.chromium import Chromium, Page, find
from tests.factories import Json, Space
from tests.server import Server
from tests.valkey import Valkey

ERROR = """Traceback (most recent call last):
  File "import.py", line 88, in load
    rows = decode(page)
ValueError: page 118: unexpected column "vat_id\""""
LINES = 100_000
ERROR_AT = 61_234
NAMES = ("build web", "resize images", "send invoices", "reindex search", "render video", "backup db")
BUSY_S = 55


def line(number: int) -> Json:
    """A line of the import's log."""
    if number == ERROR_AT:
        where = {"page": 118, "table": "orders", "traceId": 9007199254740993123}
        said = 'page 118: unexpected column "vat_id" <script>alert(1)</script>'
        return {
            "message": f"\x1b[1;31mValueError\x1b[0m: {said}",
            "level": "error",
            "source": "import",
            "metadata": where,
        }
    if number % 1000 == 500:
        slow = f"\x1b[33mslow page\x1b[0m {number // 192}: took \x1b[1m{random.randint(900, 4000)} ms\x1b[0m"
        return {"message": slow, "level": "warn", "source": "import"}
    if number % 50 == 7:
        return {"message": f"GET /api/orders?page={number // 192} -> \x1b[32m200\x1b[0m", "level": "debug"}
    verb = random.choice(("fetched", "decoded", "wrote", "committed", "cached"))
    return {"message": f"\x1b[36m{verb}\x1b[0m row {number} of table \x1b[38;5;208morders\x1b[0m"}


def failed_import(space: Space) -> Json:
    """A job that died on its second attempt, with a long log."""
    job = space.create(name="nightly import", claim=True, maxRetries=1, payload={"day": "2026-11-20", "tables": 3})
    space.do(job, "ack")
    space.do(job, "checkpoint", {"page": 117})
    space.do(job, "fail", {"error": ERROR})
    space.do(job, "claim")
    space.do(job, "ack")
    stages = {
        "customers": {"percent": 100},
        "orders": {"percent": 61, "message": "page 118"},
        "invoices": {"percent": 0},
    }
    space.do(job, "progress", {"percent": 61.5, "message": "orders, page 118 of 192", "subProgress": stages})
    for start in range(0, LINES, 5000):
        space.do(job, "logs", [line(number) for number in range(start, start + 5000)])
    space.do(job, "fail", {"error": ERROR})
    return job


def busy(space: Space, until_s: float) -> None:
    """Jobs come and go."""
    while time.monotonic() < until_s:
        job = space.create(name=random.choice(NAMES), claim=True)
        space.do(job, "ack")
        fate = random.random()
        if fate < 0.85:
            space.do(job, "complete", {"ok": True})
        elif fate < 0.9:
            space.do(job, "fail", {"error": "connection refused: db-2:5432", "retry": False})
        else:
            space.do(job, "progress", {"percent": random.randint(5, 95), "message": "page 12 of 40"})
        time.sleep(random.expovariate(6))


def open_page(page: Page, space: Space, address: str, there: str) -> None:
    """Go to an address, and wait until an expression is true."""
    page.js(f"location.hash = '{address}'")
    page.until(there, within_s=30)


def pictures(page: Page, space: Space, job: Json) -> Iterator[str]:
    """Open one page of the dashboard after the other; each name is that of a picture to be taken now."""
    lines = "document.querySelectorAll('.line').length > 20"
    yield "sign-in"
    page.fill(".sign-in input[type=password]", space.server.root_key)
    page.press("Enter")
    page.until("document.querySelector('.card')")
    yield "spaces"
    open_page(page, space, f"#/spaces/{space.id}", "document.querySelectorAll('.jobs tbody tr').length > 10")
    time.sleep(BUSY_S)
    yield "space"
    open_page(page, space, f"#/spaces/{space.id}/keys", "document.querySelector('.keys tbody tr')")
    yield "keys"
    open_page(page, space, f"#/jobs/{job['id']}/{ERROR_AT + 1}", "document.querySelector('.detail .json')")
    page.until(f"seen('.toolbar .place') === '{LINES:,} lines'")
    yield "job"
    page.js("document.scrollingElement.scrollTop = 0")
    yield "about"
    page.js("document.querySelector('.log').scrollIntoView()")
    yield "log"
    page.press("Escape")
    page.fill(".toolbar input", "slow page")
    page.until("document.querySelector('.end').innerText.includes('begins') && document.querySelector('mark')", 30)
    page.until(lines)
    yield "search"


LOOKS = {
    "desk-light": {"width": 1280, "height": 800},
    "desk-dark": {"width": 1280, "height": 800, "dark": True},
    "phone-light": {"width": 390, "height": 780, "phone": True},
    "phone-dark": {"width": 390, "height": 780, "phone": True, "dark": True},
}
KEPT = {
    "desk-light": {"sign-in", "spaces", "space", "keys", "search"},
    "desk-dark": {"space", "job"},
    "phone-light": {"space", "log"},
    "phone-dark": {"about"},
}


def main(folder: Path) -> None:
    """Take all pictures that are kept."""
    program = find()
    assert program, "No Chromium on this machine"
    folder.mkdir(parents=True, exist_ok=True)
    with Valkey() as valkey, Server(valkey.url) as server, Chromium(program) as chromium:
        space = Space(server, "shop")
        job = failed_import(space)
        for look, form in LOOKS.items():
            worker = threading.Thread(target=busy, args=(space, time.monotonic() + BUSY_S + 5))
            worker.start()
            page = chromium.page(**form)  # type: ignore[arg-type]  # width, height, dark and phone, as they come
            page.goto(server.url)
            page.until("document.querySelector('.sign-in input')")
            for name in pictures(page, space, job):
                if name in KEPT[look]:
                    page.screenshot(folder / f"{look}-{name}.png")
            worker.join()
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
