"""nginx, HAProxy and Caddy before two real servers, each with the very configuration that docs/proxies.md prints."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import pytest
import trustme

from tests.factories import Space
from tests.server import Server, free_port
from tests.valkey import Valkey, until

DOCS = Path(__file__).parent.parent.parent / "docs" / "proxies.md"
PREFIX = "/jobwire"

NGINX_AROUND = """
daemon off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{text}
}}
"""
CADDY_AROUND = "{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}"


class Kind(NamedTuple):
    """A proxy: its program, the language of its block in the docs, what stands around it, and how it is started."""

    program: str
    language: str
    around: str
    args: tuple[str, ...]


KINDS = {
    "nginx": Kind("nginx", "nginx", NGINX_AROUND, ("-c",)),
    "haproxy": Kind("haproxy", "haproxy", "{text}", ("-db", "-f")),
    "caddy": Kind("caddy", "caddyfile", CADDY_AROUND, ("run", "--adapter", "caddyfile", "--config")),
}


def printed(language: str) -> str:
    """The configuration that the docs print."""
    found = re.search(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found, language
    return found[1]


class Proxy:
    """One running proxy: `url` is where it listens, `context` trusts its certificate."""

    def __init__(self, name: str, port: int, ports: tuple[int, int]) -> None:
        self.name = name
        self._kind = KINDS[name]
        self.folder = Path(tempfile.mkdtemp(prefix="jobwire-proxy-"))
        self.port = port
        self.url = f"https://localhost:{port}"
        authority = trustme.CA()
        own = authority.issue_cert("localhost")
        own.private_key_pem.write_to_path(self.folder / "jobs.key")
        own.private_key_and_cert_chain_pem.write_to_path(self.folder / "jobs-and-key.pem")
        for pem in own.cert_chain_pems:
            pem.write_to_path(self.folder / "jobs.pem", append=True)
        self.context = ssl.create_default_context()
        self.context.maximum_version = ssl.TLSVersion.TLSv1_2  # 1.3 writes while it reads, which two threads must not
        authority.configure_trust(self.context)
        (self.folder / "config").write_text(self._kind.around.format(folder=self.folder, text=self._text(ports)))
        self._log = (self.folder / "log").open("wb")
        environ = {**os.environ, "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
        self._process = subprocess.Popen(
            [self._kind.program, *self._kind.args, str(self.folder / "config")],
            stdout=self._log,
            stderr=self._log,
            env=environ,
        )
        self.http = httpx.Client(verify=self.context, base_url=self.url, timeout=40, trust_env=False)
        try:
            until(self._answers, within_s=20)
        except BaseException:
            self.close()
            raise

    def _text(self, ports: tuple[int, int]) -> str:
        text = printed(self._kind.language).replace("/etc/ssl", str(self.folder))
        text = re.sub(r"\b443\b", str(self.port), text)
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{ports[0]}").replace(
            "127.0.0.1:8081", f"127.0.0.1:{ports[1]}"
        )
        return text.replace("jobs.example.com {", f"{self.url} {{").replace("jobs.example.com", "localhost")

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log()
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def log(self) -> str:
        """What the proxy has said."""
        return "\n".join(file.read_text(errors="replace") for file in self.folder.glob("*log"))

    def socket(self, source: str = "") -> ssl.SSLSocket:
        """A connection of HTTP/1.1, from an address of this machine."""
        plain = socket.create_connection(("127.0.0.1", self.port), 40, (source, 0) if source else None)
        return self.context.wrap_socket(plain, server_hostname="localhost")

    def close(self) -> None:
        """Stop it."""
        self.http.close()
        self._process.terminate()
        self._process.wait(10)
        self._log.close()
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *of: object) -> None:
        self.close()


class Front:
    """A proxy, the servers behind it, and a space of theirs."""

    def __init__(self, proxy: Proxy, servers: tuple[Server, Server]) -> None:
        self.proxy = proxy
        self.servers = servers
        self.space = Space(servers[0])
        self.key = str(self.space.all.key)

    def send(self, method: str, path: str, *, prefix: str = "", **more: Any) -> httpx.Response:
        """One request through the proxy; `path` is below /api/v1."""
        headers = {"x-api-key": self.key, **more.pop("headers", {})}
        return self.proxy.http.request(method, f"{prefix}/api/v1{path}", headers=headers, **more)

    @property
    def parked(self) -> float:
        """How many polls wait, at both servers."""
        found = [re.search(r"^jobwire_parked_polls (\S+)", s.beside("/metrics").text, re.M) for s in self.servers]
        return sum(float(one[1]) for one in found if one)


@contextlib.contextmanager
def standing(name: str) -> Iterator[Front]:
    """A proxy before two servers. Without its program the test is skipped, unless JOBWIRE_TESTS_MAY_SKIP=0."""
    if shutil.which(KINDS[name].program) is None:
        why = f"No {name} on this machine: apt-get install {name}"
        if os.environ.get("JOBWIRE_TESTS_MAY_SKIP") == "0":
            pytest.fail(why)
        pytest.skip(why)
    port = free_port()
    ours = {"JOBWIRE_PUBLIC_URL": f"https://localhost:{port}{PREFIX}", "JOBWIRE_LOG": "json"}
    ours["JOBWIRE_ORIGINS"] = "https://elsewhere.example.com"
    with Valkey() as valkey, Server(valkey.url, **ours) as one:
        more = {**ours, "prefix": one.prefix, "root_key": one.root_key}
        with Server(valkey.url, **more) as two, Proxy(name, port, (one.port, two.port)) as proxy:
            yield Front(proxy, (one, two))


@pytest.fixture(scope="module", params=sorted(KINDS))
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    """Each proxy in turn."""
    with standing(request.param) as up:
        yield up
