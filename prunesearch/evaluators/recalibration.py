"""BatchNorm statistics of a network with other widths than those it was trained with, estimated anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunesearch.evaluators.inputs import first_input
from prunesearch.models.batch_norm import Moments, averaged, joint_statistics, together
from prunesearch.models.corrections import Correction, TrainedStatistics
from prunesearch.models.devices import placed
from prunesearch.models.isolation import in_eval_mode
from prunesearch.models.nested import (
    Batch,
    called,
    cut,
    device_of,
    in_float32,
    size_of,
    taken,
    tensors_in,
    without_arrays,
)
from prunesearch.models.norm_calls import NormCall, NormCalls
from prunesearch.models.sizes import batches_by_size, by_size
from prunesearch.models.wrappers import check_network
from prunesearch.ranges import whole_number

Statistics: TypeAlias = Literal["images", "corrected"]
"""Those that images have in a network; or less what the same images get wrong in the trained one."""
_MOMENTUM = 0.1


def recalibrate_bn(model: nn.Module, images: Batch, *, batch_size: int = 256) -> None:
    """Replace each BatchNorm's running statistics by those the model itself produces on `images`, in place.

    No weight changes; modes and momenta are restored. A BatchNorm that does not run in eval mode, such as one of an
    auxiliary head, keeps its statistics. The mean is the average over batches of equal weight, and so is the variance
    (of per-batch unbiased variances), hence independent of the order of the batches. Of images of several sizes, which
    run one size at a time, it is as in `precise_bn`: those of all images together.

    Source: Li et al., EagleEye, ECCV 2020, arXiv:2007.02491 ("adaptive BN"). Departs from their protocol, which
    `adaptive_bn` follows: an average over all batches instead of an exponential one over 100 of them.

    Args:
        model: Any module; without BatchNorm nothing happens.
        images: (n, ...) images, normalised like the training set.
        batch_size: Images per forward. Fewer than about 64 make poor statistics.

    Raises:
        TypeError: The model is no network, or the images are no tensors.
        ValueError: There are no images, or some hold NaN or infinite values, which statistics would keep.
    """
    check_network(model)
    images = without_arrays(images)
    if not any(True for _ in tensors_in(images)) or hasattr(images, "calibration_set"):
        raise TypeError(f"Expected images as a tensor (n, ...), got {type(images).__name__}.")
    if not all(bool(x.isfinite().all()) for x in tensors_in(images)):
        raise ValueError("Some images hold NaN or infinite values. Leave them out, or normalise otherwise.")
    if by_size(images) is not None:
        precise_bn(model, images, batch_size=batch_size)
        return
    with _estimating(model, momentum=None) as norms, _averaged(norms.modules):
        for batch in split(images, batch_size):
            called(model, batch)
            if norms.is_empty:
                break


def adaptive_bn(model: nn.Module, images: Batch, *, batch_size: int = 128, batches: int = 100) -> None:
    """Re-estimate BatchNorm statistics as EagleEye does: exponential averages over 100 batches of 128, in place.

    Each batch moves every statistic by a tenth (momentum 0.1, whatever momentum the layers have) from what was there to
    its own, unbiased in the variance. Nothing is reset: of the statistics that were there `0.9 ** batches` is left,
    3e-5 after 100. The last ten or twenty batches make most of the estimate.

    Source: Li et al., EagleEye, ECCV 2020, arXiv:2007.02491, section 3.3, and the authors' code. Departs from the code:
    100 batches as in the paper, where the code takes 102; fewer images than those need are shuffled and gone through
    again; they are as given, not augmented; a batch with images of several sizes moves statistics once for each size;
    layers other than BatchNorm stay in eval mode (dropout would be at work
    otherwise); the momentum is that of the authors' networks also where layers have another one, as with theirs (0.01,
    or an average over all training) 100 batches would leave most of the old statistics.

    Args:
        model: Any module; without BatchNorm nothing happens.
        images: (n, ...) images, normalised like the training set.
        batch_size: Images per batch; all of them if there are fewer.
        batches: How many batches. Fewer than about 90 leave more than 1e-4 of the old statistics.

    Raises:
        ValueError: There are no images, inputs disagree on how many, or a layer sees one number of a channel alone.
    """
    with _estimating(model, momentum=_MOMENTUM) as norms:
        for chosen in _shuffled(size_of(images), batch_size, batches):
            for some in batches_by_size(taken(images, placed(chosen, device_of(images)))):
                called(model, some)
            if norms.is_empty:
                break


def precise_bn(model: nn.Module, images: Batch, *, batch_size: int = 128) -> None:
    """Re-estimate BatchNorm statistics as those of the whole population of images, in place.

    Mean and variance are those of all numbers that a layer sees of a channel, in all batches, and in all calls where
    the network calls it several times; the variance counts the spread of the calls' means, too. Both are summed in
    float32 at least, whatever the network computes in. A layer that does not run keeps its statistics.

    Source: Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv:2105.07576, section 3.2; as in fvcore.

    Args:
        model: Any module; without BatchNorm nothing happens.
        images: (n, ...) images, normalised like the training set.
        batch_size: Images per forward.

    Raises:
        ValueError: There are no images, inputs disagree on how many, or a layer sees one number of a channel alone.
    """
    with _estimating(model, momentum=1.0, weigh=True) as norms:
        hooks = [
            module.register_forward_hook(_gathering(name, norms.functions), with_kwargs=True)
            for name, module in model.named_modules()
            if module in norms.modules
        ]
        try:
            for batch in split(images, batch_size):
                called(model, batch)
                if norms.is_empty:
                    break
        finally:
            for hook in hooks:
                hook.remove()


def correct_bn(
    model: nn.Module,
    images: Batch,
    *,
    trained: TrainedStatistics,
    narrow: Callable[[str, Tensor], Tensor],
    batch_size: int = 256,
) -> None:
    """Replace each BatchNorm's running statistics by those of `images`, less what these get wrong, in place.

    Both networks run on the same images; what those make of the trained network's statistics, beside its running ones,
    is taken off (`models.corrections`). Statistics are averages over batches of equal weight; of images of several
    sizes, which run one size at a time, each batch counts by its positions.

    Args:
        model: A slimmed copy of the trained network.
        images: (n, ...) images, normalised like the training set.
        trained: What they get wrong in the trained network, by the number of the batch.
        narrow: What stays in the copy of a buffer of the trained network, by its name and its values.
        batch_size: Images per forward. Fewer than about 64 make poor statistics.
    """
    gathered = _Gathered()
    with in_eval_mode(model), torch.no_grad():
        for index, batch in enumerate(split(images, batch_size)):
            of_trained = {name: iter(calls) for name, calls in trained.of(index, [batch]).items()}

            def corrected(call: NormCall, x: Tensor, given: Mapping[str, Iterator[Correction]] = of_trained) -> Moments:
                correction = next(given[call.name]).mapped(partial(narrow, call.name))
                return gathered.add(call, x.numel(), correction.of(joint_statistics([x])))

            with NormCalls(model, corrected):
                called(model, batch)
            if gathered.is_empty:
                break
    gathered.settle(weigh=by_size(images) is not None)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm of a model that keeps running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def split(batch: Batch, batch_size: int) -> tuple[Batch, ...]:
    """Cut into batches of at most `batch_size` and nearly equal length, so that none is a poor sample.

    Each is of one size of images.

    Raises:
        TypeError: `batch_size` is no whole number.
        ValueError: There is nothing to cut, or `batch_size` is below 1.
    """
    whole_number("batch_size", batch_size, at_least=1)
    if size_of(batch) == 0:
        raise ValueError("Expected at least one image, got none.")
    return tuple(x for some in batches_by_size(batch) for x in cut(some, math.ceil(size_of(some) / batch_size)))


@contextmanager
def _estimating(model: nn.Module, momentum: float | None, *, weigh: bool = False) -> Iterator[_Norms]:
    """BatchNorm in training mode, all else in eval mode; modes and momenta are restored.

    Calls of `F.batch_norm` that are no such module's use the statistics of the batch, too. Their running statistics
    are averages over all batches, in whatever way those of modules are estimated: there is no module to ask.
    """
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    gathered = _Gathered()
    try:
        with in_eval_mode(model), torch.no_grad():
            for norm in norms:
                norm.train()
                norm.momentum = momentum
            with NormCalls(model, lambda call, x: gathered.add(call, x.numel(), joint_statistics([x]))):
                yield _Norms(norms, gathered)
            gathered.settle(weigh=weigh)
    finally:
        for norm, own in zip(norms, momenta, strict=True):
            norm.momentum = own


class _Gathered:
    """Statistics with which calls of BatchNorm normalised, for the running ones."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[NormCall, int, Moments]]] = {}

    def add(self, call: NormCall, numbers: int, moments: Moments) -> Moments:
        """Note those of so many numbers, and give them back."""
        self._found.setdefault(call.name, []).append((call, numbers, moments))
        return moments

    @property
    def is_empty(self) -> bool:
        """Whether there was no call."""
        return not self._found

    def settle(self, *, weigh: bool) -> None:
        """Put averages into the running statistics; or weigh calls by their numbers, and count the spread of means."""
        for noted in self._found.values():
            calls, counts, moments = zip(*noted, strict=True)
            mean, variance = together(moments, counts) if weigh else averaged(moments)
            calls[0].mean.copy_(mean)
            calls[0].variance.copy_(variance)


@dataclass(frozen=True)
class _Norms:
    """What normalises with running statistics: modules, and functions, which are known once the network has run."""

    modules: Sequence[_BatchNorm]
    functions: _Gathered

    @property
    def is_empty(self) -> bool:
        """Whether nothing does, once the network has run."""
        return not self.modules and self.functions.is_empty


@contextmanager
def _averaged(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Running statistics begin anew and become averages over all calls; those of what is not called stay."""
    before = [{name: x.clone() for name, x in norm.named_buffers(recurse=False)} for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    hooks = [norm.register_forward_pre_hook(_averaging()) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, own in zip(norms, before, strict=True):
            if norm.momentum is None and not norm.num_batches_tracked:  # neither its hook ran nor its forward alone
                for name, x in norm.named_buffers(recurse=False):
                    x.copy_(own[name])


def _averaging() -> Callable[[Any, Any], None]:
    """Lets each batch count alike, as torch does without a momentum, but it reads the number of batches off a GPU."""
    calls = count(1)

    def hook(norm: _BatchNorm, _: Any) -> None:
        norm.momentum = 1 / next(calls)

    return hook


def _gathering(name: str, gathered: _Gathered) -> Callable[..., None]:
    """Notes the statistics of each call of a BatchNorm, which are its running ones at a momentum of 1."""

    def hook(norm: _BatchNorm, arguments: tuple[Any, ...], keywords: dict[str, Any], _: Any) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        x = first_input(norm, arguments, keywords)
        n = x.numel() // x.shape[1]
        call = NormCall(f"{name}.running_mean".lstrip("."), norm.running_mean, norm.running_var, norm.eps)
        moments = in_float32(norm.running_mean).clone(), in_float32(norm.running_var) * ((n - 1) / n)
        gathered.add(call, x.numel(), moments)

    return hook


def _shuffled(n: int, batch_size: int, batches: int) -> Iterator[Tensor]:
    """Indices of so many batches of n images, which are shuffled anew whenever all have been gone through."""
    whole_number("batch_size", batch_size, at_least=1)
    whole_number("batches", batches, at_least=1)
    if n == 0:
        raise ValueError("Expected at least one image, got none.")
    size, order = min(batch_size, n), torch.arange(0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(batches):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        yield order[:size]
        order = order[size:]
