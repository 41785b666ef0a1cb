"""LayerNorm, GroupNorm and their like by their definition, over some of the channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Norm:
    """A normalisation that mixes the channels of each image, whichever way it is called.

    Attributes:
        groups: Of how many parts of the channels the mean and variance are taken; None for a LayerNorm, which takes
            them for each position.
        weight: Of each channel, or None.
        bias: Of each channel, or None.
        eps: Added to the variance.
        centres: Whether the mean is subtracted; RMSNorm does not, and divides by the root of the mean square.
    """

    groups: int | None
    weight: Tensor | None
    bias: Tensor | None
    eps: float
    centres: bool = True

    def over(self, x: Tensor, dim: int, stays: Tensor) -> Tensor:
        """The definition, over the channels that stay."""
        x = x.movedim(dim, 1)
        groups = self.groups or 1
        some = x[:, stays].reshape(len(x), groups, -1, *x.shape[2:])
        dims = (2,) if self.groups is None else tuple(range(2, some.dim()))
        repeats = x.shape[1] // groups
        if self.centres:
            mean = some.mean(dims, keepdim=True).repeat_interleave(repeats, 1).flatten(1, 2)
            variance = some.var(dims, correction=0, keepdim=True).repeat_interleave(repeats, 1).flatten(1, 2)
            x = x - mean
        else:
            variance = some.square().mean(dims, keepdim=True).repeat_interleave(repeats, 1).flatten(1, 2)
        return self.scaled(x / (variance + self.eps).sqrt()).movedim(1, dim)

    def scaled(self, x: Tensor) -> Tensor:
        """Weight and bias, for channels in dimension 1."""
        shape = (1, -1, *[1] * (x.dim() - 2))
        x = x if self.weight is None else x * self.weight.view(shape)
        return x if self.bias is None else x + self.bias.view(shape)


def norm_of_layer(layer: nn.LayerNorm | nn.GroupNorm | nn.RMSNorm, dtype: torch.dtype) -> Norm:
    """What a layer does to the channels of each image or position, of numbers of a type."""
    if isinstance(layer, nn.LayerNorm):
        return Norm(None, layer.weight, layer.bias, layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return Norm(layer.num_groups, layer.weight, layer.bias, layer.eps)
    eps = torch.finfo(dtype).eps if layer.eps is None else layer.eps
    return Norm(None, layer.weight, None, eps, centres=False)
