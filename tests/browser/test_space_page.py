"""The page of a space beyond its jobs: how each name fares, and what the root key may set."""

import json

import pytest

from tests.browser.chromium import Page
from tests.browser.conftest import SignedIn
from tests.factories import Json, Space
from tests.valkey import client_of

pytestmark = pytest.mark.valkey_only("the browser is what is tested")

FIRST = ".names tbody:nth-of-type(1)"
SECOND = ".names tbody:nth-of-type(2)"
BODIES = "[...document.querySelectorAll('.names tbody')].filter((each) => each.checkVisibility()).length"
MADE = "seen('dialog .secret')"


def cells(row: str) -> str:
    """The expression for what a person sees in the cells of a row."""
    visible = f"[...document.querySelectorAll('{row} > *')].filter((each) => each.checkVisibility())"
    return f"{visible}.map((each) => each.innerText).join('|')"


def part(title: str) -> str:
    """The selector of a part of the settings."""
    return f'.part[aria-label="{title}"]'


def told(selector: str) -> str:
    """The expression for what a field's own line says: "" unless the field is marked as wrong and described by it."""
    field = f"document.querySelector({json.dumps(selector)})"
    line = f"{field}.getAttribute('aria-describedby')"
    return f"({field}.ariaInvalid === 'true' ? seen('#' + {line}) : '')"


def hooks_of(space: Space) -> Json:
    found: Json = space.server.root.get(f"/spaces/{space.id}").json().get("hooks", {})
    return found


def test_how_the_jobs_of_each_name_fare_is_seen_and_kept_true(signed_in: SignedIn, space: Space) -> None:
    for status in ("completed", "dead", "killed"):
        space.job_in(status, name="resize")
    space.do(space.job_in("running", name="resize"), "complete")
    space.create(name="report")
    page = signed_in(f"#/spaces/{space.id}", key=space.token("jobs:read")["key"])
    page.until("seen('.names').includes('resize')")
    name, pending, oldest, *hour = page.js(cells(f"{FIRST} tr:nth-child(1)")).split("|")
    day = page.js(cells(f"{FIRST} tr:nth-child(2)")).split("|")
    assert (name, pending, oldest) == ("resize", "0", "-")
    assert hour[:4] == ["last hour", "2", "1", "1"]
    assert day[:4] == ["last day", "2", "1", "1"]
    assert all(time.endswith((" ms", " s")) for time in (*hour[4:], *day[4:]))
    page.until("seen('.names header').includes('oldest pending')")
    space.create(name="report")
    page.until(f"seen('{SECOND} .waits') === '2'", within_s=30)
    page.until(f"/^\\d+ s$/.test(seen('{SECOND} .waits:nth-child(3)'))")


def test_a_space_without_jobs_shows_no_names(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}")
    page.until("seen('.list').includes('No jobs here')")
    page.until("performance.getEntriesByType('resource').some(({ name }) => name.endsWith('/stats'))")
    assert page.text(".names") == ""


def test_the_busiest_names_are_shown_and_all_of_them_on_demand(signed_in: SignedIn, space: Space) -> None:
    for number in range(7):
        space.job_in("killed", name=f"n{number}")
    with client_of(space.server.redis_url) as server:
        for key in server.scan_iter(f"{space.server.prefix}*{space.id}*:ends:*"):
            server.hincrby(key, "k-:", 3)
    page = signed_in(f"#/spaces/{space.id}")
    page.until(f"seen('{FIRST} .name') === 'all other names'")
    assert page.js(BODIES) == 5
    page.js("document.querySelector('.names button').focus()")
    page.press("Enter")
    page.until(f"{BODIES} === 8")
    assert page.js("document.activeElement.innerText") == "The busiest only"
    page.press("Enter")
    page.until(f"{BODIES} === 5 && document.activeElement.innerText === 'All 8 names'")


def test_a_space_is_renamed_and_a_refused_name_says_why_at_its_field(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}")
    page.click(".crumbs .to-settings")
    name = f"{part('Name')} input"
    page.until(f"document.querySelector('{name}')?.value === 'test'")
    page.fill(name, "x" * 201)
    page.press("Enter")
    page.until(f"{told(name)}.includes('<= 200')")
    assert page.js("document.activeElement.value.length") == 201
    page.complaints.clear()
    page.fill(name, "nightly \u202ebuilds")
    page.press("Enter")
    page.until("seen('.crumbs').includes('nightly')")
    assert page.js(told(name)) == ""
    assert space.server.root.get(f"/spaces/{space.id}").json()["name"] == "nightly \u202ebuilds"
    assert "\u202e" not in page.text(".crumbs")


def test_a_webhook_secret_is_shown_once_and_the_old_one_dropped(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}/settings")
    secrets = part("Webhook secret")
    page.until(f"seen('{secrets}').includes('Nothing is signed.')")
    made = []
    for button, is_asked in (("Make a secret", False), ("Make a new secret", False), ("Make a new secret", True)):
        page.click(f"{secrets} button", button)
        if is_asked:
            page.click("dialog button[type=submit]")
        made.append(page.until(f"{MADE}.startsWith('whsec_') && {MADE}"))
        page.click("dialog button", "Copy the secret")
        page.until("['Copied', 'Not allowed'].includes(seen('dialog .copy'))")
        page.click("dialog button", "Close")
        page.until("!document.querySelector('dialog')")
        assert made[-1] not in page.js("document.documentElement.outerHTML")
    assert len(set(made)) == 3
    page.until(f"seen('{secrets}').includes('Two secrets sign')")
    page.click(f"{secrets} button", "Drop the old one")
    page.until(f"seen('{secrets}').includes('One secret signs.')")
    assert hooks_of(space)["webhookSecrets"] == 1
    page.click(f"{secrets} button", "Sign no more")
    page.click("dialog button[type=submit]")
    page.until(f"seen('{secrets}').includes('Nothing is signed.')")
    assert hooks_of(space) == {}


def test_push_is_set_changed_and_removed_and_each_field_says_what_is_wrong(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}/settings")
    push = part("Push")
    url, headers, names = (
        f"{push} .told:nth-child({n}) {tag}" for n, tag in enumerate(["input", *["textarea"] * 2], 1)
    )
    page.fill(url, "http://127.0.0.1/hook")
    page.press("Enter")
    page.until(f"{told(url)}.includes('not public but loopback')")
    page.fill(url, "https://worker.example/wake")
    page.fill(headers, "bad name: x")
    page.click(f"{push} button[type=submit]")
    page.until(f"{told(headers)}.includes('characters that no header has')")
    assert page.js(told(url)) == ""
    page.fill(headers, "authorization: Bearer s3cret:x\n\nx-from: jobwire")
    page.fill(names, "x" * 201)
    page.click(f"{push} button[type=submit]")
    page.until(f"{told(names)}.includes('<= 200')")
    page.fill(names, "resize\nre, port\n")
    page.click(f"{push} button[type=submit]")
    page.until("seen('#notices').includes('Push is saved.')")
    page.complaints.clear()
    assert hooks_of(space)["push"] == {
        "url": "https://worker.example/wake",
        "headers": {"authorization": "***", "x-from": "***"},
        "names": ["resize", "re, port"],
    }
    assert page.js(f"document.querySelector('{headers}').value") == "authorization: ***\nx-from: ***"
    page.fill(url, "https://other.example/wake")
    page.press("Enter")
    page.until(f"{told(headers)}.includes('Write the value of authorization again')")
    assert page.js(f"document.activeElement === document.querySelector('{headers}')")
    page.click(f"{push} button", "Remove")
    page.until(f"document.querySelector('{url}').value === ''")
    assert hooks_of(space) == {}


def test_slack_is_set_and_removed_and_its_address_is_not_shown(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}/settings")
    slack = part("Slack")
    url, first = f"{slack} .field input", f"{slack} .checks input"
    page.fill(url, "https://hooks.slack.com/services/T0/B0/s3cret")
    page.press("Enter")
    page.until(f"{told(first)} === 'Choose at least one event.'")
    page.click(f"{slack} .check", "dead")
    page.click(f"{slack} .check", "failed")
    page.fill(url, "ftp://hooks.slack.com/services/T0")
    page.click(f"{slack} button[type=submit]")
    page.until(f"{told(url)}.includes('Only http and https')")
    page.complaints.clear()
    page.fill(url, "https://hooks.slack.com/services/T0/B0/s3cret")
    page.click(f"{slack} button[type=submit]")
    page.until(f"seen('{slack}').includes('Messages go to https://hooks.slack.com/***.')")
    assert hooks_of(space)["slack"] == {"url": "https://hooks.slack.com/***", "events": ["failed", "dead"]}
    assert page.js(f"document.querySelector('{url}').value") == ""
    page.click(f"{slack} button", "Remove")
    page.until(f"seen('{slack}').includes('No messages go to Slack.')")
    assert hooks_of(space) == {}


def test_a_space_is_deleted_only_with_its_name_typed(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}")
    page.until("seen('.list').includes('No jobs here')")
    page.press("s")
    page.click(f"{part('Delete')} button")
    page.until("document.activeElement.matches('dialog input')")
    page.type("tes")
    page.press("Enter")
    page.until("seen('dialog .problem') === 'That is not its name.'")
    assert space.server.root.get(f"/spaces/{space.id}").status_code == 200
    page.fill("dialog input", "test")
    page.press("Enter")
    page.until("location.hash === '#/' && seen('.home') && !document.querySelector('dialog')")
    assert space.id not in page.text(".home")
    assert space.server.root.get(f"/spaces/{space.id}").status_code == 404


def test_what_the_keyboard_comes_to_is_not_below_the_bar(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}/settings", height=500)
    page.until("seen('.part footer button')")
    page.js("document.querySelector('.part:last-child button').focus()")
    for _ in range(14):
        page.press("Tab", shift=True)
        page.until("document.activeElement.closest('.part')")
        top = "document.activeElement.getBoundingClientRect().top"
        bar = "document.querySelector('.topbar').getBoundingClientRect().bottom"
        assert page.js(f"{top} >= {bar}")


def test_who_has_not_the_root_key_is_shown_no_settings(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/spaces/{space.id}", key=space.token("jobs:read")["key"])
    page.until("seen('.crumbs').includes('test')")
    assert page.count(".to-settings") == 0
    page.js(f"location.hash = '#/spaces/{space.id}/settings'")
    page.until("seen('.lost').includes('for the root key')")
    page.complaints.clear()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_shows_names_and_settings_whole(signed_in: SignedIn, space: Space, dark: bool) -> None:
    space.job_in("completed", name="averylongnamewithoutabreak" * 7)
    page = signed_in(f"#/spaces/{space.id}", width=390, height=844, phone=True, dark=dark)
    page.until("seen('.names .name')")
    assert is_whole(page)
    page.click(".doors a", "settings")
    page.until("seen('.part footer button')")
    assert is_whole(page)
    page.click(".crumbs a", "test")
    page.until("seen('.names .name')")


def is_whole(page: Page) -> bool:
    """Whether nothing is wider than the screen, and no text is cut."""
    there = "[...document.querySelectorAll('.names *, .part *, .crumbs *, .doors *')]"
    wide = f"{there}.filter((each) => each.clientWidth && each.scrollWidth > each.clientWidth + 1)"
    assert page.js(f"{wide}.map((each) => each.outerHTML.slice(0, 80))") == []
    return bool(page.js("document.scrollingElement.scrollWidth <= 390"))
