"""The dashboard's files: the page at `/` and what it loads from `/static/`.

Owns: the files, read once and packed once when the process starts, and the headers that keep a page harmless: nothing
from elsewhere, nothing inline, no text ever taken for markup. Never: looks at the disk again, so a path leads to a file
that was there at the start or to none. Always: what a browser kept is asked after with its ETag, so that an upgrade
shows at the next load.
"""

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

from starlette.types import Receive, Scope, Send

from app.api.error_answers import READ_METHODS, error_answer, not_found_answer
from app.api.responses import Answer
from app.model.errors import Refusal

STATIC_FOLDER = Path(__file__).parent.parent / "static"

TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".ts": b"text/plain; charset=utf-8",
}
"""The suffixes that are served, and as what; a file with another one is not."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""https://www.w3.org/TR/CSP3/ and https://www.w3.org/TR/trusted-types/: no policy exists, so no text becomes markup."""

SAFE = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)

Headers = tuple[tuple[bytes, bytes], ...]


class StaticPage:
    """One file, ready to be sent: as it is, packed, or as the news that the browser's own copy is still right."""

    def __init__(self, kind: bytes, body: bytes) -> None:
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'.encode()
        kept: Headers = ((b"etag", self._etag), (b"cache-control", b"no-cache"), (b"vary", b"accept-encoding"))
        self._unchanged = (*kept, *SAFE)
        self._headers = ((b"content-type", kind), *kept, *SAFE)
        packer = zlib.compressobj(9, wbits=31)
        self._body = body
        self._packed = packer.compress(body) + packer.flush()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            text = f"This path allows {READ_METHODS}."
            await error_answer(Refusal("method_not_allowed", text, headers={"allow": READ_METHODS})).send(send)
            return
        headers = dict(scope["headers"])
        if self._etag in _tags(headers.get(b"if-none-match", b"")):
            await _send(send, 304, self._unchanged, b"")
        elif b"gzip" in headers.get(b"accept-encoding", b"").lower():
            await _send(send, 200, (*self._headers, (b"content-encoding", b"gzip")), self._packed)
        else:
            await _send(send, 200, self._headers, self._body)


class Files:
    """The files of a folder by their name: the application behind `/static/{name}`."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._pages = {path.name: StaticPage(TYPES[path.suffix], path.read_bytes()) for path in paths}

    def page(self, name: str) -> StaticPage:
        """One of them. KeyError."""
        return self._pages[name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = self._pages.get(scope["path_params"]["name"])
        if page is None:
            missing: Answer = not_found_answer()
            await missing.send(send)
        else:
            await page(scope, receive, send)


def static_files(folder: Path = STATIC_FOLDER) -> Files:
    """Every file of a folder that can be served."""
    return Files(path for path in sorted(folder.iterdir()) if path.suffix in TYPES)


def _tags(header: bytes) -> list[bytes]:
    """The entity tags of If-None-Match, weak ones as if they were strong (RFC 9110, 13.1.2)."""
    return [tag.strip().removeprefix(b"W/") for tag in header.split(b",")]


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length: Headers = () if status == 304 else ((b"content-length", b"%d" % len(body)),)
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})
