"""TLS before a server that has none: a port that speaks it with whoever begins it, and is a plain relay for others."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import trustme

HANDSHAKE = b"\x16"
"""The first byte of a TLS connection: https://www.rfc-editor.org/rfc/rfc8446#section-5.1"""


class Relay:
    """Listens on 127.0.0.1. `by_tls` counts the connections that began with a handshake and got through it."""

    def __init__(self, context: ssl.SSLContext, *, plain: bool) -> None:
        """Without `plain`, whoever does not speak TLS is hung up on."""
        self.by_tls = 0
        self.to_port = 0
        self._context = context
        self._plain = plain
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(client)
            begins_tls = client.recv(1, socket.MSG_PEEK) == HANDSHAKE
            if begins_tls:
                client = stack.enter_context(self._context.wrap_socket(client, server_side=True))
                self.by_tls += 1
            elif not self._plain:
                return
            server = stack.enter_context(socket.create_connection(("127.0.0.1", self.to_port)))
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Hand on what comes, until one of them has gone."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for sock in (source, sink):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class Authority:
    """A certificate authority of a test's own, and a certificate of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.path = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.path))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)

    @contextlib.contextmanager
    def relay(self, *, plain: bool) -> Iterator[Relay]:
        """A relay with that certificate; its `to_port` is to be set."""
        made = Relay(self.context, plain=plain)
        try:
            yield made
        finally:
            made.close()
