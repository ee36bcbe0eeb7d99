"""`jobwire demo`: the whole of it in one minute, on a server of its own that leaves nothing behind.

Owns a temporary `jobwire up`, two real commands run as jobs, and the proof: what the log gives back is compared byte
for byte with what the commands wrote. Never touches the user's own server, keys or Redis.
"""

import contextlib
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import msgspec

from app.local.credentials import Credentials
from jobwire import Jobs, JobwireError
from jobwire.api.response_structs import Job, LogLine
from jobwire.commands.tail import Printer
from jobwire.commands.terminal_text import Paint, harmless
from jobwire.log_lines.byte_lines import raw_bytes
from jobwire.reading.log_following import Follow, all_lines
from jobwire.run.command_as_job import Options, Runner

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
REDRAW_S = 0.1
BAR_WIDTH = 30


def demo() -> bool:
    """Start a server, run two commands as jobs, watch them live, stop; whether what came out is what went in."""
    with tempfile.TemporaryDirectory(prefix="jobwire-demo-") as folder, local_server(Path(folder)) as environ:
        jobs = Jobs.from_env(environ=environ)
        results = [WatchedCommand(jobs, command, environ).run() for command in demo_commands()]
    if not all(results):
        print_note("what came out is not what went in")
        return False
    print_note("what came out is what went in, byte for byte; the server is stopped and its data gone")
    return True


def demo_commands() -> list[list[str]]:
    """Two commands that every installation has."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "list"]
    loop = [sys.executable, "-P", "-u", str(Path(__file__).with_name("demo_loop.py"))]
    return [pip, loop]


def print_note(text: str) -> None:
    """One line of the demo's own."""
    click.echo(Paint.for_stdout().dim(f"demo: {text}"))


@contextlib.contextmanager
def local_server(folder: Path) -> Iterator[Mapping[str, str]]:
    """A `jobwire up` of our own; gives the environment in which the client half finds it. Ended on the way out."""
    clean = {
        name: value for name, value in os.environ.items() if name != "REDIS_URL" and not name.startswith("JOBWIRE_")
    }
    command = [sys.executable, "-m", "jobwire", "up", "--json", "--port", "0", "--data", str(folder / "data")]
    with (folder / "server.log").open("w+b") as log:
        # A session of its own: Ctrl-C is for the demo, which then ends the server in order.
        server = subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        try:
            credentials = _read_credentials(server, log.name)
            print_note(f"`jobwire up` answers at {credentials.url}")
            yield clean | {
                "JOBWIRE_URL": credentials.url,
                "JOBWIRE_KEY": credentials.root_key,
                "JOBWIRE_SPACE": credentials.space_id,
            }
        finally:
            _stop_server(server)


def _read_credentials(server: "subprocess.Popen[bytes]", log: str) -> Credentials:
    """The line that `up --json` prints when it is ready."""
    assert server.stdout is not None
    readable, _, _ = select.select([server.stdout], [], [], START_DEADLINE_S)
    line = server.stdout.readline() if readable else b""
    if not line:
        raise click.ClickException(f"the server did not start:\n{Path(log).read_text(errors='replace')}")
    return msgspec.json.decode(line, type=Credentials)


def _stop_server(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.communicate(timeout=STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.communicate()


class WatchedCommand:
    """One command as a job, followed live through the server while it runs."""

    def __init__(self, jobs: Jobs, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._jobs = jobs
        self._written = {"stdout": b"", "stderr": b""}
        self._created: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._arrived: queue.SimpleQueue[list[LogLine] | None] = queue.SimpleQueue()
        self._name = " ".join(["python", *map(os.path.basename, command[1:])])
        self._runner = Runner(
            jobs,
            command,
            Options(name=self._name[:200]),
            mirror=self._keep,
            notice=print_note,
            on_created=self._created.put,
            environ=environ,
        )
        self._exit_code = 1

    def run(self) -> bool:
        """Run, watch, show the record; whether the job completed and its log is what the command wrote."""
        running = threading.Thread(target=self._run, daemon=True)
        running.start()
        job = self._created.get()
        if job is None:
            return False
        print_note(f"$ jobwire run -- {self._name}    (job {job.id})")
        threading.Thread(target=self._follow, args=(job.id,), daemon=True).start()
        self._watch(job.id)
        running.join()
        self._show(self._jobs.get(job.id))
        return self._exit_code == 0 and self._log_is_whole(job.id)

    def _keep(self, name: str, chunk: bytes) -> None:
        self._written[name] += chunk

    def _run(self) -> None:
        try:
            self._exit_code = self._runner.run()
        except JobwireError as error:
            print_note(str(error))
        finally:
            self._created.put(None)

    def _follow(self, job_id: str) -> None:
        try:
            for lines in Follow(self._jobs, job_id):
                self._arrived.put(lines)
        finally:
            self._arrived.put(None)

    def _watch(self, job_id: str) -> None:
        """Print lines as they arrive, with the progress below them."""
        printer, bar = Printer(timestamps=True), Bar()
        while True:
            try:
                lines = self._arrived.get(timeout=REDRAW_S)
            except queue.Empty:
                lines = []
            bar.clear()
            if lines is None:
                return
            printer.print(lines)
            bar.draw(self._jobs.progress_of(job_id).progress)

    def _show(self, job: Job) -> None:
        shown = f"{job.status} {msgspec.json.encode(job.result).decode()}"
        print_note(f"{Paint.for_stdout().status(job.status, harmless(shown))}")
        for event in job.events:
            print_note(f"  {event['createdAt']}  {event['type']}")

    def _log_is_whole(self, job_id: str) -> bool:
        """Whether the stored log is what the command wrote, stream by stream."""
        stored = dict.fromkeys(self._written, b"")
        for line in all_lines(self._jobs, job_id):
            stored[line.source or "stdout"] += raw_bytes(line)
        print_note(f"  wrote {sum(map(len, self._written.values()))} bytes, stored {sum(map(len, stored.values()))}")
        return stored == self._written


class Bar:
    """A progress bar on the last line of a terminal; nothing where there is none."""

    def __init__(self) -> None:
        self._is_wanted = sys.stdout.isatty()

    def clear(self) -> None:
        """Take it away, so that lines can be printed."""
        if self._is_wanted:
            click.echo("\r\x1b[K", nl=False)

    def draw(self, progress: Mapping[str, object] | None) -> None:
        """Show the last reported progress."""
        percent = (progress or {}).get("percent")
        if self._is_wanted and isinstance(percent, int | float):
            done = round(BAR_WIDTH * percent / 100)
            text = harmless(str((progress or {}).get("message")))
            click.echo(f"[{'#' * done:.<{BAR_WIDTH}}] {percent:3.0f} %  {text}", nl=False)
