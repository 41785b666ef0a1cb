"""Shared and stacked forwards against the slow obvious way: build every structure's network and run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import prunesearch as ps
from prunesearch.models.network import Network
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.steps import Layers
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure
from tests.models.networks import BLOCKS, SMALL, Middle, chain, image, random_ranking
from tests.models.test_literals import Mnist, OptionA
from tests.models_state import generators, state_of


def one_by_one(weights: InheritedWeights, structures: list[Structure], images: Tensor) -> list[Any]:
    outputs = []
    for structure in structures:
        model = weights.build(structure).eval()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.train()
        with torch.inference_mode():
            outputs.append(model(images.clone()))
    return outputs


def some_structures(network: Network, n: int = 2) -> list[Structure]:
    """Random ones, the extremes, one twice, and some that share all but the first or the last group."""
    space = network.space
    found = [space.check(row.tolist()) for row in space.sample(np.random.default_rng(0), n)]
    found += [space.full, space.minimum, found[0]]
    return [*found, (*found[1][:-1], space.minimum[-1]), (space.minimum[0], *found[1][1:])]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "resnet8": (lambda: ps.make_model("resnet8"), image(8, 3, 16, 16)),
    "resnet8b": (lambda: ps.make_model("resnet8b"), image(8, 3, 16, 16)),
    "mobilenet_v2": (lambda: ps.make_model("mobilenet_v2", image_size=16), image(8, 3, 16, 16)),
    "densenet40": (lambda: ps.make_model("densenet40", image_size=16), image(8, 3, 16, 16)),
    "literals": (OptionA, image(8, 3, 16, 16)),
    "literals and dropout": (Mnist, image(8, 1, 28, 28)),
    "every kind of block": (lambda: chain(list(BLOCKS)), image(8, 3, 16, 16)),
}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] if name == "densenet40" else []) for name in NETWORKS],
    scope="module",
)
def task(request: pytest.FixtureRequest) -> tuple[InheritedWeights, Tensor]:
    torch.manual_seed(0)
    make, images = NETWORKS[request.param]
    network = ps.trace(make(), images[:2])
    return InheritedWeights(network, random_ranking(network)), images


@pytest.fixture(scope="module")
def expected(task: tuple[InheritedWeights, Tensor]) -> list[Any]:
    """What the networks return that are built for `some_structures`."""
    weights, images = task
    return one_by_one(weights, some_structures(weights.network), images)


def test_shared_forwards_are_those_of_the_built_networks(
    task: tuple[InheritedWeights, Tensor], expected: list[Any]
) -> None:
    weights, images = task
    structures = some_structures(weights.network)
    before, random = state_of(weights.network.model), generators()
    untouched = images.clone()
    shared = SharedForward(weights).run(structures, images)
    for ours, theirs in zip(shared, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5 * float(theirs.abs().max()))
    assert state_of(weights.network.model) == before
    assert generators() == random
    assert torch.equal(images, untouched)


def test_they_do_not_depend_on_what_else_is_in_the_batch_nor_on_memory(task: tuple[InheritedWeights, Tensor]) -> None:
    weights, images = task
    structures = some_structures(weights.network)
    expected = SharedForward(weights).run(structures, images)
    forgetful = SharedForward(weights, max_bytes=0)
    for one, structure in zip(expected, structures, strict=True):
        assert torch.equal(forgetful.run([structure], images)[0], one)
    assert all(map(torch.equal, forgetful.run(structures[::-1], images)[::-1], expected))


def test_nor_do_those_of_residual_networks_on_the_number_of_threads() -> None:
    """torch's own convolutions of other networks may, in the last digits, when layers are tiny."""
    torch.manual_seed(0)
    images, before = image(8, 3, 16, 16), torch.get_num_threads()
    network = ps.trace(ps.make_model("resnet8"), images)
    weights, structures = InheritedWeights(network, random_ranking(network)), some_structures(network)
    try:
        torch.set_num_threads(1)
        alone = SharedForward(weights).run(structures, images)
        torch.set_num_threads(2)
        assert all(map(torch.equal, SharedForward(weights).run(structures, images), alone))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_stacked_forwards_are_nearly_those_of_the_built_networks(
    task: tuple[InheritedWeights, Tensor], expected: list[Any], layout: torch.memory_format
) -> None:
    weights, images = task
    structures = some_structures(weights.network)
    before = state_of(weights.network.model)
    forward = StackedForward(weights)
    forward.lay_out(layout)
    stacked = forward.run(structures, images)
    for ours, theirs in zip(stacked, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    assert state_of(weights.network.model) == before


def test_attention_that_has_its_images_in_the_second_dimension_is_refused() -> None:
    torch.manual_seed(0)
    images = image(3, 16, 8)  # as many positions as could be taken for the images of several structures
    model = nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), nn.Linear(8, 4))
    network = ps.trace(model, images)
    forward = StackedForward(InheritedWeights(network, random_ranking(network)))
    with pytest.raises(ValueError, match="first dimension is not the images"):
        forward.run([network.space.minimum, network.space.full], images)


def test_channels_stay_last_between_the_layers_of_a_stack() -> None:
    images = image(4, 3, 16, 16)
    network = ps.trace(ps.make_model("resnet8"), images)
    forward = StackedForward(InheritedWeights(network, random_ranking(network)))
    forward.lay_out(torch.channels_last)
    seen: list[bool] = []
    for layer in forward._forward.model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(
                lambda _, x: seen.append(x[0].is_contiguous(memory_format=torch.channels_last))
            )
    forward.run(some_structures(network)[:2], images)
    assert len(seen) > 6
    assert all(seen)


def test_both_take_their_statistics_from_the_first_images_when_asked(task: tuple[InheritedWeights, Tensor]) -> None:
    weights, images = task
    structures = some_structures(weights.network)
    shared = SharedForward(weights).run(structures, images, 5)
    stacked = StackedForward(weights).run(structures, images, 5)
    alone = one_by_one(weights, structures, images[:5])
    for one, other, expected in zip(shared, stacked, alone, strict=True):
        scale = float(one.abs().max())
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * scale)
        torch.testing.assert_close(one[:5], expected, rtol=1e-4, atol=1e-4 * scale)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(sorted(BLOCKS)), max_size=4))
def test_any_chain_of_blocks_is_run_rightly(blocks: list[str]) -> None:
    torch.manual_seed(0)
    network = ps.trace(chain(blocks), image(2, 3, 8, 8), min_channels=1)
    weights, images = InheritedWeights(network, random_ranking(network)), image(6, 3, 8, 8)
    structures = some_structures(network)
    expected = one_by_one(weights, structures, images)
    for ours, theirs in zip(SharedForward(weights).run(structures, images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5 * float(theirs.abs().max()))
    for ours, theirs in zip(StackedForward(weights).run(structures, images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


IN_PLACE: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "added to and used before": lambda net, h, x: h.sigmoid() + h.add_(1),
    "a view that is written to": lambda net, h, x: h.view(h.size(0), -1).relu_().view(h.shape) * h,
    "a view that is written to and thrown away": lambda net, h, x: [h.view(h.size(0), -1).clamp_(0.1), h][1],
    "a flat view that is written to": lambda net, h, x: [h.flatten(1).clamp_(0.1), h * 2][1],
    "another shape that is written to": lambda net, h, x: h.reshape(-1).clamp_(0.1).view(h.shape) + h,
    "a view of a part that is written to": lambda net, h, x: [h[:, :, 2:4].view(*h.shape[:2], -1).zero_(), h * 2][1],
    "an identity that is written to": lambda net, h, x: net.op(h).mul_(2) + h,
    "iadd with itself": lambda net, h, x: h.__iadd__(h) * 2,
    "relu in place by keyword": lambda net, h, x: torch.nn.functional.relu(h, inplace=True) - h,
    "a result that is thrown away": lambda net, h, x: [h.sigmoid(), h.relu_(), h][::2][1] + h.abs(),
    "a copy that is written to": lambda net, h, x: (h + 0).mul_(net.scale) + h,
    "a part that is written to": lambda net, h, x: [h.chunk(2, 1)[0].zero_(), h * 2][1],
    "the input is not written to": lambda net, h, x: h + x.relu_().mean(),
    "normalised and used before": lambda net, h, x: net.norm(h) - h,
    "normalised and used before as a view": lambda net, h, x: net.norm(h) - h.flatten(2).view(h.shape),
    "only normalised": lambda net, h, x: net.norm(h * 2),
    "relu6 and its argument": lambda net, h, x: F.relu6(h) - h,
    "slopes by keyword": lambda net, h, x: F.leaky_relu(h * 2, negative_slope=0.3) + F.elu(h + 1, alpha=0.5),
    "bounds by position": lambda net, h, x: F.hardtanh(h * 2, -0.5, 0.25),
    "others": lambda net, h, x: F.silu(h * 2) + F.hardswish(h * 3) + F.hardsigmoid(h + 1) + F.celu(h - 1),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_operators_that_write_to_their_input_disturb_nobody(name: str) -> None:
    torch.manual_seed(0)
    model = Middle(IN_PLACE[name], op=nn.Identity(), norm=nn.BatchNorm2d(8), scale=nn.Parameter(torch.rand(1)))
    network = ps.trace(model, SMALL)
    weights = InheritedWeights(network, random_ranking(network))
    structures, before = some_structures(network), state_of(model)
    ours = SharedForward(weights).run(structures, SMALL.clone())
    for one, theirs in zip(ours, one_by_one(weights, structures, SMALL), strict=True):
        torch.testing.assert_close(one, theirs, rtol=1e-5, atol=2e-5 * float(theirs.abs().max()))
    assert state_of(model) == before


@pytest.mark.parametrize("name", [name for name in IN_PLACE if "written to" in name])
def test_nor_do_they_in_a_stack_whose_channels_were_to_be_last(name: str) -> None:
    torch.manual_seed(0)
    network = ps.trace(Middle(IN_PLACE[name], op=nn.Identity(), scale=nn.Parameter(torch.rand(1))), SMALL)
    stacked = StackedForward(weights := InheritedWeights(network, random_ranking(network)))
    stacked.lay_out(torch.channels_last)
    structures = some_structures(network)
    for one, theirs in zip(stacked.run(structures, SMALL), one_by_one(weights, structures, SMALL), strict=True):
        torch.testing.assert_close(one, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("make", [SharedForward, StackedForward])
def test_nor_does_what_is_a_copy_unless_channels_are_last(make: type[SharedForward] | type[StackedForward]) -> None:
    torch.manual_seed(0)
    model = Middle(lambda net, h, x: [h.permute(0, 2, 3, 1).contiguous().zero_(), h * 2][1])
    network = ps.trace(model, SMALL, min_channels=2)  # of a single channel it is no copy in either order
    forward = make(weights := InheritedWeights(network, random_ranking(network)))
    if isinstance(forward, StackedForward):
        forward.lay_out(torch.channels_last)
    structures = some_structures(network)
    for one, theirs in zip(forward.run(structures, SMALL), one_by_one(weights, structures, SMALL), strict=True):
        torch.testing.assert_close(one, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_what_structures_share_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = ps.trace(nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(4)]), SMALL, min_channels=1)
    weights = InheritedWeights(network, random_ranking(network))
    computed: list[str] = []
    run = Layers.run

    def counted(self: Any, step: Any, *rest: Any) -> Any:
        computed.append(step.node.name)
        return run(self, step, *rest)

    shared = SharedForward(weights)
    monkeypatch.setattr(Layers, "run", counted)
    shared.run([(3, 3, 3), (3, 3, 2), (3, 2, 2), (3, 3, 1)], SMALL)
    layers = [step.node.name for step in shared._steps if step.module is not None]
    assert [computed.count(name) for name in layers] == [1, 2, 4, 4]
