"""One Chromium for all tests of the dashboard, a page of its own for each, and what every page must hold."""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.browser.chromium import Chromium, Page, find
from tests.factories import Space

SignedIn = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """The browser; without one these tests are skipped, unless JOBWIRE_TESTS_MAY_SKIP=0."""
    program = find()
    if program is None:
        why = "No Chromium on this machine: apt-get install chromium-headless-shell"
        if os.environ.get("JOBWIRE_TESTS_MAY_SKIP") == "0":
            pytest.fail(why)
        pytest.skip(why)
    with Chromium(program) as browser:
        yield browser


@pytest.fixture
def signed_in(chromium: Chromium, space: Space) -> Iterator[SignedIn]:
    """Opens the dashboard at an address, signed in with a key (the root key, unless another is given).

    At the end of the test every page must have asked nobody but its own server, and have complained about nothing.
    """
    pages: list[Page] = []

    def open_page(address: str = "", *, key: str = "", **look: bool | int) -> Page:
        page = chromium.page(**look)  # type: ignore[arg-type]  # width, height, dark and phone, as they come
        pages.append(page)
        page.goto(f"{space.server.url}/{address}")
        page.fill(".sign-in input[type=password]", key or space.server.root_key)
        page.press("Enter")
        page.until("document.querySelector('.topbar')")
        return page

    yield open_page
    for page in pages:
        page.js("document.title")
        page.close()
        outside = [url for url in page.addresses if space.server.url.split("//")[1] not in url.split("?")[0]]
        assert [url for url in outside if not url.startswith(("blob:", "about:", "data:"))] == []
        assert page.complaints == []
