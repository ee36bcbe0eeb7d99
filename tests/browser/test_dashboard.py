"""The dashboard as a person uses it: a real browser, a real server."""

import json
import re

import pytest

from tests.browser.chromium import Chromium
from tests.browser.conftest import SignedIn
from tests.factories import NO_JOB, Space
from tests.live.proxy import Proxy
from tests.valkey import until

pytestmark = pytest.mark.valkey_only("the browser is what is tested")

CARDS = "document.querySelectorAll('.jobs tbody tr').length"


def tile(status: str) -> str:
    """The expression for the number on a tile."""
    return f"seen('.tile[data-status={status}] b')"


def test_a_key_that_is_none_is_told_so(chromium: Chromium, space: Space) -> None:
    page = chromium.page()
    page.goto(space.server.url)
    page.fill(".sign-in input[type=password]", "emit_wrong")
    page.press("Enter")
    page.until("document.querySelector('.problem:not([hidden])')")
    assert "unknown, revoked or expired" in page.text(".problem")
    assert page.js("sessionStorage.length") == 0
    page.close()


def test_the_key_of_a_space_opens_the_space_and_is_forgotten_at_the_way_out(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(key=space.token("jobs:read")["key"])
    page.until(f"location.hash === '#/spaces/{space.id}'")
    page.until("seen('.crumbs').includes('test')")
    assert page.count("button.primary") == 0
    assert page.js("Object.keys(localStorage).filter((name) => localStorage[name].startsWith('emit_')).length") == 0
    assert page.js("document.cookie") == ""
    page.click("button", "Sign out")
    page.until("document.querySelector('.sign-in')")
    assert page.js("sessionStorage.length") == 0


def test_a_reload_stays_signed_in_and_at_its_place(signed_in: SignedIn, space: Space) -> None:
    job = space.create(name="the one")
    page = signed_in(f"#/jobs/{job['id']}")
    page.until("seen('h1') === 'the one'")
    page.reload()
    page.until("seen('h1') === 'the one'")


def test_a_revoked_key_is_signed_out_and_told_why(signed_in: SignedIn, space: Space) -> None:
    token = space.token("jobs:read")
    page = signed_in(key=token["key"])
    page.until("document.querySelector('.tile')")
    assert space.server.root.delete(f"/spaces/{space.id}/tokens/{token['id']}").status_code == 204
    page.until("document.querySelector('.sign-in')")
    page.until("document.querySelector('.problem:not([hidden])')")
    page.complaints.clear()


def test_counts_and_the_list_follow_what_happens(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}")
    page.until(f"{tile('all')} === '0'")
    page.until("document.querySelector('.empty').checkVisibility()")
    job = space.job_in("running", name="walk")
    page.until(f"{tile('running')} === '1' && {CARDS} === 1")
    space.do(job, "progress", {"percent": 42.5, "message": "half way"})
    page.until("seen('.jobs .percent') === '42.5 %'")
    space.job_in("dead", name="stumble")
    page.until(f"{tile('dead')} === '1' && {CARDS} === 2")
    assert "broken" in page.text(".jobs tbody tr")
    page.click(".tile[data-status=dead]")
    page.until(f"{CARDS} === 1 && seen('.jobs').includes('stumble')")


def test_a_long_list_is_turned_page_by_page(signed_in: SignedIn, space: Space) -> None:
    answer = space.all.post(space.jobs, json=[{"name": f"job {i}"} for i in range(120)])
    assert answer.status_code == 201
    page = signed_in(f"#/spaces/{space.id}")
    page.until(f"{CARDS} === 50")
    assert "1 - 50 of 120" in page.text(".list")
    page.press("]")
    page.until("seen('.list .place') === '51 - 100 of 120'")
    page.press("]")
    page.until(f"{CARDS} === 20")
    assert page.text(".list tbody").endswith("-")
    assert page.js("seen('.jobs tbody tr:last-child .name')") == "job 0"


def test_a_job_shows_what_went_wrong_and_how_it_came_there(signed_in: SignedIn, space: Space) -> None:
    payload = {"id": 9007199254740993, "ratio": 1.0}
    job = space.create(name="import", claim=True, maxRetries=1, payload=payload, callbackUrl="http://hook.invalid/hook")
    space.do(job, "ack")
    space.do(job, "checkpoint", {"row": 7})
    stages = {"read": {"percent": 100}, "write": {"percent": 9}}
    space.do(job, "progress", {"percent": 40, "message": "rows", "subProgress": stages})
    space.do(job, "fail", {"error": "first line\nthe disk is full"})
    page = signed_in(f"#/jobs/{job['id']}")
    page.until("seen('.badge') === 'pending'")
    space.do(job, "claim")
    space.do(job, "ack")
    page.until("seen('.badge') === 'running'")
    assert page.text(".stages").split() == ["read", "100", "%", "write", "9", "%"]
    space.do(job, "fail", {"error": "first line\nthe disk is full"})
    page.until("seen('.badge') === 'dead'")
    page.until("[...document.querySelectorAll('.section')][0].querySelectorAll('.outcome').length === 2")
    assert page.text(".complaint .error-head") == "the disk is full"
    assert "first line" not in page.text(".complaint")
    page.click(".complaint summary")
    assert page.text(".complaint pre") == "first line\nthe disk is full"
    attempts = page.text(".section table")
    assert "failed" in attempts
    assert "dead" in attempts
    about = page.text(".about")
    assert "9007199254740993" in about
    assert "1.0" in about
    assert '"row": 7' in about
    assert "http://hook.invalid/hook" in about
    for event in ("created", "delivered", "started", "checkpoint", "retried", "dead"):
        assert event in page.text(".timeline")


def test_the_tries_of_a_callback_are_listed(signed_in: SignedIn, space: Space) -> None:
    page = signed_in()
    failed = {"error": "refused", "statusCode": 500, "responseBody": "<b>no</b>", "retryAttempt": 0, "willRetry": True}
    events = [
        {"type": "callback_failed", "data": failed, "createdAt": "2026-01-01T00:00:00Z"},
        {"type": "callback_sent", "data": {"statusCode": 204, "retryAttempt": 1}, "createdAt": "2026-01-01T00:00:05Z"},
    ]
    text = page.js(f"import('/static/timeline.js').then((m) => m.callbackTable({json.dumps(events)}).innerText)")
    assert re.search(r"500.*failed, will try again.*refused.*<b>no</b>.*204.*taken", text, re.DOTALL)


def test_a_job_is_killed_and_retried(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running", name="endless")
    page = signed_in(f"#/jobs/{job['id']}")
    page.click("button", "Kill")
    page.until("document.querySelector('dialog[open]')")
    page.type("had enough")
    page.click("dialog button[type=submit]")
    page.until("seen('.badge') === 'killed'")
    assert page.text(".complaint") == "had enough"
    page.click("button", "Retry")
    page.until("seen('.badge') === 'pending'")
    assert space.status(job) == "pending"


def test_a_job_is_created_with_the_numbers_that_were_typed(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}")
    page.press("c")
    page.until("document.querySelector('dialog[open]')")
    page.fill("dialog input", "by hand")
    page.fill("dialog textarea", '{"id": 9007199254740993')
    page.click("dialog button[type=submit]")
    page.until("document.querySelector('dialog .problem:not([hidden])')")
    page.fill("dialog textarea", '{"id": 9007199254740993}')
    page.click("dialog button[type=submit]")
    page.until("seen('h1') === 'by hand'")
    created = space.all.get(space.jobs)
    assert b"9007199254740993" in created.content
    assert len(created.json()) == 1


def test_a_reader_is_offered_nothing_that_it_may_not_do(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    page = signed_in(f"#/jobs/{job['id']}", key=space.token("jobs:read")["key"])
    page.until("seen('.badge') === 'running'")
    offered = "[...document.querySelectorAll('.job-head button')].filter((b) => b.checkVisibility())"
    assert page.js(f"{offered}.map((b) => b.innerText)") == ["Copy id"]


def test_keys_are_made_shown_once_and_revoked(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}/keys")
    page.until("document.querySelectorAll('.keys tbody tr').length >= 2")
    before = page.count(".keys tbody tr")
    page.press("c")
    page.until("document.querySelector('dialog[open]')")
    page.fill("dialog input", "ci")
    page.click("dialog button", "worker")
    page.click("dialog button[type=submit]")
    secret = page.until("seen('.secret')")
    assert secret.startswith("emit_")
    assert space.server.caller(secret).get("/whoami").json()["spaceName"] == "test"
    page.click("dialog footer button")
    page.until("!document.querySelector('dialog')")
    assert secret not in page.js("document.documentElement.outerHTML")
    assert page.count(".keys tbody tr") == before + 1
    page.js("[...document.querySelectorAll('.keys tbody tr')].at(-1).querySelector('button').click()")
    page.click("dialog button[type=submit]")
    page.until(f"document.querySelectorAll('.keys tbody tr').length === {before}")
    until(lambda: space.server.caller(secret).get("/whoami").status_code == 401)


def test_everything_has_a_key(signed_in: SignedIn, space: Space) -> None:
    for name in ("one", "two"):
        space.create(name=name)
    page = signed_in(f"#/spaces/{space.id}")
    page.until(f"{CARDS} === 2")
    page.press("?")
    page.until("document.querySelector('dialog[open]')")
    assert "Create a job" in page.text("dialog")
    page.press("Escape")
    page.until("!document.querySelector('dialog')")
    page.press("j")
    page.press("j")
    page.press("Enter")
    page.until("seen('h1') === 'one'")
    page.press("/")
    assert page.js("document.activeElement.type") == "search"
    page.press("Escape")
    page.press("u")
    page.until(f"{CARDS} === 2")


def test_a_key_is_remembered_on_this_device_only_if_one_says_so(chromium: Chromium, space: Space) -> None:
    page = chromium.page()
    page.goto(space.server.url)
    assert page.js("document.querySelector('[name=remember]').checked") is False
    page.fill("input[type=password]", space.server.root_key)
    page.click("label", "Remember on this device")
    page.press("Enter")
    page.until("document.querySelector('.topbar')")
    other = chromium.page(beside=page)
    other.goto(space.server.url)
    other.until("document.querySelector('.topbar')")
    other.click("button", "Sign out")
    other.until("document.querySelector('.sign-in')")
    page.until("seen('.problem').includes('signed out in another tab')")
    assert page.js("localStorage.length + sessionStorage.length - Number('jobwire.wrap' in localStorage)") == 0
    other.close()
    page.close()


def test_a_password_manager_may_fill_the_key(chromium: Chromium, space: Space) -> None:
    page = chromium.page()
    page.goto(space.server.url)
    fields = "[...document.querySelector('form').elements].filter((e) => e.autocomplete).map((e) => e.autocomplete)"
    assert page.js(fields) == ["username", "current-password"]
    page.click("a[href='docs']")
    page.until("location.pathname === '/docs' && seen('.begin').includes('x-api-key')")
    page.close()


def test_a_public_key_is_shown_progress(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    page = signed_in("#/", key=space.public.key)
    page.until("seen('.narrow').includes('progress of a job, and nothing else')")
    page.fill(".narrow input", job["id"])
    page.press("Enter")
    page.until("seen('.narrow .badge') === 'running'")
    page.until("seen('.narrow').includes('No progress was told yet')")
    space.do(job, "progress", {"percent": 30, "message": "rows"})
    page.until("seen('.narrow .percent') === '30 %' && seen('.narrow .bar-message') === 'rows'")
    space.do(job, "fail", {"error": "secret", "retry": False})
    page.until("seen('.narrow .badge') === 'dead'")
    assert "secret" not in page.text("body")
    page.js(f"location.hash = '#/jobs/{NO_JOB}'")
    page.until("seen('.lost').includes('This job is not there')")
    page.complaints.clear()


def test_a_key_that_looks_at_nothing_is_told_so(signed_in: SignedIn, space: Space) -> None:
    page = signed_in("#/", key=space.token("jobs:create")["key"])
    page.until("seen('.narrow').includes('This key looks at nothing: it has jobs:create')")


def test_a_break_that_lasts_is_said_loudly_and_its_end_is_seen(chromium: Chromium, space: Space) -> None:
    with Proxy(f"127.0.0.1:{space.server.port}") as proxy:
        page = chromium.page()
        page.goto(f"http://127.0.0.1:{proxy.port}/#/spaces/{space.id}")
        page.fill("input[type=password]", space.server.root_key)
        page.press("Enter")
        page.until("seen('.state') === 'live'")
        proxy.target = "127.0.0.1:9"
        proxy.cut()
        page.until("seen('.state') === 'reconnecting'")
        page.until("seen('.trouble') === 'The service does not answer.'", 20)
        proxy.target = f"127.0.0.1:{space.server.port}"
        page.until("seen('.state') === 'live'", 30)
        page.until("!document.querySelector('.trouble').checkVisibility()")
        page.close()


# The server's clock is ahead by so many ms, and stays so.
LATER = """(async () => {
  const { learnClock } = await import("/static/time.js");
  Headers.prototype.get = ((get) => function (name) { return name === "date" ? null : get.call(this, name); })(
    Headers.prototype.get);
  learnClock(new Date(Date.now() + %d).toUTCString());
})()"""
CLIPPED = """[...document.querySelectorAll('td, td *, dd, time, button, .badge, .tile *, .percent, .acts, .place')]
  .filter((element) => element.checkVisibility() && element.innerText && !element.closest('pre, .name, .said'))
  .filter((element) => {
    const { left, right } = element.getBoundingClientRect();
    const isCut = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0;
    return isCut || left < 0 || right > innerWidth + 1;
  })
  .map((element) => element.outerHTML)"""


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
@pytest.mark.parametrize("hours", [0.2, 23.99, 99 * 24 + 23.5], ids=["12 min", "23 h 59 min", "99 d 23 h"])
def test_nothing_is_clipped_however_long_it_takes(
    signed_in: SignedIn, space: Space, width: int, phone: bool, hours: float
) -> None:
    job = space.job_in("running", maxRetries=25)
    space.do(job, "progress", {"percent": 99.9, "message": "rows"})
    page = signed_in(f"#/spaces/{space.id}", width=width, height=844, phone=phone)
    page.until("seen('.jobs .number')")
    page.js(LATER % (hours * 3_600_000))
    page.until("/min|h/.test(seen('.jobs td:last-child'))")
    assert page.js(CLIPPED) == []
    right = "document.querySelector({!r}).getBoundingClientRect().right"
    assert page.js(f"{right.format('.tiles')} <= {right.format('.list')}")
    page.js(f"location.hash = '#/jobs/{job['id']}'")
    page.until("seen('.section .number')")
    page.js(LATER % (hours * 3_600_000))
    page.until("/min|h/.test(seen('.section tbody td:nth-child(3)'))")
    assert page.js(CLIPPED) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_shows_every_page_without_scrolling_sideways(signed_in: SignedIn, space: Space, dark: bool) -> None:
    job = space.job_in("dead", name="a name that is rather long for a telephone " * 4, payload={"k" * 200: "v" * 500})
    space.do(job, "logs", ["x" * 3000, {"message": "y", "source": "z" * 200}])
    page = signed_in("#/", width=390, height=844, phone=True, dark=dark)
    for address, there in {
        "#/": ".card",
        f"#/spaces/{space.id}": ".jobs tbody tr",
        f"#/spaces/{space.id}/keys": ".keys tbody tr",
        f"#/jobs/{job['id']}": ".line",
    }.items():
        page.js(f"location.hash = '{address}'")
        page.until(f"document.querySelector('{there}')")
        assert page.js("document.scrollingElement.scrollWidth") <= 390, address
    background = page.js("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(14, 17, 22)" if dark else "rgb(245, 246, 248)")
