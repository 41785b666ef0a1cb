from __future__ import annotations

import pytest
import torch
from torch import nn

from prunesearch.evaluators.channels import make_criterion, taylor
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.channels.random_order import RandomCriterion
from prunesearch.evaluators.channels.slices import slices
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.tasks.classify import labelled


def test_l1_keeps_the_filters_with_the_largest_weights() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([0.3, -2.0, 0.1, 1.0]).view(4, 1, 1, 1)
    network = trace(model, torch.randn(2, 1, 4, 4))
    ranking = L1Criterion().rank(network)
    assert ranking.orders == ((1, 3, 0, 2),)
    assert ranking.keep(0, 2).tolist() == [1, 3]


def test_l1_counts_every_producer_of_a_residual_stream_at_its_own_scale() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.c(x + self.b(x))

    model = Residual()
    with torch.no_grad():
        model.a.weight[:] = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)  # / mean 2: 0.5, 1.0, 1.5
        model.b.weight[:] = torch.tensor([500.0, 100.0, 0.0]).view(3, 1, 1, 1)  # / mean 200: 2.5, 0.5, 0.0
    network = trace(model, torch.randn(2, 1, 4, 4))
    assert L1Criterion().rank(network).orders == ((0, 1, 2),)  # 3.0, 1.5, 1.5


def test_weights_of_all_zeros_are_no_division_by_zero() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1))
    nn.init.zeros_(model[0].weight)
    network = trace(model, torch.randn(2, 1, 4, 4))
    assert L1Criterion().rank(network).orders == ((0, 1, 2, 3),)


def test_another_seed_gives_another_random_order() -> None:
    network = trace(nn.Sequential(nn.Conv2d(1, 64, 1), nn.Conv2d(64, 2, 1)), torch.randn(2, 1, 4, 4))
    assert RandomCriterion(seed=0).rank(network) != RandomCriterion(seed=1).rank(network)


def test_an_unknown_criterion_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"Unknown channel criterion 'l3'; there are l1, l2, bn_scale"):
        make_criterion("l3")


def test_taylor_looks_at_the_network_once_whatever_the_number_of_batches(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Network] = []
    monkeypatch.setattr(taylor, "slices", lambda network: looked.append(network) or slices(network))
    images = torch.randn(3 * taylor._BATCH, *network.example_inputs[0].shape[1:])
    taylor.TaylorCriterion().rank(network, labelled(images, torch.arange(len(images)) % 10))
    assert looked == [network]
