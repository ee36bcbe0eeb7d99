"""Browsers: which origins may call, and the answer to their preflights. https://fetch.spec.whatwg.org/#http-cors-protocol"""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from app.api.http import JSON, refused
from app.error import invalid


class Origins(CORSMiddleware):
    """Starlette's, but a preflight is refused as everything is: in JSON."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        body = refused(invalid(f"{bytes(response.body).decode()}.")).body
        return Response(body, response.status_code, headers, JSON)
