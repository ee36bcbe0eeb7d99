"""Browsers: which origins may call, and the answer to their preflights. https://fetch.spec.whatwg.org/#http-cors-protocol"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from app.api.error_answers import error_answer
from app.api.responses import JSON
from app.model.errors import invalid


class Origins(CORSMiddleware):
    """Starlette's, but a preflight is refused as everything is: in JSON."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        if response.status_code == 200:
            return Response(status_code=204, headers=headers)
        body = error_answer(invalid(f"{bytes(response.body).decode()}.")).body
        return Response(body, response.status_code, headers, JSON)


DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> str:
    """The origin of a URL, as browsers write it; "" for what is no http(s) URL. https://www.rfc-editor.org/rfc/rfc6454"""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:
        return ""
    if parts.scheme not in DEFAULT_PORTS or not host:
        return ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{port}' if port not in (None, DEFAULT_PORTS[parts.scheme]) else ''}"
