"""axe-core, which finds what keeps people out of a page: `npm install --prefix .venv/axe axe-core` brings it.

https://www.deque.com/axe/core-documentation/api-documentation/
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.browser.chromium import Page

PATH = Path(sys.prefix, "axe", "node_modules", "axe-core", "axe.min.js")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
RUN = """
(async () => {
  const found = await axe.run(document, { runOnly: %s, resultTypes: ["violations"] });
  const told = (id, { html, any, all }) => `${id}: ${html.slice(0, 160)} ${(any[0] ?? all[0])?.message}`;
  return found.violations.flatMap(({ id, nodes }) => nodes.map((node) => told(id, node)));
})()
"""


def violations(page: Page) -> list[str]:
    """What axe-core finds on a page as it stands, at WCAG 2.2 AA. It is given to the page by the browser itself."""
    if not page.js("typeof axe === 'object'"):
        page.js(PATH.read_text() + ";undefined")
    found: list[str] = page.js(RUN % TAGS)
    return found
