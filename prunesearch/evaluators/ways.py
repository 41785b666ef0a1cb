"""In which ways structures can be run, and when one in 16 bits says the same as those in 32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from prunesearch.models.devices import has_bfloat16

Path = Literal["auto", "sliced", "stacked", "stacked+graph", "stacked+channels_last", "stacked+channels_last+graph"]
Precision = Literal["auto", "fp32", "bf16"]

AT_ONCE = (16, 4, 64)
"""How many structures are stacked: the first where nothing else was found to be faster."""

FEWEST = 4
"""Structures to choose a way by: of fewer it is left open."""

_NEAR, _ALIKE = 1e-2, 0.98
"""How far scores in 16 bits may be from those in 32, and Kendall's tau that they need with them."""


@dataclass(frozen=True)
class Way:
    """How structures are run.

    Attributes:
        path: One of `Path` other than `"auto"`.
        at_once: Structures in one launch, if stacked.
        precision: `"fp32"` or `"bf16"`.
        device: What kind of device it was found out on (`devices.kind_of_device`); empty if nothing was found out.
        seconds: What a structure took, by way, where several were timed.
        left_out: Ways that cannot be taken, and why.
    """

    path: str
    at_once: int = AT_ONCE[0]
    precision: str = "fp32"
    device: str = ""
    seconds: tuple[tuple[str, float], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        several = [f"{self.at_once} at once"] if self.is_stacked and self.at_once != AT_ONCE[0] else []
        return ", ".join([self.path, *several, *([] if self.precision == "fp32" else [self.precision])])

    @property
    def is_usual(self) -> bool:
        """Whether it is what structures are run in on a CPU, so that nothing is to be said about it."""
        return self == Way("sliced", self.at_once)

    @property
    def is_stacked(self) -> bool:
        """Whether several structures run in one launch."""
        return self.path != "sliced"

    @property
    def layout(self) -> torch.memory_format:
        """How images lie in memory, if stacked."""
        return torch.channels_last if "channels_last" in self.path else torch.contiguous_format

    @property
    def graphed(self) -> bool:
        """Whether a stack is launched as a CUDA graph."""
        return self.path.endswith("graph")


@dataclass(frozen=True)
class Wish:
    """What was asked for of a way; the rest is open.

    Attributes:
        path: Which way, or `"auto"`.
        at_once: Structures in one launch, or None.
        precision: In how many bits, or `"auto"`.
    """

    path: Path = "auto"
    at_once: int | None = None
    precision: Precision = "auto"

    def on(self, device: torch.device, *, sliced: bool) -> tuple[Way, ...]:
        """The ways that are in question, that with which the others are compared first.

        On a CPU, and with weights that are no slices of one network's, there is one.
        """
        is_open = device.type != "cpu" and sliced
        paths = (self.path,) if self.path != "auto" else paths_on(device) if is_open else ("sliced",)
        precisions = (self.precision,) if self.precision != "auto" else precisions_on(device) if is_open else ("fp32",)
        at_once = self.at_once or AT_ONCE[0]
        return tuple(Way(path, at_once, precision) for precision in precisions for path in paths)


def paths_on(device: torch.device) -> tuple[str, ...]:
    """The ways that a device has, `"auto"` aside; CUDA graphs are nowhere else."""
    return tuple(path for path in get_args(Path)[1:] if device.type == "cuda" or not path.endswith("graph"))


def precisions_on(device: torch.device) -> tuple[str, ...]:
    """In how many bits a device is worth a try; `"bf16"` runs on CPUs, too, but is slower on most."""
    return ("fp32", "bf16") if has_bfloat16(device) else ("fp32",)


def unlike(scores: Sequence[float], exact: Sequence[float]) -> str:
    """What speaks against scores in 16 bits; nothing if they will do.

    Args:
        scores: Of some structures.
        exact: Of the same in 32 bits.
    """
    far = max(abs(a - b) for a, b in zip(scores, exact, strict=True))
    if not far <= _NEAR:
        return f"Its scores are up to {far:.3f} from those in 32 bits."
    tau = rank_agreement(scores, exact)
    return "" if tau >= _ALIKE else f"It orders structures otherwise than 32 bits do (Kendall's tau {tau:.3f})."


def rank_agreement(some: Sequence[float], others: Sequence[float]) -> float:
    """Kendall's tau-b of scores of the same structures; 1 where both say that all are equal."""
    above = np.triu_indices(len(some), 1)
    one, other = (np.sign(np.subtract.outer(scores, scores))[above] for scores in (np.array(some), np.array(others)))
    together = math.sqrt((one**2).sum() * (other**2).sum())
    if not together:
        return float(np.array_equal(one, other))
    return float((one * other).sum() / together)
