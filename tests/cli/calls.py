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
SEARCH = ("search", *NETWORK, "--criterion", "l1", "--images", "64", *BUDGET)
"""A search that takes least: the default criterion takes half of one this small, and more images mean curves first."""
LATENCY = ("latency", "--model", "zoo:resnet8", "--input", "1x1x8x8", "--out", "cpu.json")
