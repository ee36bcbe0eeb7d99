"""POST and GET /jobs/:jobId/logs over HTTP: every refusal, every form of a body, every parameter."""

import asyncio
import contextlib
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import zstandard

from tests.any_redis import AnyRedis
from tests.room import new_room

NDJSON = "application/x-ndjson"


async def new_job(http: httpx.AsyncClient) -> str:
    """The path of a fresh job's logs."""
    space = (await http.post("/spaces", json={"name": "s"})).json()["id"]
    job = (await http.post(f"/spaces/{space}/jobs", json={"name": "j"})).json()
    return f"/jobs/{job['id']}/logs"


@contextlib.asynccontextmanager
async def new_log(redis: AnyRedis, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A client, and the path of a fresh job's logs."""
    async with new_room(redis, **settings) as room, room.client() as http:
        yield http, await new_job(http)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b'["a", {"message": "b"}]'),
        ({"content-type": "application/json; charset=utf-8"}, b'{"logs": ["a", "b"]}'),
        ({"content-type": NDJSON}, b'"a"\n\n{"message": "b"}\n'),
        (
            {"content-type": NDJSON, "content-encoding": "gzip"},
            gzip.compress(b'"a"\n', mtime=0) + gzip.compress(b'"b"', mtime=0),
        ),
        ({"content-encoding": "zstd"}, zstandard.compress(b'["a", "b"]')),
        ({"content-encoding": "identity"}, b'["a", "b"]'),
    ],
)
async def test_every_form_of_a_batch_is_taken(headers: dict[str, str], body: bytes, room_redis: AnyRedis) -> None:
    async with new_log(room_redis) as (http, path):
        answer = await http.post(path, content=body, headers=headers)
        assert answer.status_code == 200
        assert answer.json() == {
            "success": True,
            "inserted": 2,
            "fromSeq": 1,
            "toSeq": 2,
            "truncated": 0,
            "status": "pending",
        }
        assert [line["message"] for line in (await http.get(path)).json()["logs"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("headers", "body", "status", "code", "more"),
    [
        ({"content-type": "text/plain"}, b"a", 415, "unsupported_media_type", {}),
        ({"content-encoding": "br"}, b"a", 415, "unsupported_media_type", {}),
        ({}, b"x" * 5_242_881, 413, "too_large", {"limit": {"bodyBytes": 5_242_880}}),
        (
            {"content-encoding": "gzip"},
            gzip.compress(bytes(33_554_433), 1),
            413,
            "too_large",
            {"limit": {"bodyBytes": 33_554_432}},
        ),
        ({}, json.dumps(["x"] * 10_001).encode(), 413, "too_large", {"limit": {"entries": 10_000}, "index": 10_000}),
        ({"content-encoding": "gzip"}, gzip.compress(b'["a"]', mtime=0)[:-3], 400, "invalid_json", {}),
        ({"content-type": NDJSON}, b'"a\xff"\n', 400, "invalid_json", {}),
        ({}, b'["a"', 400, "invalid_json", {}),
        ({}, b"", 400, "invalid_json", {}),
        ({}, b'"a"', 400, "invalid_request", {}),
        ({}, b'["a", 1]', 400, "invalid_entry", {"index": 1}),
        ({"content-type": NDJSON}, b'"a"\n\n{"message": 1}\n', 400, "invalid_entry", {"index": 1}),
        ({"idempotency-key": ""}, b'["a"]', 400, "invalid_request", {}),
        ({"idempotency-key": "k" * 129}, b'["a"]', 400, "invalid_request", {}),
    ],
)
async def test_a_refused_append_stores_nothing(
    headers: dict[str, str], body: bytes, status: int, code: str, more: dict[str, Any], *, room_redis: AnyRedis
) -> None:
    async with new_log(room_redis) as (http, path):
        answer = await http.post(path, content=body, headers={"idempotency-key": "key"} | headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert {name: answer.json()[name] for name in more} == more
        assert (await http.get(path)).json() == {
            "logs": [],
            "cursor": {"mode": "tail", "oldestSeq": None, "newestSeq": None, "hasMore": False, "firstSeq": None},
        }
        accepted = await http.post(path, json=["a"], headers={"idempotency-key": "key"})
        assert accepted.status_code == 200
        assert "idempotency-replayed" not in accepted.headers


async def test_a_job_that_does_not_exist_is_not_found(room_redis: AnyRedis) -> None:
    async with new_log(room_redis) as (http, path):
        ghost = path[:-8] + ("0" * 3) + path[-5:]
        for missing in (ghost, "/jobs/nonsense/logs", "/jobs/" + "0" * 26 + "/logs"):
            answers = [
                await http.post(missing, json=["a"]),
                await http.post(missing, json=[]),
                await http.get(missing),
                await http.get(missing, headers={"accept": NDJSON}),
            ]
            assert [answer.status_code for answer in answers] == [404] * 4
            assert {answer.json()["error"] for answer in answers} == {"Job not found"}


async def test_an_empty_batch_inserts_nothing_and_has_null_seqs(room_redis: AnyRedis) -> None:
    async with new_log(room_redis) as (http, path):
        for answer in (
            await http.post(path, json=[]),
            await http.post(path, json={"logs": []}),
            await http.post(path, content=b"", headers={"content-type": NDJSON}),
            await http.post(path, content=b"\n\n", headers={"content-type": NDJSON}),
        ):
            assert answer.status_code == 200
            assert answer.json() | {"status": 0} == {
                "success": True,
                "inserted": 0,
                "fromSeq": None,
                "toSeq": None,
                "truncated": 0,
                "status": 0,
            }


async def test_an_idempotent_append_is_answered_alike_however_it_was_packed(room_redis: AnyRedis) -> None:
    async with new_log(room_redis) as (http, path):
        headers = {"idempotency-key": "one batch", "content-type": NDJSON}
        first = await http.post(path, content=b'"a"\n"b"\n', headers=headers)
        again = await http.post(
            path, content=gzip.compress(b'"a"\n"b"\n'), headers=headers | {"content-encoding": "gzip"}
        )
        assert first.json() == again.json()
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        other = await http.post(path, content=b'"a"\n', headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
        assert len((await http.get(path)).json()["logs"]) == 2


async def test_two_copies_of_one_request_at_once_are_done_once(room_redis: AnyRedis) -> None:
    async with new_log(room_redis) as (http, path):
        for n in range(20):
            both = await asyncio.gather(
                *(http.post(path, json=[f"{n}"] * 3, headers={"idempotency-key": f"key {n}"}) for _ in range(2))
            )
            assert both[0].json() == both[1].json()
            assert sorted("idempotency-replayed" in answer.headers for answer in both) == [False, True]
        assert len((await http.get(path)).json()["logs"]) == 60


async def test_a_line_has_every_field_of_the_contract(room_redis: AnyRedis) -> None:
    async with new_log(room_redis) as (http, path):
        big = b'{"n": 12345678901234567890123, "f": 1.0}'
        await http.post(
            path, content=b'["a", {"message": "b", "level": "ERR", "source": "s", "metadata": ' + big + b"}]"
        )
        answer = await http.get(path)
        first, second = answer.json()["logs"]
        assert list(first) == ["id", "seq", "level", "message", "source", "metadata", "loggedAt", "createdAt"]
        assert (first["seq"], first["level"], first["source"], first["metadata"]) == (1, "info", None, None)
        assert (second["level"], second["source"]) == ("error", "s")
        assert b'"metadata":' + big in answer.content
        assert answer.json()["cursor"] == {
            "mode": "tail",
            "oldestSeq": 1,
            "newestSeq": 2,
            "hasMore": False,
            "firstSeq": 1,
        }


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "after=-1",
        "before=0",
        "after=1&before=2",
        "after=1.5",
        "level=loud",
        "level=info,loud",
        'q="open',
        "q=" + "x" * 1025,
        "after=99999999999999999999",
    ],
)
async def test_parameters_out_of_range_are_refused_and_not_clamped(query: str, room_redis: AnyRedis) -> None:
    async with new_log(room_redis) as (http, path):
        answer = await http.get(f"{path}?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_pages_filter_by_level_and_words(room_redis: AnyRedis) -> None:
    async with new_log(room_redis) as (http, path):
        entries = [
            {"message": f"Connection {i} to DB lost", "level": ["info", "warn", "error"][i % 3]} for i in range(30)
        ]
        await http.post(path, json=entries)
        cases = {
            "level=warn,error": 20,
            "level=warn&level=error": 20,
            "level=WARN": 10,
            "q=connection": 30,
            "q=connection+29": 1,
            "q=%22to+db+lost%22": 30,
            "q=%22db+to%22": 0,
            "q=connection&level=error&limit=5": 5,
            "q=": 30,
            "level=": 30,
        }
        for query, lines in cases.items():
            assert len((await http.get(f"{path}?{query}")).json()["logs"]) == lines, query


async def test_a_download_is_ndjson_of_the_objects_of_the_pages_packed_when_asked(room_redis: AnyRedis) -> None:
    async with new_log(room_redis) as (http, path):
        await http.post(path, json=[f"line {i}" for i in range(3000)])
        page = (await http.get(path, params={"after": 2990})).json()["logs"]
        plain = await http.get(path, params={"after": 2990}, headers={"accept": NDJSON, "accept-encoding": "identity"})
        assert plain.headers["content-type"] == NDJSON
        assert [json.loads(line) for line in plain.content.splitlines()] == page
        async with http.stream("GET", path, headers={"accept": NDJSON, "accept-encoding": "gzip"}) as packed:
            assert packed.headers["content-encoding"] == "gzip"
            content = zlib.decompress(b"".join([piece async for piece in packed.aiter_raw()]), wbits=31)
        assert len(content.splitlines()) == 3000
        found = await http.get(path, params={"q": '"line 29"'}, headers={"accept": NDJSON})
        assert len(found.content.splitlines()) == 111
        assert (await http.get(path, params={"before": 5}, headers={"accept": NDJSON})).status_code == 400


@pytest.mark.alone("it measures delay under load")
async def test_a_large_batch_does_not_hold_up_other_calls(room_redis: AnyRedis) -> None:
    async with new_log(room_redis) as (http, path):
        body = b'{"message":"' + b"x" * 100 + b'"}\n'
        large = gzip.compress(body * 10_000, 1)
        headers = {"content-type": NDJSON, "content-encoding": "gzip"}
        loop, slowest, done = asyncio.get_running_loop(), 0.0, False

        async def flood() -> None:
            nonlocal done
            await asyncio.gather(*(http.post(path, content=large, headers=headers) for _ in range(8)))
            done = True

        flooding = asyncio.create_task(flood())
        while not done:
            begun = loop.time()
            assert (await http.get(path[: -len("/logs")])).status_code == 200
            slowest = max(slowest, loop.time() - begun)
        await flooding
        assert slowest < 0.5
