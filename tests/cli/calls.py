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

NETWORK = ("--model", "zoo:resnet8", "--weights", "w.safetensors", "--data", "digits")
BUDGET = ("--budget", "macs=50%")
SEARCH = ("search", *NETWORK, "--criterion", "l1", *BUDGET)
"""A search with a criterion that takes no time; the default takes half of a search this small."""
LATENCY = ("latency", "--model", "zoo:resnet8", "--input", "1x1x8x8", "--out", "cpu.json")
