"""From the widths of a block to the weights of one of its layers: the two forms of a PruningNet's generators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PublishedGenerator(nn.Module):
    """All weights of one layer from two linear layers: `v -> hidden -> ReLU -> weights`, as in MetaPruning.

    Args:
        widths: Length of the encoding v.
        shape: Of the weights.
        hidden: Units in between; the authors have 32, and 64 in MobileNet V2. So many times, plus one, are the
            parameters those of the layer.
    """

    def __init__(self, widths: int, shape: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.first = nn.Linear(widths, hidden)
        self.second = nn.Linear(hidden, math.prod(shape))

    def start(self, values: Tensor | None, generator: torch.Generator) -> None:
        """Begin with `values` for every structure, or, without, as torch initialises linear layers."""
        _start_linear(self.first, generator)
        _start_linear(self.second, generator)
        if values is not None:
            self.second.weight.data.zero_()
            self.second.bias.data.copy_(values.flatten())

    def forward(self, encoding: Tensor) -> Tensor:
        """(widths,) -> weights of the unpruned layer."""
        return self.second(self.first(encoding).relu()).view(self.shape)


class CompactGenerator(nn.Module):
    """Shared weights of one layer, which the widths scale per input channel and change by a matrix of low rank.

    `W(v) = base * (1 + s(v)) + left diag(m(v)) right`, where (s, m) = `v -> hidden -> ReLU -> inputs + rank`. This form
    is ours: FiLM's modulation (Perez et al., AAAI 2018, arXiv:1709.07871) of weights instead of features, plus what
    the published form does, a sum of fixed tensors with coefficients that depend on v, with tensors of rank one.

    Args:
        widths: Length of the encoding v.
        shape: Of the weights.
        hidden: Units of the MLP.
        rank: Of the change.
    """

    def __init__(self, widths: int, shape: Sequence[int], hidden: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.empty(*shape))
        self.left = nn.Parameter(torch.empty(shape[0], rank))
        self.right = nn.Parameter(torch.empty(rank, math.prod(shape[1:])))
        self.first = nn.Linear(widths, hidden)
        self.second = nn.Linear(hidden, shape[1] + rank)

    def start(self, values: Tensor | None, generator: torch.Generator) -> None:
        """Begin with `values` for every structure, or, without, with He's normal initialisation."""
        if values is None:
            start_weights(self.base, generator)
        else:
            self.base.data.copy_(values)
        self.left.data.normal_(0.0, 1.0, generator=generator)
        self.right.data.normal_(0.0, float(self.base.detach().std()), generator=generator)
        _start_linear(self.first, generator)
        self.second.weight.data.zero_()
        self.second.bias.data.zero_()

    def forward(self, encoding: Tensor) -> Tensor:
        """(widths,) -> weights of the unpruned layer."""
        inputs = self.base.shape[1]
        code = self.second(self.first(encoding).relu())
        scale = 1 + code[:inputs].view(1, inputs, *[1] * (self.base.dim() - 2))
        return self.base * scale + ((self.left * code[inputs:]) @ self.right).view_as(self.base)


def _start_linear(layer: nn.Linear, generator: torch.Generator) -> None:
    """As `nn.Linear` does it."""
    bound = layer.in_features**-0.5
    for parameter in (layer.weight, layer.bias):
        parameter.data.uniform_(-bound, bound, generator=generator)


def start_weights(weights: Tensor, generator: torch.Generator) -> None:
    """He's normal initialisation, in place."""
    weights.data.normal_(0.0, math.sqrt(2 / weights[0].numel()), generator=generator)
