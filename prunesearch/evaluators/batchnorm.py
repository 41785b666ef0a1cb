"""BatchNorm statistics of a network with other widths than those it was trained with, estimated anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrate_bn(model: nn.Module, images: Tensor, *, batch_size: int = 256) -> None:
    """Replace each BatchNorm's running statistics by those the model itself produces on `images`, in place.

    No weight changes; modes and momenta are restored. The mean is the average over batches of equal weight, and so is
    the variance (of per-batch unbiased variances), hence independent of the order of the batches.

    Source: Li et al., EagleEye, ECCV 2020, arXiv:2007.02491 ("adaptive BN"). Departs from the authors' code, which
    `adaptive_bn` follows: an average over all batches instead of an exponential one over 102 of them.

    Args:
        model: Any module; without BatchNorm nothing happens.
        images: (n, ...) images, normalised like the training set.
        batch_size: Images per forward. Fewer than about 64 make poor statistics.
    """
    with _estimating(model, momentum=None) as norms:
        for norm in norms:
            norm.reset_running_stats()
        for batch in split(images, batch_size) if norms else ():
            model(batch)


def adaptive_bn(model: nn.Module, images: Tensor, *, batch_size: int = 128) -> None:
    """Re-estimate BatchNorm statistics as EagleEye does: one pass with the momentum the layers have, in place.

    Starts from the statistics that are there, as the authors' code does.

    Source: Li et al., EagleEye, ECCV 2020, arXiv:2007.02491, section 3.3. Departs from the authors' code: layers other
    than BatchNorm stay in eval mode (dropout would be at work otherwise).
    """
    with _estimating(model) as norms:
        for batch in split(images, batch_size) if norms else ():
            model(batch)


def precise_bn(model: nn.Module, images: Tensor, *, batch_size: int = 128) -> None:
    """Re-estimate BatchNorm statistics as those of the whole population of images, in place.

    The mean is the average of the batches' means; the variance counts the spread of those means, too.

    Source: Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv:2105.07576, section 3.2; as in fvcore.
    """
    with _estimating(model, momentum=1.0) as norms:
        sums = [(torch.zeros_like(norm.running_mean), torch.zeros_like(norm.running_var)) for norm in norms]  # type: ignore[arg-type]
        sizes = [0] * len(norms)
        hooks = [norm.register_forward_pre_hook(_noting(sizes, i)) for i, norm in enumerate(norms)]
        batches = split(images, batch_size) if norms else ()
        try:
            for batch in batches:
                model(batch)
                for norm, n, (mean, square) in zip(norms, sizes, sums, strict=True):
                    assert norm.running_mean is not None
                    assert norm.running_var is not None
                    mean += norm.running_mean
                    square += norm.running_var * ((n - 1) / n) + norm.running_mean.square()
        finally:
            for hook in hooks:
                hook.remove()
        for norm, (mean, square) in zip(norms, sums, strict=True):
            norm.running_mean = mean / len(batches)
            norm.running_var = square / len(batches) - norm.running_mean.square()


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm of a model that keeps running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def split(tensor: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Cut into batches of at most `batch_size` and nearly equal length, so that none is a poor sample.

    Raises:
        ValueError: There is nothing to cut.
    """
    if len(tensor) == 0:
        raise ValueError("Expected at least one image, got none.")
    return tensor.tensor_split(math.ceil(len(tensor) / batch_size))


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and every module of it back into its own afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _estimating(model: nn.Module, momentum: float | str | None = "its own") -> Iterator[list[_BatchNorm]]:
    """BatchNorm in training mode, all else in eval mode; modes and momenta are restored."""
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    try:
        with in_eval_mode(model), torch.no_grad():
            for norm in norms:
                norm.train()
                if not isinstance(momentum, str):
                    norm.momentum = momentum
            yield norms
    finally:
        for norm, own in zip(norms, momenta, strict=True):
            norm.momentum = own


def _noting(sizes: list[int], i: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes[i] = inputs[0].numel() // inputs[0].shape[1]

    return hook
