"""Lines as a person reads, opens, copies and links them."""

import json

import pytest

from tests.browser.chromium import Page
from tests.browser.conftest import SignedIn
from tests.factories import Json, Space

pytestmark = pytest.mark.valkey_only("the browser is what is tested")

LAST = "Number([...document.querySelectorAll('.line')].at(-1)?.dataset.seq)"
SEQS = "[...document.querySelectorAll('.line')].map((line) => Number(line.dataset.seq))"
TOP = "Number(document.elementFromPoint(900, document.querySelector('.lines').getBoundingClientRect().top + 30)"
TOP += ".closest('.line')?.dataset.seq)"


def job_with(space: Space, *lines: str | Json) -> Json:
    job = space.job_in("running")
    space.do(job, "logs", list(lines))
    return job


def pasted(page: Page) -> str:
    """What is on the clipboard, pasted into a field."""
    page.js("document.body.append(Object.assign(document.createElement('textarea'), {id: 'pasted'}))")
    page.js("document.querySelector('#pasted').focus()")
    page.command("paste")
    return str(page.until("document.querySelector('#pasted').value"))


def test_lines_that_are_copied_are_lines(signed_in: SignedIn, space: Space) -> None:
    job = job_with(
        space, "one \x1b[31mred\x1b[0m", {"message": "two", "level": "warn", "source": "db"}, "three", "four"
    )
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 4")
    page.drag('.line[data-seq="1"] .message', '.line[data-seq="3"] .message')
    page.command("copy")
    lines = pasted(page).split("\n")
    assert [line.split(" ", 1)[1] for line in lines] == ["info one red", "warn db two", "info three"]


def test_a_part_of_a_line_is_copied_as_it_is(signed_in: SignedIn, space: Space) -> None:
    job = job_with(space, "alpha beta", "gamma")
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 2")
    page.js("getSelection().selectAllChildren(document.querySelector('.line .message'))")
    page.command("copy")
    assert pasted(page) == "alpha beta"


def test_addresses_in_lines_are_links_that_give_nothing_away(signed_in: SignedIn, space: Space) -> None:
    hostile = "javascript:alert(1) https://a.example@evil.example/ data:text/html,x"
    job = job_with(space, f"see \x1b[32mhttps://docs.example/x?y=1\x1b[0m, {hostile}")
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 1")
    links = "[...document.querySelectorAll('.line .message a')]"
    assert page.js(f"{links}.map((a) => [a.href, a.target, a.rel, a.innerText])") == [
        ["https://docs.example/x?y=1", "_blank", "noopener noreferrer", "https://docs.example/x?y=1"]
    ]
    assert page.text(".line .message a") == "https://docs.example/x?y=1"
    assert hostile in page.text(".line .message")
    page.js(f"{links}[0].onclick = (event) => (window.followed = !event.defaultPrevented, event.preventDefault())")
    page.click(".line .message a")
    page.until("window.followed !== undefined")
    assert page.count(".line.selected") == 0


def test_a_line_of_json_opens(signed_in: SignedIn, space: Space) -> None:
    job = job_with(space, "plain {", json.dumps({"id": 9007199254740993, "list": [1, {"deep": "<b>"}]}))
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 2")
    assert page.count(".line .expand") == 1
    page.click(".line .expand")
    assert '"id": 9007199254740993,\n' in page.text(".line .json pre")
    assert page.count(".line.selected") == 0
    page.click(".line .expand")
    assert page.count(".line .json") == 0


def test_what_cannot_be_seen_is_shown_and_what_joins_letters_stays(signed_in: SignedIn, space: Space) -> None:
    family, persian = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    job = job_with(space, f"{family} {persian} a\u00adb\U000e0041\u3164", "x" * 1999 + family)
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 2")
    assert page.text('.line[data-seq="1"] .message') == f"{{}}{family} {persian} a<U+00AD>b<U+E0041><U+3164>".replace(
        "{}", ""
    )
    assert page.text('.line[data-seq="2"] .message').startswith("x" * 1999 + " ...")


def test_search_and_levels_are_in_the_address(signed_in: SignedIn, space: Space) -> None:
    rows = [{"message": f"row {i}", "level": "warn" if i % 10 == 0 else "info"} for i in range(1, 101)]
    job = job_with(space, *rows)
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 100")
    page.fill(".toolbar input", '"row 1"')
    page.click(".levels button", "warn")
    page.until(f"JSON.stringify({SEQS}) === '[10,100]'")
    page.until("location.hash.includes('level=warn') && location.hash.includes('q=%22row+1%22')")
    page.reload()
    page.until(f"JSON.stringify({SEQS}) === '[10,100]'")
    assert page.js("document.querySelector('.toolbar input').value") == '"row 1"'
    page.js(f"location.hash = '#/jobs/{job['id']}?level=info&q=99'")
    page.until(f"JSON.stringify({SEQS}) === '[99]'")


def test_the_place_where_one_reads_is_in_the_address_and_the_way_back_leads_to_it(
    signed_in: SignedIn, space: Space
) -> None:
    job = job_with(space, *[f"row {i}" for i in range(1, 4001)])
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 4000")
    page.wheel(".lines", -4000)
    page.until("/[?]at=3[67]\\d\\d$/.test(location.hash)")
    read = page.js(TOP)
    page.press("u")
    page.until("document.querySelector('.jobs')")
    page.js("history.back()")
    page.until(f"{LAST} > 0")
    page.until(f"Math.abs({TOP} - {read}) <= 1")
    page.press("G")
    page.until("!location.hash.includes('at=')")


def test_an_address_that_one_goes_to_is_not_taken_back(signed_in: SignedIn, space: Space) -> None:
    job = job_with(space, *[f"row {i}" for i in range(1, 100)])
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 99")
    page.js("location.hash = '#/'; document.querySelector('.line').click()")
    page.until("seen('.card')")
    assert page.js("location.hash") == "#/"


@pytest.mark.parametrize(("key", "code"), [("ü", "BracketLeft"), ("х", "BracketLeft"), ("[", "Digit8")])
def test_pages_are_turned_on_any_keyboard(signed_in: SignedIn, space: Space, key: str, code: str) -> None:
    assert space.all.post(space.jobs, json=[{"name": "x"}] * 60).status_code == 201
    page = signed_in(f"#/spaces/{space.id}?offset=50")
    page.until("seen('.list .place') === '51 - 60 of 60'")
    page.press(key, code=code)
    page.until("seen('.list .place') === '1 - 50 of 60'")
