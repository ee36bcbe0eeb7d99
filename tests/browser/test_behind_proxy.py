"""The page behind a proxy: where no upgrades pass, where no streams pass at all, and below a path."""

import base64
import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from app.api.openapi_operations import OPERATIONS
from tests.any_redis import AnyRedis
from tests.browser.chromium import Chromium, Page
from tests.browser.nginx import Nginx
from tests.factories import Space
from tests.server import Server, free_port

PREFIX = "/jobwire"
FOLLOW = """
(async () => {
  const { follow } = await import(%(module)s);
  window.told = [];
  const frame = ({ type }) => told.push(type);
  window.stream = follow(%(options)s, { frame, state: (...state) => told.push(state) });
})()
"""

GATE = """
    set $gate "$cookie_gate:$uri";
    if ($gate !~ "^open:|:/gate$") { return 403; }
    location = /gate {
        add_header Set-Cookie "gate=open; Path=/";
        return 302 /;
    }
"""
"""What a proxy does that lets in who has its cookie."""

SignIn = Callable[..., Page]


@pytest.fixture
def server(valkey: AnyRedis) -> Iterator[Server]:
    """A server that knows where it is reached."""
    port = free_port()
    with Server(valkey.url, JOBWIRE_PUBLIC_URL=f"http://127.0.0.1:{port}{PREFIX}") as running:
        running.front_port = port  # type: ignore[attr-defined]  # where the proxy of the test listens
        yield running


@pytest.fixture
def space(server: Server) -> Space:
    return Space(server)


@pytest.fixture
def sign_in(chromium: Chromium, space: Space) -> Iterator[SignIn]:
    """Opens the page behind a proxy, signed in with the root key."""
    with contextlib.ExitStack() as stack:

        def open_page(url: str) -> Page:
            page = chromium.page()
            stack.callback(page.close)
            page.goto(url)
            page.fill(".sign-in input[type=password]", space.server.root_key)
            page.press("Enter")
            page.until("document.querySelector('.topbar')")
            return page

        yield open_page


@pytest.fixture
def front(server: Server) -> Callable[..., Nginx]:
    """An nginx before the server, set up as asked."""
    return lambda **how: Nginx(server.front_port, server.port, **how)  # type: ignore[attr-defined]  # see `server`


def tile(status: str) -> str:
    """The expression for the number on a tile."""
    return f"document.querySelector('.tile[data-status={status}] b')?.textContent"


FOLLOW_BUTTON = "document.querySelector('.follow').textContent"
DOT = "getComputedStyle(document.querySelector('.follow'), '::before').backgroundColor"


def test_where_no_upgrade_passes_the_page_is_live_by_an_event_stream_and_says_so(
    front: Callable[..., Nginx], space: Space, sign_in: SignIn
) -> None:
    with front(upgrades=False) as nginx:
        page = sign_in(f"{nginx.url}/#/spaces/{space.id}")
        page.until("document.querySelector('.state').innerText === 'live, by event stream'")
        assert "proxy" in page.js("document.querySelector('.state').title")
        page.until(f"{tile('all')} === '0'")
        job = space.create(claim=True, name="shown")
        page.until(f"{tile('delivered')} === '1'")
        page.js(f"location.hash = '#/jobs/{job['id']}'")
        page.until("document.querySelector('.state').innerText === 'live, by event stream'")
        space.do(job, "logs", ["a line that came live"])
        page.until("document.querySelector('.lines').innerText.includes('a line that came live')")
        page.until(f"{FOLLOW_BUTTON} === 'Following'")
        sockets = [url for url in page.addresses if url.startswith("ws")]
        assert len(sockets) == 1, "a WebSocket that did not open is not tried again at each page"
        assert "/realtime/" in nginx.asked()
        assert space.server.root_key not in nginx.asked()
        assert "token=" not in nginx.asked()


def test_the_cookie_of_a_proxy_that_signs_people_in_goes_with_every_call(
    front: Callable[..., Nginx], space: Space, sign_in: SignIn
) -> None:
    with front(upgrades=False, more=GATE) as nginx:
        page = sign_in(f"{nginx.url}/gate")
        page.js(f"location.hash = '#/spaces/{space.id}'")
        page.until("document.querySelector('.state').innerText === 'live, by event stream'")
        space.create(name="seen")
        page.until("document.querySelector('.jobs').innerText.includes('seen')")


def test_no_key_stands_in_an_address_of_the_page(front: Callable[..., Nginx], space: Space, sign_in: SignIn) -> None:
    with front() as nginx:
        page = sign_in(f"{nginx.url}/#/spaces/{space.id}")
        page.until("document.querySelector('.state').innerText === 'live'")
        job = space.create(claim=True)
        page.js(f"location.hash = '#/jobs/{job['id']}'")
        space.do(job, "logs", ["a line"])
        page.until("document.querySelector('.lines').innerText.includes('a line')")
        page.until("document.querySelector('.state').innerText === 'live'")
        key = space.server.root_key
        named = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
        assert not [url for url in page.addresses if key in url or named in url]
        assert [url for url in page.addresses if url.startswith("ws")]
        assert key not in nginx.asked()


def test_where_no_stream_passes_the_page_says_so_and_reads_again(
    front: Callable[..., Nginx], space: Space, sign_in: SignIn
) -> None:
    with front(upgrades=False, buffers=True) as nginx:
        page = sign_in(f"{nginx.url}/#/spaces/{space.id}")
        job = space.create(claim=True, name="late")
        page.until(f"{tile('delivered')} === '1'", 40)
        page.until("document.querySelector('.still').checkVisibility()")
        page.until("document.querySelector('.still').innerText.startsWith('Not live: Nothing comes through')", 40)
        page.js(f"location.hash = '#/jobs/{job['id']}'")
        space.do(job, "logs", ["a line that was read"])
        page.until("document.querySelector('.lines').innerText.includes('a line that was read')", 40)
        page.until(f"{FOLLOW_BUTTON} === 'Following, not live'", 40)
        amber = page.js(DOT)
        page.js("document.querySelector('.follow').dataset.live = 'true'")
        assert page.js(DOT) != amber


def test_everything_works_below_a_path(front: Callable[..., Nginx], space: Space, sign_in: SignIn) -> None:
    with front() as nginx:
        root = f"{nginx.url}{PREFIX}"
        page = sign_in(f"{root}/#/spaces/{space.id}")
        page.until("document.querySelector('.state').innerText === 'live'")
        job = space.create(claim=True, name="below")
        page.until("document.querySelector('.jobs').innerText.includes('below')")
        page.js(f"location.hash = '#/jobs/{job['id']}'")
        page.until("document.querySelector('.state').innerText === 'live'")
        space.do(job, "logs", ["a line below"])
        page.until("document.querySelector('.lines').innerText.includes('a line below')")
        assert page.js("getComputedStyle(document.querySelector('.mark')).backgroundImage") == (
            f'url("{root}/static/icon.svg")'
        )
        page.goto(f"{root}/docs")
        page.until(f"document.querySelectorAll('main section').length === {len(OPERATIONS)}")
        assert f"curl {root}/api/v1/" in page.js("document.querySelector('main section pre').textContent")
        links = page.js("[...document.querySelectorAll('main a')].map((link) => link.href)")
        assert {f"{root}/openapi.json", f"{root}/asyncapi.json"} <= set(links)
        assert page.js(
            f"fetch('{root}/openapi.json').then((answer) => answer.json()).then((api) => api.servers[0].url)"
        ) == (f"{root}/api/v1")
        addresses = [url for url in page.addresses if not url.startswith(("data:", "about:", "blob:"))]
        assert [url for url in addresses if url.partition("://")[2].partition("/")[2].split("/")[0] != "jobwire"] == []
        assert page.complaints == []


def test_a_page_follows_by_the_url_that_a_create_answered(
    front: Callable[..., Nginx], space: Space, sign_in: SignIn
) -> None:
    job = space.create(claim=True)
    with front() as nginx:
        assert job["realtimeUrl"] == f"{nginx.url.replace('http', 'ws')}{PREFIX}/api/v1/realtime/{job['id']}"
        page = sign_in(f"{nginx.url}{PREFIX}/")
        module, key = json.dumps(f"{nginx.url}{PREFIX}/jobwire.js"), space.all.key
        for options in ({"realtimeUrl": job["realtimeUrl"], "key": key}, {"job": job["id"], "key": key}):
            page.js(FOLLOW % {"module": module, "options": json.dumps(options)})
            page.until("told.includes('init')")
            assert page.js("told[0]") == ["live", {"transport": "websocket"}]
            page.js("stream.close()")
        assert nginx.asked().count(f"GET {PREFIX}/api/v1/realtime/") >= 1
