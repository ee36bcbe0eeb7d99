"""Every page in both themes, as axe-core judges it at WCAG 2.2 AA."""

import os
from collections.abc import Iterator

import pytest

from tests.browser import axe
from tests.browser.chromium import Chromium, Page
from tests.browser.conftest import SignedIn
from tests.factories import NO_JOB, Json, Space

pytestmark = pytest.mark.valkey_only("the browser is what is tested")

LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")
ESC = "\x1b"
LINES = [
    *({"message": f"{level}: https://docs.example/{level}", "level": level, "source": "db"} for level in LEVELS),
    *(f"{ESC}[{code}mcolour {code}{ESC}[0m" for code in (*range(30, 38), *range(90, 98))),
    *(f"{ESC}[{code}mground {code}{ESC}[0m" for code in (*range(40, 48), *range(100, 108), "2;31", "1;34", "7;33")),
    f"{ESC}[38;5;17mblue of a cube{ESC}[0m {ESC}[38;2;250;250;250mwhite{ESC}[0m {ESC}[48;5;226mon yellow{ESC}[0m",
    '{"a": [1, "b", null]}',
]


@pytest.fixture(autouse=True)
def there() -> None:
    """axe-core, or the reason why the tests do not run."""
    if not axe.PATH.exists():
        why = f"No axe-core at {axe.PATH}: npm install --prefix .venv/axe axe-core"
        if os.environ.get("JOBWIRE_TESTS_MAY_SKIP") == "0":
            pytest.fail(why)
        pytest.skip(why)


@pytest.fixture(params=[False, True], ids=["light", "dark"])
def dark(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desk", "phone"])
def size(request: pytest.FixtureRequest) -> dict[str, int]:
    width, height = request.param
    return {"width": width, "height": height}


def failed(space: Space) -> Json:
    """A job with something in every section."""
    fields = {"payload": {"a": 1, "b": "x", "c": None}, "callbackUrl": "http://hook.invalid/x"}
    job = space.create(name="import", claim=True, maxRetries=1, **fields)
    space.do(job, "ack")
    space.do(job, "checkpoint", {"row": 7})
    stages = {"read": {"percent": 100}, "write": {"percent": 9, "message": "rows"}}
    space.do(job, "progress", {"percent": 40, "message": "rows", "subProgress": stages})
    space.do(job, "fail", {"error": "Traceback:\n  x\nValueError: no"})
    space.do(job, "claim")
    space.do(job, "logs", LINES)
    space.do(job, "fail", {"error": "Traceback:\n  x\nValueError: no"})
    return job


def test_signing_in(chromium: Chromium, space: Space, dark: bool, size: dict[str, int]) -> None:
    page = chromium.page(*size.values(), dark=dark)
    page.goto(space.server.url)
    page.fill(".sign-in input[type=password]", "emit_wrong")
    page.press("Enter")
    page.until("seen('.problem')")
    assert axe.violations(page) == []
    page.close()


def test_spaces_jobs_and_keys(signed_in: SignedIn, space: Space, dark: bool, size: dict[str, int]) -> None:
    job = failed(space)
    for status in ("pending", "delivered", "running", "completed", "killed", "scheduled"):
        space.job_in(status)
    page = signed_in("#/", **size, dark=dark)
    pages = {
        "#/": ".card",
        f"#/spaces/{space.id}": ".jobs tbody tr",
        f"#/spaces/{space.id}?status=dead": ".jobs tbody tr",
        f"#/spaces/{space.id}/keys": ".keys tbody tr",
        f"#/spaces/{space.id}/settings": ".part",
        f"#/jobs/{job['id']}": ".line",
        f"#/jobs/{job['id']}/2": ".line.selected",
        f"#/jobs/{job['id']}?q=nothing": ".complaint .error-head",
        "#/nonsense": ".lost",
    }
    for address, shown in pages.items():
        page.js(f"location.hash = '{address}'")
        page.until(f"document.querySelector('{shown}')?.checkVisibility()")
        opened(page)
        assert axe.violations(page) == [], address
    page.js(f"location.hash = '#/jobs/{NO_JOB}'")
    page.until("seen('.lost').includes('job')")
    assert axe.violations(page) == []
    page.complaints.clear()


def opened(page: Page) -> None:
    """Open whatever can be opened."""
    page.js("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    page.js("document.querySelectorAll('.expand').forEach((each) => each.click())")


@pytest.mark.parametrize("where", ["spaces", "space", "keys", "job"])
def test_dialogs(signed_in: SignedIn, space: Space, dark: bool, where: str) -> None:
    job = space.job_in("running")
    address = {"spaces": "#/", "space": f"#/spaces/{space.id}", "keys": f"#/spaces/{space.id}/keys"}
    page = signed_in(address.get(where, f"#/jobs/{job['id']}"), dark=dark)
    page.until("document.querySelector('.card, .jobs tbody tr, .keys tbody tr, .badge[data-status=running]')")
    for key in ("x" if where == "job" else "c", "?"):
        page.press(key)
        page.until("document.querySelector('dialog[open]')")
        assert axe.violations(page) == [], key
        page.press("Escape")
        page.until("!document.querySelector('dialog')")


def test_progress_alone(signed_in: SignedIn, space: Space, dark: bool, size: dict[str, int]) -> None:
    job = space.job_in("running")
    space.do(job, "progress", {"percent": 40, "message": "rows", "subProgress": {"a": {"percent": 1}}})
    page = signed_in(f"#/jobs/{job['id']}", key=space.public.key, **size, dark=dark)
    page.until("seen('.percent') === '40 %'")
    assert axe.violations(page) == []
    page.js("location.hash = '#/'")
    page.until("seen('.narrow').includes('This key')")
    assert axe.violations(page) == []


@pytest.fixture
def page(chromium: Chromium, size: dict[str, int], dark: bool) -> Iterator[Page]:
    page = chromium.page(*size.values(), dark=dark)
    yield page
    page.close()


def test_the_api_for_people(page: Page, space: Space) -> None:
    page.goto(f"{space.server.url}/docs")
    page.until("document.querySelectorAll('main section').length > 20")
    opened(page)
    assert axe.violations(page) == []
