"""The processes under measure: `python -m bench.server web` is the product, `... echo` the bare Starlette beside it.

Both run as `jobwire web` does: one process, uvicorn with `app.serve.OPTIONS`, uvloop. The address goes to stdout when
connections are accepted.
"""

import contextlib
import sys

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.main import web_from_environment
from app.serve import address_of, open_listening_socket, run_process, serve


async def answer(request: Request) -> Response:
    """What was sent, as JSON."""
    return Response(await request.body(), media_type="application/json")


def echo() -> Starlette:
    """An application that does nothing: the least that a POST costs."""
    return Starlette(routes=[Route("/echo", answer, methods=["POST"])])


APPS = {"web": web_from_environment, "echo": echo}


def main(name: str) -> None:
    """Serve one of APPS on a free port until SIGTERM."""
    with contextlib.closing(open_listening_socket("127.0.0.1", 0)) as sock:

        async def ready() -> None:
            print(address_of(sock), flush=True)

        run_process(serve(APPS[name](), sock, ready))


if __name__ == "__main__":
    main(sys.argv[1])
