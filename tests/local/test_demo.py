"""`jobwire demo`: what a newcomer sees first."""

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

from app.local import demo_loop


def run_demo(stdout: int, folder: Path) -> "subprocess.Popen[bytes]":
    environ = {**os.environ, "TMPDIR": str(folder), "JOBWIRE_KEY": "not to be used", "REDIS_URL": "redis://127.0.0.1:1"}
    command = [sys.executable, "-m", "jobwire", "demo"]
    return subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.STDOUT)


def test_the_demo_shows_all_lines_and_the_proof_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with run_demo(subprocess.PIPE, tmp_path) as demo:
        out = demo.communicate(timeout=120)[0].decode()
    assert demo.returncode == 0, out
    assert out.count("  completed") == 2
    for step in range(1, demo_loop.STEPS + 1):
        assert f"step {step} of {demo_loop.STEPS}: weighed" in out
    assert "byte for byte" in out
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_the_demo_draws_a_progress_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    pieces: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        except OSError:
            return

    with run_demo(theirs, tmp_path) as demo:
        os.close(theirs)
        reader = threading.Thread(target=read)
        reader.start()
        assert demo.wait(120) == 0
        reader.join(10)
    os.close(ours)
    assert b" %  step " in b"".join(pieces)
