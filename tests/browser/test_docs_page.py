"""/docs in a real browser: every call is drawn, and nothing but this server is asked."""

from app.api.operations import OPERATIONS
from tests.browser.chromium import Chromium
from tests.faults.service import Service


def test_every_call_is_drawn_and_nothing_is_complained_about(chromium: Chromium) -> None:
    with Service() as service:
        page = chromium.page()
        page.goto(f"{service.url}/docs")
        page.until(f"document.querySelectorAll('main section').length === {len(OPERATIONS)}")
        titles = page.text("nav")
        assert all(f"{method} {path}" in titles for method, path in OPERATIONS)
        assert "idempotency_mismatch" in page.text("main")
        assert page.complaints == []
        assert all(address.startswith(service.url) for address in page.addresses)
        page.close()
