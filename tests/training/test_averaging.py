from __future__ import annotations

import torch
from torch import Tensor, nn

from prunesearch.training.averaging import Average
from prunesearch.training.finetune import finetune
from prunesearch.training.recipe import Recipe


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight


def test_a_weight_with_two_names_is_averaged_once() -> None:
    network = Tied()
    average, before = Average(network, 0.9), network.one.weight.detach().clone()
    with torch.no_grad():
        network.one.weight.add_(1)
    average.update(network, 1000)
    assert isinstance(average.network, Tied)
    torch.testing.assert_close(average.network.one.weight, before + 0.1)
    assert average.network.one.weight is average.network.other.weight


class Causal(nn.Module):
    """Attention that looks back only: a buffer holds infinities."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)
        self.register_buffer("mask", torch.full((5, 5), -torch.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(((h @ h.transpose(1, 2) + self.get_buffer("mask")).softmax(-1) @ h).mean(1))


def test_infinities_in_buffers_stay_what_they_are() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(32, 5, 3), torch.arange(32) % 2
    tuned = finetune(Causal(), (x, y), recipe=Recipe(epochs=1, batch_size=16, ema=0.9))
    assert tuned(x).isfinite().all()
