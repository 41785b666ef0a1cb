"""What a forward does in training where gradients are on: recorded, pruned, and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from prunesearch.models.network import Network
from prunesearch.models.slim import slim
from prunesearch.models.trace import trace
from tests.models.networks import SMALL, image, names, proven, random_ranking, snapshot


class Net(nn.Module):
    """Two convolutions of 16 and 24 channels, with something between them."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor] = lambda net, x: x) -> None:
        super().__init__()
        self.between = between
        self.a, self.b, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3), nn.Linear(24, 5)
        self.same = nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.b(self.between(self, F.relu(self.a(x))))).mean((2, 3)))


def trained(network: Network) -> Any:
    """Its narrowest network after a backward pass in training mode."""
    small: Any = slim(network, network.space.minimum, random_ranking(network)).train()
    output = small(SMALL.clone())
    sum(x.square().sum() for x in (output if isinstance(output, tuple) else (output,))).backward()
    return small


class Supervised(Net):
    """A second head only where gradients are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        output = super().forward(x)
        return (output, self.second(self.a(x).mean((2, 3)))) if torch.is_grad_enabled() else output


def test_a_head_that_runs_only_with_gradients_is_narrowed() -> None:
    network = proven(Supervised(), SMALL)
    assert names(network) == ["a", "b"]
    assert trained(network).second.in_features == network.space.minimum[0]


def test_a_number_behind_a_question_for_gradients_is_changed() -> None:
    def between(net: Any, x: Tensor) -> Tensor:
        return torch.cat((x[:, :8].detach(), x[:, 8:]), 1) if x.requires_grad else x

    network = proven(Net(between), SMALL)
    gradients = trained(network).a.weight.grad.abs().sum((1, 2, 3))
    assert gradients.any()
    assert not gradients.all()


def test_the_same_operators_of_another_line_are_recorded_in_training_too() -> None:
    def between(net: Any, x: Tensor) -> Tensor:
        if net.training:
            return net.same(x) + x.view(-1, 16, 14, 14)
        return net.same(x) + x.view(-1, 16, 14, 14)

    network = proven(Net(between), image(2, 3, 16, 16))
    assert names(network) == ["a", "b"]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_what_is_computed_again_in_the_backward_pass_is_followed(use_reentrant: bool) -> None:
    def between(net: Any, x: Tensor) -> Tensor:
        def block(x: Tensor) -> Tensor:
            return net.same(x)[:, :16] + x

        if net.training and x.requires_grad:
            return checkpoint(block, x, use_reentrant=use_reentrant)
        return net.same(x)[:, :16] + x

    network = proven(Net(between), SMALL)
    assert names(network) == ["a", "b"]
    assert network.notes == ()
    assert trained(network).same.weight.grad.any()


class Reversed(torch.autograd.Function):
    """Its input, whose gradient is reversed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return -grads[0]


def test_a_function_that_returns_its_input_is_followed_with_gradients() -> None:
    network = proven(Net(lambda net, x: Reversed.apply(x) * 2), SMALL)
    assert network.notes == ()


class Averaging(Net):
    """Keeps averages: in a frozen parameter, in a buffer that remembers gradients, and clamps a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(16), requires_grad=False)
        self.register_buffer("largest", torch.ones(16))
        self.scale = nn.Parameter(torch.ones(16))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        if self.training:
            self.mean.mul_(0.9).add_(x.mean((0, 2, 3)).detach(), alpha=0.1)
            self.largest.mul_(0.9).add_(x.amax((0, 2, 3)))
        with torch.no_grad():
            self.scale.clamp_(0.5, 2)
        x = (x - self.mean[:, None, None]) / self.largest[:, None, None] * self.scale[:, None, None]
        return self.head(F.relu(self.b(x)).mean((2, 3)))


def test_what_a_forward_writes_in_training_is_followed_with_gradients() -> None:
    network = proven(Averaging(), SMALL)
    assert names(network) == ["a", "b"]
    assert network.notes == ()
    assert network.verify(2).training_difference is not None
    trained(network)


def test_the_callers_network_keeps_what_it_required() -> None:
    model = Supervised()
    model.requires_grad_(False)
    model.b.requires_grad_(True)
    before = snapshot(model)
    network = trace(model, SMALL)
    network.verify(2)
    assert snapshot(model) == before
    assert [x.requires_grad for x in model.parameters()] == [x.requires_grad for x in network.model.parameters()]
    assert slim(network, network.space.minimum, random_ranking(network)).second.in_features < 16
    small = slim(network, network.space.minimum, random_ranking(network))
    assert {name for name, x in small.named_parameters() if x.requires_grad} == {"b.weight", "b.bias"}


def test_a_frozen_network_is_followed_as_if_it_were_trained() -> None:
    network = proven(Supervised().requires_grad_(False), SMALL)
    assert slim(network, network.space.minimum, random_ranking(network)).second.in_features < 16


def test_weights_that_a_forward_masks_by_their_data_are_followed_in_training() -> None:
    class Masked(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data *= 0.5
            return super().forward(x)

    model = Net(lambda net, x: x)
    model.b = Masked(16, 24, 3)
    network = proven(model, SMALL)
    assert network.notes == ()
    assert network.verify(2).training_difference is not None


def test_what_no_gradient_can_pass_is_said_in_a_note() -> None:
    def between(net: Any, x: Tensor) -> Tensor:
        for part in x.chunk(2, 1):
            part.mul_(2)
        return x

    (note,) = proven(Net(between), SMALL).notes
    assert "in training mode" in note
    assert "modified inplace" in note
