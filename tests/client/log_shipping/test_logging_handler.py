"""`LogHandler`: never blocks, never raises, never feeds itself, and says what it dropped."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobwire import Jobs, LogHandler, NotConfigured, Refused
from jobwire.log_shipping.logging_handler import level_name
from tests.client.fake import LOSE_ANSWER, FakeService


@pytest.fixture
def log(service: FakeService, jobs: Jobs) -> Iterator[logging.Logger]:
    handler = LogHandler(service.add_job().id, jobs=jobs)
    logger = logging.getLogger("test.program")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)
    handler.close()


def handler_of(log: logging.Logger) -> LogHandler:
    return next(handler for handler in log.handlers if isinstance(handler, LogHandler))


def test_a_record_becomes_a_line_with_level_source_and_its_own_time(service: FakeService, log: logging.Logger) -> None:
    service.faults["append"].append(LOSE_ANSWER)
    log.warning("half of %s", "it")
    handler_of(log).flush()
    (line,) = service.job.lines
    assert (line["message"], line["level"], line["source"]) == ("half of it", "warn", "test.program")
    assert line["timestamp"].endswith("Z")


def test_a_traceback_is_part_of_the_message(service: FakeService, log: logging.Logger) -> None:
    try:
        raise ValueError("no such thing")
    except ValueError:
        log.exception("it failed")
    handler_of(log).flush()
    assert "Traceback" in service.messages()[0]
    assert "ValueError: no such thing" in service.messages()[0]


def test_levels_are_the_nearest_below() -> None:
    numbers = (5, 10, 15, 20, 25, 30, 40, 50, 60)
    assert [level_name(number) for number in numbers] == [
        *("trace", "debug", "debug", "info", "info", "warn", "error", "fatal", "fatal")
    ]


def test_it_never_blocks_while_the_server_is_away(service: FakeService, jobs: Jobs) -> None:
    service.down()
    handler = LogHandler("job", jobs=jobs, capacity_bytes=100_000, flush_timeout_s=0.1)
    record = logging.LogRecord("x", logging.INFO, "", 1, "text " * 20, None, None)
    started_s = time.monotonic()
    for _ in range(2000):
        handler.handle(record)
    assert time.monotonic() - started_s < 2
    assert 0 < handler.dropped_lines < 2000
    handler.close()
    assert time.monotonic() - started_s < 4


class Overheard(logging.Handler):
    """What the thread that ships for a handler logs; others may log to the same logger meanwhile."""

    def __init__(self, handler: LogHandler) -> None:
        super().__init__()
        self._handler = handler
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self._handler._shipper.runs_here:
            self.messages.append(record.getMessage())


def test_what_shipping_itself_logs_is_not_shipped(service: FakeService, jobs: Jobs) -> None:
    root = logging.getLogger()
    level = root.level
    handler = LogHandler(service.add_job().id, jobs=jobs)
    overheard = Overheard(handler)
    for each in (handler, overheard):
        root.addHandler(each)
    root.setLevel(logging.DEBUG)
    try:
        for number in range(3):
            logging.getLogger("mine").info("line %d", number)
            handler.flush()
    finally:
        root.setLevel(level)
        for each in (handler, overheard):
            root.removeHandler(each)
        handler.close()
    assert [line["message"] for line in service.job.lines if line["source"] == "mine"] == ["line 0", "line 1", "line 2"]
    assert len(overheard.messages) >= 3
    assert not {line["message"] for line in service.job.lines} & set(overheard.messages)


def test_a_record_that_cannot_be_formatted_does_not_reach_the_program(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 1, "%d things", ("no number",), None)
    handler_of(log).handle(record)
    assert "TypeError" in capsys.readouterr().err


@pytest.mark.parametrize("character", ["x", "\u00e9", "\U0001f600"])
def test_a_message_over_60_kib_is_cut_in_the_middle(service: FakeService, log: logging.Logger, character: str) -> None:
    fits = "b" + character * (60_000 // len(character.encode()))
    log.info(fits)
    log.info("begin" + character * 500_000 + "ValueError: the end")
    handler_of(log).flush()
    whole, cut = service.messages()
    assert whole == fits
    assert 50_000 < len(cut.encode()) <= 60 * 1024
    assert cut.startswith("begin")
    assert cut.endswith("ValueError: the end")
    assert "bytes left out" in cut


def test_extra_fields_and_the_exception_become_metadata(service: FakeService, log: logging.Logger) -> None:
    odd = {"path": Path("x"), "deep": {"a": [1, {2}]}, "surrogate": "\ud83d", "big": 10**400}
    try:
        raise ValueError("no alpha")
    except ValueError:
        log.exception("it failed", extra=odd)
    log.info("plain")
    handler_of(log).flush()
    failed, plain = service.job.lines
    assert failed["metadata"]["exception"] == {"type": "ValueError", "message": "no alpha"}
    assert set(failed["metadata"]) == {*odd, "exception"}
    assert plain["metadata"] is None


def test_metadata_that_is_too_large_is_left_out_and_says_so(service: FakeService, log: logging.Logger) -> None:
    log.info("x", extra={"small": 1, "large": "y" * 20_000})
    handler_of(log).flush()
    assert service.job.lines[0]["metadata"] == {"small": 1, "leftOut": True}


@pytest.mark.parametrize(("status", "why"), [(401, "who?"), (403, "Missing required scope: jobs:event"), (404, "gone")])
def test_a_refusal_is_said_once_and_kept(
    service: FakeService, jobs: Jobs, capfd: pytest.CaptureFixture[str], status: int, why: str
) -> None:
    service.faults["append"].extend([(status, {"error": why, "code": "refused"})] * 3)
    handler = LogHandler("job", jobs=jobs)
    for number in range(3):
        handler.handle(logging.LogRecord("x", logging.INFO, "", 1, f"line {number}", None, None))
        handler.flush()
    assert isinstance(handler.error, Refused)
    handler.close()
    assert capfd.readouterr().err == f"jobwire: the log of job job takes no lines: {why}\n"


def test_without_a_job_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBWIRE_JOB", raising=False)
    with pytest.raises(NotConfigured, match="JOBWIRE_JOB"):
        LogHandler()


def test_what_is_left_is_sent_at_exit(service: FakeService, environ: dict[str, str]) -> None:
    service.add_job()
    program = (
        "import logging, jobwire\nlogging.getLogger().addHandler(jobwire.LogHandler())\nlogging.error('last words')"
    )
    environ["JOBWIRE_JOB"] = service.job.id
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=30)
    assert service.messages() == ["last words"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_forked_worker_logs_too(service: FakeService, log: logging.Logger) -> None:
    log.info("before")
    handler_of(log).flush()
    child = os.fork()
    if child == 0:
        log.info("from the child")
        handler_of(log).flush()
        os._exit(0)
    os.waitpid(child, 0)
    log.info("after")
    handler_of(log).flush()
    assert service.messages() == ["before", "from the child", "after"]


def test_many_threads_lose_nothing(service: FakeService, log: logging.Logger) -> None:
    def chatter(name: str) -> None:
        for number in range(200):
            log.info("%s %d", name, number)

    threads = [threading.Thread(target=chatter, args=name) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler_of(log).flush()
    for name in "abcd":
        mine = [text for text in service.messages() if text.startswith(name)]
        assert mine == [f"{name} {number}" for number in range(200)]
