"""The link that `up` prints, opened."""

import re
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium
from tests.jobs.test_tickets import said_by_up
from tests.valkey import Valkey

pytestmark = pytest.mark.valkey_only("`up` has its own Redis")


def test_the_link_of_up_opens_the_page_signed_in_and_is_nothing_the_second_time(
    chromium: Chromium, tmp_path: Path
) -> None:
    with Valkey() as valkey:
        process, text = said_by_up(tmp_path / "data", valkey, on_terminal=True)
        try:
            found = re.search(r"page +(\S+)", text)
            assert found
            page = chromium.page()
            page.goto(found[1])
            page.until("sessionStorage.length === 1")
            page.until("!document.querySelector('.sign-in')")
            assert "ticket" not in page.js("location.href")
            page.close()
            again = chromium.page()
            again.goto(found[1])
            again.until("document.querySelector('.problem:not([hidden])')")
            assert "This link was already used" in again.text(".problem")
            again.close()
        finally:
            process.terminate()
            process.wait(30)
