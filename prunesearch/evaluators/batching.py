"""Running the forwards of many structures in whichever way is faster on the device at hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch

from prunesearch.models.corrections import Corrections
from prunesearch.models.devices import wait_for
from prunesearch.models.memory import is_out_of_memory
from prunesearch.models.nested import Batch, tensors_in
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure

Path = Literal["auto", "sliced", "stacked", "stacked+graph", "stacked+channels_last", "stacked+channels_last+graph"]
Precision = Literal["fp32", "bf16"]

_TIMED = 4
"""Structures that all ways are timed with; fewer say little of stacks."""

_FAR = 0.1
"""Share of the outputs of the first way, in norm, by which those of another may differ: rounding to 16 bits is less."""


@dataclass(frozen=True)
class Way:
    """How structures are run.

    Attributes:
        path: One of `Path` other than `"auto"`.
        at_once: Structures in one launch, if stacked.
        seconds: What a structure took, by path, where several were timed.
        left_out: Paths that cannot be taken, and why.
    """

    path: str
    at_once: int
    seconds: tuple[tuple[str, float], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def layout(self) -> torch.memory_format:
        """How images lie in memory, if stacked."""
        return torch.channels_last if "channels_last" in self.path else torch.contiguous_format

    @property
    def graphed(self) -> bool:
        """Whether a stack is launched as a CUDA graph."""
        return self.path.endswith("graph")


@dataclass(frozen=True)
class _Given:
    """What networks are run on."""

    inputs: Batch
    statistics: int | None
    corrections: Corrections | None


def paths_on(device: torch.device) -> tuple[str, ...]:
    """The ways that a device has, `"auto"` aside; CUDA graphs are nowhere else."""
    return tuple(path for path in get_args(Path)[1:] if device.type == "cuda" or not path.endswith("graph"))


class BatchedForward:
    """Forwards of structures, sliced or stacked; of `"auto"`, as they are faster.

    On a CPU that is always sliced. On another device all ways run the first structures, once to warm up and once to be
    timed; one that fails, or whose outputs are not those of the sliced, is left out. Weights that are no slices of one
    network's are run sliced, unless stacked is asked for.

    Args:
        weights: Where the weights of structures come from.
        path: Which way.
        at_once: Structures in one launch, if stacked; halved for good when memory runs out.
        precision: `"bf16"` computes convolutions and products in 16 bits.
        device: Where.

    Raises:
        ValueError: The device does not have this way.
    """

    def __init__(
        self, weights: WeightSource, *, path: Path, at_once: int, precision: Precision, device: torch.device
    ) -> None:
        self._weights, self._precision, self._device = weights, precision, device
        if path != "auto" and path not in paths_on(device):
            raise ValueError(f"There are no CUDA graphs on {device}. Leave out path={path!r}.")
        is_open = path == "auto" and device.type != "cpu" and weights.sliced
        self._way: Way | None = None if is_open else Way("sliced" if path == "auto" else path, at_once)
        self._at_once = at_once
        self._sliced = SharedForward(weights) if self._way is None or self._way.path == "sliced" else None
        self._stacked = StackedForward(weights) if self._way is None or self._way.path != "sliced" else None

    @property
    def way(self) -> Way | None:
        """How structures are run; None until that has been found out."""
        if self._way is None:
            return None
        trouble = "" if self._stacked is None else self._stacked.graphs.trouble
        left_out = {**dict(self._way.left_out), **({self._way.path: trouble} if self._way.graphed and trouble else {})}
        return replace(self._way, at_once=self._at_once, left_out=tuple(left_out.items()))

    def run(
        self,
        structures: Sequence[Structure],
        inputs: Batch,
        statistics: int | None = None,
        corrections: Corrections | None = None,
    ) -> list[Any]:
        """What the network of each structure returns for a batch; see `SharedForward.run`."""
        given = _Given(inputs, statistics, corrections)
        with self._computing():
            if self._way is None and len(structures) >= _TIMED:
                self._way = self._faster(structures[:_TIMED], given)
            return self._run(self._way or Way("sliced", self._at_once), structures, given)

    def run_together(
        self, structures: Sequence[Structure], batches: Sequence[Batch], corrections: Corrections | None = None
    ) -> list[list[Any]]:
        """What the network of each structure returns for batches of several sizes; see `SharedForward.run_together`.

        Always sliced, also where a batch of one size is run stacked.
        """
        assert self._sliced is not None  # unless all is to be stacked, which is refused before
        with self._computing():
            return self._sliced.run_together(structures, batches, corrections=corrections)

    def _run(self, way: Way, structures: Sequence[Structure], given: _Given) -> list[Any]:
        if way.path == "sliced":
            assert self._sliced is not None
            return self._sliced.run(structures, given.inputs, given.statistics, given.corrections)
        assert self._stacked is not None
        self._stacked.lay_out(way.layout)
        found: list[Any] = []
        while len(found) < len(structures):
            some = structures[len(found) : len(found) + self._at_once]
            try:
                found += self._stacked.run(some, given.inputs, given.statistics, given.corrections, graphed=way.graphed)
            except RuntimeError as error:
                if self._at_once == 1 or not is_out_of_memory(error):
                    raise
                self._at_once //= 2
                self._stacked.graphs.forget()
        return found

    def _faster(self, structures: Sequence[Structure], given: _Given) -> Way:
        """The way that takes least time with some structures, of those that work."""
        assert self._stacked is not None
        outputs, each = self._timed(Way("sliced", self._at_once), structures, given)
        seconds, left_out = {"sliced": each}, {}
        for path in paths_on(self._device)[1:]:
            try:
                found, each = self._timed(Way(path, self._at_once), structures, given)
            except (RuntimeError, ValueError) as error:  # such as of layers that mix channels of their own
                left_out[path] = str(error).partition("\n")[0]
                continue
            if not _close(found, outputs):
                left_out[path] = "Its outputs are not those of the other ways."
            elif self._stacked.graphs.trouble:
                left_out[path], self._stacked.graphs.trouble = self._stacked.graphs.trouble, ""
            else:
                seconds[path] = each
        self._stacked.graphs.forget()  # as they are of few structures
        best = min(seconds, key=seconds.__getitem__)
        return Way(best, self._at_once, tuple(seconds.items()), tuple(left_out.items()))

    def _timed(self, way: Way, structures: Sequence[Structure], given: _Given) -> tuple[list[Any], float]:
        """What the networks return, and the seconds of each."""
        for _ in range(2):  # the first chooses kernels, and takes memory
            wait_for(self._device)
            start = time.perf_counter()
            found = self._run(way, structures, given)
            wait_for(self._device)
        return found, (time.perf_counter() - start) / len(structures)

    def _computing(self) -> AbstractContextManager[Any]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


def _close(some: Any, others: Any) -> bool:
    """Whether what networks returned is the same but for rounding."""
    pairs = zip(tensors_in(some), tensors_in(others), strict=True)
    return all(float((x.float() - y.float()).norm()) <= _FAR * float(y.float().norm()) for x, y in pairs)
