"""A long log from end to end: through `jobwire run`, sealed, over a kill of Redis, and back."""

import os
import subprocess
import sys
from pathlib import Path

from app.model.redis_keys import Keys
from tests.any_redis import NewRedis
from tests.factories import Space
from tests.server import Server
from tests.valkey import until

LINES = 60_000


def jobwire(server: Server, space: Space, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environ = {
        **os.environ,
        "JOBWIRE_URL": server.url,
        "JOBWIRE_KEY": space.caller("jobs:worker", "jobs:create").key or "",
        "JOBWIRE_SPACE": space.id,
    }
    command = [sys.executable, "-m", "jobwire", *arguments]
    return subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)


def test_a_long_run_comes_back_byte_for_byte_after_sealing_and_a_kill_of_redis(
    tmp_path: Path, new_redis: NewRedis
) -> None:
    text = b"".join(b"%d \xe2\x9c\x93 %s\r\n\n" % (i, b"x" * (i % 90)) for i in range(LINES // 2)) + b"\xff no end"
    source = tmp_path / "source"
    source.write_bytes(text)
    with new_redis() as valkey, Server(valkey.url) as server:
        space = Space(server)
        assert jobwire(server, space, "run", "--", "cat", str(source)).returncode == 0
        (job,) = (each["id"] for each in space.all.get(space.jobs).json())
        blocks = Keys(server.prefix).log_blocks(job)
        until(lambda: int(valkey.cli("LLEN", blocks)) > 20)
        valkey.kill()
        valkey.restart()
        until(lambda: server.beside("/readyz").status_code == 200)
        read = jobwire(server, space, "logs", job, "--raw")
        assert (read.returncode, read.stdout == text) == (0, True), read.stderr[-500:]
