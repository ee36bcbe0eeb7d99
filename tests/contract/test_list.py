"""The list in pages: bounded in bytes, gone through by cursors that nobody can make up, whatever jobs do meanwhile."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.model.limits import MIB, PAGE_BYTES
from tests.any_redis import AnyRedis
from tests.factories import STATUSES, Space, refused
from tests.server import Caller, Server

NEXT = "x-next-cursor"


def page(space: Space, caller: Caller | None = None, **query: Any) -> httpx.Response:
    answer = (caller or space.all).get(space.jobs, params=query)
    assert answer.status_code == 200, answer.text
    return answer


def pages(space: Space, **query: Any) -> list[httpx.Response]:
    """All pages of a list, by following its cursors."""
    found = [page(space, **query)]
    while NEXT in found[-1].headers:
        found.append(page(space, **query, cursor=found[-1].headers[NEXT]))
    return found


def ids(*answers: httpx.Response) -> list[str]:
    return [job["id"] for answer in answers for job in answer.json()]


def create_many(space: Space, count: int, **fields: Any) -> list[str]:
    """Ids of new jobs, newest first."""
    made = space.all.post(space.jobs, json=[{"name": "work", **fields}] * count)
    assert made.status_code == 201, made.text
    return [job["id"] for job in made.json()][::-1]


def test_a_page_says_where_the_next_begins_and_the_last_says_nothing(space: Space) -> None:
    made = create_many(space, 7)
    found = pages(space, limit=3)
    assert [len(answer.json()) for answer in found] == [3, 3, 1]
    assert ids(*found) == made
    assert {answer.headers["x-total-count"] for answer in found} == {"7"}
    assert NEXT not in page(space, limit=7).headers
    assert ids(*pages(space, limit=7)) == made


def test_a_cursor_goes_on_from_an_offset_and_may_change_the_limit(space: Space) -> None:
    made = create_many(space, 9)
    first = page(space, limit=2, offset=3)
    rest = page(space, limit=100, cursor=first.headers[NEXT])
    assert ids(first, rest) == made[3:]


def test_a_page_ends_before_it_has_more_than_8_mib_and_nothing_is_missing(space: Space) -> None:
    payload = "x" * (MIB - 2)
    made = [space.create(payload=payload)["id"] for _ in range(10)][::-1]
    for job in made[:3]:
        space.do({"id": job}, "claim")
        space.do({"id": job}, "complete", payload)
    found = pages(space, limit=100)
    assert ids(*found) == made
    assert len(found) == 2
    assert all(len(answer.content) <= PAGE_BYTES for answer in found)
    assert len(found[0].content) > PAGE_BYTES - MIB - 1024
    assert found[0].headers["x-total-count"] == "10"
    assert ids(*pages(space, limit=100, status="completed")) == made[:3]


def test_several_statuses_are_one_list_with_its_total(space: Space) -> None:
    made = [(status, space.job_in(status)["id"]) for _ in range(3) for status in STATUSES][::-1]
    wanted = [id_ for status, id_ in made if status in ("pending", "dead", "scheduled")]
    whole = page(space, status="pending,dead,scheduled,dead")
    assert (ids(whole), whole.headers["x-total-count"], NEXT in whole.headers) == (wanted, "9", False)
    assert ids(*pages(space, status="pending,dead,scheduled", limit=2)) == wanted
    assert [ids(page(space, status="scheduled,dead,pending", offset=n, limit=2)) for n in range(11)] == [
        wanted[n : n + 2] for n in range(11)
    ]
    assert ids(page(space, status=",".join(STATUSES), limit=100)) == [id_ for _, id_ in made]


def test_a_cursor_is_good_for_its_list_only_however_its_filter_is_spelled(space: Space) -> None:
    made = create_many(space, 4)
    cursor = page(space, status="pending,dead", limit=1).headers[NEXT]
    assert ids(page(space, status="dead,pending,dead", cursor=cursor)) == made[1:]
    other = Space(space.server)
    for jobs, caller, query in (
        (space.jobs, space.all, ""),
        (space.jobs, space.all, "&status=pending"),
        (space.jobs, space.all, "&status=pending,dead,killed"),
        (space.jobs, space.all, "&status=pending,dead&offset=1"),
        (space.jobs, space.all, "&status=pending,dead&offset=0"),
        (other.jobs, other.all, "&status=pending,dead"),
        (other.jobs, space.server.root, "&status=pending,dead"),
    ):
        refused(caller.get(f"{jobs}?cursor={cursor}{query}"), 400, "invalid_request")


def test_a_cursor_that_was_made_up_is_refused(space: Space) -> None:
    create_many(space, 3)
    cursor = page(space, limit=1).headers[NEXT]
    raw = base64.urlsafe_b64decode(cursor + "==")
    flipped = [raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :] for i in range(len(raw))]
    spelled = [base64.urlsafe_b64encode(one).decode().rstrip("=") for one in (*flipped, raw[:-1], raw + b"\0", b"")]
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = cursor[:-1] + last[last.index(cursor[-1]) ^ 1]
    for text in (*spelled, twin, "2", "x", "%00", "ü", cursor + "==", cursor + "%0A", f"{cursor},", cursor * 1000):
        refused(space.all.get(f"{space.jobs}?cursor={text}"), 400, "invalid_request")
    assert len(page(space, cursor=cursor).json()) == 2


def test_a_cursor_is_good_on_every_process_whatever_its_root_key(space: Space) -> None:
    made = create_many(space, 5)
    server = space.server
    with Server(server.redis_url, prefix=server.prefix) as second:
        caller = second.caller(space.all.key)
        there = page(space, caller, limit=2)
        here = page(space, limit=2, cursor=there.headers[NEXT])
        last = page(space, caller, limit=2, cursor=here.headers[NEXT])
    assert ids(there, here, last) == made


ACTS = st.lists(
    st.tuples(st.sampled_from(["create", "kill", "retry", "take", "delete"]), st.integers(0, 30)), max_size=4
)


@settings(max_examples=30, deadline=None)
@given(
    begun=st.integers(0, 12),
    limit=st.integers(1, 5),
    statuses=st.sets(st.sampled_from(["pending", "killed", "delivered"])),
    acts=st.lists(ACTS, max_size=6),
)
def test_a_job_that_matched_all_the_time_is_on_exactly_one_page(
    server: Server, begun: int, limit: int, statuses: set[str], acts: list[list[tuple[str, int]]]
) -> None:
    space = Space(server)
    stands = {space.create()["id"]: "pending" for _ in range(begun)}

    def act(kind: str, number: int) -> None:
        """Do something to one of the jobs, if its status allows it."""
        if kind == "create":
            stands[space.create()["id"]] = "pending"
        elif stands:
            job = list(stands)[number % len(stands)]
            verb, froms, becomes = {
                "kill": ("kill", {"pending", "delivered"}, "killed"),
                "retry": ("retry", {"killed"}, "pending"),
                "take": ("claim", {"pending"}, "delivered"),
                "delete": ("", {"killed"}, ""),
            }[kind]
            if stands[job] in froms:
                if verb:
                    space.do({"id": job}, verb)
                else:
                    assert server.root.delete(f"/jobs/{job}").status_code == 204
                stands[job] = becomes

    for kind, number in acts.pop() if acts else ():
        act(kind, number)
    matched = {job for job, status in stands.items() if status and (not statuses or status in statuses)}
    query: dict[str, Any] = {"limit": limit, **({"status": ",".join(statuses)} if statuses else {})}
    seen: list[str] = []
    answer = page(space, **query)
    while True:
        seen += ids(answer)
        assert all(job["status"] in statuses for job in answer.json()) or not statuses
        if NEXT not in answer.headers:
            break
        for kind, number in acts.pop() if acts else ():
            act(kind, number)
            matched = {job for job in matched if stands[job] and (not statuses or stands[job] in statuses)}
        answer = page(space, **query, cursor=answer.headers[NEXT])
    assert len(seen) == len(set(seen))
    assert matched <= set(seen)
    order = list(stands)
    assert [order.index(job) for job in seen] == sorted((order.index(job) for job in seen), reverse=True)


@pytest.mark.alone("it fills the machine")
def test_ten_big_lists_at_once_break_no_link_gather_nothing_and_hold_up_no_small_call(valkey: AnyRedis) -> None:
    text = "x" * (MIB - 2)
    with Server(valkey.url, JOBWIRE_REDIS_TIMEOUT="1") as server:
        space = Space(server)
        for _ in range(60):
            space.do(space.create(claim=True, payload=text), "complete", text)
        valkey.cli("CONFIG", "SET", "client-output-buffer-limit", f"normal {32 * MIB} 0 0")
        before_bytes = server.rss_bytes()
        with ThreadPoolExecutor(10) as threads:
            lists = [threads.submit(page, space, limit=100) for _ in range(10)]
            waits_s = []
            while not all(one.done() for one in lists):
                begun_s = time.monotonic()
                assert space.create()["status"] == "pending"
                waits_s.append(time.monotonic() - begun_s)
        assert all(len(one.result().content) <= PAGE_BYTES for one in lists)
        assert all(NEXT in one.result().headers for one in lists)
        assert max(waits_s) < 1.0
        assert server.rss_bytes() - before_bytes < 300 * MIB
        assert "link to Redis" not in server.log()
        valkey.cli("CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0")


@pytest.mark.valkey_only("fakeredis's own server cannot send an answer of 8 MiB")
@pytest.mark.parametrize("claims", [False, True])
def test_poll_hands_out_fewer_jobs_once_they_come_to_8_mib_but_one(space: Space, claims: bool) -> None:
    text = "x" * (MIB - 2)
    made = [space.create(payload=text, claim=claims)["id"] for _ in range(10)]
    if claims:
        for job in made:
            space.do({"id": job}, "ack")
            space.do({"id": job}, "checkpoint", {"c": "x" * (MIB // 4 - 20)})
            space.do({"id": job}, "fail")
    first, second = space.poll(count=50), space.poll(count=50)
    assert [job["id"] for job in (*first, *second)] == made
    assert len(first) == (6 if claims else 8)
    assert space.poll(count=1) == []
