"""Frames as they are on the wire: one line each, of a length that clients take, with the data as they were sent."""

import json
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.factories import Json, Space
from tests.viewers import EventViewer, SocketViewer

TRANSPORTS = (SocketViewer, EventViewer)
FRAME_BYTES = 1_000_000
LINES_BYTES = 256 * 1024
BREAKS = ("\n", "\r\n", "\r")
SPELLED = {"big": 12345678901234567890123, "text": "a\n\r  b \u2028\u2029\x7f \U0001f600", "empty": {}, "none": []}
CONTROLS = "".join(map(chr, range(32)))


@pytest.fixture(params=TRANSPORTS, ids=["socket", "events"])
def transport(request: pytest.FixtureRequest) -> Any:
    return request.param


def broken(value: Any, end: str) -> bytes:
    """A JSON text with line breaks wherever they may stand."""
    return f"\n{json.dumps(value, indent=2)}\n".replace("\n", end).encode()


def live_and_late(space: Space, job: Json, transport: Any, happens: Any, last: str) -> list[list[tuple[str, Json]]]:
    """What viewers of a job and of its space are sent, who watch and who come later: texts and frames."""
    key = space.all.key
    paths = [f"/realtime/{job['id']}?after=0&logs=true&logsAfter=0", f"/realtime/spaces/{space.id}?since=0"]
    watching = [transport(space.server, path, key) for path in paths]
    for viewer in watching:
        viewer.until(lambda frame: frame["type"] == "delivered")
    happens()
    late = [transport(space.server, path, key) for path in paths]
    found = []
    for viewer in (*watching, *late):
        viewer.until(lambda frame: frame["type"] == last)
        viewer.__exit__(None, None, None)
        assert all(len(text.encode()) <= FRAME_BYTES for text in viewer.texts)
        assert not any("\n" in text or "\r" in text for text in viewer.texts)
        found.append(list(zip(viewer.texts, viewer.frames, strict=True)))
    return found


def of_type(frames: list[tuple[str, Json]], kind: str) -> tuple[str, Json]:
    """The first frame of a type."""
    return next((text, frame) for text, frame in frames if frame["type"] == kind)


@pytest.mark.parametrize("end", BREAKS, ids=["lf", "crlf", "cr"])
def test_line_breaks_between_tokens_break_no_frame(space: Space, transport: Any, end: str) -> None:
    job = space.create(claim=True)
    progress = {"percent": 1.50, "message": "m\n\r", "subProgress": {"a": {"percent": 1}}}

    def happens() -> None:
        assert space.call(job, "progress", content=broken(progress, end)).is_success
        assert space.call(job, "checkpoint", content=broken(SPELLED, end)).is_success
        assert space.call(job, "event", content=broken(SPELLED, end)).is_success
        entry = {"message": "m\n\r", "metadata": SPELLED}
        assert space.call(job, "logs", content=broken([entry], end)).is_success
        assert space.call(job, "complete", content=broken(SPELLED, end)).is_success

    for frames in live_and_late(space, job, transport, happens, "completed"):
        for kind in ("checkpoint", "event", "completed"):
            text, frame = of_type(frames, kind)
            assert frame["data"] == SPELLED
            assert f'"data":{json.dumps(SPELLED, separators=(",", ":"))}' in text
        for _, frame in frames:
            if frame["type"] == "logs":
                assert frame["data"]["entries"][0]["metadata"] == SPELLED
    assert space.get(job)["result"] == SPELLED


@pytest.mark.parametrize("who", ["reader", "anonymous"])
@pytest.mark.parametrize("end", BREAKS, ids=["lf", "crlf", "cr"])
def test_line_breaks_in_progress_break_no_first_frame(space: Space, transport: Any, end: str, who: str) -> None:
    job = space.create(claim=True)
    progress = {"percent": 1, "message": "m\n\r"}
    assert space.call(job, "progress", content=broken(progress, end)).is_success
    with transport(space.server, f"/realtime/{job['id']}", space.all.key if who == "reader" else None) as viewer:
        assert viewer.until(lambda frame: frame["type"] == "init")["data"] == progress
        assert space.call(job, "progress", content=broken({**progress, "percent": 2}, end)).is_success
        viewer.until(lambda frame: frame["type"] == "progress" and frame["data"]["percent"] == 2)
    assert not any("\n" in text or "\r" in text for text in viewer.texts)


def test_numbers_and_escapes_come_as_they_were_sent(space: Space, transport: Any) -> None:
    job = space.create(claim=True)
    sent = (
        b'{\n"a": 1.50,\r\n"b": [-0.0, 1E+2, 1e400, 12345678901234567890],\n"c": "\\u000a \\/ \\u00e9 {\\"x\\": 1}"\n}'
    )
    told = b'"data":{"a":1.50,"b":[-0.0,1E+2,1e400,12345678901234567890],"c":"\\u000a \\/ \\u00e9 {\\"x\\": 1}"}'

    def happens() -> None:
        assert space.call(job, "event", content=sent).is_success

    for frames in live_and_late(space, job, transport, happens, "event"):
        assert told.decode() in of_type(frames, "event")[0]
    assert sent in space.all.get(f"/jobs/{job['id']}").content


def test_data_that_do_not_fit_are_left_out_and_get_has_them(space: Space, transport: Any) -> None:
    job = space.create(claim=True)
    result = {"text": "x" * 1_040_000}
    live = live_and_late(space, job, transport, lambda: space.do(job, "complete", result), "completed")
    for frames in live:
        frame = of_type(frames, "completed")[1]
        assert (frame["data"], frame["omitted"]) == (None, True)
        assert frame["status"] == "completed"
    assert space.get(job)["result"] == result
    assert space.get(job)["events"][-1]["data"] == result


def test_the_longest_data_that_fit_are_there(space: Space, transport: Any) -> None:
    job = space.create(claim=True)
    result = "x" * 999_000
    space.do(job, "complete", result)
    with transport(space.server, f"/realtime/{job['id']}?after=0", space.all.key) as viewer:
        frame = viewer.until(lambda frame: frame["type"] == "completed")
    assert frame["data"] == result
    assert "omitted" not in frame
    assert 999_000 < len(viewer.texts[-1]) <= FRAME_BYTES


HOSTILE = [
    ["" for _ in range(10_000)],
    [{"message": "\x01" * 65_536, "metadata": {"m": "x" * 16_000}, "source": "\U0001f600" * 200} for _ in range(3)],
    [{"message": CONTROLS * 10, "metadata": {CONTROLS: "\U0001f600" * 100}} for _ in range(1000)],
    [{"message": "\U0010ffff" * 16_384}] * 12,
    ["x" * 200] * 3000,
]


@pytest.mark.parametrize("entries", HOSTILE, ids=["tiny", "controls", "many", "astral", "usual"])
@pytest.mark.parametrize("sealed", [False, True], ids=["fresh", "sealed"])
def test_lines_come_in_frames_that_every_client_takes(
    space: Space, transport: Any, entries: list[Any], sealed: bool
) -> None:
    job = space.create(claim=True)
    if sealed:
        for _ in range(12):
            space.do(job, "logs", ["filling"] * 1000)
    before = 12_000 if sealed else 0

    def happens() -> None:
        space.do(job, "logs", entries)
        space.do(job, "complete")

    for frames in live_and_late(space, job, transport, happens, "completed"):
        of_lines = [frame["data"] for _, frame in frames if frame["type"] == "logs"]
        if of_lines:
            rows = [row for data in of_lines for row in data["entries"]]
            assert [row["seq"] for row in rows] == list(range(1, before + len(entries) + 1))
            assert all(data["inserted"] == len(data["entries"]) for data in of_lines)
            for text, frame in frames:
                if frame["type"] == "logs" and frame["data"]["inserted"] > 1:
                    assert len(text.encode()) <= LINES_BYTES + 300


def test_a_client_of_python_with_its_defaults_reads_everything(space: Space) -> None:
    job = space.create(claim=True)
    for entries in HOSTILE:
        space.do(job, "logs", entries)
    space.do(job, "event", CONTROLS * 1300)
    space.do(job, "complete", "\x00" * 170_000)
    url = f"ws{space.server.url.removeprefix('http')}/api/v1/realtime"
    headers = {"x-api-key": str(space.all.key)}
    for path in (f"{job['id']}?after=0&logs=true&logsAfter=0", f"spaces/{space.id}?since=0"):
        with connect(f"{url}/{path}", additional_headers=headers, proxy=None) as socket:
            while json.loads(socket.recv(10))["type"] != "completed":
                pass
