"""Rules that a caller brings along: for a kind of layer, and for an operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.ops import DeformConv2d

import prunesearch as ps
from prunesearch.evaluators.channels import make_criterion
from prunesearch.models.operators.layers import convolution
from prunesearch.models.operators.values import Value, Walk, freeze_others
from prunesearch.models.trace import trace
from tests.models.networks import SMALL, Middle, names, prove, randomised


class Bent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.offsets = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 18, 3, padding=1)
        self.conv, self.head = DeformConv2d(8, 12, 3, padding=1), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(self.conv(x, self.offsets(x)).relu().mean((2, 3)))


def deformable(walk: Walk, node: fx.Node) -> Value:
    for offsets in node.args[1:]:
        freeze_others(walk, node, offsets, [], "moves the kernel by it")
    return convolution(walk, node)


def test_a_kind_of_layer_is_pruned_saved_and_loaded_by_a_rule_of_the_callers_own(tmp_path: Any) -> None:
    model = randomised(Bent())
    assert "function 'deform_conv2d'" in trace(model, SMALL).frozen["offsets"]  # without it what the layer calls is
    network = trace(model, SMALL, rules={DeformConv2d: deformable})
    prove(network)
    assert names(network) == ["stem", "conv"]
    assert network.frozen["offsets"] == "module 'conv' moves the kernel by it"
    small: Any = ps.slim(network, network.space.minimum, make_criterion("l1").rank(network)).eval()
    assert (small.conv.in_channels, small.conv.out_channels) == (1, 2)
    ps.save(small, tmp_path / "bent.safetensors")
    with torch.no_grad():
        assert torch.equal(ps.load(tmp_path / "bent.safetensors", model).eval()(SMALL), small(SMALL))


def test_an_operator_without_a_rule_gets_one_and_a_wrong_one_is_noticed() -> None:
    def operation(net: Any, h: Tensor, x: Tensor) -> Tensor:
        return torch.digamma(h.abs() + 1)

    def alike(walk: Walk, node: fx.Node) -> Value:
        return walk.value(node.args[0])

    model = randomised(Middle(operation))
    assert names(trace(model, SMALL)) == ["conv2"]
    network = trace(model, SMALL, rules={torch.digamma: alike})
    assert names(network) == ["conv1", "conv2"]
    prove(network)
    wrong = trace(randomised(Middle(lambda net, h, x: h.flip(1))), SMALL, rules={"flip": alike})
    assert wrong.verify(3).largest_difference > 1e-3
