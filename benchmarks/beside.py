"""A benchmark beside earlier versions of this package, each in processes of its own, in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


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
