"""Kinds that a caller brings along, of layers and of operators: everything works with them that works with ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import conv_flop_count, flop_registry, register_flop_formula
from torchvision.ops import DeformConv2d

import prunesearch as ps
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.channels.slices import slices
from prunesearch.models.blocks import BlockedNetwork
from prunesearch.models.hypernet import encodings
from prunesearch.models.operators import elementwise
from prunesearch.models.operators.convolutions import convolution
from prunesearch.models.operators.kind import Kind, Masking
from prunesearch.models.operators.values import Value, Walk, freeze_others
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from prunesearch.tasks.classify import labelled
from tests.models.networks import SMALL, ChannelsLast, Middle, image, names, prove, random_ranking, randomised


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


DEFORMABLE = Kind(
    deformable,
    widths=("in_channels", "out_channels"),
    roles={"weight": ("produces", "reads")},
    multiplies=True,
)


@pytest.fixture(scope="module")
def bent() -> ps.Network:
    return trace(randomised(Bent()), SMALL, rules={DeformConv2d: DEFORMABLE})


def both_ways(network: ps.Network) -> tuple[list[Tensor], list[Tensor]]:
    """What structures give that are run one after the other, and stacked."""
    weights = InheritedWeights(network, random_ranking(network))
    structures = [tuple(row.tolist()) for row in network.space.sample(np.random.default_rng(0), 3)]
    images = image(4, 3, 6, 6)
    return SharedForward(weights).run(structures, images), StackedForward(weights).run(structures, images)


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


def test_what_has_a_record_of_the_callers_own_is_scored_in_both_ways_alike(bent: ps.Network) -> None:
    prove(bent)
    for one, other in zip(*both_ways(bent), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_criteria_pruningnet_and_blocks_know_a_record_of_the_callers_own(bent: ps.Network) -> None:
    roles = {(part.name, part.dim): part.role for part in slices(bent)}
    assert (roles["conv.weight", 0], roles["conv.weight", 1]) == ("produces", "reads")
    assert roles["conv.bias", 0] == "other"
    assert "conv.weight" in encodings(bent)
    assert "conv" in [block.place for block in BlockedNetwork(bent).blocks]
    examples = labelled(image(8, 3, 6, 6), torch.arange(8) % 4)
    ranking = make_criterion(ps.Scoring().criterion).rank(bent, examples)
    assert [sorted(order) for order in ranking.orders] == [[*range(8)], [*range(12)]]


def test_a_network_with_a_record_of_the_callers_own_goes_to_another_process(bent: ps.Network) -> None:
    prove(cloudpickle.loads(cloudpickle.dumps(bent)))


@pytest.fixture
def counted() -> Iterator[None]:
    """Torch's counter counts deformable convolutions as others."""
    operator = torch.ops.torchvision.deform_conv2d
    before = flop_registry.pop(operator, None)
    register_flop_formula(operator)(lambda x, w, *rest, out_shape, **named: conv_flop_count(x, w, out_shape))
    yield
    del flop_registry[operator]
    if before is not None:
        flop_registry[operator] = before


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("rules", [{}, {"rules": {DeformConv2d: DEFORMABLE}}], ids=["ours", "own"])
def test_what_torch_is_told_to_count_is_counted(rules: dict[str, Any]) -> None:
    network = trace(randomised(Bent()), SMALL, **rules)
    prove(network)
    assert network.space.layer_macs(network.space.full)["conv"] == 8 * 12 * 9 * 36


def alike(walk: Walk, node: fx.Node) -> Value:
    return walk.value(node.args[0])


def test_an_operator_without_a_rule_gets_one_and_a_wrong_one_is_noticed() -> None:
    def operation(net: Any, h: Tensor, x: Tensor) -> Tensor:
        return torch.digamma(h.abs() + 1)

    model = randomised(Middle(operation))
    assert names(trace(model, SMALL)) == ["conv2"]
    network = trace(model, SMALL, rules={torch.digamma: alike})
    assert names(network) == ["conv1", "conv2"]
    prove(network)
    wrong = trace(randomised(Middle(lambda net, h, x: h.flip(1))), SMALL, rules={"flip": alike})
    assert wrong.verify(3).largest_difference > 1e-3


@pytest.mark.parametrize(("masking", "is_right"), [("in place", True), ("zeros", False)])
def test_an_operator_that_mixes_channels_is_compared_as_its_record_says(masking: Masking, is_right: bool) -> None:
    model = randomised(Middle(lambda net, h, x: torch.special.softmax(h, 1)))
    assert names(trace(model, SMALL)) == ["conv2"]
    network = trace(model, SMALL, rules={torch.special.softmax: Kind(elementwise.along, masking)})
    assert names(network) == ["conv1", "conv2"]
    found = network.verify(3)
    assert (found.largest_difference < 1e-5 * found.scale) == is_right
    if is_right:
        for one, other in zip(*both_ways(network), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_norm_without_a_mean_is_stacked_as_it_is_sliced() -> None:
    model = randomised(ChannelsLast(nn.RMSNorm(8)))
    network = trace(
        nn.Sequential(nn.Conv2d(3, 8, 1), model, nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(144, 3)), SMALL
    )
    assert names(network) == ["0", "2"]
    prove(network)
    for one, other in zip(*both_ways(network), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.library.custom_op("prunesearch_tests::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return 2 * x


doubled.register_fake(torch.empty_like)


@pytest.mark.parametrize("by", [torch.ops.prunesearch_tests.doubled, "prunesearch_tests::doubled"], ids=str)
def test_an_operator_of_another_library_is_known_by_itself_or_by_its_name(by: Any) -> None:
    model = randomised(Middle(lambda net, h, x: doubled(h)))
    assert names(trace(model, SMALL)) == ["conv2"]
    network = trace(model, SMALL, rules={by: alike})
    assert names(network) == ["conv1", "conv2"]
    prove(network)
