"""A browser's own EventSource, sixty at once: it goes on after a hangup of both workers, whatever its rate."""

import json
import os
import signal

import pytest

from tests.any_redis import AnyRedis
from tests.browser.chromium import Chromium
from tests.factories import Space
from tests.live.test_workers import Poster, Web
from tests.valkey import until

SOURCES = 60
HOSTS = 12
"""A browser opens six connections to a host."""

WATCH = """
window.watching = [];
const watch = (host) => {
  const source = new EventSource(`http://${host}:%(port)d/api/v1/realtime/%(job)s?after=0&token=%(key)s`);
  const told = { source, opened: 0, seqs: [] };
  source.onopen = () => (told.opened += 1);
  source.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type === "event") told.seqs.push(frame.seq);
  };
  watching.push(told);
};
const hosts = %(hosts)s;
for (let i = 0; i < %(sources)d; i++) setTimeout(watch, i * %(apart_ms)d, hosts[i %% hosts.length]);
"""


@pytest.mark.parametrize(("rate", "apart_ms"), [("0", 0), ("20", 80)], ids=["free", "narrow"])
def test_no_event_source_of_a_browser_is_lost(valkey: AnyRedis, chromium: Chromium, rate: str, apart_ms: int) -> None:
    with Web(valkey.url, host="0.0.0.0", JOBWIRE_RATE=rate) as web:
        space = Space(web)
        job = space.create(claim=True, timeoutSeconds=3600)
        page = chromium.page()
        hosts = json.dumps([f"127.0.0.{number}" for number in range(1, HOSTS + 1)])
        key = space.token("jobs:read")["key"]
        names = {"port": web.port, "job": job["id"], "key": key, "hosts": hosts}
        page.js(WATCH % {**names, "sources": SOURCES, "apart_ms": apart_ms})
        page.until(f"watching.length === {SOURCES} && watching.every((each) => each.opened)", 30)
        poster = Poster(space, job)
        before = web.workers()
        os.kill(web.pid, signal.SIGHUP)
        until(lambda: len(web.workers() - before) == 2 and not web.workers() & before, 40)
        page.until("watching.every((each) => each.opened > 1 || each.source.readyState === 2)", 40)
        poster.stop()
        last = web.root.get(f"/jobs/{job['id']}").json()["events"][-1]["seq"]
        page.until(f"watching.every((each) => each.source.readyState === 2 || each.seqs.at(-1) === {last})", 40)
        assert page.js("watching.filter((each) => each.source.readyState === 2).length") == 0
        found = page.js("watching.map((each) => each.seqs)")
        assert {tuple(seqs) for seqs in found} == {tuple(range(found[0][0], last + 1))}
        page.close()
