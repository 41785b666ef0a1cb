"""BatchNorm statistics of a pruned network, less the error that the images at hand make in the trained network.

The images that a pruned network's statistics come from are few, or not quite those of its training. That error is known
for the trained network: its running statistics against those of the same images. Most of it is common to both networks
and can be taken off, as a control variate is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from prunesearch.models.batch_norm import Moments, joint_statistics, together
from prunesearch.models.devices import random_apart
from prunesearch.models.isolation import as_found
from prunesearch.models.nested import Batch, called, device_of, in_float32
from prunesearch.models.norm_calls import NormCall, NormCalls

_MOST = 4.0
"""How much of the trained network's error a channel takes over that varies more than it did there."""


@dataclass(frozen=True)
class Correction:
    """Of one BatchNorm: what it was trained with, and what the images at hand make of it in the trained network.

    Attributes:
        mean: (c,) running mean.
        variance: (c,) running variance.
        mean_here: (c,) mean over the images.
        variance_here: (c,) biased variance over the images.
        eps: That of the layer.
    """

    mean: Tensor
    variance: Tensor
    mean_here: Tensor
    variance_here: Tensor
    eps: float

    def of(self, moments: Moments) -> Moments:
        """The statistics of a pruned network over the same images, corrected.

        With `r`, at most 4, the variance of a channel beside the one that it has in the trained network over the same
        images, the error of the variance is taken off r times, and that of the mean `sqrt(r)` times: what varies half
        as much errs half as much. So the trained network itself gets its running statistics back.

        Args:
            moments: (..., c) mean and biased variance, in the shape of the correction's own.
        """
        mean, variance = moments
        share = ((variance + self.eps) / (self.variance_here + self.eps)).clamp(max=_MOST)
        level = mean + share.sqrt() * (self.mean - self.mean_here)
        return level, (variance + share * (self.variance - self.variance_here)).clamp(min=0)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Correction:
        """With other tensors, such as those of the channels that stay."""
        mean, variance, mean_here, variance_here = map(function, self.tensors)
        return Correction(mean, variance, mean_here, variance_here, self.eps)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What it knows of channels."""
        return self.mean, self.variance, self.mean_here, self.variance_here


Corrections: TypeAlias = Mapping[str, Sequence[Correction]]
"""Of each BatchNorm with running statistics, by the name of its running mean, one for each of its calls."""


def corrections_of(model: nn.Module, batches: Sequence[Batch]) -> Corrections:
    """Run the trained network with its running statistics, and note what its BatchNorm layers are given.

    Args:
        model: The trained network; it is left as it was.
        batches: At least one, each of one size of images; statistics are those of all positions of all of them.
    """
    seen: dict[str, list[list[_Seen]]] = {}
    with as_found(model), torch.inference_mode(False), torch.no_grad():
        for batch in batches:
            for name, calls in _watched(model, batch).items():
                seen.setdefault(name, []).append(calls)
    return {name: tuple(map(_correction, zip(*of_batches, strict=True))) for name, of_batches in seen.items()}


class TrainedStatistics:
    """Corrections of the same batches again and again, for each of which the trained network runs once.

    Args:
        model: The trained network; it is left as it was.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._found: dict[int, Corrections] = {}

    def of(self, index: int, batches: Sequence[Batch]) -> Corrections:
        """What the images of some batches get wrong; see `corrections_of`.

        Args:
            index: Which images they are; those of an index are always the same.
            batches: At least one, each of one size of images.
        """
        if index not in self._found:
            self._found[index] = corrections_of(self._model, batches)
        return self._found[index]


def tensors_of(corrections: Corrections) -> list[Tensor]:
    """All tensors, in a fixed order."""
    return [tensor for calls in corrections.values() for each in calls for tensor in each.tensors]


def with_tensors(corrections: Corrections, tensors: Sequence[Tensor]) -> Corrections:
    """The same with other tensors, in the order of `tensors_of`."""
    others = iter(tensors)
    return {name: [each.mapped(lambda _: next(others)) for each in calls] for name, calls in corrections.items()}


@dataclass(frozen=True)
class _Seen:
    """What a BatchNorm was given in one call: the call, how many numbers, and their mean and variance by channel."""

    call: NormCall
    numbers: int
    moments: Moments


def _watched(model: nn.Module, batch: Batch) -> dict[str, list[_Seen]]:
    """What each BatchNorm is given in each of its calls."""
    found: dict[str, list[_Seen]] = {}

    def note(call: NormCall, x: Tensor) -> None:
        found.setdefault(call.name, []).append(_Seen(call, x.numel(), joint_statistics([x])))

    with NormCalls(model, note), random_apart(device_of(batch), seed=0):
        called(model, batch)
    return found


def _correction(seen: Sequence[_Seen]) -> Correction:
    """Of one call of a layer, from what it was given of each size of images."""
    mean, variance = together([each.moments for each in seen], [each.numbers for each in seen])
    call = seen[0].call
    return Correction(in_float32(call.mean), in_float32(call.variance), mean, variance, call.eps)
