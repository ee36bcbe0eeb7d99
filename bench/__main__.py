"""`python -m bench [SUITE ...]`: measure, print a table for each suite, write JSON. See `--help`."""

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import Figure, Rig, table
from bench.load import Client
from bench.service import Service

SUITES = ("house", "time", "logs", "live", "libraries", "peers", "callbacks", "scripts", "abuse", "scale", "slots")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites that were asked for; 1 if a figure misses its target."""
    asked = parser().parse_args(arguments)
    missed = 0
    for name in asked.suite or ["house"]:
        suite = importlib.import_module(f"bench.{name}")
        with Service(getattr(suite, "SETTINGS", {})) as service, Client() as client:
            rig = Rig(service, client, quick=asked.quick)
            figures: list[Figure] = suite.run(rig)
            about = machine(service) | {"suite": name, "rounds": rig.rounds, "windowSeconds": rig.seconds}
        print(table(suite.TITLE, figures), end="\n\n", flush=True)
        write(asked.json / f"{name}.json", about, figures)
        missed += sum(figure.target is not None and not figure.target.holds(figure) for figure in figures)
    return 1 if missed else 0


def parser() -> argparse.ArgumentParser:
    """What a person may ask for."""
    made = argparse.ArgumentParser(prog="python -m bench", description="Measure jobwire against ceilings.")
    made.add_argument("suite", nargs="*", choices=[*SUITES, []], help=f"one or more of {', '.join(SUITES)}; house")
    made.add_argument("--quick", action="store_true", help="short windows: whether it runs, not how fast")
    folder = Path("bench/results")
    made.add_argument("--json", type=Path, default=folder, metavar="FOLDER", help=f"where results go; {folder}")
    return made


def machine(service: Service) -> dict[str, Any]:
    """On what it was measured."""
    return {
        "cores": os.cpu_count(),
        "loadAverages": os.getloadavg(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "valkey": service.redis.info("server").get("valkey_version", ""),
    }


def write(path: Path, about: dict[str, Any], figures: Sequence[Figure]) -> None:
    """The results of a suite as one JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = about | {"figures": [figure.as_json() for figure in figures]}
    path.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
