"""The first tensor of a network that is not finite is found, whatever its kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunesearch.models.finite import first_not_finite


def network() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model.register_buffer("mask", torch.ones(3, dtype=torch.bool), persistent=False)
    model.register_buffer("mean", torch.zeros(3), persistent=False)
    return model


def test_a_network_of_finite_numbers_has_none() -> None:
    assert first_not_finite(network()) is None
    assert first_not_finite(nn.ReLU()) is None
    assert first_not_finite(nn.Linear(2, 3, device="meta")) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.running_var", "2.bias", "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_bad_number_anywhere_is_named(name: str, value: float, dtype: torch.dtype) -> None:
    model = network().to(dtype)
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    state[name].data.flatten()[-1] = value
    assert first_not_finite(model) == name


def test_of_several_the_first_is_named() -> None:
    model = network()
    model[2].weight.data.fill_(float("nan"))
    model[0].bias.data.fill_(float("nan"))
    assert first_not_finite(model) == "0.bias"
