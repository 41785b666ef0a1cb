"""One linear layer or convolution: its tensors, its geometry, and its weight as a matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesearch.models.devices import in_float64


@dataclass(frozen=True)
class LinearMap:
    """A linear layer or a convolution of the recorded forward that reads narrowed channels.

    A transposed convolution of stride s is an ordinary one of stride 1: over its inputs with s - 1 zeros between
    neighbours, and with its kernel turned round. This is how it is described here.

    Attributes:
        place: Qualified name of its module, or of its node (`walk.place`).
        weight: Name of its weight in the model; None if the weight is computed, or something else uses it, too.
        bias: Name of its bias likewise; None also if it has none.
        shape: Of the weight: (outputs, inputs of a group, *kernel). That of a transposed convolution has its first two
            dimensions the other way round in the network.
        stride: Of each dimension of positions; empty for a linear layer.
        padding: Of each dimension, before and after; below 0 what is cut off.
        dilation: Of each dimension.
        groups: How many a convolution works in.
        padding_mode: What the padding holds, as in `nn.Conv2d`.
        spread: Of a transposed convolution: how far its inputs are apart, in each dimension; empty for others.
        normalised: Whether its outputs go straight into BatchNorms and nowhere else.
    """

    place: str
    weight: str | None
    bias: str | None
    shape: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    padding_mode: str = "zeros"
    spread: tuple[int, ...] = ()
    normalised: bool = False

    @property
    def output_dim(self) -> int:
        """Dimension of the network's own weight that the outputs lie along."""
        return 1 if self.spread else 0

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel along each dimension of positions."""
        return self.shape[2:]

    @property
    def columns(self) -> int:
        """How many numbers each position reads: one per input channel and element of the kernel."""
        return self.shape[1] * self.groups * math.prod(self.kernel)

    @property
    def loses_inputs(self) -> bool:
        """Whether outputs that stay may read channels that go; of many small groups, whole ones go instead."""
        return self.groups == 1 or self.groups <= self.shape[1]

    @property
    def is_refitted(self) -> bool:
        """Whether its weight can be fitted anew: a tensor of its own, and no groups."""
        return self.weight is not None and self.groups == 1

    @property
    def is_refitted_centred(self) -> bool:
        """Whether a fit need not see means: its bias makes up for them, or a BatchNorm takes them away."""
        return self.bias is not None or self.normalised

    def padded(self, inputs: Tensor) -> Tensor:
        """(n, c, *positions) inputs of a convolution, with what it puts between and around them."""
        if self.spread:
            inputs = _spread(inputs, self.spread)
        if not any(map(any, self.padding)):
            return inputs
        sides = [side for both in reversed(self.padding) for side in both]
        return F.pad(inputs, sides, mode="constant" if self.padding_mode == "zeros" else self.padding_mode)

    def matrix(self, weight: Tensor) -> Tensor:
        """(outputs, columns) by which each position's inputs are multiplied, of a weight of any number of channels.

        In float64, where the weight is.
        """
        weight = in_float64(weight.detach())
        parts = (_turned(weight) if self.spread else weight).chunk(self.groups)
        return torch.block_diag(*(part.flatten(1) for part in parts))  # type: ignore[no-untyped-call]

    def weight_of(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The weight with this matrix, in the shape and of the kind of another one; of a layer without groups."""
        if not self.spread:
            return matrix.reshape(like.shape).to(like)
        return _turned(matrix.reshape(_turned(like).shape)).to(like)


def _turned(weight: Tensor) -> Tensor:
    """A transposed convolution's weight as that of an ordinary one, and the other way round."""
    return weight.transpose(0, 1).flip(*range(2, weight.dim()))


def _spread(inputs: Tensor, steps: tuple[int, ...]) -> Tensor:
    """Inputs so many positions apart, zeros between them."""
    sizes = [(size - 1) * step + 1 for size, step in zip(inputs.shape[2:], steps, strict=True)]
    found = inputs.new_zeros((*inputs.shape[:2], *sizes))
    every = (slice(None), slice(None), *(slice(None, None, step) for step in steps))
    found[every] = inputs
    return found
