"""The parts of the dashboard that only compute, run where they run: in a browser."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import Chromium, Page
from tests.server import Server

pytestmark = pytest.mark.valkey_only("no Redis is asked")

ESC = "\\u001b"


@pytest.fixture(scope="module")
def page(chromium: Chromium, server: Server) -> Iterator[Page]:
    page = chromium.page()
    page.goto(server.url)
    yield page
    page.close()


def value(page: Page, module: str, expression: str) -> Any:
    """What an expression gives, the module's names being `m`."""
    text = page.js(f"import('/static/{module}.js').then((m) => JSON.stringify({expression}))")
    return json.loads(text) if text is not None else None


RATES = "(() => { const r = new m.Rates(4, 10); r.add(3, 11); %s; return r.buckets })()"

JOINED = (
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u2764\ufe0f\u200d\U0001f525",
    "\U0001f9d1\U0001f3fd\u200d\U0001f680",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u0915\u094d\u200d\u0937",
    "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
)
UNSEEN = (
    0xAD,
    0x180E,
    0x2800,
    0x3164,
    0xFFF9,
    0xFFFA,
    0xFFFB,
    0xE0000,
    0xE0041,
    0xE007F,
    0x200C,
    0x200D,
    0xFEFF,
    0x2066,
)
ADDRESSES = ["http://a.example/b_(c)", "https://d.example/"]
HOSTILE_ADDRESSES = json.dumps(
    [
        "javascript:alert(1)//https:",
        "ftp://a.example data:text/html,x",
        "https://a.example@evil.example/",
        "https://user:secret@a.example/",
        "https://",
        "xhttps://a.example",
    ]
)
LINKED = [["x ", 1], ["http://", 1, "http://a.example/"], ["a.example", 2, "http://a.example/"], [" y", 2]]
READ = json.dumps({"status": "running", "result": None, "events": [{"type": "started", "seq": 3}]})
TOLD = json.dumps(
    [
        {"type": "started", "seq": 3, "status": "running"},
        {"type": "dead", "seq": 4, "status": "dead", "data": {"error": "x"}},
        {"type": "callback_sent", "seq": 5, "status": "dead", "data": None},
    ]
)
SHORTCUTS = json.dumps({key: ["", None] for key in "jG["})
WANTED = {"q": 'x & "y z"', "level": "error,fatal"}

CASES = [
    ("ansi", "m.pieces('plain')", [{"text": "plain", "style": None}]),
    ("ansi", f"m.pieces('{ESC}[31mred{ESC}[0m.').map((p) => [p.text, p.style?.fg])", [["red", 1], [".", None]]),
    ("ansi", f"m.pieces('{ESC}[1;4;97;44mx')[0].style.bg", 4),
    ("ansi", f"m.pieces('{ESC}[1;4;97;44mx')[0].style.fg", 15),
    ("ansi", f"m.pieces('{ESC}[38;5;208mx')[0].style.fg", "#ff8700"),
    ("ansi", f"m.pieces('{ESC}[48;2;1;2;255mx')[0].style.bg", "#0102ff"),
    ("ansi", f"m.pieces('{ESC}[38:2:1:2:3mx')[0].style.fg", "#010203"),
    ("ansi", f"m.pieces('{ESC}[38;5;999mx')[0].style", None),
    ("ansi", f"m.pieces('{ESC}[38mx')[0].text", "x"),
    ("ansi", f"m.pieces('{ESC}[38;2;1mx')[0].style", None),
    ("ansi", f"m.plain('a{ESC}[2Kb{ESC}[10;20Hc{ESC}]8;;http://x{ESC}\\\\d{ESC}]0;title\\u0007e')", "abcde"),
    ("ansi", f"m.pieces('a{ESC}]8;;javascript:alert(1){ESC}\\\\b').map((p) => p.text).join('')", "ab"),
    ("ansi", f"m.pieces('open {ESC}]0;never closed').map((p) => p.text)", ["open "]),
    ("ansi", f"m.pieces('{ESC}').length", 0),
    ("ansi", "m.visible('a\\u0000b\\rc\\td\\u007f')", "a\u2400b\u240dc\td\u2421"),
    ("ansi", "m.visible('x\\u202ey\\u200bz')", "x<U+202E>y<U+200B>z"),
    *(("ansi", f"m.visible('{text}')", text) for text in JOINED),
    *(("ansi", f"m.visible('a{chr(code)}b')", f"a<U+{code:04X}>b") for code in UNSEEN),
    ("ansi", "m.visible('a\\ufe0fb\\ufe01\\ufe02')", "a\ufe0fb\ufe01<U+FE02>"),
    ("ansi", "m.visible('a\\u200cb \\u0627\\u200d 1\\u200d2')", "a<U+200C>b \u0627<U+200D> 1<U+200D>2"),
    ("ansi", "m.cut('a\\u{1f600}b', 2)", "a"),
    ("ansi", "m.cut('a\\u{1f600}b', 3)", "a\U0001f600"),
    ("ansi", "m.cut('ab\\u{1f468}\\u200d\\u{1f469}\\u200d\\u{1f466}c', 6)", "ab"),
    ("ansi", "m.cut('abe\\u0301', 3)", "ab"),
    ("ansi", f"m.cut('ab{ESC}[31mred', 5)", "ab"),
    ("ansi", f"m.cut('ab{ESC}]8;;http://x{ESC}\\\\link', 8)", "ab"),
    ("ansi", f"m.cut('ab{ESC}[31mred', 7)", "ab\x1b[31m"),
    ("ansi", "m.cut('e' + '\\u0301'.repeat(900), 100).length", 100),
    ("ansi", "m.cut('short', 5)", "short"),
    (
        "links",
        "m.addresses('see https://a.example/x?y=1#z.').map(([s, e, u]) => [s, e, u])",
        [[4, 29, "https://a.example/x?y=1#z"]],
    ),
    ("links", "m.addresses('(http://a.example/b_(c)) <https://d.example>,').map((a) => a[2])", ADDRESSES),
    ("links", f"{HOSTILE_ADDRESSES}.flatMap(m.addresses)", []),
    ("links", "m.addresses('https://a.example\\u2400b').map((a) => a[2])", ["https://a.example/"]),
    (
        "links",
        "m.link([{text: 'x http://', style: 1}, {text: 'a.example y', style: 2}]).map(Object.values)",
        LINKED,
    ),
    ("json_text", "m.container(' {\"id\": 9007199254740993} ').id.source", "9007199254740993"),
    ("json_text", "['[info] x', '{a}', '3', '', '[', 'x{}'].map(m.container)", [None] * 6),
    ("history", "m.headline('Traceback:\\n  File 1\\nValueError: no\\n  more\\n')", "ValueError: no"),
    ("history", "m.headline('Error: x\\n    at a (b.js:1)\\n\\nNode.js v20.1.0')", "Error: x"),
    ("history", "m.headline('A: b\\n\\tat c\\nCaused by: D: e\\n\\tat f\\n\\t... 3 more')", "Caused by: D: e"),
    ("history", "m.headline('  only this')", "only this"),
    (
        "history",
        f"(({{status, result, events}}) => [status, result, events.length])(m.movedOn({READ}, {TOLD}))",
        ["dead", {"error": "x"}, 3],
    ),
    (
        "history",
        f"(({{status, events}}) => [status, events.length])(m.movedOn({READ}, {TOLD}.slice(0, 1)))",
        ["running", 1],
    ),
    ("shortcuts", f"m.shortcutOf({{key: 'j', code: 'KeyC', shiftKey: false}}, {SHORTCUTS})", "j"),
    ("shortcuts", f"m.shortcutOf({{key: 'h', code: 'KeyJ', shiftKey: false}}, {SHORTCUTS})", None),
    ("shortcuts", f"m.shortcutOf({{key: '\u043e', code: 'KeyJ', shiftKey: false}}, {SHORTCUTS})", "j"),
    ("shortcuts", f"m.shortcutOf({{key: '\u041f', code: 'KeyG', shiftKey: true}}, {SHORTCUTS})", "G"),
    ("shortcuts", f"m.shortcutOf({{key: '\u00fc', code: 'BracketLeft', shiftKey: false}}, {SHORTCUTS})", "["),
    ("shortcuts", f"m.shortcutOf({{key: 'Dead', code: 'BracketLeft', shiftKey: false}}, {SHORTCUTS})", "["),
    ("shortcuts", f"m.shortcutOf({{key: '[', code: 'Digit8', shiftKey: false}}, {SHORTCUTS})", "["),
    ("search", "m.needles('one  \"two words\" THREE one')", ["one", "two words", "three"]),
    ("search", "m.needles('one \"two')", None),
    ("search", "m.ranges('An answer, an end', ['an'])", [[0, 2], [3, 5], [11, 13]]),
    ("search", "m.ranges('banana', ['ana', 'nan'])", [[1, 5]]),
    (
        "search",
        "m.mark([{text: 'ab', style: null}, {text: 'cd', style: 7}], ['bc']).map((p) => [p.text, p.style, p.marked])",
        [["a", None, False], ["b", None, True], ["c", 7, True], ["d", 7, False]],
    ),
    ("contrast", "Math.round(m.ratio('#000000', '#ffffff'))", 21),
    ("contrast", "m.onBothThemes('#808080')", "light-dark(#606060, #999999)"),
    ("contrast", "['#ffffff', '#ffff00', '#0000ff'].map(m.isDark)", [False, False, True]),
    ("json_text", "String(m.parse('{\"id\": 9007199254740993}').id)", "9007199254740993"),
    ("json_text", "m.pretty(m.parse('[1.0, 1e400, []]'))", "[\n  1.0,\n  1e400,\n  []\n]"),
    ("json_text", "m.pretty({a: {}, b: null})", '{\n  "a": {},\n  "b": null\n}'),
    ("json_text", "m.parse('2').toFixed(1)", "2.0"),
    ("json_text", "m.parse('2.50') + 1", 3.5),
    (
        "json_text",
        'm.tokens(\'{"a": "b: \\\\"1\\\\"", "n": -1.5e3}\').filter((t) => t.kind).map((t) => [t.kind, t.text])',
        [["key", '"a"'], ["string", '"b: \\"1\\""'], ["key", '"n"'], ["number", "-1.5e3"]],
    ),
    ("time", "[0, 999, 4210, 61000].map(m.duration)", ["0 ms", "999 ms", "4.2 s", "1 min 1 s"]),
    ("time", "[3600000, 90061000].map(m.duration)", ["1 h", "1 d 1 h"]),
    ("time", "m.age('2026-01-01T00:00:00Z', Date.parse('2026-01-03T05:00:00Z'))", "2 d"),
    ("time", "m.age('2026-01-01T00:00:01Z', Date.parse('2026-01-01T00:00:00Z'))", "now"),
    ("time", "m.size(3 * 1024 * 1024 / 2)", "1.5 MiB"),
    ("router", "m.route('#/jobs/01ABC/61235')", {"page": "job", "id": "01ABC", "seq": 61235, "query": {}}),
    ("router", "m.route('#/jobs/01ABC/x').seq", None),
    ("router", "m.route('#/spaces/01ABC?status=dead').query", {"status": "dead"}),
    ("router", "m.route(m.settingsAddress('a/b')).page", "settings"),
    ("router", "['', '#', '#/', '#/spaces', '#/?x=1'].map((hash) => m.route(hash).page)", ["home"] * 5),
    (
        "router",
        "['#/nonsense', '#/jobs/%', '#/jobs', '#/spaces/%E0/keys'].map((h) => m.route(h).page)",
        ["missing"] * 4,
    ),
    ("router", "m.route(m.jobAddress('a', 7, {q: 'x & \"y z\"', level: 'error,fatal', at: null})).query", WANTED),
    ("router", "m.route(m.jobAddress('a/b?c', 7)).id", "a/b?c"),
    ("rates", RATES % "r.add(1, 13)", [0, 3, 0, 1]),
    ("rates", RATES % "r.advance(99)", [0, 0, 0, 0]),
    ("rates", "m.points([0, 4, 2], {width: 12, height: 8, step: 5, most: 4})", "2.0,8.0 7.0,0.0 12.0,4.0"),
    ("log_window", "m.thumb(1, 1000, 1, 100)", {"height": 0.1, "travelled": 0}),
    ("log_window", "m.thumb(1, 1000, 901, 1000)", {"height": 0.1, "travelled": 1}),
    ("log_window", "m.thumb(1, 5, 1, 5)", {"height": 1, "travelled": 1}),
    ("log_window", "[-1, 0, 0.5, 2].map((part) => m.seqAt(101, 201, part))", [101, 101, 151, 201]),
]


@pytest.mark.parametrize(("module", "expression", "wanted"), CASES, ids=[case[1] for case in CASES])
def test_a_part_that_only_computes_is_right(page: Page, module: str, expression: str, wanted: Any) -> None:
    assert value(page, module, expression) == wanted


WINDOW = """(() => {
  const lines = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => ({ seq: from + i }));
  const page = (from, to, hasMore) => ({ rows: lines(from, to), oldest: from, newest: to, hasMore });
  const w = new m.LogWindow(1500);
  const told = () => [w.oldest, w.newest, w.hasOlder, w.hasNewer, w.pages.map((p) => p.length)];
  %s
})()"""


def test_a_window_that_grows_at_its_end_forgets_its_beginning_and_knows_where_to_go_on(page: Page) -> None:
    steps = """w.begin(page(1001, 1500, true), { hasOlder: true, hasNewer: false });
    const dropped = [w.grow(lines(1501, 1502)), w.grow(lines(1503, 2600))];
    return [dropped, told()];"""
    assert value(page, "log_window", WINDOW % steps) == [[0, 1], [1501, 2600, True, False, [100] * 11]]


def test_a_window_that_grows_by_itself_may_be_held_shorter(page: Page) -> None:
    steps = """const short = new m.LogWindow(1500, 300);
    short.begin(page(1, 500, false), { hasOlder: false, hasNewer: false });
    return [short.grow(lines(501, 700)), short.pages.map((p) => p.length), short.oldest, short.hasOlder];"""
    assert value(page, "log_window", WINDOW % steps) == [1, [100, 100], 501, True]


def test_a_window_that_grows_at_its_beginning_forgets_its_end(page: Page) -> None:
    steps = """w.begin(page(1501, 2000, true), { hasOlder: true, hasNewer: false });
    const dropped = [1001, 501, 1].map((from) => w.prepend(page(from, from + 499, from > 1)));
    return [dropped, told()];"""
    assert value(page, "log_window", WINDOW % steps) == [[0, 0, 1], [1, 1500, False, True, [500, 500, 500]]]


def test_an_empty_page_of_a_search_moves_on_without_adding_anything(page: Page) -> None:
    steps = """w.begin(page(900, 1000, true), { hasOlder: true, hasNewer: false });
    w.prepend({ rows: [], oldest: 400, newest: 899, hasMore: true });
    return told();"""
    assert value(page, "log_window", WINDOW % steps) == [400, 1000, True, False, [101]]


def test_live_lines_are_taken_once_and_never_over_a_hole(page: Page) -> None:
    steps = """w.begin(page(1, 10, false), { hasOlder: false, hasNewer: false });
    const seqs = (rows) => rows && rows.map((row) => row.seq);
    return [seqs(w.next(lines(8, 12))), seqs(w.next(lines(3, 9))), seqs(w.next(lines(12, 13)))];"""
    assert value(page, "log_window", WINDOW % steps) == [[11, 12], [], None]


def test_attempts_are_read_from_events(page: Page) -> None:
    events = [
        ("created", None),
        ("delivered", None),
        ("started", None),
        ("retried", {"error": "no", "attemptNumber": 1}),
        ("delivered", None),
        ("delivery_timeout", None),
        ("started", None),
        ("released", {"reason": "deploy"}),
        ("delivered", None),
        ("started", None),
        ("dead", {"error": "timed out", "reason": "timeout"}),
        ("requeued", None),
        ("delivered", None),
    ]
    listed = json.dumps([{"type": kind, "data": data, "createdAt": f"t{i}"} for i, (kind, data) in enumerate(events)])
    found = value(page, "history", f"m.attempts({listed}).map((a) => [a.number, a.startedAt, a.outcome, a.error])")
    assert found == [
        [0, "t2", "failed", "no"],
        [1, None, "not acknowledged", None],
        [1, "t6", "released", "deploy"],
        [1, "t9", "timed out", "timed out"],
        [2, None, None, None],
    ]


@pytest.mark.parametrize(
    ("text", "state"),
    [("plain", "plain"), ("\r10%\r20%", "20%"), ("10%\r", "10%"), ("a\r\nb\rc\n", "a\nc\n"), ("\r", "")],
)
def test_of_a_redrawn_line_the_last_state_is_shown(page: Page, text: str, state: str) -> None:
    assert value(page, "ansi", f"m.lastState({json.dumps(text)})") == state
