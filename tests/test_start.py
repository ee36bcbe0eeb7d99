"""What a start imports: that is most of the CPU that a server or a command takes until it does anything."""

import subprocess
import sys

import pytest

import jobwire

LATER = {
    "app.cli": {"aiohttp", "prometheus_client", "urllib3", "jobwire.commands"},
    "jobwire": {"click", "msgspec", "urllib3", "multiprocessing"},
    "jobwire.commands": {"app", "urllib3", "multiprocessing", "jobwire.run"},
}
"""What each leaves alone until it is needed: for a callback, a scrape, a request to a server, a command to run."""


@pytest.mark.parametrize("module", LATER)
def test_what_is_not_needed_yet_is_not_imported(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert module in imported
    assert not LATER[module] & imported


def test_every_public_name_is_found_by_its_name_and_no_other_is() -> None:
    code = "import jobwire; print(all(hasattr(jobwire, name) for name in jobwire.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert set(jobwire.__all__) <= set(dir(jobwire))
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = jobwire.nothing_of_that_name


def test_no_garbage_is_looked_for_while_the_server_half_is_loaded_and_it_is_again_afterwards() -> None:
    code = """
import gc
from jobwire.commands.server import find_server_half
before = gc.get_stats()[2]["collections"]
half = find_server_half()
print(half.trouble or gc.get_stats()[2]["collections"] - before, gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 True\n"
