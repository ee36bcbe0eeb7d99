"""POST /spaces/:spaceId/calls: each call of a batch is what it would be alone, and no call is another's harm."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import httpx
import pytest

from tests.factories import NO_JOB, STATUSES, Json, Space, at, refused
from tests.server import Caller, Server

pytestmark = pytest.mark.since_release("0.2.0")
KIB = 1024
MIB = 1024 * KIB
DEEP = b"[" * 65 + b"]" * 65


class One(NamedTuple):
    """A call, alone or of a batch: its verb, its job, its lease token and its body, raw."""

    verb: str
    job: str
    token: str = ""
    body: bytes = b""

    def member(self) -> bytes:
        """It as an entry of a batch."""
        token = b',"leaseToken":%b' % json.dumps(self.token).encode() if self.token else b""
        body = b',"body":%b' % self.body if self.body else b""
        return b'{"verb":"%b","jobId":%b%b%b}' % (self.verb.encode(), json.dumps(self.job).encode(), token, body)


def array(calls: Sequence[One]) -> bytes:
    return b"[" + b",".join(call.member() for call in calls) + b"]"


def send(space: Space, content: bytes, caller: Caller | None = None) -> httpx.Response:
    headers = {"content-type": "application/json"}
    return (caller or space.all).post(f"/spaces/{space.id}/calls", content=content, headers=headers)


def batch(space: Space, *calls: One, caller: Caller | None = None) -> list[tuple[int, Json]]:
    """The answers of a batch that goes through: status and body of each."""
    answer = send(space, array(calls), caller)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()) == len(calls)
    assert all(set(one) == {"status", "body"} for one in answer.json())
    return [(one["status"], one["body"]) for one in answer.json()]


def alone(space: Space, call: One, caller: Caller | None = None) -> tuple[int, Json]:
    headers = {"content-type": "application/json", **({"x-lease-token": call.token} if call.token else {})}
    answer = (caller or space.all).post(f"/jobs/{call.job}/{call.verb}", content=call.body, headers=headers)
    return answer.status_code, answer.json()


def plain(answer: tuple[int, Json]) -> tuple[int, Json]:
    """An answer without what no two calls share: a moment, a fresh token, the number of a request."""
    hidden = {"timeoutAt", "leaseToken", "requestId"}
    return answer[0], {key: "..." if key in hidden and value else value for key, value in answer[1].items()}


def told(space: Space, job: Json) -> Any:
    """What a job says of itself, without ids and moments."""
    found = space.get(job)
    events = [(event["type"], event["data"]) for event in found["events"]]
    return (
        events,
        *(found[name] for name in ("status", "result", "attemptNumber", "checkpoint")),
        *(found[name] is None for name in ("scheduledFor", "deliveredAt", "startedAt", "completedAt")),
    )


GOOD = (
    ("ack", b""),
    ("ack", b'{"nothing":1}'),
    ("progress", b'{"percent":1,"message":"m"}'),
    ("checkpoint", b'{"c":12345678901234567890}'),
    ("event", b""),
    ("event", b'"\\ud83d"'),
    ("keepalive", b""),
    ("complete", b"[1.0, 1e999]"),
    ("complete", b"null"),
    ("fail", b""),
    ("fail", b'{"error":"e"}'),
    ("fail", b'{"error":"e","retry":false}'),
    ("fail", b'{"claim":true}'),
    ("fail", b'{"retryAfterSeconds":60}'),
    ("release", b""),
    ("release", b'{"delaySeconds":60,"reason":"r"}'),
)
BAD = (
    ("ack", b'"' + b"x" * 64 * KIB + b'"'),
    ("ack", DEEP),
    ("progress", b""),
    ("progress", b"{}"),
    ("progress", b'{"percent":101,"message":"m"}'),
    ("progress", b'"{}"'),
    ("progress", b'{"percent":1,"message":"' + b"x" * 16 * KIB + b'"}'),
    ("checkpoint", b""),
    ("checkpoint", b"[]"),
    ("checkpoint", b'"{}"'),
    ("checkpoint", b'{"a":' + DEEP + b"}"),
    ("checkpoint", b'{"a":"' + b"x" * 256 * KIB + b'"}'),
    ("event", DEEP),
    ("event", b'"' + b"x" * 256 * KIB + b'"'),
    ("keepalive", DEEP),
    ("complete", DEEP),
    ("complete", b'"' + b"x" * MIB + b'"'),
    ("fail", b'{"error":1}'),
    ("fail", b'"e"'),
    ("fail", b'{"claim":true,"retryAfterSeconds":1}'),
    ("release", b'{"delaySeconds":-1}'),
    ("release", b'{"reason":"' + b"x" * 65 * KIB + b'"}'),
)


@pytest.mark.parametrize("status", STATUSES)
def test_a_call_of_a_batch_does_and_answers_what_it_does_alone_in_every_status(space: Space, status: str) -> None:
    calls = [(verb, body, token) for verb, body in GOOD for token in ("", "latest", "another")]
    pairs = [(space.job_in(status), space.job_in(status)) for _ in calls]

    def of(job: Json, verb: str, body: bytes, token: str) -> One:
        return One(verb, job["id"], {"latest": job.get("leaseToken", "")}.get(token, token), body)

    answers = [plain(alone(space, of(job, *call))) for (job, _), call in zip(pairs, calls, strict=True)]
    batched = batch(space, *(of(job, *call) for (_, job), call in zip(pairs, calls, strict=True)))
    assert [plain(answer) for answer in batched] == answers
    for (one, other), call in zip(pairs, calls, strict=True):
        assert told(space, other) == told(space, one), call


def test_a_body_is_refused_as_it_is_alone_and_nothing_of_it_is_done(space: Space) -> None:
    job = space.job_in("running")
    before = space.get(job)
    calls = [One(verb, job["id"], job["leaseToken"], body) for verb, body in BAD]
    answers = batch(space, *calls)
    for call, answer in zip(calls, answers, strict=True):
        assert answer == alone(space, call), (call.verb, call.body[:50])
        assert answer[0] in (400, 413)
    assert space.get(job) == before


def test_calls_for_one_job_happen_in_their_order_and_a_refused_one_harms_none_beside_it(space: Space) -> None:
    job, other, token = space.create(), space.create(), space.poll()[0]["leaseToken"]
    answers = batch(
        space,
        One("complete", other["id"]),
        One("ack", job["id"], token),
        One("progress", job["id"], token, b'{"percent":1,"message":"one"}'),
        One("progress", job["id"], token, b'{"percent":101,"message":"no"}'),
        One("event", job["id"], "another"),
        One("event", job["id"], token, b"1"),
        One("event", job["id"], token, b"2"),
        One("checkpoint", job["id"], token, b'{"c":1}'),
        One("ack", NO_JOB),
        One("complete", job["id"], token, b'"r"'),
        One("complete", job["id"], token, b'"r"'),
        One("fail", job["id"], token),
    )
    assert [status for status, _ in answers] == [409, 200, 200, 400, 409, 200, 200, 200, 404, 200, 200, 409]
    events = [(event["type"], event["data"]) for event in space.get(job)["events"]]
    assert events[2:] == [
        ("started", None), ("event", 1), ("event", 2), ("checkpoint", {"c": 1}), ("completed", "r"),
    ]  # fmt: skip
    assert space.status(other) == "pending"


def test_a_thousand_calls_are_answered_in_their_order(space: Space) -> None:
    jobs = [space.create(claim=True)["id"] for _ in range(3)]
    calls = [One("event", jobs[i % 3], body=b"%d" % i) for i in range(1000)]
    calls[500] = One("event", NO_JOB)
    answers = batch(space, *calls)
    assert [i for i, (status, _) in enumerate(answers) if status != 200] == [500]
    for k, job in enumerate(jobs):
        page = space.all.get(f"/jobs/{job}/events?limit=1000").json()["events"]
        assert [event["data"] for event in page[2:]] == [i for i in range(k, 1000, 3) if i != 500]


def test_large_calls_go_through_and_are_kept_as_they_were_sent(space: Space) -> None:
    jobs = [space.job_in("running")["id"] for _ in range(8)]
    result = b'"' + "é".encode() * (MIB // 2 - 100) + b'"'
    answers = batch(space, *(One("complete", job, body=result) for job in jobs))
    assert {status for status, _ in answers} == {200}
    assert space.get({"id": jobs[7]})["result"] == json.loads(result)


@pytest.mark.parametrize(
    ("body", "index"),
    [(b"[]", None), (b"{}", None), (b"null", None), (b'"x"', None), (b"[1]", 0), (b"[%b,null]", 1), (b"[%b,[]]", 1),
     (b'[%b,"ack"]', 1), (b"[%b,{}]", 1), (b'[%b,{"verb":"ack"}]', 1), (b'[%b,{"verb":"kill","jobId":"x"}]', 1),
     (b'[%b,{"verb":"ACK","jobId":"x"}]', 1), (b'[%b,{"verb":null,"jobId":"x"}]', 1),
     (b'[%b,{"verb":"ack","jobId":7}]', 1), (b'[%b,{"verb":"ack","jobId":null}]', 1),
     (b"[" + DEEP * 3000, 0), (b"[%b," + DEEP + b"]", 1),
     (b'[%b,{"verb":"ack","jobId":"x","leaseToken":7}]', 1), (b'[%b,%b,{"verb":["ack"],"jobId":"x"}]', 2)],
)  # fmt: skip
@pytest.mark.parametrize("padding", [0, 200 * KIB])
def test_what_is_no_batch_of_calls_is_refused_whole_and_does_nothing(
    space: Space, body: bytes, index: int | None, padding: int
) -> None:
    job = space.create(claim=True)
    good = One("ack", job["id"]).member()
    content = body.replace(b"%b", good) + b" " * padding
    assert refused(send(space, content), 400, "invalid_request").get("index") == index
    assert space.status(job) == "delivered"


@pytest.mark.parametrize(
    "content", [b"", b"[", b"[%b", b"[%b,", b"[%b]]", b"[%b,{]", b"\xff", b'[%b,{"verb":"ack","jobId":"\xff"}]']
)
@pytest.mark.parametrize("padding", [0, 200 * KIB])
def test_what_is_not_json_is_refused_whole(space: Space, content: bytes, padding: int) -> None:
    job = space.create(claim=True)
    refused(send(space, b" " * padding + content.replace(b"%b", One("ack", job["id"]).member())), 400, "invalid_json")
    assert space.status(job) == "delivered"


@pytest.mark.parametrize("content", [b"{", b"x", b'{"verb":'])
def test_what_is_neither_json_nor_an_array_is_told_to_be_no_json(space: Space, content: bytes) -> None:
    refused(send(space, content), 400, "invalid_json")


def test_of_a_body_that_is_nested_too_deep_to_be_read_the_batch_is_refused(space: Space) -> None:
    job = space.create(claim=True)
    for most in (20_000, 100_000):
        deep = b"[" * most + b"]" * most
        refused(send(space, array([One("ack", job["id"]), One("event", job["id"], body=deep)])), 400, "invalid_json")
    assert space.status(job) == "delivered"


def test_an_unknown_verb_is_not_told_back_at_length(space: Space) -> None:
    answer = send(space, array([One("x" * MIB, NO_JOB)]))
    assert refused(answer, 400, "invalid_request")["index"] == 0
    assert len(answer.content) < KIB


def test_of_a_doubled_member_the_last_counts_null_is_nothing_and_unknown_members_are_ignored(space: Space) -> None:
    job = space.create(claim=True)
    content = (
        b'\xef\xbb\xbf [ {"jobId":"x","jobId":"%b","verb":"fail","verb":"complete","leaseToken":null,'
        b'"body":1,"body":null,"more":{}} ] '
    )
    answer = send(space, content % job["id"].encode())
    assert answer.json() == [{"status": 200, "body": {"status": "completed", "success": True}}]
    assert space.get(job)["result"] is None


def test_a_batch_has_a_thousand_calls_and_8_mib_at_most(space: Space) -> None:
    job = space.create(claim=True)
    call = One("event", job["id"], body=b"1")
    for padding in (0, 200 * KIB):
        many = refused(send(space, array([call] * 1001) + b" " * padding), 413, "too_large")
        assert (many["limit"], many["index"]) == ({"calls": 1000}, 1000)
    head, tail = call.member()[:-1] + b',"more":"', b'"}]'
    whole = b"[" + head + b"x" * (8 * MIB - len(head) - 1 - len(tail)) + tail
    assert refused(send(space, whole + b" "), 413, "too_large")["limit"] == {"bodyBytes": 8 * MIB}
    assert space.events(job) == ["created", "delivered"]
    assert send(space, whole).json()[0]["status"] == 200


def test_each_call_needs_the_scope_of_its_own(space: Space) -> None:
    verbs = {
        "ack": "jobs:ack", "progress": "jobs:progress", "checkpoint": "jobs:event", "event": "jobs:event",
        "keepalive": "jobs:keepalive", "complete": "jobs:complete", "fail": "jobs:fail", "release": "jobs:fail",
    }  # fmt: skip
    calls = [One(verb, space.job_in("delivered")["id"], body=dict(GOOD).get(verb, b"")) for verb in verbs]
    calls[1] = calls[1]._replace(body=b'{"percent":1,"message":"m"}')
    for scope in sorted(set(verbs.values())):
        caller = space.caller(scope)
        answers = batch(space, *calls, caller=caller)
        for (verb, wanted), answer in zip(verbs.items(), answers, strict=True):
            if wanted != scope:
                assert answer == (403, {"error": f"Missing required scope: {wanted}", "code": "missing_scope"})
            else:
                assert answer[0] in (200, 409), verb
    claiming = One("fail", space.job_in("running")["id"], body=b'{"claim":true}')
    assert batch(space, claiming, caller=space.caller("jobs:fail")) == [
        (403, {"error": "Missing required scope: jobs:poll", "code": "missing_scope"})
    ]
    assert batch(space, claiming, caller=space.caller("jobs:worker"))[0][0] == 200


def test_who_may_call_at_all(space: Space, server: Server) -> None:
    other, content = Space(server), array([One("ack", NO_JOB)])
    refused(send(space, content, server.caller(None)), 401, "unauthorized")
    refused(send(space, content, other.all), 403, "wrong_space")
    refused(server.root.post(f"/spaces/{NO_JOB}/calls", content=content), 404, "space_not_found")
    refused(
        space.all.post(f"/spaces/{space.id}/calls", content=b"a", headers={"content-type": "a/b"}),
        415,
        "unsupported_media_type",
    )
    refused(space.all.get(f"/spaces/{space.id}/calls"), 405, "method_not_allowed")


def test_a_batch_reaches_the_jobs_of_its_space_and_no_others_not_even_for_the_root_key(
    space: Space, server: Server
) -> None:
    other = Space(server)
    mine, foreign = space.create(claim=True), other.create(claim=True)
    calls = [
        One("complete", id_)
        for id_ in (foreign["id"], NO_JOB, "", "x" * 10_000, "{}", foreign["id"].lower(), mine["id"])
    ]
    nobody = (404, {"error": "Job not found", "code": "job_not_found"})
    done = (200, {"success": True, "status": "completed"})
    for caller in (space.all, server.root):
        assert batch(space, *calls, caller=caller) == [nobody] * 6 + [done]
    assert other.status(foreign) == "delivered"


def test_a_batch_that_is_sent_again_with_its_lease_tokens_is_answered_again_and_does_nothing_twice(
    space: Space,
) -> None:
    space.all.post(space.jobs, json=[{"name": "x"}] * 6)
    taken = space.poll(count=6, ack=True)
    ids, tokens = [job["id"] for job in taken], [job["leaseToken"] for job in taken]
    calls = [
        One("ack", ids[0], tokens[0]),
        One("complete", ids[1], tokens[1], b'{"r":1}'),
        One("release", ids[2], tokens[2], b'{"reason":"r"}'),
        One("release", ids[3], tokens[3], b'{"delaySeconds":60}'),
        One("fail", ids[4], tokens[4], b'{"claim":true}'),
        One("keepalive", ids[5], tokens[5]),
    ]
    first = batch(space, *calls)
    assert {status for status, _ in first} == {200}
    before = [told(space, job) for job in taken]
    again = batch(space, *calls)
    assert again[:5] == first[:5]
    assert again[5][0] == 200
    assert [told(space, job) for job in taken] == before


def test_a_fail_with_claim_of_a_batch_says_when_the_lease_ends(space: Space) -> None:
    job = space.job_in("running", timeoutSeconds=60)
    calls = [One("keepalive", job["id"]), One("fail", job["id"], job["leaseToken"], b'{"claim":true}')]
    ((_, _), (_, failed)) = batch(space, *calls)
    found = space.get(job)
    assert at(failed["timeoutAt"]) - at(found["deliveredAt"]) == timedelta(seconds=60)
    assert batch(space, One("ack", job["id"], failed["leaseToken"]))[0][1]["status"] == "running"


@pytest.fixture(scope="module")
def narrow(redis_url: str) -> Iterator[Space]:
    """A space that is soon full."""
    with Server(redis_url, JOBWIRE_SPACE_BYTES=str(64 * KIB)) as server:
        yield Space(server)


def test_of_a_full_space_events_are_refused_and_what_goes_on_or_ends_is_not(narrow: Space) -> None:
    job = narrow.create(claim=True)
    large = One("event", job["id"], body=b'"' + b"x" * 60 * KIB + b'"')
    answers = batch(narrow, One("ack", job["id"]), large, large, One("complete", job["id"]))
    assert [status for status, _ in answers] == [200, 200, 503, 200]
    assert (answers[2][1]["code"], answers[2][1]["limit"]) == ("space_full", {"spaceBytes": 64 * KIB})
