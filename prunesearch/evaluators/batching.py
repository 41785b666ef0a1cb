"""Running the forwards of many structures in whichever way is faster on the device at hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from prunesearch.models.devices import wait_for
from prunesearch.models.nested import Batch
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure

Path = Literal["auto", "sliced", "stacked"]
Precision = Literal["fp32", "bf16"]

_TIMED = 4
"""Structures that both ways are timed with; fewer say little of stacks."""


@dataclass(frozen=True)
class Way:
    """How structures are run.

    Attributes:
        path: `"sliced"` or `"stacked"`.
        at_once: Structures in one launch, if stacked.
        seconds: What a structure took, by path, where both were timed.
    """

    path: str
    at_once: int
    seconds: tuple[tuple[str, float], ...] = ()


class BatchedForward:
    """Forwards of structures, sliced or stacked; of `"auto"`, as they are faster.

    On a CPU that is always sliced. On another device both run the first structures, once to warm up and once to be
    timed. Weights that are no slices of one network's are run sliced, unless stacked is asked for.

    Args:
        weights: Where the weights of structures come from.
        path: Which way.
        at_once: Structures in one launch, if stacked; halved for good when memory runs out.
        precision: `"bf16"` computes convolutions and products in 16 bits.
        device: Where.
    """

    def __init__(
        self, weights: WeightSource, *, path: Path, at_once: int, precision: Precision, device: torch.device
    ) -> None:
        self._weights, self._precision, self._device = weights, precision, device
        is_open = path == "auto" and device.type != "cpu" and weights.sliced
        self._way: Way | None = None if is_open else Way("sliced" if path == "auto" else path, at_once)
        self._at_once = at_once
        ways = ("sliced", "stacked") if self._way is None else (self._way.path,)
        self._sliced = SharedForward(weights) if "sliced" in ways else None
        self._stacked = StackedForward(weights) if "stacked" in ways else None

    @property
    def way(self) -> Way | None:
        """How structures are run; None until that has been found out."""
        return None if self._way is None else replace(self._way, at_once=self._at_once)

    def run(self, structures: Sequence[Structure], inputs: Batch, statistics: int | None = None) -> list[Any]:
        """What the network of each structure returns for a batch; see `SharedForward.run`."""
        with self._computing():
            if self._way is None and len(structures) >= _TIMED:
                self._way = self._faster(structures[:_TIMED], inputs, statistics)
            return self._run(self._way.path if self._way else "sliced", structures, inputs, statistics)

    def run_together(self, structures: Sequence[Structure], batches: Sequence[Batch]) -> list[list[Any]]:
        """What the network of each structure returns for batches of several sizes; see `SharedForward.run_together`.

        Always sliced, also where a batch of one size is run stacked.
        """
        assert self._sliced is not None  # unless all is to be stacked, which is refused before
        with self._computing():
            return self._sliced.run_together(structures, batches)

    def _run(self, path: str, structures: Sequence[Structure], inputs: Batch, statistics: int | None) -> list[Any]:
        if path == "sliced":
            assert self._sliced is not None
            return self._sliced.run(structures, inputs, statistics)
        assert self._stacked is not None
        found: list[Any] = []
        while len(found) < len(structures):
            try:
                found += self._stacked.run(structures[len(found) : len(found) + self._at_once], inputs, statistics)
            except RuntimeError as error:
                if self._at_once == 1 or not is_out_of_memory(error):
                    raise
                self._at_once //= 2
        return found

    def _faster(self, structures: Sequence[Structure], inputs: Batch, statistics: int | None) -> Way:
        seconds = {path: self._time(path, structures, inputs, statistics) for path in ("sliced", "stacked")}
        return Way(min(seconds, key=seconds.__getitem__), self._at_once, tuple(seconds.items()))

    def _time(self, path: str, structures: Sequence[Structure], inputs: Batch, statistics: int | None) -> float:
        """Seconds of a structure; infinitely many where it cannot be run this way."""
        try:
            for _ in range(2):  # the first chooses kernels, and takes memory
                wait_for(self._device)
                start = time.perf_counter()
                self._run(path, structures, inputs, statistics)
                wait_for(self._device)
        except ValueError:  # such as of layers that mix channels of their own
            if path == "sliced":
                raise
            return float("inf")
        return (time.perf_counter() - start) / len(structures)

    def _computing(self) -> AbstractContextManager[Any]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that there was not enough memory; on CPUs it has no class of its own."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "can't allocate memory" in said
