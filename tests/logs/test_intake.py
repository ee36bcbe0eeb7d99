"""Entries: what is taken, how it is stored, and which entry of a batch is named when the batch is refused."""

import json
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from time import process_time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.logs.intake import ENTRIES_MOST, MESSAGE_BYTES, METADATA_BYTES, PART_BYTES, Batch, decode_batch_steps
from app.model.errors import Refusal
from app.model.steps import exhaust

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
LEVELS = ["trace", "debug", "info", "warn", "error", "fatal"]


def taken(body: bytes, ndjson: bool = True) -> Batch:
    return exhaust(decode_batch_steps(body, ndjson=ndjson))


def stored(batch: Batch) -> list[dict[str, Any]]:
    parts = [json.loads(part.text) for part in batch.parts]
    assert [len(part) for part in parts] == [part.lines for part in batch.parts]
    assert sum(part.lines for part in batch.parts) == batch.lines
    assert sum(len(part.text) for part in batch.parts) == batch.bytes
    return [line for part in parts for line in part]


def refusal(body: bytes, ndjson: bool = True) -> Refusal:
    with pytest.raises(Refusal) as caught:
        taken(body, ndjson)
    return caught.value


def ndjson_of(*entries: Any) -> bytes:
    return b"".join(json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in entries)


def json_of(*entries: Any) -> bytes:
    return json.dumps(entries).encode()


def wrapped_of(*entries: Any) -> bytes:
    return json.dumps({"other": [1], "logs": entries}).encode()


FORMS = pytest.mark.parametrize(("form", "ndjson"), [(ndjson_of, True), (json_of, False), (wrapped_of, False)])
ENTRY = st.one_of(
    TEXTS,
    st.fixed_dictionaries(
        {"message": TEXTS},
        optional={
            "level": st.sampled_from([*LEVELS, None]),
            "source": st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.none(),
            "metadata": st.dictionaries(
                TEXTS, st.integers() | TEXTS | st.lists(st.floats(allow_nan=False, allow_infinity=False)), max_size=3
            ),
            "timestamp": st.sampled_from(["2026-03-01T09:21:01.120Z", None]),
        },
    ),
)


def expected(entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"message": entry}
    line = {"message": entry["message"]}
    line |= {name: entry[name] for name in ("source", "metadata") if entry.get(name) is not None}
    if entry.get("level") not in (None, "info"):
        line["level"] = entry["level"]
    return line | ({"loggedAt": entry["timestamp"]} if entry.get("timestamp") else {})


@FORMS
@given(entries=st.lists(ENTRY, max_size=20))
def test_what_is_stored_is_what_was_sent(form: Any, ndjson: bool, entries: list[Any]) -> None:
    assert stored(taken(form(*entries), ndjson)) == [expected(entry) for entry in entries]


@FORMS
def test_a_long_batch_is_split_into_parts_of_bounded_size_in_order(form: Any, ndjson: bool) -> None:
    entries = [{"message": f"{i} {'x' * (i % 300)}"} for i in range(ENTRIES_MOST)]
    batch = taken(form(*entries), ndjson)
    assert [line["message"] for line in stored(batch)] == [entry["message"] for entry in entries]
    assert len(batch.parts) > 1
    assert max(len(part.text) for part in batch.parts) <= PART_BYTES


def test_a_line_longer_than_a_part_has_one_of_its_own() -> None:
    batch = taken(ndjson_of("before", "\0" * MESSAGE_BYTES, "after"))
    assert [line["message"] for line in stored(batch)] == ["before", "\0" * MESSAGE_BYTES, "after"]


@pytest.mark.parametrize(
    ("sent", "level"),
    [
        ("WARNING", "warn"),
        ("Err", "error"),
        ("critical", "fatal"),
        ("NOTICE", "info"),
        ("tRaCe", "trace"),
        (None, "info"),
    ],
)
def test_levels_have_no_case_and_other_names(sent: str | None, level: str) -> None:
    assert stored(taken(ndjson_of({"message": "m", "level": sent})))[0].get("level", "info") == level


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("2026-03-01T09:21:01.120Z", "2026-03-01T09:21:01.120Z"),
        ("2026-03-01t09:21:01z", "2026-03-01T09:21:01.000Z"),
        ("2026-03-01T11:21:01.1299999+02:00", "2026-03-01T09:21:01.129Z"),
        ("2025-12-31T23:30:00-01:00", "2026-01-01T00:30:00.000Z"),
        ("2016-12-31T23:59:60.500Z", "2016-12-31T23:59:59.500Z"),
    ],
)
def test_timestamps_are_read_with_any_offset_and_cut_to_milliseconds(sent: str, read: str) -> None:
    assert stored(taken(ndjson_of({"message": "m", "timestamp": sent})))[0]["loggedAt"] == read


@given(
    moment=st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),
    offset=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_any_time_is_read_as_python_reads_it(moment: datetime, offset: timezone) -> None:
    sent = moment.replace(tzinfo=offset)
    line = stored(taken(ndjson_of({"message": "m", "timestamp": sent.isoformat()})))[0]
    assert datetime.fromisoformat(line["loggedAt"]) == sent.replace(microsecond=sent.microsecond // 1000 * 1000)


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-03-01T09:21:01",
        "2026-03-01",
        "yesterday",
        "",
        "2026-02-30T00:00:00Z",
        "2026-03-01T24:00:00.000Z",
        5,
        "1960-01-01T00:00:00Z",
    ],
)
def test_a_time_that_is_none_is_refused_with_its_index(timestamp: Any) -> None:
    refused = refusal(ndjson_of("fine", {"message": "m", "timestamp": timestamp}))
    assert (refused.code, refused.more["index"]) == ("invalid_entry", 1)


def full_lines(count: int) -> list[bytes]:
    """Lines that have something for each member."""
    return [
        b'{"timestamp":"2026-03-01T09:%02d:%02d.%03dZ","level":"warn","message":"m%d","source":"web-%d","metadata":{"n":%d}}'
        % (i // 60, i % 60, i, i, i % 3, i)
        for i in range(count)
    ]


ODD_PLACES = pytest.mark.parametrize("place", [0, 150, 299])
JOINED = pytest.mark.parametrize(
    ("join", "ndjson"), [(b"\n".join, True), (lambda lines: b"[" + b",".join(lines) + b"]", False)]
)


@JOINED
def test_full_lines_are_stored_as_they_were_sent(join: Callable[[list[bytes]], bytes], ndjson: bool) -> None:
    lines = full_lines(900)
    assert stored(taken(join(lines), ndjson)) == [expected(json.loads(line)) for line in lines]


@JOINED
@ODD_PLACES
@pytest.mark.parametrize(
    ("odd", "kept"),
    [
        (b'"timestamp":"2026-03-01T11:21:01.1299999+02:00"', {"loggedAt": "2026-03-01T09:21:01.129Z"}),
        (b'"timestamp":"2026-03-01t09:21:01z"', {"loggedAt": "2026-03-01T09:21:01.000Z"}),
        (b'"timestamp":"2026-03-01T09:21:01.\\u0031\\u0032\\u0030Z"', {"loggedAt": "2026-03-01T09:21:01.120Z"}),
        (b'"timestamp":null,"loggedAt":"2020-01-01T00:00:00.000Z"', {}),
        (b'"timestamp":"no","timestamp":"2026-03-01T09:21:01.120Z"', {"loggedAt": "2026-03-01T09:21:01.120Z"}),
        (b'"level":null,"source":null,"metadata":null', {}),
        (b'"level":"WARNING"', {"level": "warn"}),
        (b'"metadata":[],"metadata":{"last":1}', {"metadata": {"last": 1}}),
        (b'"metadata": \t\r { \r "a" : \t 1 } ', {"metadata": {"a": 1}}),
        (b'"metadata":{"a":"%b"}' % (b"[{" * 200), {"metadata": {"a": "[{" * 200}}),
        (b'"metadata":{"a":"%b"}' % (b'\\"[{' * 200), {"metadata": {"a": '"[{' * 200}}),
        (b'"metadata":{"a":[%b]}' % b",".join([b"{}"] * 200), {"metadata": {"a": [{}] * 200}}),
        (b'"metadata":{"a":"\\n"}', {"metadata": {"a": "\n"}}),
    ],
)
def test_an_odd_line_among_many_is_stored_as_if_it_were_alone(
    join: Callable[[list[bytes]], bytes], ndjson: bool, place: int, odd: bytes, kept: dict[str, Any]
) -> None:
    lines = full_lines(300)
    wanted = [expected(json.loads(line)) for line in lines]
    lines[place] = b'{"message":"odd",' + odd + b"}"
    wanted[place] = {"message": "odd"} | kept
    batch = taken(join(lines), ndjson)
    assert stored(batch) == wanted
    assert not any(b"\n" in part.text or b"\r" in part.text for part in batch.parts)
    assert stored(taken(join(lines[place : place + 1]), ndjson)) == [wanted[place]]


@JOINED
@ODD_PLACES
@pytest.mark.parametrize(
    "odd",
    [
        *(f'"timestamp":"{text}"'.encode() for text in ("2026-03-01T09:21:01", "2026-02-29T09:21:01.120Z", "", "now")),
        *(f'"timestamp":"{text}"'.encode() for text in ("2026-03-01T24:00:00.000Z", "2026-03-01T09:60:00.000Z")),
        *(f'"timestamp":"{text}"'.encode() for text in ("1969-12-31T23:59:59.999Z", "2026-03-01T09:21:01.12\u0660Z")),
        b'"timestamp":"2026-03-01T09:21:01.120Z\\n2026-03-01T09:21:01.120Z"',
        b'"timestamp":1772356861120',
        b'"metadata":[]',
        b'"metadata":"{}"',
        b'"metadata":1',
        b'"metadata":true',
        b'"metadata":{"a":%b1%b}' % (b"[" * 64, b"]" * 64),
        b'"metadata":{"a":%b1%b}' % (b'{"\\"":[' * 32, b"]}" * 32),
        b'"metadata":{"a":1},"metadata":2',
        b'"level":"loud"',
        b'"level":{}',
        b'"source":[]',
        b'"message":{}',
    ],
)
def test_a_bad_line_among_many_refuses_them_and_is_named(
    join: Callable[[list[bytes]], bytes], ndjson: bool, place: int, odd: bytes
) -> None:
    lines = full_lines(300)
    lines[place] = b'{"message":"odd",' + odd + b"}"
    refused = refusal(join(lines), ndjson)
    assert (refused.code, refused.more["index"]) == ("invalid_entry", place)


@JOINED
@ODD_PLACES
def test_metadata_of_the_limits_among_many_are_taken_and_those_over_them_named(
    join: Callable[[list[bytes]], bytes], ndjson: bool, place: int
) -> None:
    lines = full_lines(300)
    for more in (0, 1):
        text = b'{"a":"%b"}' % (b"x" * (METADATA_BYTES - 8 + more))
        lines[place] = b'{"message":"odd","metadata":' + text + b"}"
        if more:
            refused = refusal(join(lines), ndjson)
            assert refused.more == {"limit": {"metadataBytes": METADATA_BYTES}, "index": place}
        else:
            assert len(text) == METADATA_BYTES
            assert stored(taken(join(lines), ndjson))[place]["metadata"] == json.loads(text)


def test_lines_without_a_last_line_break_are_one_part() -> None:
    for text in (b"\n".join(full_lines(100)), b'"one"\n"two"'):
        assert len(taken(text).parts) == len(taken(text + b"\n").parts) == 1


def test_numbers_in_metadata_stay_as_they_were_sent() -> None:
    metadata = b'{"big": 123456789012345678901234567890, "float": 1.10, "exp": 1E400, "a": 1, "a": 2}'
    for neighbours in (b"", b"\n".join(full_lines(200)) + b"\n"):
        batch = taken(neighbours + b'{"message": "m", "metadata": ' + metadata + b"}\n")
        assert metadata in batch.parts[-1].text


def test_line_breaks_between_values_of_metadata_become_blanks() -> None:
    body = b'[{"message": "m", "metadata": {\r\n "a": "x\\ny",\n "b": [\n1]}}]'
    assert stored(taken(body, False))[0]["metadata"] == {"a": "x\ny", "b": [1]}
    assert b"\n" not in taken(body, False).parts[0].text


def test_of_a_doubled_key_the_last_wins_and_unknown_ones_are_ignored() -> None:
    body = b'{"message": "first", "zz": {"deep": [1, {}]}, "message": "last", "loggedAt": 7, "seq": 9}'
    assert stored(taken(body)) == [{"message": "last"}]


@FORMS
@pytest.mark.parametrize("text", ["x" * 65_537, "é" * 40_000, "😀" * 20_000, "\0" * 70_000, "x" * 65_535 + "😀"])
def test_a_message_over_the_limit_is_cut_at_a_character_and_says_so(form: Any, ndjson: bool, text: str) -> None:
    for entry in (text, {"message": text}):
        batch = taken(form("before", entry), ndjson)
        message = stored(batch)[1]["message"]
        kept, mark, rest = message.partition("… [cut: ")
        assert mark
        assert rest == f"{len(text.encode())} bytes]"
        assert text.startswith(kept)
        assert MESSAGE_BYTES - 4 < len(message.encode()) <= MESSAGE_BYTES
        assert batch.truncated == 1


@pytest.mark.parametrize("text", ["x" * 65_536, "é" * 32_768, "😀" * 16_384, ""])
def test_a_message_of_the_limit_is_kept_whole(text: str) -> None:
    batch = taken(ndjson_of(text, {"message": text}))
    assert [line["message"] for line in stored(batch)] == [text, text]
    assert batch.truncated == 0


@FORMS
@pytest.mark.parametrize(
    ("entry", "limit"),
    [
        ({"message": "m", "metadata": {"a": "x" * METADATA_BYTES}}, {"metadataBytes": METADATA_BYTES}),
        ({"message": "m", "source": "s" * 201}, {"sourceChars": 200}),
    ],
)
def test_an_entry_over_a_limit_is_named(form: Any, ndjson: bool, entry: Any, limit: dict[str, int]) -> None:
    refused = refusal(form("a", "b", entry), ndjson)
    assert refused.code == "too_large"
    assert refused.more == {"limit": limit, "index": 2}


@FORMS
def test_metadata_and_source_of_the_limit_are_taken(form: Any, ndjson: bool) -> None:
    entry = {"message": "m", "source": "é" * 200, "metadata": {"a": "x" * (METADATA_BYTES - 9)}}
    assert len(json.dumps(entry["metadata"])) == METADATA_BYTES
    assert stored(taken(form(entry), ndjson))[0]["source"] == "é" * 200


@FORMS
@pytest.mark.parametrize("entries", [ENTRIES_MOST + 1, 3 * ENTRIES_MOST])
def test_too_many_entries_are_refused(form: Any, ndjson: bool, entries: int) -> None:
    refused = refusal(form(*["x"] * entries), ndjson)
    assert refused.more == {"limit": {"entries": ENTRIES_MOST}, "index": ENTRIES_MOST}


@FORMS
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_metadata_nested_deeper_than_64_is_refused(form: Any, ndjson: bool, opening: str) -> None:
    def nested(depth: int) -> Any:
        text = (
            '{"a":' + opening * (depth - 1) + "1" + "".join("]" if c == "[" else "}" for c in opening[:1]) * (depth - 1)
        )
        return json.loads(text + "}")

    assert stored(taken(form({"message": "m", "metadata": nested(64)}), ndjson))
    refused = refusal(form("fine", {"message": "m", "metadata": nested(65)}), ndjson)
    assert (refused.code, refused.more["index"]) == ("invalid_entry", 1)


@pytest.mark.parametrize("ndjson", [True, False])
def test_the_deepest_nesting_is_a_refusal_and_not_a_fault(ndjson: bool) -> None:
    for deep in (b"[" * 100_000, b'{"metadata":' + b'{"a":' * 100_000, b'{"zz":' + b"[" * 100_000):
        body = deep if ndjson else b"[" + deep
        assert refusal(body, ndjson).kind.status == 400


BAD_ENTRIES = [
    b"1",
    b"null",
    b"[]",
    b"{}",
    b'{"message": 1}',
    b'{"message": null}',
    b'{"message": "m", "level": "loud"}',
    b'{"message": "m", "level": 3}',
    b'{"message": "m", "source": 3}',
    b'{"message": "m", "metadata": []}',
    b'{"message": "m", "metadata": "text"}',
    b'{"message": "m", "timestamp": 1}',
]
NOT_JSON = [
    b"{",
    b"plain text",
    b'{"message": "m"} x',
    b'{"message": "m"}{"message": "n"}',
    b'{"message": "\\ud800"}',
    b'{"message": "m", "metadata": {"a": NaN}}',
    b'{"message": "m", "metadata": {"a": "\\ud800"}}',
    b'{"message": "a\0b"}',
    b"{'message': 'm'}",
    b'{"message": "m",}',
]


@pytest.mark.parametrize("bad", BAD_ENTRIES + NOT_JSON)
def test_one_bad_line_refuses_its_batch_and_is_named(bad: bytes) -> None:
    refused = refusal(b'"one"\n\n   \n{"message": "two"}\r\n' + bad + b'\n"four"\n')
    assert (refused.code, refused.more["index"]) == ("invalid_entry", 2)


@pytest.mark.parametrize("bad", BAD_ENTRIES)
def test_one_bad_item_refuses_its_batch_and_is_named(bad: bytes) -> None:
    refused = refusal(b'["one", {"message": "two"}, ' + bad + b', "four"]', ndjson=False)
    assert (refused.code, refused.more["index"]) == ("invalid_entry", 2)


def test_a_bad_entry_far_into_a_long_batch_is_named() -> None:
    entries = [{"message": "x" * 100}] * 9_000
    refused = refusal(ndjson_of(*entries, {"message": 1}, *entries[:900]))
    assert (refused.code, refused.more["index"]) == ("invalid_entry", 9_000)


def test_a_limit_goes_before_any_other_fault() -> None:
    refused = refusal(ndjson_of({"message": 1}, *["x" * 1000] * 100, {"message": "m", "source": "s" * 201}))
    assert (refused.code, refused.more["index"]) == ("too_large", 101)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[", b'["a"', b"[1,]", b'["a"] x', b"NaN", b'["\\ud800"]', b'{"logs": [}']
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    assert refusal(body, ndjson=False).code == "invalid_json"


@pytest.mark.parametrize(
    "body", [b"1", b"null", b'"text"', b"{}", b'{"logs": 1}', b'{"logs": null}', b'{"entries": []}']
)
@pytest.mark.parametrize("padding", [0, 100_000])
def test_json_that_is_no_batch_is_refused(body: bytes, padding: int) -> None:
    assert refusal(body + b" " * padding, ndjson=False).code == "invalid_request"


@pytest.mark.parametrize(
    ("body", "ndjson"), [(b"", True), (b"\n \r\n\t\n", True), (b"[]", False), (b'{"logs":[]}', False)]
)
def test_an_empty_batch_is_a_batch(body: bytes, ndjson: bool) -> None:
    assert taken(body, ndjson) == Batch([], 0, 0, 0)


def test_one_object_a_line_and_one_line_an_object() -> None:
    assert refusal(b'{"message":\n"m"}\n').code == "invalid_entry"


def test_an_array_of_millions_of_items_is_refused_without_keeping_them() -> None:
    body = b"[" + b"1," * 5_000_000 + b"1]"
    refusal(b"[" + b"1," * 100_000 + b"1]", ndjson=False)
    tracemalloc.start()
    assert refusal(body, ndjson=False).more["limit"] == {"entries": ENTRIES_MOST}
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_an_object_that_names_its_logs_thousands_of_times_is_read_once() -> None:
    body = b"{" + b'"logs":["first"],' * 4000 + b'"logs":["last"]}'
    begun_s = process_time()
    for _ in range(10):
        assert [line["message"] for line in stored(taken(body, ndjson=False))] == ["last"]
    assert process_time() - begun_s < 0.8


def test_a_large_batch_is_decoded_in_many_short_steps() -> None:
    body = ndjson_of(*[{"message": "x" * 3000}] * 9_000)
    assert sum(1 for _ in decode_batch_steps(body, ndjson=True)) > 200


@pytest.mark.parametrize("line", [b"1", b'"x"', b'{"message":1}', b'{"message":"m","metadata":{"a": 1\r}}'])
def test_lines_that_are_looked_at_one_by_one_are_a_thousand_in_a_step(line: bytes) -> None:
    steps = decode_batch_steps((line + b"\n") * 1_200 + b"1\n" * 7_800, ndjson=True)
    for _ in range(8):
        next(steps)
    with pytest.raises(Refusal):
        exhaust(steps)


@given(texts=st.lists(TEXTS, max_size=5))
def test_the_stored_text_has_no_line_breaks(texts: list[str]) -> None:
    batch = taken(msgspec.json.encode(texts), ndjson=False)
    assert not any(b"\n" in part.text for part in batch.parts)
