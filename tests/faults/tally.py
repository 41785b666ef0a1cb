"""What the fault suite counts: how often a fault was done, and what it cost."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunesearch.locking import PathLock

FAULTS = {
    "F1": "SIGKILL at random instants, restarted each time",
    "F2": "the same: is the final history that of an uninterrupted run?",
    "F3": "files truncated, bits flipped",
    "F4": "full disk, read-only folder",
    "F5": "killed while holding the lock: the next opener",
    "F6": "a second driver",
    "F7": "a reader polling at 10 Hz",
    "F8": "resumed with another question",
    "F9": "scores that are none; evaluators that raise, hang, exit, run out of memory",
    "F10": "every candidate at chance level",
    "F11": "budgets that cannot be met",
    "F12": "costs of random structures against the built networks",
    "F13": "masked against built networks of torchvision",
    "F14": "odd networks: no BatchNorm, groups, tied weights, control flow",
    "F15": "the caller's model and generators, also after an error",
    "F16": "hostile and foreign files",
    "F17": "clock, time zone, host name changed; folder moved",
    "F18": "SIGINT once and twice, SIGTERM",
    "F19": "studies of older schema versions",
    "F20": "100,000 recorded trials",
    "F21": "workers that die",
    "F22": "same seed, other numbers of workers",
    "F23": "locks that are lost, and drivers that follow each other",
    "F24": "writes that fail",
}


@dataclass
class Line:
    """One way in which a fault was done.

    Attributes:
        how: In words.
        tries: How often.
        lost: Recorded trials that were gone afterwards.
        repeated: Structures that were scored again because of it.
    """

    how: str
    tries: int
    lost: int
    repeated: int


class Tally:
    """Lines per fault, in the order of the list."""

    def __init__(self) -> None:
        self._lines: dict[str, list[Line]] = {fault: [] for fault in FAULTS}
        self._start = time.monotonic()

    def add(self, fault: str, how: str, tries: int, *, lost: int = 0, repeated: int = 0) -> None:
        """Count a fault that was done, and survived."""
        self._lines[fault].append(Line(how, tries, lost, repeated))

    def write(self, path: Path) -> None:
        """Write what was counted; what others counted, before or at the same time, stays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = PathLock(path, patience=60)
        try:
            self._write(path)
        finally:
            lock.release()
            lock.place.unlink(missing_ok=True)

    def _write(self, path: Path) -> None:
        former: dict[str, Any] = json.loads(path.read_text())["faults"] if path.exists() else {}
        faults = {}
        for fault, what in FAULTS.items():
            lines = [asdict(line) for line in self._lines[fault]]
            mine = {line["how"] for line in lines}
            kept = [line for line in former.get(fault, {"lines": []})["lines"] if line["how"] not in mine]
            faults[fault] = {"what": what, "lines": kept + lines}
        facts = {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "seconds": round(time.monotonic() - self._start),
        }
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps({"facts": facts, "faults": faults}, indent=1) + "\n")
        partial.replace(path)


def repeats(log: Path, recorded: Sequence[object]) -> int:
    """How many evaluations were done more than the recorded trials needed."""
    return len(log.read_text().splitlines()) - len(recorded)
