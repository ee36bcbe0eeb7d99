"""Tests that need what pip cannot bring: they skip where it is missing, and fail where nothing may skip."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip(why: str) -> NoReturn:
    """Skip the test; it fails where JOBWIRE_TESTS_MAY_SKIP=0."""
    if os.environ.get("JOBWIRE_TESTS_MAY_SKIP") == "0":
        pytest.fail(why)
    pytest.skip(why)
