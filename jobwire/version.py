"""The version of the installed distribution, in one place."""

from __future__ import annotations

from importlib import metadata

try:
    __version__ = metadata.version("jobwire")
except metadata.PackageNotFoundError:
    # The client half may be copied into another program without its distribution.
    __version__ = "0+unknown"
