"""Numbers of channels that Python computes with unseen: what they decide stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.trace import trace
from tests.models.networks import SMALL, Middle, names, proven, randomised


def _scaled(h: Tensor, scale: Callable[[int], float]) -> Tensor:
    return h * scale(h.size(1))


UNSEEN: dict[str, Callable[[], nn.Module]] = {
    "a float over a size": lambda: Middle(lambda net, h, x: _scaled(h, lambda c: 2.0 / c)),
    "a root of a float over a size": lambda: Middle(lambda net, h, x: _scaled(h, lambda c: math.sqrt(2.0 / (9 * c)))),
    "a root of numpy's": lambda: Middle(lambda net, h, x: _scaled(h, lambda c: float(np.sqrt(c)))),
    "a float over a size, of what has no channels": lambda: Middle(
        lambda net, h, x: h - (1.0 / h.size(1)) * h.sum(1, keepdim=True)
    ),
    "a tensor made of it": lambda: Middle(lambda net, h, x: h * torch.tensor(1.0 / h.size(1))),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_channels_stay_whose_number_reaches_an_operator_as_a_plain_one(name: str) -> None:
    network = proven(UNSEEN[name](), SMALL)
    assert "conv1" not in names(network)
    assert "how many there are" in network.frozen["conv1"]
    assert names(network)[-1] == "conv2"


class _OneBit(torch.autograd.Function):
    """Signs of weights, scaled by how many inputs they have."""

    @staticmethod
    def forward(ctx: object, weight: Tensor) -> Tensor:
        return math.sqrt(2.0 / (weight.shape[1] * weight.shape[2] * weight.shape[3])) * weight.sign()


class _OneBitConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, _OneBit.apply(self.weight), self.bias, self.stride, self.padding)


def test_weights_that_are_scaled_by_how_many_inputs_they_have_keep_these() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), _OneBitConv(8, 6, 3), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1))
    network = proven(model, SMALL)
    assert names(network) == ["2"]


def test_a_scale_that_a_module_holds_hinders_nothing() -> None:
    model = Middle(lambda net, h, x: h * net.scale)
    model.scale = 8**-0.5
    assert "conv1" in names(proven(model, SMALL))


class _Alive(nn.Module):
    """A block that is left out at random, by a number that torch draws."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(x)
        if self.training:
            found = float(torch.bernoulli(torch.full((1,), 0.5))) / 0.5 * found
        return F.relu(x + found)


def test_training_that_goes_on_with_a_number_that_torch_drew_is_not_compared() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *(_Alive() for _ in range(4)), nn.Flatten(2), nn.AdaptiveAvgPool1d(1))
    found = trace(randomised(nn.Sequential(model, nn.Flatten(), nn.Linear(8, 3))), SMALL).verify(2)
    assert found.training_difference is None
    assert found.largest_difference <= 1e-5 * found.scale


class _FromOne(nn.Module):
    """A picture that is made of one that the network holds, with a weight for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, 8, 4, 4))
        self.weight, self.style = nn.Parameter(torch.randn(1, 6, 8, 3, 3)), nn.Linear(5, 8)
        self.hidden, self.out = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        n = z.shape[0]
        x = self.start.repeat(n, 1, 1, 1)
        c = x.shape[1]
        weight = self.weight * self.style(z).view(n, 1, c, 1, 1)
        x = F.conv2d(x.view(1, n * c, 4, 4), weight.view(n * 6, c, 3, 3), padding=1, groups=n)
        return self.out(self.hidden(x.view(n, 6, 4, 4)))


@pytest.mark.parametrize("n", [1, 2, 4])
def test_channels_that_stand_beside_those_of_other_images_stay_whatever_the_batch(n: int) -> None:
    network = trace(randomised(_FromOne()), torch.randn(n, 5, generator=torch.Generator().manual_seed(0)))
    assert names(network) == ["hidden"]
    found = network.verify(2)
    assert found.largest_difference <= 1e-5 * found.scale
    assert found.costs_exact
