"""That `--redis cluster` runs what it can, and says of the rest why it cannot."""

import re
from pathlib import Path

import pytest

KINDS = ("contract", "lua", "live", "client")
PATHS = [path for kind in KINDS for path in (Path(__file__).parent / kind).rglob("*.py")]
ITS_OWN = re.compile(r"\b(Valkey|NamedServer|EmbeddedServer|fake_redis|from_url)\(|server_binary")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_test_has_its_redis_from_the_fixtures_or_says_why_a_cluster_would_mean_nothing(path: Path) -> None:
    """A test with a server of its own making would be left out, and nobody would know."""
    text = path.read_text()
    assert "one_server(" in text or not ITS_OWN.search(text)
