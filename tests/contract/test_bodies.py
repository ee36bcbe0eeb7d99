"""What is sent: media types, encodings, JSON of every broken kind, sizes; a refusal stores and holds nothing."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zstandard

from tests.factories import Space, refused

KIB, MIB = 1024, 1024 * 1024

WANTS_JSON = ("complete", "event", "checkpoint", "progress", "fail", "kill", "ack", "keepalive", "claim", "retry")


pytestmark = pytest.mark.valkey_only("what it proves is decided before Redis is asked")


def broken_json() -> Iterator[tuple[str, bytes]]:
    yield "nothing but a brace", b"{"
    yield "a word", b"nul"
    yield "two values", b"{} {}"
    yield "a comma at the end", b'{"a":1,}'
    yield "a comma at the end of an array", b'{"a":[1,]}'
    yield "single quotes", b"{'a':1}"
    yield "a key without quotes", b"{a:1}"
    yield "a comment", b'{"a":1/**/}'
    yield "NaN", b'{"a":NaN}'
    yield "Infinity", b'{"a":Infinity}'
    yield "minus Infinity", b'{"a":-Infinity}'
    yield "a number that begins with 0", b'{"a":01}'
    yield "a number that ends in a dot", b'{"a":1.}'
    yield "a number with a plus", b'{"a":+1}'
    yield "hexadecimal", b'{"a":0x10}'
    yield "half of an escaped surrogate", rb'{"a":"\ud8"}'
    yield "an escaped surrogate outside of a string", rb'{"a":\ud800}'
    yield "an escape that there is not", rb'{"a":"\q"}'
    yield "a control character in a string", b'{"a":"x\ny"}'
    yield "a NUL in a string", b'{"a":"\0"}'
    yield "invalid UTF-8 in a string", b'{"a":"\xff"}'
    yield "invalid UTF-8 in a key", b'{"\xc3(":1}'
    yield "a surrogate as UTF-8", b'{"a":"\xed\xa0\x80"}'
    yield "overlong UTF-8", b'{"a":"\xc0\xaf"}'
    yield "half of a character at the end", b'{"a":"\xe2\x82"}'
    yield "two byte order marks", b'\xef\xbb\xbf\xef\xbb\xbf{"a":1}'
    yield "a byte order mark behind a blank", b' \xef\xbb\xbf{"a":1}'
    yield "UTF-16", '{"a":1}'.encode("utf-16")
    yield "nested 100 deep", b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"
    yield "nested 10,000 deep", b'{"a":' + b'{"b":' * 10_000 + b"1" + b"}" * 10_000 + b"}"
    yield "nested without an end", b"[" * 30_000


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in broken_json()])
def test_what_is_not_json_is_400_everywhere_and_changes_nothing(space: Space, body: bytes) -> None:
    job = space.job_in("running")
    before = space.get(job)
    for verb in ("complete", "event", "checkpoint", "keepalive", "ack"):
        refused(space.call(job, verb, content=body), 400, "invalid_json")
    for verb in ("progress", "fail", "kill"):
        assert space.call(job, verb, content=body).status_code in (400, 413)
    assert space.get(job) == before


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in broken_json()])
def test_a_broken_job_is_400_and_none_is_made(space: Space, body: bytes) -> None:
    payload = b'{"name":"x","payload":' + body + b"}"
    for content in (payload, b'[{"name":"x"},' + payload + b"]"):
        refused(space.all.post(space.jobs, content=content), 400, "invalid_json")
    assert space.all.post(space.jobs, content=body).status_code == 400
    assert space.all.post(f"{space.jobs}/poll", content=body).status_code == 400
    assert space.all.get(space.jobs).json() == []


@pytest.mark.parametrize("path", ["/spaces", "/spaces/S/tokens"])
def test_a_broken_admin_body_is_400(space: Space, path: str) -> None:
    for body in (b"{", b'{"name":"\xff"}', rb'{"name":"\u"}', b"[" * 1000):
        assert space.server.root.post(path.replace("/S", f"/{space.id}"), content=body).status_code == 400


@pytest.mark.parametrize("depth", [1, 63, 64])
def test_nesting_of_64_is_kept_as_sent(space: Space, depth: int) -> None:
    text = "[" * depth + "]" * depth
    job = space.all.post(space.jobs, content=f'{{"name":"x","payload":{text}}}').json()
    assert json.dumps(space.get(job)["payload"]).replace(" ", "") == text


def test_brackets_inside_of_strings_are_no_nesting(space: Space) -> None:
    payload = {"text": "[" * 500 + '\\"{' * 500}
    assert space.get(space.create(payload=payload))["payload"] == payload


LONE = rb'{"\ud83d":"\ude00 \ud83d\ud83d\ude00 \\ud83d\\\uDBFF","n":1.10}'
LONE_READ = {"\ufffd": "\ufffd \ufffd😀 \\ud83d\\\ufffd", "n": 1.1}


def test_lone_surrogates_are_stored_as_the_replacement_character_everywhere(space: Space) -> None:
    made = space.all.post(space.jobs, content=b'{"name":"\\udc00","payload":%b,"claim":true}' % LONE)
    assert made.status_code == 201, made.text
    job = made.json()
    assert (job["name"], job["payload"]) == ("\ufffd", LONE_READ)
    many = space.all.post(space.jobs, content=b'[{"name":"x","payload":%b}]' % LONE)
    assert many.json()[0]["payload"] == LONE_READ
    assert space.all.post(f"{space.jobs}/poll", content=rb'{"name":"\ud83d"}').json() == {"jobs": []}
    for verb in ("ack", "keepalive", "event", "checkpoint"):
        assert space.call(job, verb, content=LONE).status_code == 200
    progress = rb'{"percent":1,"message":"\ud83d","subProgress":{"\ude00":{"percent":1,"message":"\ud83d"}}}'
    assert space.call(job, "progress", content=progress).status_code == 200
    line = b'{"message":"\\ud83d","source":"\\ud83d","metadata":%b}' % LONE
    for kind, body in (("application/json", b"[" + line + b"]"), ("application/x-ndjson", line + b"\n" + line)):
        assert space.call(job, "logs", content=body, headers={"content-type": kind}).status_code == 200
    shown = space.all.get(f"/jobs/{job['id']}/progress").json()["progress"]
    assert shown["message"] == shown["subProgress"]["\ufffd"]["message"] == "\ufffd"
    lines = space.all.get(f"/jobs/{job['id']}/logs").json()["logs"]
    assert [(each["message"], each["source"], each["metadata"]) for each in lines] == [
        ("\ufffd",) * 2 + (LONE_READ,)
    ] * 3
    assert space.call(job, "complete", content=LONE).status_code == 200
    stored = space.all.get(f"/jobs/{job['id']}")
    msgspec.json.decode(stored.content)  # a parser that takes no lone surrogates
    assert (stored.json()["result"], stored.json()["checkpoint"]) == (LONE_READ, LONE_READ)
    dead = space.job_in("running")
    assert space.call(dead, "fail", content=rb'{"error":"\ud83d","retry":false}').status_code == 200
    assert space.get(dead)["result"]["error"] == "\ufffd"
    killed = space.create()
    assert space.call(killed, "kill", content=rb'{"reason":"\ud83d"}').status_code == 200
    assert space.get(killed)["result"]["reason"] == "\ufffd"
    assert space.server.root.post("/spaces", content=rb'{"name":"\ud83d"}').json()["name"] == "\ufffd"


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_at_the_start_is_passed_over(space: Space, packed: bool) -> None:
    headers = {"content-encoding": "gzip"} if packed else {}

    def body(text: bytes) -> bytes:
        marked = b"\xef\xbb\xbf" + text
        return gzip.compress(marked) if packed else marked

    made = space.all.post(space.jobs, content=body(b'{"name":"x","claim":true}'), headers=headers)
    assert made.status_code == 201, made.text
    job = made.json()
    for verb in ("ack", "event", "checkpoint"):
        assert space.call(job, verb, content=body(b'{"a":1}'), headers=headers).status_code == 200
    for kind, text in (("application/json", b'["a"]'), ("application/x-ndjson", b'"b"\n')):
        answer = space.call(job, "logs", content=body(text), headers={"content-type": kind, **headers})
        assert answer.json()["inserted"] == 1
    assert space.call(job, "complete", content=body(b"{}"), headers=headers).status_code == 200
    assert b'"result":{}' in space.all.get(f"/jobs/{job['id']}").content
    assert space.all.post(f"{space.jobs}/poll", content=body(b""), headers=headers).json() == {"jobs": []}


def test_a_whole_number_may_have_a_fraction_of_nothing(space: Space) -> None:
    job = space.all.post(space.jobs, content='{"name":"x","maxRetries":2.0,"timeoutSeconds":6e1}').json()
    assert (job["maxRetries"], job["timeoutSeconds"]) == (2, 60)
    assert [each["id"] for each in space.all.post(f"{space.jobs}/poll", content='{"count":1.0}').json()["jobs"]] == [
        job["id"]
    ]
    assert space.all.post(f"{space.jobs}/retry", content='{"status":"dead","limit":10.0}').json()["retried"] == 0
    for content in (
        '{"name":"x","maxRetries":1.5}',
        '{"name":"x","timeoutSeconds":1.5}',
        '{"name":"x","maxRetries":26.0}',
    ):
        refused(space.all.post(space.jobs, content=content), 400, "invalid_request")
    refused(space.all.post(f"{space.jobs}/poll", content='{"count":1.5}'), 400, "invalid_request")
    refused(space.all.post(f"{space.jobs}/retry", content='{"status":"dead","limit":1.5}'), 400, "invalid_request")


def test_null_means_the_default_where_there_is_one(space: Space) -> None:
    fields = ("payload", "maxRetries", "timeoutSeconds", "scheduledFor", "callbackUrl", "callbackHeaders")
    nulls = dict.fromkeys((*fields, "retryDelaySeconds", "claim"))
    job = space.create(**nulls)
    plain = space.create()
    own = ("id", "createdAt", "updatedAt", "realtimeUrl")
    assert {name: value for name, value in job.items() if name not in own} == {
        name: value for name, value in plain.items() if name not in own
    }
    assert len(space.poll(count=None, waitSeconds=None, names=None)) == 1
    space.do(job, "ack")
    assert space.do(job, "fail", {"error": None, "retry": None, "claim": None, "retryAfterSeconds": None})["willRetry"]
    again = {"status": "dead", "limit": None, "name": None, "after": None, "before": None}
    assert space.all.post(f"{space.jobs}/retry", json=again).json()["retried"] == 0
    push = {"url": "https://example.com/", "headers": None, "names": None}
    patch = {"name": None, "rotateWebhookSecret": None, "dropOldWebhookSecret": None, "push": push}
    patched = space.server.root.send("PATCH", f"/spaces/{space.id}", json=patch)
    assert patched.status_code == 200, patched.text
    assert patched.json()["name"] == "test"


NUMBERS = [
    "12345678901234567890123456789012345678901234567890",
    "-9223372036854775809",
    "18446744073709551616",
    "9007199254740993",
    "1.10",
    "1e400",
    "-0",
    "-0.0",
    "1E5",
    "0.1000000000000000055511151231257827021181583404541015625",
]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_come_back_as_they_were_sent(space: Space, number: str) -> None:
    job = space.all.post(space.jobs, content=f'{{"name":"x","claim":true,"payload":[{number}]}}').json()
    job["id"] = str(job["id"])
    for verb in ("event", "checkpoint", "complete"):
        assert space.call(job, verb, content=f'{{"n":{number}}}').status_code == 200
    text = space.all.get(f"/jobs/{job['id']}").text
    assert f'"payload":[{number}]' in text
    assert f'"result":{{"n":{number}}}' in text
    assert f'"checkpoint":{{"n":{number}}}' in text
    assert text.count(f'"data":{{"n":{number}}}') == 3


def test_of_a_doubled_key_the_last_wins(space: Space) -> None:
    job = space.all.post(space.jobs, content='{"name":"first","name":"last","maxRetries":9,"maxRetries":1}').json()
    assert (job["name"], job["maxRetries"]) == ("last", 1)
    assert space.get(job)["name"] == "last"


def test_unknown_fields_are_ignored(space: Space) -> None:
    job = space.create(nothing={"a": 1}, constructor="x", __proto__=None, NAME="y")
    assert "nothing" not in space.get(job)
    assert space.poll(unknown=1, filter="x")[0]["id"] == job["id"]
    space.do(job, "progress", {"percent": 1, "message": "x", "more": 1})
    assert space.all.get(f"/jobs/{job['id']}/progress").json()["progress"] == {"percent": 1, "message": "x"}
    space.do(job, "fail", {"error": "x", "code": 1})


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "APPLICATION/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/json; v=1",
    ],
)
def test_json_by_any_spelling_is_taken(space: Space, kind: str) -> None:
    assert space.all.post(space.jobs, content=b'{"name":"x"}', headers={"content-type": kind}).status_code == 201


def test_a_missing_content_type_means_json(space: Space) -> None:
    body = b'{"name":"x"}'
    head = f"POST /api/v1{space.jobs} HTTP/1.1\r\nhost: x\r\nx-api-key: {space.all.key}\r\ncontent-length: {len(body)}"
    assert space.server.raw(f"{head}\r\n\r\n".encode() + body)[0] == 201


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "json",
     "application/json; charset=latin-1", "application/x-ndjson", "application/jsonx", "x" * 500],
)  # fmt: skip
def test_another_content_type_is_415(space: Space, kind: str) -> None:
    job = space.job_in("running")
    refused(
        space.all.post(space.jobs, content=b'{"name":"x"}', headers={"content-type": kind}),
        415,
        "unsupported_media_type",
    )
    for verb in WANTS_JSON:
        refused(space.call(job, verb, content=b"{}", headers={"content-type": kind}), 415, "unsupported_media_type")
    assert space.status(job) == "running"


@pytest.mark.parametrize("encoding", ["br", "deflate", "compress", "gzip, gzip", "gzip, br", "x"])
def test_another_encoding_is_415(space: Space, encoding: str) -> None:
    answer = space.all.post(space.jobs, content=b'{"name":"x"}', headers={"content-encoding": encoding})
    refused(answer, 415, "unsupported_media_type")


def packed(body: bytes) -> dict[str, bytes]:
    whole = zstandard.compress(body)
    return {
        "gzip": gzip.compress(body),
        "zstd": whole,
        "identity": body,
        "GZIP": gzip.compress(body),
        "x-gzip": gzip.compress(body),
    }


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity", "GZIP", "x-gzip"])
def test_packed_bodies_are_taken_on_every_post(space: Space, encoding: str) -> None:
    headers = {"content-encoding": encoding}
    made = space.all.post(space.jobs, content=packed(b'{"name":"x","claim":true}')[encoding], headers=headers)
    assert made.status_code == 201
    job = made.json()
    bodies = {"progress": b'{"percent":1,"message":"x"}', "logs": b'["a"]', "poll": b"{}"}
    for verb in ("ack", "keepalive", "progress", "checkpoint", "event", "logs", "fail", "claim", "complete"):
        body = packed(bodies.get(verb, b"{}"))[encoding]
        assert space.call(job, verb, content=body, headers=headers).status_code == 200, verb
    assert space.all.post(f"{space.jobs}/poll", content=packed(b"{}")[encoding], headers=headers).status_code == 200
    assert space.call(job, "kill", content=packed(b"{}")[encoding], headers=headers).status_code == 409


def damaged() -> Iterator[tuple[str, str, bytes]]:
    body = json.dumps({"name": "x", "payload": list(range(2000))}).encode()
    for encoding in ("gzip", "zstd"):
        whole = packed(body)[encoding]
        yield f"half of {encoding}", encoding, whole[: len(whole) // 2]
        yield f"{encoding} without its last byte", encoding, whole[:-1]
        yield f"{encoding} with something after it", encoding, whole + b"x"
        yield f"no {encoding}", encoding, body
        yield f"a damaged byte in {encoding}", encoding, whole[:40] + bytes([whole[40] ^ 255]) + whole[41:]
        yield f"invalid UTF-8 in {encoding}", encoding, packed(b'{"name":"\xff"}')[encoding]
    yield "a wrong checksum", "gzip", packed(body)["gzip"][:-8] + b"\0" * 8
    yield "raw deflate", "gzip", zlib.compress(body)


@pytest.mark.parametrize(("encoding", "body"), [pytest.param(e, body, id=name) for name, e, body in damaged()])
def test_a_damaged_packed_body_is_400_and_nothing_is_stored(space: Space, encoding: str, body: bytes) -> None:
    answer = space.all.post(space.jobs, content=body, headers={"content-encoding": encoding})
    refused(answer, 400, "invalid_json")
    assert space.all.get(space.jobs).json() == []


LIMITS = {"complete": MIB, "event": 256 * KIB, "checkpoint": 256 * KIB, "progress": 16 * KIB}


@pytest.mark.parametrize(("verb", "limit"), LIMITS.items())
def test_a_body_over_its_limit_is_413_and_says_the_limit(space: Space, verb: str, limit: int) -> None:
    job = space.job_in("running")
    fixed = b'{"percent":1,"message":""}'
    body = fixed[:-2] + b"x" * (limit - len(fixed)) + fixed[-2:]
    assert len(body) == limit
    too_much = body[:-2] + b"x" + body[-2:]
    assert limit in refused(space.call(job, verb, content=too_much), 413, "too_large")["limit"].values()
    for packed_ in (gzip.compress(too_much), zstandard.compress(too_much)):
        encoding = "gzip" if packed_[:2] == b"\x1f\x8b" else "zstd"
        refused(space.call(job, verb, content=packed_, headers={"content-encoding": encoding}), 413, "too_large")
    assert space.call(job, verb, content=iter([too_much[:100], too_much[100:]])).status_code == 413
    assert space.call(job, verb, content=body).status_code == 200


def test_a_reason_has_at_most_64_kib_of_utf8(space: Space) -> None:
    job = space.job_in("running", maxRetries=0)
    for text in ("x" * (64 * KIB + 1), "ü" * (32 * KIB + 1)):
        body = refused(space.call(job, "kill", {"reason": text}), 413, "too_large")
        assert 64 * KIB in body["limit"].values()
    assert space.status(job) == "running"
    escaped = json.dumps({"reason": "ü" * (32 * KIB)})
    assert space.call(job, "kill", content=escaped.encode()).status_code == 200
    assert space.get(job)["result"] == {"reason": "ü" * (32 * KIB)}


@pytest.mark.parametrize("text", ["x" * (64 * KIB), "ü" * (32 * KIB)])
def test_an_error_of_64_kib_of_utf8_is_kept_whole(space: Space, text: str) -> None:
    job = space.job_in("running", maxRetries=0)
    assert space.call(job, "fail", content=json.dumps({"error": text}).encode()).status_code == 200
    assert space.get(job)["result"] == {"error": text}


@pytest.mark.parametrize(
    ("text", "head", "left_out", "tail"),
    [
        ("a" * (16 * KIB) + "b" * 5 + "c" * (48 * KIB), "a" * (16 * KIB), 5, "c" * (48 * KIB)),
        ("ü" * (32 * KIB) + "x", "ü" * (8 * KIB), 1, "ü" * (24 * KIB - 1) + "x"),
        ("\n" * 400_000 + "the end", "\n" * (16 * KIB), 400_007 - 64 * KIB, "\n" * (48 * KIB - 7) + "the end"),
    ],
)
def test_of_a_longer_error_the_first_16_kib_and_the_last_48_kib_stay_with_a_mark_between(
    space: Space, text: str, head: str, left_out: int, tail: str
) -> None:
    job = space.job_in("running", maxRetries=0)
    space.do(job, "fail", {"error": text})
    assert space.get(job)["result"] == {"error": f"{head}\n... {left_out} bytes left out ...\n{tail}"}


@pytest.mark.parametrize("verb", ["ack", "keepalive", "claim", "retry", "fail", "kill", "complete", "event"])
def test_an_empty_body_is_allowed_where_nothing_is_required(space: Space, verb: str) -> None:
    job = space.job_in({"claim": "pending", "retry": "dead"}.get(verb, "delivered"))
    assert space.call(job, verb, content=b"").status_code == 200
    assert space.all.post(f"{space.jobs}/poll", content=b"  \n").status_code == 200


@pytest.mark.parametrize("verb", ["progress", "checkpoint"])
def test_an_empty_body_is_400_where_something_is_required(space: Space, verb: str) -> None:
    job = space.job_in("running")
    assert space.call(job, verb, content=b"").status_code == 400
    assert space.all.post(space.jobs, content=b"").status_code == 400


def bombs() -> Iterator[tuple[str, bytes]]:
    yield "gzip", gzip.compress(b"[" + b" " * (48 * MIB) + b"]")
    yield "zstd", zstandard.compress(b"[" + b" " * (48 * MIB) + b"]")
    buffer = io.BytesIO()
    for _ in range(3):
        buffer.write(gzip.compress(b" " * (16 * MIB)))
    yield "gzip", buffer.getvalue()


@pytest.mark.valkey_only("a measure of the process, not of Redis")
def test_memory_does_not_grow_with_what_is_refused(space: Space) -> None:
    job, huge = space.job_in("running"), b"[" * (16 * MIB)
    requests: list[tuple[bytes, dict[str, str]]] = [(body, {"content-encoding": kind}) for kind, body in bombs()]
    requests += [(huge, {}), (huge, {"content-type": "text/plain"}), (huge, {"x-api-key": "emit_nothing"})]

    def storm() -> None:
        for body, headers in requests:
            for verb in ("logs", "complete"):
                sent: Any = iter([body]) if not headers else body
                assert space.call(job, verb, content=sent, headers=headers).status_code in (401, 413, 415)
            assert space.all.post(space.jobs, content=body, headers=headers).status_code in (401, 413, 415)

    storm()
    before = space.server.rss_bytes()
    storm()
    assert space.server.rss_bytes() - before < 24 * MIB
    assert space.server.rss_bytes() < 400 * MIB
    assert space.status(job) == "running"
