"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Run]

SEARCH = (
    "search", "--model", "zoo:resnet8", "--weights", "w.safetensors", "--data", "digits", "--budget", "macs=50%",
)  # fmt: skip
LATENCY = ("latency", "--model", "zoo:resnet8", "--input", "1x1x8x8", "--out", "cpu.json")
