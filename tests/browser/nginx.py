"""nginx with the text of docs/proxies.md, without TLS: as it stands, or as one that passes no upgrades or streams."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.proxies.conftest import NGINX_AROUND, printed
from tests.skipping import skip
from tests.valkey import until


class Nginx:
    """One nginx before a port of this machine: `url`, and `asked()`, which is its access log."""

    def __init__(self, port: int, target: int, *, upgrades: bool = True, buffers: bool = False, more: str = "") -> None:
        if shutil.which("nginx") is None:
            skip("No nginx on this machine: apt-get install nginx")
        self.url = f"http://127.0.0.1:{port}"
        self._folder = Path(tempfile.mkdtemp(prefix="jobwire-nginx-"))
        text = re.sub(r"\n *ssl_certificate.*", "", printed("nginx")).replace("listen 443 ssl http2", f"listen {port}")
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{target}").replace("server_name jobs.example.com;", more)
        if not upgrades:
            text = re.sub(r"\n *proxy_set_header *(Upgrade|Connection).*", "", text)
        if buffers:
            ignoring = (
                "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; gzip on; gzip_types text/event-stream;"
            )
            text = re.sub(r"proxy_buffering *off;", ignoring, text)
        around = NGINX_AROUND.replace("access_log off", "access_log {folder}/access.log")
        (self._folder / "config").write_text(around.format(folder=self._folder, text=text))
        self._process = subprocess.Popen(["nginx", "-c", str(self._folder / "config")], stderr=subprocess.DEVNULL)
        until(self._answers, within_s=20)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "error.log").read_text()
        try:
            return bool(httpx.get(f"{self.url}/readyz", trust_env=False).status_code)
        except httpx.TransportError:
            return False

    def asked(self) -> str:
        """The access log, as far as it is written."""
        return (self._folder / "access.log").read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(10)
        shutil.rmtree(self._folder)
