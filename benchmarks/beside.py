"""A benchmark beside earlier versions of this package, each in processes of its own, in turn."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

KEPT: Mapping[str, str] = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}
"""Variables of the environment that let glibc keep freed memory."""


def parsed(doc: str | None, networks: Sequence[str], out: Path) -> argparse.Namespace:
    """What the command line of such a benchmark says.

    Args:
        doc: Of the benchmark.
        networks: Those that it measures unless others are named.
        out: Its file of results.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="folders with other versions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="*", default=networks)
    parser.add_argument("--here", action="store_true", help="one round of the version that is imported, to stdout")
    parser.add_argument("--out", type=Path, default=out)
    return parser.parse_args()


def in_process(version: Path, script: str, arguments: Sequence[str], variables: Mapping[str, str]) -> Any:
    """What a script prints as JSON when it imports the package of a folder, with some environment variables."""
    environment = {**os.environ, "PYTHONPATH": str(version), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, str(Path(script).resolve()), *arguments]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def commit(folder: Path) -> str:
    """Which version a folder holds."""
    command = ["git", "-C", str(folder), "log", "-1", "--format=%h %s"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def versions(
    folders: Sequence[Path],
    script: str,
    names: Sequence[str],
    rounds: int,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Of each version, the fewest seconds of all rounds for each name; the version of this folder is the last.

    Args:
        folders: Of the others.
        script: Prints, with `--here` and `--networks`, seconds by name.
        names: Of the networks.
        rounds: In each, every version runs once.
        variables: Of the environment, for all versions.
    """
    every = [*folders, ROOT]
    asked = ["--here", "--networks", *names]
    found = [[in_process(folder, script, asked, variables) for folder in every] for _ in range(rounds)]
    return [
        {"commit": commit(folder), "seconds": {name: min(one[i][name] for one in found) for name in names}}
        for i, folder in enumerate(every)
    ]
