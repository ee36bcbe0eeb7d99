"""POST and GET /jobs/:jobId/logs, as a stranger calls them."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.factories import STATUSES, Json, Space, at, refused

NDJSON = {"content-type": "application/x-ndjson"}
KIB, MIB = 1024, 1024 * 1024


def append(space: Space, job: Json, body: Any, **more: Any) -> Json:
    answer = space.call(job, "logs", body, **more)
    assert answer.status_code == 200, answer.text
    done: Json = answer.json()
    return done


def read(space: Space, job: Json, query: str = "", **more: Any) -> Json:
    answer = space.all.get(f"/jobs/{job['id']}/logs{query}", **more)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def messages(page: Json) -> list[str]:
    return [line["message"] for line in page["logs"]]


@pytest.mark.parametrize("status", STATUSES)
def test_lines_are_taken_in_any_status(space: Space, status: str) -> None:
    done = append(space, space.job_in(status), ["a", "b"])
    assert done == {
        "success": True, "inserted": 2, "fromSeq": 1, "toSeq": 2, "truncated": 0, "status": status
    }  # fmt: skip


def test_an_entry_is_a_string_or_an_object_with_these_fields(space: Space) -> None:
    job = space.create()
    entry = {
        "message": "ü\n\u0000", "level": "ERROR", "timestamp": "2026-03-01T10:21:01.1209+01:00", "source": "s",
        "metadata": {"a": [1, {"b": None}]}, "unknown": 1,
    }  # fmt: skip
    append(space, job, {"logs": ["plain", entry]})
    plain, full = read(space, job)["logs"]
    assert plain.keys() == {"id", "seq", "level", "message", "source", "metadata", "loggedAt", "createdAt"}
    assert (plain["seq"], plain["level"], plain["message"]) == (1, "info", "plain")
    assert (plain["source"], plain["metadata"]) == (None, None)
    assert plain["loggedAt"] == plain["createdAt"]
    assert abs((at(plain["createdAt"]) - datetime.now(UTC)).total_seconds()) < 5
    assert (full["level"], full["message"], full["source"]) == ("error", "ü\n\u0000", "s")
    assert full["metadata"] == {"a": [1, {"b": None}]}
    assert full["loggedAt"] == "2026-03-01T09:21:01.120Z"
    assert len(full["id"]) == 26
    assert read(space, job)["logs"] == [plain, full]


@pytest.mark.parametrize(
    ("sent", "meant"),
    [("trace", "trace"), ("debug", "debug"), ("info", "info"), ("warn", "warn"), ("error", "error"), ("fatal", "fatal"),
     ("WARNING", "warn"), ("err", "error"), ("Critical", "fatal"), ("notice", "info"), ("FaTaL", "fatal")],
)  # fmt: skip
def test_a_level_is_read_in_any_case_and_under_its_other_names(space: Space, sent: str, meant: str) -> None:
    job = space.create()
    append(space, job, [{"message": "x", "level": sent}])
    assert read(space, job)["logs"][0]["level"] == meant


def test_ndjson_has_one_entry_a_line_and_blank_lines_are_skipped(space: Space) -> None:
    job = space.create()
    body = b'"a"\n\n  \r\n{"message":"b"}\r\n"c"'
    assert append(space, job, None, content=body, headers=NDJSON)["inserted"] == 3
    assert messages(read(space, job)) == ["a", "b", "c"]


@pytest.mark.parametrize("body", [[], {"logs": []}])
def test_an_empty_batch_inserts_nothing(space: Space, body: Any) -> None:
    job = space.create()
    done = append(space, job, body)
    assert (done["inserted"], done["fromSeq"], done["toSeq"]) == (0, None, None)
    empty = append(space, job, None, content=b"\n\n", headers=NDJSON)
    assert (empty["inserted"], empty["fromSeq"], empty["toSeq"]) == (0, None, None)


@pytest.mark.parametrize(
    "entry",
    [1, None, True, [], {}, {"level": "info"}, {"message": 1}, {"message": None}, {"message": "x", "level": "loud"},
     {"message": "x", "level": 3}, {"message": "x", "timestamp": "yesterday"}, {"message": "x", "source": 1},
     {"message": "x", "timestamp": "2026-03-01T10:21:01"}, {"message": "x", "metadata": []},
     {"message": "x", "metadata": "m"}],
    ids=str,
)  # fmt: skip
def test_one_bad_entry_refuses_the_whole_batch_and_is_named(space: Space, entry: Any) -> None:
    job = space.create()
    assert refused(space.call(job, "logs", ["a", "b", entry, "c"]), 400, "invalid_entry")["index"] == 2
    lines = b'"a"\n\n"b"\n' + json.dumps(entry).encode() + b'\n"c"\n'
    assert refused(space.call(job, "logs", content=lines, headers=NDJSON), 400, "invalid_entry")["index"] == 2
    assert read(space, job)["logs"] == []


@pytest.mark.parametrize(
    "line",
    [b"{", b"NaN", b'"\xff"', rb'"\ud8"', b'"a\x01"', b'{"message":"x","metadata":' + b"[" * 100 + b"]" * 100 + b"}"],
)
def test_a_broken_line_refuses_the_whole_batch(space: Space, line: bytes) -> None:
    job = space.create()
    for body, headers in ((b'"a"\n' + line + b"\n", NDJSON), (b'["a",' + line + b"]", {})):
        answer = space.call(job, "logs", content=body, headers=headers)
        assert answer.status_code == 400, answer.text
        assert answer.json()["code"] in ("invalid_json", "invalid_entry")
    assert read(space, job)["logs"] == []


@pytest.mark.parametrize("body", [b"1", b'"x"', b"null", b"{}", b'{"logs":1}', b'{"logs":"x"}', b"", b"true"])
def test_what_is_no_batch_is_400(space: Space, body: bytes) -> None:
    assert space.call(space.create(), "logs", content=body).status_code == 400


def test_an_entry_has_its_limits(space: Space) -> None:
    job = space.create()
    done = append(space, job, ["x" * (64 * KIB), "y" * (64 * KIB + 1), "ü" * (40 * KIB)])
    assert done["truncated"] == 2
    whole, cut, wide = messages(read(space, job))
    assert whole == "x" * (64 * KIB)
    for text, letter in ((cut, "y"), (wide, "ü")):
        assert len(text.encode()) <= 64 * KIB
        assert text.startswith(letter * 30_000)
        assert not text.endswith(letter)
    metadata = {"a": "x" * (16 * KIB)}
    answer = space.call(job, "logs", ["a", {"message": "x", "metadata": metadata}])
    assert refused(answer, 413, "too_large")["index"] == 1
    answer = space.call(job, "logs", ["a", {"message": "x", "source": "ü" * 201}])
    assert refused(answer, 413, "too_large")["index"] == 1
    assert append(space, job, [{"message": "x", "source": "ü" * 200}])["inserted"] == 1


@pytest.mark.valkey_only("it is refused before Redis is asked")
def test_a_batch_has_its_limits(space: Space) -> None:
    job = space.create()
    assert append(space, job, ["x"] * 10_000)["toSeq"] == 10_000
    body = refused(space.call(job, "logs", ["x"] * 10_001), 413, "too_large")
    assert body["index"] == 10_000
    assert 10_000 in body["limit"].values()
    many = json.dumps(["x" * 1000] * 5400).encode()
    assert 5 * MIB in refused(space.call(job, "logs", content=many), 413, "too_large")["limit"].values()
    packed = gzip.compress(json.dumps(["x" * 60_000] * 600).encode())
    answer = space.call(job, "logs", content=packed, headers={"content-encoding": "gzip"})
    assert 32 * MIB in refused(answer, 413, "too_large")["limit"].values()
    assert read(space, job)["cursor"]["newestSeq"] == 10_000


def test_batches_of_many_callers_are_contiguous_and_seqs_have_no_holes(space: Space) -> None:
    job = space.create()

    def worker(number: int) -> list[Json]:
        return [append(space, job, [f"{number}.{batch}"] * 7) for batch in range(5)]

    with ThreadPoolExecutor(12) as threads:
        done = [one for answers in threads.map(worker, range(12)) for one in answers]
    ranges = sorted((one["fromSeq"], one["toSeq"]) for one in done)
    assert ranges == [(i * 7 + 1, i * 7 + 7) for i in range(60)]
    lines = read(space, job, "?limit=500")["logs"]
    assert [line["seq"] for line in lines] == list(range(1, 421))
    assert all(len({line["message"] for line in lines[i : i + 7]}) == 1 for i in range(0, 420, 7))


def numbered(space: Space, lines: int) -> Json:
    job = space.create()
    for begin in range(1, lines + 1, 7):
        append(space, job, [{"message": f"line {i}", "level": "error" if i % 10 == 0 else "info"}
                            for i in range(begin, min(begin + 7, lines + 1))])  # fmt: skip
    return job


def test_after_pages_ascend_to_the_end(space: Space) -> None:
    job, after = numbered(space, 100), 0
    seen: list[int] = []
    while True:
        page = read(space, job, f"?after={after}&limit=13")
        assert page["cursor"]["mode"] == "after"
        seen += [line["seq"] for line in page["logs"]]
        after = page["cursor"]["newestSeq"]
        assert page["cursor"]["hasMore"] == (after < 100)
        if not page["cursor"]["hasMore"]:
            break
    assert seen == list(range(1, 101))
    empty = read(space, job, "?after=100")
    assert empty["logs"] == []
    assert (empty["cursor"]["newestSeq"], empty["cursor"]["hasMore"]) == (100, False)
    assert read(space, job, "?after=5000")["cursor"]["newestSeq"] == 5000


def test_before_pages_ascend_within_and_go_back_to_the_beginning(space: Space) -> None:
    job, before = numbered(space, 100), 101
    seen: list[int] = []
    while True:
        page = read(space, job, f"?before={before}&limit=13")
        assert page["cursor"]["mode"] == "before"
        seqs = [line["seq"] for line in page["logs"]]
        assert seqs == sorted(seqs)
        seen = seqs + seen
        before = page["cursor"]["oldestSeq"]
        assert page["cursor"]["hasMore"] == (before > 1)
        if not page["cursor"]["hasMore"]:
            break
    assert seen == list(range(1, 101))
    empty = read(space, job, "?before=1")
    assert (empty["logs"], empty["cursor"]["oldestSeq"], empty["cursor"]["hasMore"]) == ([], 1, False)


def test_without_a_position_the_newest_lines_are_answered(space: Space) -> None:
    job = numbered(space, 250)
    page = read(space, job)
    assert [line["seq"] for line in page["logs"]] == list(range(51, 251))
    assert page["cursor"] == {"mode": "tail", "oldestSeq": 51, "newestSeq": 250, "hasMore": True, "firstSeq": 1}
    assert read(space, job, "?limit=250")["cursor"]["hasMore"] is False
    empty = read(space, space.create())["cursor"]
    assert (empty["mode"], empty["oldestSeq"], empty["newestSeq"], empty["hasMore"]) == ("tail", None, None, False)


@pytest.mark.parametrize("query", ["level=error", "q=0", "level=error,fatal&q=line", "level=fatal&level=error"])
def test_paging_with_a_filter_finds_each_line_once_also_past_empty_pages(space: Space, query: str) -> None:
    job = numbered(space, 100)
    for mode in ("after", "before"):
        seen: list[int] = []
        position = 0 if mode == "after" else 101
        while True:
            page = read(space, job, f"?{mode}={position}&limit=2&{query}")
            seen += [line["seq"] for line in page["logs"]]
            cursor = page["cursor"]
            if not cursor["hasMore"]:
                break
            moved = cursor["newestSeq"] if mode == "after" else cursor["oldestSeq"]
            assert moved != position
            position = moved
        assert sorted(seen) == list(range(10, 101, 10))


def test_q_finds_every_word_as_a_substring_without_case(space: Space) -> None:
    job = space.create()
    append(space, job, ["Straße GRÜN rot", "grün", "say hello world", "hello big world", "100%_*"])
    for query, found in {
        "GRÜN": ["Straße GRÜN rot", "grün"],
        "rot grün": ["Straße GRÜN rot"],
        "hello world": ["say hello world", "hello big world"],
        '"hello world"': ["say hello world"],
        'say "O W"': ["say hello world"],
        "ELL": ["say hello world", "hello big world"],
        "%_*": ["100%_*"],
        "nothing": [],
        "  ": ["Straße GRÜN rot", "grün", "say hello world", "hello big world", "100%_*"],
    }.items():
        assert messages(read(space, job, "?" + str(httpx.QueryParams({"q": query})))) == found, query
    refused(space.all.get(f"/jobs/{job['id']}/logs", params={"q": 'say "hello'}), 400, "invalid_request")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=x", "after=-1", "after=x", "before=0", "before=-1", "after=1&before=2",
     "level=loud", "level=error,loud", "after=1.5", "limit=", "q=%ff"],
)  # fmt: skip
def test_a_parameter_out_of_range_is_400(space: Space, query: str) -> None:
    refused(space.all.get(f"/jobs/{space.create()['id']}/logs?{query}"), 400, "invalid_request")


def test_a_download_streams_every_matching_line(space: Space) -> None:
    job = numbered(space, 700)
    accept = {"accept": "application/x-ndjson"}
    answer = space.all.get(f"/jobs/{job['id']}/logs?after=3", headers=accept)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["seq"] for line in lines] == list(range(4, 701))
    assert lines[:497] == read(space, job, "?after=3&limit=497")["logs"]
    errors = space.all.get(f"/jobs/{job['id']}/logs?level=error", headers=accept).text.splitlines()
    assert len(errors) == 70
    refused(space.all.get(f"/jobs/{job['id']}/logs?limit=0", headers=accept), 400, "invalid_request")


def test_an_append_under_a_key_is_done_once_and_answered_alike(space: Space) -> None:
    job = space.create()
    headers = {"idempotency-key": "k"}
    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda _: space.call(job, "logs", ["a", "b"], headers=headers), range(30)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 29
    assert messages(read(space, job)) == ["a", "b"]
    refused(space.call(job, "logs", ["other"], headers=headers), 422, "idempotency_mismatch")
    refused(space.call(job, "logs", [1], headers=headers), 400, "invalid_entry")
    other = space.create()
    assert append(space, other, ["c"], headers=headers)["fromSeq"] == 1
    refused(space.call(job, "logs", [1], headers={"idempotency-key": "fresh"}), 400, "invalid_entry")
    assert append(space, job, ["d"], headers={"idempotency-key": "fresh"})["fromSeq"] == 3


def test_times_of_lines_never_go_back(space: Space) -> None:
    job = space.create()
    for i in range(20):
        append(space, job, [str(i)])
    lines = read(space, job)["logs"]
    assert all(a["createdAt"] <= b["createdAt"] for a, b in pairwise(lines))
    assert len({line["id"] for line in lines}) == 20


def test_words_are_found_as_full_case_folding_has_it(space: Space) -> None:
    job = space.create()
    said = ["ΟΔΟΣΑΒ", "οδος", "Straße", "STRASSE", "ﬁne", "FINE", "\u212a 7", "\u0130zmir", "é", "Ａ"]
    space.do(job, "logs", said)
    for q, found in (
        ("ΟΔΟΣ", ["ΟΔΟΣΑΒ", "οδος"]),
        ("οδοσ", ["ΟΔΟΣΑΒ", "οδος"]),
        ("strasse", ["Straße", "STRASSE"]),
        ("straße", ["Straße", "STRASSE"]),
        ("fine", ["ﬁne", "FINE"]),
        ("k", ["\u212a 7"]),
        ("\u212a", ["\u212a 7"]),
        ("i\u0307", ["\u0130zmir"]),
        ("e", ["Straße", "STRASSE", "ﬁne", "FINE"]),
        ("a", ["Straße", "STRASSE"]),
    ):
        answer = space.all.get(f"/jobs/{job['id']}/logs", params={"q": q})
        assert [line["message"] for line in answer.json()["logs"]] == found, q


def test_a_search_has_at_most_sixteen_words_or_phrases(space: Space) -> None:
    job = space.create()
    space.do(job, "logs", ["a b c d"])
    path = f"/jobs/{job['id']}/logs"
    for q in ("a " * 16, '"a b" c ' * 8, '"a b c d"' + " a" * 15):
        assert len(space.all.get(path, params={"q": q}).json()["logs"]) == 1
    for q in ("a " * 17, '"a b" ' * 17, "x y " * 90):
        refusal = refused(space.all.get(path, params={"q": q}), 400, "invalid_request")
        assert "16 words" in refusal["error"]
        assert "phrase" in refusal["error"]
