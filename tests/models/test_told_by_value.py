"""Numbers of channels that code makes plain and hands to functions of its own are told by their values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.slim import slim
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.weights import InheritedWeights
from tests.models.networks import SMALL, Middle, names, proven, random_ranking, some_structures


def _first(x: Tensor, n: int) -> Tensor:
    return x[:, :n]


def _both(x: Tensor, sizes: list[int]) -> Tensor:
    one, other = torch.split(x, sizes, 1)
    return torch.cat([other, one.relu()], 1)


def _shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, int(c / groups), h, w).transpose(1, 2).reshape(n, -1, h, w)


def _few(c: int) -> list[int]:
    k = int(c * 0.25)
    return [k, c - k]


TOLD: dict[str, Callable[[], nn.Module]] = {
    "half, to a function": lambda: Middle(lambda net, h, x: _first(h, int(h.size(1) / 2)), channels=4),
    "a floor": lambda: Middle(lambda net, h, x: _first(h, math.floor(h.size(1) / 2)), channels=4),
    "rounded up, and the rest": lambda: Middle(
        lambda net, h, x: _both(h, [math.ceil(h.size(1) * 0.5), h.size(1) - math.ceil(h.size(1) * 0.5)])
    ),
    "a quarter, and the rest": lambda: Middle(lambda net, h, x: _both(h, _few(h.size(1)))),
    "halves, then shuffled": lambda: Middle(
        lambda net, h, x: _shuffled(torch.cat([_first(h, int(h.size(1) / 2)), net.op(x)], 1), 2), op=nn.Conv2d(3, 4, 1)
    ),
}


class _Halves(nn.Module):
    """One half goes through a layer, then both are shuffled; told by a function's own number."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c // 2, c // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        n = int(x.size(1) / 2)
        return _shuffled(torch.cat([_first(x, n), self.conv(x[:, n:])], 1), 2)


TOLD["blocks of halves"] = lambda: Middle(lambda net, h, x: net.op(h), op=nn.Sequential(_Halves(8), _Halves(8)))
STAYING: dict[str, Callable[[], nn.Module]] = {
    "not below a limit": lambda: Middle(lambda net, h, x: _first(h, max(int(h.size(1) / 2), 3)), channels=4),
    "not above a limit": lambda: Middle(lambda net, h, x: _first(h, min(int(h.size(1) / 2), 3)), channels=3),
    "by a power of two": lambda: Middle(lambda net, h, x: _first(h, 2 ** int(math.log2(h.size(1)) - 1)), channels=4),
    "rounded to twos": lambda: Middle(lambda net, h, x: _first(h, int(h.size(1) / 4) * 2), channels=4),
}


def _runs_as_built(model: nn.Module, **rules: Any) -> list[str]:
    """Names of what can be pruned, where structures run together as they do when they are built."""
    network = proven(model, SMALL, **rules)
    ranking = random_ranking(network)
    structures = some_structures(network)
    built = []
    for structure in structures:
        narrow = slim(network, structure, ranking).eval()
        narrow.get_submodule("bn1").train()  # as scores take statistics of the images
        with torch.no_grad():
            built.append(narrow(SMALL))
    for forward in (SharedForward, StackedForward):
        ran = forward(InheritedWeights(network, ranking)).run(structures, SMALL)
        for mine, theirs in zip(ran, built, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    return names(network)


@pytest.mark.parametrize("name", TOLD)
def test_a_plain_number_that_is_handed_on_follows_its_channels(name: str) -> None:
    assert "conv1" in _runs_as_built(TOLD[name](), min_channels=1)


@pytest.mark.parametrize("name", STAYING)
def test_channels_stay_where_narrower_networks_disagree_with_a_guess(name: str) -> None:
    assert _runs_as_built(STAYING[name](), min_channels=1)[-1] == "conv2"


class _Wider(nn.Module):
    """A shortcut that is filled up with zeros, to a width that the module holds."""

    def __init__(self) -> None:
        super().__init__()
        self.planes = 12
        self.bn1, self.stem, self.conv = nn.BatchNorm2d(8), nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.stem(x))
        n, c, h, w = x.shape
        x = F.relu(self.conv(x) + torch.cat([x, x.new_zeros(n, self.planes - c, h, w)], 1))
        return self.head(x.mean((2, 3)))


class _Partly(nn.Module):
    """Some channels, as many as the module says, go through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.few = 2
        self.bn1, self.stem, self.conv = nn.BatchNorm2d(8), nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.stem(x))
        some, others = torch.split(x, [self.few, x.size(1) - self.few], 1)
        return self.head(F.relu(torch.cat([self.conv(some), others], 1)).mean((2, 3)))


@pytest.mark.parametrize("make", [_Wider, _Partly])
def test_numbers_computed_of_attributes_are_those_of_each_structure_where_several_run_together(
    make: Callable[[], nn.Module],
) -> None:
    assert "stem" in _runs_as_built(make(), min_channels=1)[0]
