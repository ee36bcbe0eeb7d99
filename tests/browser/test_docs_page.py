"""/docs in a real browser: every call is drawn, and nothing but this server is asked."""

from app.api.openapi_operations import OPERATIONS
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


def test_the_page_begins_with_keys_and_curl_and_goes_on_in_the_order_of_a_jobs_life(chromium: Chromium) -> None:
    with Service() as service:
        page = chromium.page()
        page.goto(f"{service.url}/docs")
        page.until(f"document.querySelectorAll('main section').length === {len(OPERATIONS)}")
        begin = page.text(".begin")
        assert begin.index("x-api-key") < begin.index("/whoami") < begin.index("-d '{") < begin.index("/complete")
        top = "document.querySelector({!r}).getBoundingClientRect().top"
        assert page.js(f"{top.format('.begin')} < {top.format('main section')}")
        drawn = page.js("[...document.querySelectorAll('main section')].map((section) => section.id)")
        life = ("spaces_space_id_jobs", "spaces_space_id_jobs_poll", "jobs_job_id_ack", "jobs_job_id_progress")
        places = [drawn.index(f"post_{each}") for each in (*life, "jobs_job_id_complete", "jobs_job_id_retry")]
        assert places == sorted(places)
        page.close()
