"""Running the forwards of many structures in whichever way is fastest on the device at hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from prunesearch.evaluators.ways import AT_ONCE, FEWEST, Way, Wish, paths_on, unlike
from prunesearch.models.corrections import Corrections
from prunesearch.models.devices import fetched, kind_of_device, wait_for
from prunesearch.models.memory import is_out_of_memory
from prunesearch.models.nested import Batch, tensors_in
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure

_FAR = 0.1
"""Share of the outputs of the first way, in norm, by which those of another may differ: rounding to 16 bits is less."""


@dataclass(frozen=True)
class Given:
    """What networks are run on.

    Attributes:
        inputs: One batch, (n, ...).
        statistics: How many of the first images BatchNorm takes its statistics from; None for all.
        corrections: What these get wrong about them; None to leave them as they are.
    """

    inputs: Batch
    statistics: int | None = None
    corrections: Corrections | None = None


class BatchedForward:
    """Forwards of structures in the way that was asked for; what was left open is found by running some (`choose`).

    Until that was done, they run sliced in 32 bits, unless another way was asked for.

    Args:
        weights: Where the weights of structures come from.
        wish: What was asked for.
        device: Where.

    Raises:
        ValueError: The device does not have this way.
    """

    def __init__(self, weights: WeightSource, wish: Wish, device: torch.device) -> None:
        self._device, self._wish = device, wish
        if wish.path != "auto" and wish.path not in paths_on(device):
            raise ValueError(f"There are no CUDA graphs on {device}. Leave out path={wish.path!r}.")
        ways = wish.on(device, sliced=weights.sliced)
        self._way = ways[0]
        self._open = self._still_open(ways)
        self._sliced = None if all(way.is_stacked for way in ways) else SharedForward(weights)
        self._stacked = StackedForward(weights) if any(way.is_stacked for way in ways) else None

    @property
    def way(self) -> Way | None:
        """How structures are run; None until that has been found out."""
        return None if self._open else self._told(self._way)

    @property
    def precision(self) -> str:
        """In how many bits they are run now."""
        return self._way.precision

    def keep(self, way: Way) -> None:
        """Run structures as somebody has chosen before, where that was left open.

        On another kind of device only the precision counts, on which scores depend; the rest stays open.
        """
        if self._wish.precision == "auto":
            self._way = replace(self._way, precision=way.precision)
            alike = dict.fromkeys(replace(each, precision=way.precision) for each in self._open)
            self._open = self._still_open(tuple(alike))
        is_possible = way.path in {each.path for each in (*self._open, self._way)}
        is_possible &= self._wish.at_once in (None, way.at_once)
        if is_possible and way.device == kind_of_device(self._device):
            self._way, self._open = replace(way, precision=self._way.precision), ()

    def choose(
        self,
        structures: Sequence[Structure],
        given: Given,
        score: Callable[[Sequence[Any]], Sequence[float]] | None = None,
    ) -> None:
        """Find out what was left open: every way runs the first structures, once to warm up and once to be timed.

        One that fails is left out, and so is one whose outputs are not those of the first. One in 16 bits has to give
        the scores of 32 bits to 0.01 as well, and to order the structures alike, by Kendall's tau of 0.98 at least: of
        16 structures one pair may change places. Of the fastest, if it is stacked, other numbers at once are tried
        then. Nothing happens if all is known, or if there are fewer than 4 structures.

        Args:
            structures: At most 16 count; of fewer, other numbers at once are not tried.
            given: What they are run on.
            score: Scores by outputs, one per structure; without it the precision stays as it is.
        """
        some = list(dict.fromkeys(structures))[: AT_ONCE[0]]
        if not self._open or len(some) < FEWEST:
            return
        first, *others = (way for way in self._open if score is not None or way.precision == self._way.precision)
        several_at_once = self._wish.at_once is None and len(some) == AT_ONCE[0]
        if not others and not (first.is_stacked and several_at_once):
            return
        trials = _Trials(self, given, score)
        try:
            trials.begin(first, some)
        except (RuntimeError, ValueError):  # then it fails for every structure, and whoever scores it says so
            self._open = ()
            return
        for way in others:
            trials.add(way, some)
        best = trials.best
        if best.is_stacked and several_at_once:
            for way in _others_at_once(best):
                trials.add(way, some * max(1, way.at_once // len(some)))  # a stack does not see that some are equal
        found = replace(trials.best, device=kind_of_device(self._device))
        self._way, self._open = replace(found, seconds=trials.seconds, left_out=trials.left_out), ()

    def run(self, structures: Sequence[Structure], given: Given) -> list[Any]:
        """What the network of each structure returns for a batch; see `SharedForward.run`."""
        found, self._way = self.run_in(self._way, structures, given)
        return found

    def run_together(
        self, structures: Sequence[Structure], batches: Sequence[Batch], corrections: Corrections | None = None
    ) -> list[list[Any]]:
        """What the network of each structure returns for batches of several sizes; see `SharedForward.run_together`.

        Always sliced, also where a batch of one size is run stacked.
        """
        assert self._sliced is not None  # unless all is to be stacked, which is refused before
        with self._computing(self._way.precision):
            return self._sliced.run_together(structures, batches, corrections=corrections)

    def run_in(self, way: Way, structures: Sequence[Structure], given: Given) -> tuple[list[Any], Way]:
        """The same in some way, and that way: with half as many at once if memory ran out."""
        with self._computing(way.precision):
            if not way.is_stacked:
                assert self._sliced is not None
                return self._sliced.run(structures, given.inputs, given.statistics, given.corrections), way
            assert self._stacked is not None
            self._stacked.lay_out(way.layout)
            found: list[Any] = []
            while len(found) < len(structures):
                some = structures[len(found) : len(found) + way.at_once]
                try:
                    found += self._stacked.run(
                        some, given.inputs, given.statistics, given.corrections, graphed=way.graphed
                    )
                except RuntimeError as error:
                    if way.at_once == 1 or not is_out_of_memory(error):
                        raise
                    way = replace(way, at_once=way.at_once // 2, device=kind_of_device(self._device))
                    self._stacked.graphs.forget()
            return found, way

    def timed(self, way: Way, structures: Sequence[Structure], given: Given) -> tuple[list[Any], Way, float]:
        """What the networks return in some way, that way as in `run_in`, and the seconds of each structure.

        Raises:
            RuntimeError: It fails, or ran without a graph where it was to have one.
            ValueError: Something in the network cannot be run so.
        """
        try:
            for _ in range(2):  # the first chooses kernels, and takes memory
                wait_for(self._device)
                start = time.perf_counter()
                found, way = self.run_in(way, structures, given)
                wait_for(self._device)
            seconds = (time.perf_counter() - start) / len(structures)
            if trouble := self._trouble(way):
                raise RuntimeError(trouble)
            return found, way, seconds
        finally:
            if self._stacked is not None:
                self._stacked.graphs.forget()  # they hold memory, and are of this precision
                self._stacked.graphs.trouble = ""

    def _still_open(self, ways: tuple[Way, ...]) -> tuple[Way, ...]:
        """The ways in question; none if there is nothing to choose."""
        several_at_once = self._wish.at_once is None and self._device.type != "cpu"
        return ways if len(ways) > 1 or any(way.is_stacked and several_at_once for way in ways) else ()

    def _trouble(self, way: Way) -> str:
        return self._stacked.graphs.trouble if self._stacked is not None and way.graphed else ""

    def _told(self, way: Way) -> Way:
        trouble = self._trouble(way)
        return replace(way, left_out=(*way.left_out, (str(way), trouble))) if trouble else way

    def _computing(self, precision: str) -> AbstractContextManager[Any]:
        if precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


class _Trials:
    """Ways that were timed, and those that cannot be taken."""

    def __init__(
        self,
        forward: BatchedForward,
        given: Given,
        score: Callable[[Sequence[Any]], Sequence[float]] | None,
    ) -> None:
        self._forward, self._given, self._score = forward, given, score
        self._seconds: dict[Way, float] = {}
        self._left_out: dict[str, str] = {}

    def begin(self, way: Way, structures: Sequence[Structure]) -> None:
        """Time the way with which others are compared; it has to work."""
        self._expected, way, seconds = self._forward.timed(way, structures, self._given)
        self._exact = None if self._score is None else self._score(self._expected)
        self._first, self._seconds[way] = way, seconds

    def add(self, way: Way, structures: Sequence[Structure]) -> None:
        """Time another one, or say why it cannot be taken."""
        try:
            found, done, seconds = self._forward.timed(way, structures, self._given)
        except (RuntimeError, ValueError) as error:  # such as of layers that mix channels of their own
            self._left_out[str(way)] = str(error).partition("\n")[0]
            return
        trouble = self._difference(done, found[: len(self._expected)])
        if trouble:
            self._left_out[str(way)] = trouble
        else:
            self._seconds[done] = min(seconds, self._seconds.get(done, math.inf))

    @property
    def best(self) -> Way:
        """The fastest."""
        return min(self._seconds, key=self._seconds.__getitem__)

    @property
    def seconds(self) -> tuple[tuple[str, float], ...]:
        return tuple((str(way), seconds) for way, seconds in self._seconds.items())

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._left_out.items())

    def _difference(self, way: Way, found: Sequence[Any]) -> str:
        """What speaks against a way; nothing if its outputs will do."""
        if not _close(found, self._expected):
            return "Its outputs are not those of the other ways."
        if way.precision == self._first.precision or self._score is None or self._exact is None:
            return ""
        return unlike(self._score(found), self._exact)


def _others_at_once(best: Way) -> Iterator[Way]:
    """The way with other numbers at once, but not with more than fit into memory."""
    is_halved = best.at_once < AT_ONCE[0]
    for n in AT_ONCE:
        if n < best.at_once or (n > best.at_once and not is_halved):
            yield replace(best, at_once=n)


def _close(some: Any, others: Any) -> bool:
    """Whether what networks returned is the same but for rounding."""
    pairs = list(zip(tensors_in(some), tensors_in(others), strict=True))
    sizes = fetched([torch.stack([(x.float() - y.float()).norm(), y.float().norm()]) for x, y in pairs])
    return all(far <= _FAR * size for far, size in (each.tolist() for each in sizes))
