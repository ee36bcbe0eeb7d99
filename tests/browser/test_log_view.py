"""The log viewer: long logs, fast logs, hostile logs."""

import json
import time
from pathlib import Path

import pytest

from tests.browser.chromium import Page
from tests.browser.conftest import SignedIn
from tests.factories import Json, Space

pytestmark = pytest.mark.valkey_only("the browser is what is tested")

SEQS = "[...document.querySelectorAll('.line')].map((line) => Number(line.dataset.seq))"
FIRST = "Number(document.querySelector('.line')?.dataset.seq)"
LAST = "Number([...document.querySelectorAll('.line')].at(-1)?.dataset.seq)"
FOLLOWING = "document.querySelector('.follow').ariaPressed === 'true'"
HELD_MOST = 6 * 500


def write(space: Space, job: Json, count: int, start: int = 0) -> None:
    """Append lines named after their seq; every thousandth is a warning."""
    for at in range(start, start + count, 10_000):
        lines = range(at + 1, min(at + 10_000, start + count) + 1)
        entries = [{"message": f"line {seq}", "level": "info" if seq % 1000 else "warn"} for seq in lines]
        space.do(job, "logs", entries)


def whole(page: Page) -> bool:
    """Whether the lines on the page ascend without a hole and without a twin."""
    seqs = page.js(SEQS)
    return bool(seqs == list(range(seqs[0], seqs[0] + len(seqs))))


def scroll_to_top(page: Page) -> None:
    page.js("document.querySelector('.lines').scrollTop = 0")


def test_a_long_log_opens_at_its_end_and_is_read_upwards_in_bounded_memory(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    write(space, job, 30_000)
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 30000")
    below = "(({scrollTop, clientHeight, scrollHeight}) => scrollHeight - clientHeight - scrollTop)"
    assert page.js(f"{below}(document.querySelector('.lines'))") < 2
    for _ in range(8):
        before = page.js(FIRST)
        scroll_to_top(page)
        page.until(f"{FIRST} < {before}")
        assert whole(page)
        assert page.count(".line") <= HELD_MOST
    assert page.js(LAST) < 30_000
    page.press("G")
    page.until(f"{LAST} === 30000")
    page.press("g")
    page.until(f"{FIRST} === 1")
    assert "begins here" in page.text(".end")
    assert page.js("seen('.to-end')") != ""


def test_what_is_being_read_stays_in_its_place_while_older_lines_come(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    write(space, job, 5000)
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 5000")
    before = page.js(FIRST)
    page.js("document.querySelector('.lines').scrollTop = 300")
    page.js("window.read = document.querySelectorAll('.line')[20]")
    top = page.js("read.getBoundingClientRect().top")
    page.until(f"{FIRST} < {before}")
    after = page.js("read.getBoundingClientRect().top")
    assert abs(after - top) < 2


def test_new_lines_are_followed_until_one_pauses(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    write(space, job, 700)
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 700")
    write(space, job, 50, 700)
    page.until(f"{LAST} === 750")
    page.press("f")
    page.until(f"!({FOLLOWING})")
    write(space, job, 600, 750)
    page.until("/^(59[5-9]|600) newer$/.test(seen('.to-end'))")
    assert page.js("document.querySelector('.line[data-seq=\"750\"]').getBoundingClientRect().top") > 700
    page.press("f")
    page.until(f"{LAST} === 1350 && {FOLLOWING}")
    assert whole(page)


def test_scrolling_up_pauses_and_coming_back_goes_on(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    write(space, job, 700)
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 700")
    page.wheel(".lines", -600)
    page.until(f"!({FOLLOWING})")
    page.wheel(".lines", 5000)
    page.until(FOLLOWING)


def test_a_search_finds_what_is_far_from_the_screen(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    space.do(job, "logs", [{"message": "The Needle in the hay", "level": "error"}])
    write(space, job, 120_000, 1)
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 120001")
    page.press("/")
    page.type('needle "in the"')
    page.until("document.querySelectorAll('.line').length === 1", within_s=20)
    assert page.text(".line .message") == "The Needle in the hay"
    assert page.js("[...document.querySelectorAll('mark')].map((mark) => mark.textContent)") == ["Needle", "in the"]
    page.click(".line")
    page.until("document.querySelector('.detail:not([hidden])')")
    page.click(".detail button", "In context")
    page.until(f"{SEQS}.length > 100 && document.querySelector('.line.selected').dataset.seq === '1'")


def test_levels_are_filtered_and_new_matches_still_come(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    write(space, job, 3000)
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 3000")
    page.click(".levels button", "warn")
    page.until(f"JSON.stringify({SEQS}) === '[1000,2000,3000]'")
    write(space, job, 1500, 3000)
    page.until(f"JSON.stringify({SEQS}) === '[1000,2000,3000,4000]'")
    page.click(".levels button", "warn")
    page.until(f"{LAST} === 4500")


def test_a_link_to_a_line_leads_to_it(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    write(space, job, 20_000)
    space.do(job, "logs", [{"message": "here", "metadata": {"id": 9007199254740993}}])
    page = signed_in(f"#/jobs/{job['id']}/4321")
    page.until("document.querySelector('.line.selected')?.dataset.seq === '4321'")
    box = page.js("document.querySelector('.line.selected').getBoundingClientRect().toJSON()")
    assert 100 < box["top"] < 700
    page.until("seen('.detail').includes('Line 4,321')")
    page.press("j")
    page.until("location.hash.endsWith('/4322')")
    page.js(f"location.hash = '#/jobs/{job['id']}/20001'")
    page.until("seen('.detail').includes('9007199254740993')")
    page.press("Escape")
    page.until("!document.querySelector('.line.selected')")


def test_the_rail_leads_anywhere(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    write(space, job, 40_000)
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 40000")
    page.click(".rail")
    page.until("document.querySelector('.line[data-seq=\"20000\"]')")
    assert whole(page)


HOSTILE = [
    '<img src=x onerror="window.broken=1"><script>window.broken=1</script>',
    "</pre></div><iframe src='javascript:parent.broken=1'></iframe>",
    "\x1b]8;;javascript:window.broken=1\x1b\\click\x1b]8;;\x1b\\ \x1b[2J\x1b[1;1H \x1b]0;title\x07",
    "\x1b[38;2;255;0;0;url(https://example.org/x)mred\x1b[0m",
    "overwritten \r abc\u202edcba\u2066 \u0000",
    "{{constructor.constructor('window.broken=1')()}} ${window.broken=1} javascript:window.broken=1",
]


def test_nothing_in_a_job_can_run_or_break_out(signed_in: SignedIn, space: Space) -> None:
    bad = HOSTILE[0]
    callback = {"callbackUrl": "http://hook.invalid/?<b>", "callbackHeaders": {"x": bad}}
    job = space.create(name=bad, claim=True, payload={bad: HOSTILE}, **callback)
    space.do(job, "ack")
    space.do(job, "progress", {"percent": 5, "message": bad, "subProgress": {bad: {"percent": 1, "message": bad}}})
    space.do(job, "event", {bad: bad})
    space.do(job, "logs", [{"message": text, "source": bad[:200], "metadata": {text: text}} for text in HOSTILE])
    space.do(job, "fail", {"error": bad, "retry": False})
    page = signed_in(f"#/jobs/{job['id']}/2")
    page.until("document.querySelectorAll('.line').length === 6 && document.querySelector('.detail .json')")
    page.until("seen('.complaint').includes('onerror')")
    assert bad in page.text("h1")
    assert bad in page.text(".line .message")
    assert page.count("main img, main iframe, main script, main a[href*=script]") == 0
    assert page.js("typeof window.broken") == "undefined"
    assert "<U+202E>" in page.text(".lines")
    assert page.js("document.title").startswith(bad)
    page.js(f"location.hash = '#/spaces/{space.id}'")
    page.until("seen('.jobs').includes('onerror')")
    assert page.count("main img, main iframe, main script") == 0
    assert page.js("typeof window.broken") == "undefined"


def test_markup_is_refused_even_if_somebody_tried(signed_in: SignedIn) -> None:
    page = signed_in()
    attempt = "(() => {{ try {{ {}; return 'done' }} catch (error) {{ return error.name }} }})()"
    assert page.js(attempt.format("document.body.innerHTML = '<b>x</b>'")) == "TypeError"
    assert page.js(attempt.format("eval('1')")) == "EvalError"
    page.complaints.clear()


def test_a_log_is_downloaded_whole(signed_in: SignedIn, space: Space, tmp_path: Path) -> None:
    job = space.job_in("running")
    write(space, job, 12_000)
    page = signed_in(f"#/jobs/{job['id']}")
    page.until(f"{LAST} === 12000")
    page.download_to(tmp_path)
    page.click(".acts button", "Download")
    file = tmp_path / f"{job['id']}.ndjson"
    deadline = time.monotonic() + 10
    while not file.exists() and time.monotonic() < deadline:
        page.js("1")
    lines = file.read_bytes().splitlines()
    assert len(lines) == 12_000
    assert json.loads(lines[-1])["message"] == "line 12000"


def test_a_flood_leaves_the_page_with_few_lines_and_at_the_end(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    page = signed_in(f"#/jobs/{job['id']}")
    page.until("seen('.end') === 'No lines yet.'")
    for start in range(0, 60_000, 10_000):
        write(space, job, 10_000, start)
    page.until(f"{LAST} === 60000 && {FOLLOWING}", within_s=20)
    assert page.count(".line") <= HELD_MOST
    assert whole(page)
