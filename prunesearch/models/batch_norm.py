"""BatchNorm with the statistics of the batch itself, as fast as memory allows on CPUs.

What torch does along channels is slow where they are few, as in narrow layers. Here a row of neighbouring pixels is
taken as one of very many channels, and what was found for those is put together afterwards. With the result written
over the input, large batches take no new memory either, whose pages cost more than the numbers in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from prunesearch.models.aliasing import is_plain

Moments: TypeAlias = tuple[Tensor, Tensor]
"""(c,) mean and biased variance of each channel."""

_TOGETHER = 2048
"""Numbers that are taken together at most; several such rows fit into the first cache of a core."""

_CACHED = 1 << 19
"""Bytes of differences at a time, so that they stay in a core's cache and take no new memory."""

_GUESSED = 128
"""Rows at least from which means are guessed; they are spread over all."""


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    statistics: int | None = None,
    moments: Moments | None = None,
    in_place: bool = False,
) -> Tensor:
    """Normalise each channel with its mean and biased variance, as BatchNorm in training mode does.

    Args:
        x: (n, c, ...).
        weight: (c,) or None for ones.
        bias: (c,) or None for zeros.
        eps: Added to the variances.
        statistics: How many of the first images the statistics come from; None for all.
        moments: The statistics, if they come from more than these images.
        in_place: Write over `x`, which has to be laid out as a new tensor would be.
    """
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    rows = _Rows(precise)
    mean, variance = channel_statistics(precise[:statistics]) if moments is None else moments
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else torch.addcmul(bias, mean, scale, value=-1)
    out = rows.values if in_place or precise is not x else None
    normal = torch.addcmul(rows.along(shift), rows.values, rows.along(scale), out=out)
    if in_place:
        return x if precise is x else x.copy_(precise)
    return rows.shaped(normal).to(x.dtype)


def joint_statistics(several: Sequence[Tensor]) -> Moments:
    """Mean and biased variance of each channel over several (n, c, ...) together, in float32 at least."""
    found = [channel_statistics(x.to(torch.promote_types(x.dtype, torch.float32))) for x in several]
    return together(found, [x.numel() for x in several])


def together(parts: Sequence[Moments], sizes: Sequence[int]) -> Moments:
    """Mean and biased variance of each channel over several parts together, each of which counts by its size."""
    if len(parts) == 1:
        return parts[0]  # a device would wait for the share
    total = sum(sizes)
    return mixed([size / total for size in sizes], *map(torch.stack, zip(*parts, strict=True)))


def averaged(parts: Sequence[Moments]) -> Moments:
    """Mean and variance of each channel as running statistics have them: averages over calls, of variances, too.

    So does training: the spread of the calls' means is not in the variance.
    """
    means, variances = (torch.stack(each) for each in zip(*parts, strict=True))
    return means.mean(0), variances.mean(0)


def mixed(shares: Sequence[float], means: Tensor, variances: Tensor) -> Moments:
    """Mean and biased variance of each channel over k parts together.

    Args:
        shares: Of each part in all numbers; their sum is 1.
        means: (k, c) of the parts.
        variances: (k, c) of the parts, biased.
    """
    weights = means.new_tensor(shares)[:, None]
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean).square())).sum(0)


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, c, ...) of floats -> mean and biased variance of each channel.

    On CPUs the numbers are read once, as differences from a guess of the mean, so that a large mean costs no digits:
    the variance is the mean of their squares minus the square of their mean, which is small beside it (Chan, Golub and
    LeVeque, The American Statistician 1983). The result does not depend on the number of threads, down to the last bit,
    as that of torch's own kernel does: workers have fewer each.
    """
    if x.device.type != "cpu":
        variance, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
        return mean, variance
    rows = _Rows(x)
    some = rows.values[:: max(1, len(rows.values) // _GUESSED)]
    guess = rows.mean_of_channels(some.sum(0) / len(some))
    row = rows.along(guess)
    sums, squares = torch.zeros_like(row), torch.zeros_like(row)
    at_once = max(1, _CACHED // row.nbytes)
    room = torch.empty_like(rows.values[:at_once])
    for part in torch.split(rows.values, at_once):
        far = torch.sub(part, row, out=room[: len(part)])
        sums += far.sum(0)
        squares += far.square_().sum(0)
    off = rows.mean_of_channels(sums / len(rows.values))
    variance = rows.mean_of_channels(squares / len(rows.values)) - off.square()
    return guess + off, variance.clamp_min(0)


class _Rows:
    """A tensor as rows of memory, each with the same number of pixels of every channel.

    Attributes:
        values: (rows, pixels * channels), or (rows, channels * pixels) if a channel's pixels are neighbours; a view if
            the tensor is laid out as a new one would be.
    """

    def __init__(self, x: Tensor) -> None:
        if not is_plain(x):
            x = x.contiguous()
        self._channels = x.shape[1]
        self._last = x.dim() == 2 or not x.is_contiguous()
        self._ordered = x.movedim(1, -1) if self._last else x
        pixels = x.numel() // (len(x) * self._channels)
        self._pixels = _divisor(pixels, _TOGETHER // self._channels) if self._last else pixels
        self.values = self._ordered.reshape(-1, self._pixels * self._channels)

    def along(self, channels: Tensor) -> Tensor:
        """(c,) -> what belongs to each number of a row."""
        if self._pixels == 1:
            return channels
        repeated = channels.expand(self._pixels, -1)
        return (repeated if self._last else repeated.T).reshape(-1)

    def mean_of_channels(self, row: Tensor) -> Tensor:
        """What belongs to each number of a row -> (c,), means over pixels."""
        if self._pixels == 1:
            return row
        apart = row.view(-1, self._channels) if self._last else row.view(self._channels, -1).T
        return apart.sum(0) / self._pixels

    def shaped(self, values: Tensor) -> Tensor:
        """Rows in the shape and layout of the tensor."""
        shaped = values.view(self._ordered.shape)
        return shaped.movedim(-1, 1) if self._last else shaped


@cache
def _divisor(n: int, limit: int) -> int:
    """The largest divisor of `n` up to `limit`, or 1."""
    return next((divisor for divisor in range(min(n, limit), 1, -1) if n % divisor == 0), 1)
