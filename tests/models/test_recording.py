"""What is noted of a forward while it runs, and that it leaves no trace in the module."""

from __future__ import annotations

import operator
import warnings
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

import prunesearch as ps
from prunesearch.errors import TraceError
from prunesearch.models.deadline import Deadline
from prunesearch.models.following import inputs_of
from prunesearch.models.forms import Form
from prunesearch.models.nested import tensors_in
from prunesearch.models.numbers import Attribute, Size
from prunesearch.models.operators import BUILT_IN
from prunesearch.models.recorded import Recording
from prunesearch.models.recording import record
from prunesearch.models.replay import Replay
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.weights import InheritedWeights
from tests.models.networks import SMALL, Middle, image, proven, random_ranking, snapshot
from tests.models_state import generators

Operation = Callable[[Any, Tensor, Tensor], Any]


def recorded(operation: Operation, *, training: bool = False, inputs: Any = SMALL, **modules: Any) -> Recording:
    """What a network notes between its convolutions; see `Middle`."""
    torch.manual_seed(0)
    return noted(Middle(operation, **modules).train(training), inputs)


def noted(model: nn.Module, inputs: Any = SMALL) -> Recording:
    return record(model, inputs_of(inputs), Deadline(60), is_layer=BUILT_IN.knows)


def nodes(recording: Recording, target: Any) -> list[fx.Node]:
    """Those that call something: a function, or a method or module by name."""
    return [node for node in recording.graph.nodes if node.target == target]


def replayed(recording: Recording, *inputs: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(tensors_in(Replay(recording).run(*inputs)))


# --- numbers ----------------------------------------------------------------------------------------------------------

SAME_SIZE: dict[str, Operation] = {
    "an item of the shape": lambda net, h, x: h.flatten(2).view(h.shape[0], h.shape[1], 6, 6),
    "unpacked": lambda net, h, x: (lambda n, c, a, b: h.flatten(2).view(n, c, a, b))(*h.shape),
    "a slice of the shape": lambda net, h, x: h.flatten(2).view(*h.shape[:2], 6, 6),
    "size of a dimension": lambda net, h, x: h.flatten(2).view(h.size(0), h.size(1), 6, 6),
    "size of a dimension from the end": lambda net, h, x: h.flatten(2).view(h.size(-4), h.size(dim=-3), 6, 6),
    "the whole size": lambda net, h, x: h.flatten(2).view(h.size()),
    "computed there and back": lambda net, h, x: h.flatten(2).view(h.size(0), h.size(1) * 3 // 3, 6, 6),
    "the larger of two": lambda net, h, x: h.flatten(2).view(h.size(0), max(h.size(1), 1), 6, 6),
    "in a list": lambda net, h, x: h.flatten(2).view([h.size(0), h.size(1), 6, 6]),
    "stored in the module": lambda net, h, x: [setattr(net, "size", h.shape), h.flatten(2).view(net.size)][1],
}


@pytest.mark.parametrize("name", SAME_SIZE)
def test_a_size_keeps_its_origin_however_it_is_asked_for(name: str) -> None:
    recording = recorded(SAME_SIZE[name])
    (view,) = nodes(recording, "view")
    sizes = view.args[1] if isinstance(view.args[1], (tuple, list)) else view.args[1:]
    channels = sizes[1]
    while channels.target in (operator.mul, operator.floordiv):
        channels = channels.args[0]
    assert channels.target == "size"
    tensor, dim = channels.args
    assert (tensor.target, dim) == ("bn1", 1)
    other = image(5, 3, 6, 6)
    (ours,) = replayed(recording, other)
    with torch.no_grad():
        assert torch.equal(ours, recording.model(other))


def test_numbers_of_modules_keep_their_name_also_in_tuples_and_times_a_constant() -> None:
    def operation(net: Any, h: Tensor, x: Tensor) -> Tensor:
        h = h.view(-1, net.width * 9 * 4).view(-1, net.width, 6, 6)
        return F.pad(h[:, : net.sizes[1]], (0, 0, 0, 0, 0, net.sizes[0]))

    torch.manual_seed(0)
    model = Middle(operation)
    model.width, model.sizes = 8, (2, 6)
    recording = noted(model)
    first, second = nodes(recording, "view")
    (pad,) = nodes(recording, F.pad)
    assert first.meta["numbers"] == {(2,): Form.of(Attribute("", ("width",)), 36)}
    assert second.meta["numbers"] == {(2,): Form.of(Attribute("", ("width",)))}
    assert pad.meta["numbers"] == {(1, 5): Form.of(Attribute("", ("sizes", 0)))}
    (taken,) = nodes(recording, operator.getitem)
    assert taken.meta["numbers"] == {(1, 1, "stop"): Form.of(Attribute("", ("sizes", 1)))}


def test_numbers_that_nothing_uses_are_no_part_of_the_graph() -> None:
    recording = recorded(lambda net, h, x: [h.shape[1] * 2, net.conv2.weight, h.relu()][2])
    assert not [node for node in recording.graph.nodes if node.meta.get("number") or node.op == "get_attr"]


def test_sizes_that_torch_asks_for_itself_decide_nothing() -> None:
    recording = recorded(lambda net, h, x: F.interpolate(net.norm(h), scale_factor=2), norm=nn.GroupNorm(2, 8))
    assert recording.decisions == ()
    assert recording.asked == ()


# --- decisions --------------------------------------------------------------------------------------------------------

DECIDING: dict[str, Operation] = {
    "compared": lambda net, h, x: h if h.shape[1] > 4 else h * 2,
    "equal to a constant": lambda net, h, x: h if h.shape[1] == 8 else h * 2,
    "one of several": lambda net, h, x: h if h.shape[1] in (4, 8) else h * 2,
    "its truth": lambda net, h, x: h if h.shape[1] else h * 2,
    "a plain integer": lambda net, h, x: h * int(h.shape[1]),
    "a key": lambda net, h, x: h * {8: 2.0}.get(h.shape[1], 1.0),
    "the length of an image": lambda net, h, x: h * len(h[0]),
    "a whole shape": lambda net, h, x: h if h.shape[1:] == (8, 6, 6) else h * 2,
}


@pytest.mark.parametrize("name", DECIDING)
def test_a_number_that_decides_is_noted_with_the_line_where_it_does(name: str) -> None:
    recording = recorded(DECIDING[name])
    sizes = [size for decision in recording.decisions for size in decision.numbers if isinstance(size, Size)]
    assert 8 in {size.tensor.meta["shape"][size.dim] for size in sizes}
    assert all(__file__ in decision.where for decision in recording.decisions)
    assert all(decision.relation != "eq" or len(decision.numbers) == 2 for decision in recording.decisions)


def test_two_numbers_found_equal_are_noted_as_such() -> None:
    recording = recorded(lambda net, h, x: h if net.other(x).shape[1] == h.shape[1] else h * 2)
    (decision,) = recording.decisions
    assert decision.relation == "eq"
    assert {size.tensor.target for size in decision.numbers if isinstance(size, Size)} == {"bn1", "other"}


# --- layers, methods and what they return -----------------------------------------------------------------------------

Pair = namedtuple("Pair", "first second")


@dataclass
class Found:
    scores: Tensor
    others: dict[str, Tensor]


class Fickle(nn.Module):
    """Decides by values, and returns a nest."""

    def __init__(self, nest: Callable[[Tensor, Tensor], Any] | None = None) -> None:
        super().__init__()
        self.conv, self.nest = nn.Conv2d(8, 8, 1), nest

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x) if x.sum() > -1e9 else x
        return y if self.nest is None else self.nest(y, y * 2)


@pytest.mark.parametrize(
    "called",
    [lambda conv, h: conv(h), lambda conv, h: conv(input=h), lambda conv, h: conv.forward(h)],
    ids=["called", "by keyword", "its forward"],
)
def test_a_layer_is_one_operator_of_the_graph_and_its_forward_an_operator_on_its_weight(called: Any) -> None:
    recording = recorded(lambda net, h, x: called(net.layer, h), layer=nn.Conv2d(8, 8, 1))
    whole, inside = nodes(recording, "layer"), nodes(recording, F.conv2d)
    assert len(whole) + len(inside) == 1
    (node,) = whole or inside
    assert node.meta["flops"] == 2 * 2 * 8 * 8 * 36
    if inside:
        assert node.args[1].target == "layer.weight"


def test_a_module_that_decides_by_values_is_a_leaf_with_the_line_as_the_reason() -> None:
    recording = recorded(lambda net, h, x: net.fickle(h), fickle=Fickle())
    assert list(recording.leaves) == ["fickle"]
    assert __file__ in recording.leaves["fickle"]
    (node,) = nodes(recording, "fickle")
    assert node.op == "call_module"
    assert not nodes(recording, "fickle.conv")
    assert node.meta["flops"] == 2 * 2 * 8 * 8 * 36


class Methodical(Middle):
    def choose(self, h: Tensor, k: int) -> Tensor:
        return self.other(h[:, :3]) if float(h.mean()) > -1e9 else h[:, :k]


def test_a_method_that_decides_by_values_is_one_operator_and_the_rest_of_its_module_is_not() -> None:
    recording = noted(Methodical(lambda net, h, x: net.choose(h.relu(), k=8)).eval())
    assert list(recording.leaves) == ["choose()"]
    (node,) = [node for node in recording.graph.nodes if getattr(node.target, "__name__", "") == "choose"]
    assert [argument.target for argument in node.args] == ["relu"]
    assert node.meta["used"] == {"other.weight", "other.bias"}
    assert node.meta["flops"] == 2 * 2 * 3 * 8 * 9 * 36
    assert "choose" not in vars(recording.model)


def test_a_forward_that_decides_by_values_outside_of_everything_is_refused() -> None:
    class Moody(Middle):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(TraceError, match="Moody decides by the values of its data"):
        noted(Moody(lambda net, h, x: h))


NESTS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Any], Tensor]]] = {
    "tuple": (lambda a, b: (a, b), lambda nest: nest[1]),
    "nested": (lambda a, b: [a, (b, [a])], lambda nest: nest[1][0]),
    "dictionary": (lambda a, b: {"a": a, "b": {"c": b}}, lambda nest: nest["b"]["c"]),
    "named tuple": (Pair, lambda nest: nest.second),
    "dataclass": (lambda a, b: Found(a, {"b": b}), lambda nest: nest.others["b"]),
}


@pytest.mark.parametrize("name", NESTS)
def test_parts_of_what_a_leaf_returns_are_found_by_their_way_in_it(name: str) -> None:
    nest, part = NESTS[name]
    recording = recorded(lambda net, h, x: part(net.fickle(h)), fickle=Fickle(nest))
    other = image(3, 3, 6, 6)
    with torch.no_grad():
        assert torch.equal(replayed(recording, other)[0], recording.model(other))


@pytest.mark.parametrize("name", NESTS)
def test_a_nest_that_the_network_returns_comes_out_of_its_operators(name: str) -> None:
    class Nested(Middle):
        def forward(self, x: Tensor) -> Any:
            return NESTS[name][0](super().forward(x), self.other(x))

    recording = noted(Nested(lambda net, h, x: h))
    other = image(3, 3, 6, 6)
    with torch.no_grad():
        theirs = list(tensors_in(recording.model(other)))
    ours = replayed(recording, other)
    assert len(ours) == len(theirs)
    assert all(map(torch.equal, ours, theirs))


def test_a_module_that_fails_inside_of_a_try_leaves_the_record_in_order() -> None:
    class Tries(Middle):
        def forward(self, x: Tensor) -> Tensor:
            try:
                h = self.layer(self.conv1(x))
            except RuntimeError:
                h = self.conv1(x)
            return self.fc(self.conv2(h).mean((2, 3)))

    torch.manual_seed(0)
    recording = noted(Tries(lambda net, h, x: h, layer=nn.Sequential(nn.ReLU(), nn.Conv2d(9, 8, 1))))
    assert [node.target for node in recording.graph.nodes if node.op == "call_module"][-2:] == ["conv2", "fc"]
    assert nodes(recording, "mean")[0].meta["scope"] == ""
    assert torch.equal(replayed(recording, SMALL)[0], recording.output)


# --- in place, constants, contexts ------------------------------------------------------------------------------------

WRITING: dict[str, Operation] = {
    "in place": lambda net, h, x: h.add_(1).mul_(2),
    "augmented": lambda net, h, x: operator.imul(operator.iadd(h, 1), h),
    "an item": lambda net, h, x: [h.__setitem__((slice(None), slice(0, 4)), 0.5), h][1],
    "a view": lambda net, h, x: [h.flatten(2)[:, :4].mul_(3), h][1],
    "a part": lambda net, h, x: [h.chunk(2, 1)[0].zero_(), h][1],
    "data": lambda net, h, x: [h.data.mul_(2), h][1],
    "assigned data": lambda net, h, x: [setattr(h, "data", h.data.relu() + 1), h][1],
    "out": lambda net, h, x: torch.add(h, 1, out=torch.empty_like(h)),
    "a buffer of one's own": lambda net, h, x: [out := torch.zeros_like(h), out[:, 4:].copy_(h[:, :4]), out][0],
}


@pytest.mark.parametrize("name", WRITING)
def test_what_is_written_in_place_is_written_again_when_it_is_computed_anew(name: str) -> None:
    recording = recorded(WRITING[name])
    other = image(3, 3, 6, 6)
    with torch.no_grad():
        theirs = recording.model(other.clone())
    assert torch.equal(replayed(recording, other.clone())[0], theirs)


class Merging(nn.Module):
    """Computes the weights of a layer from those of others whenever it runs."""

    def __init__(self, assigns: bool) -> None:
        super().__init__()
        self.wide, self.narrow, self.merged = (nn.Conv2d(8, 8, k, padding=k // 2) for k in (3, 1, 3))
        self.assigns = assigns

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            weight = self.wide.weight + F.pad(self.narrow.weight, (1, 1, 1, 1))
            if self.assigns:
                self.merged.weight.data = weight
            else:
                self.merged.weight.copy_(weight)
        return self.merged(x)


@pytest.mark.parametrize("assigns", [False, True])
def test_code_that_writes_to_the_weights_of_a_layer_is_kept_whole(assigns: bool) -> None:
    network = proven(Middle(lambda net, h, x: net.merging(h), merging=Merging(assigns)), SMALL)
    assert list(network.leaves) == ["merging"]
    assert network.leaves["merging"].startswith(f"writes to weights of layers, at {__file__}")
    assert "conv2" in {group.name for group in network.space.groups}


class Causal(nn.Conv2d):
    """Masks its weights for good, as PixelCNN does."""

    def __init__(self, assigns: bool) -> None:
        super().__init__(8, 8, 3, padding=1)
        self.register_buffer("mask", torch.ones(8, 8, 3, 3).tril())
        self.assigns = assigns

    def forward(self, x: Tensor) -> Tensor:
        if self.assigns:
            self.weight.data = self.weight.data * self.mask
        else:
            self.weight.data *= self.mask
        return super().forward(x)


@pytest.mark.parametrize("assigns", [False, True])
def test_a_layer_that_masks_its_own_weights_is_pruned_and_scored_rightly(assigns: bool) -> None:
    network = proven(Middle(lambda net, h, x: net.causal(h), causal=Causal(assigns)), SMALL)
    assert list(network.frozen) == ["fc"]
    weights, least = InheritedWeights(network, random_ranking(network)), network.space.minimum
    (ours,) = SharedForward(weights).run([least], SMALL)
    built = weights.build(least).eval()
    built.bn1.train()
    with torch.inference_mode():
        torch.testing.assert_close(ours, built(SMALL), rtol=1e-4, atol=1e-5)


def test_tensors_from_nowhere_are_constants_and_those_of_the_model_are_not() -> None:
    one = torch.full((1,), 0.5)
    recording = recorded(lambda net, h, x: h * one * net.scale + one, scale=nn.Parameter(torch.ones(1)))
    assert list(recording.constants) == ["_constant0"]
    assert torch.equal(recording.constants["_constant0"], one)
    assert [node.target for node in recording.graph.nodes if node.op == "get_attr"] == ["_constant0", "scale"]


def test_autocast_is_noted_where_it_differs_from_what_the_forward_began_with() -> None:
    def operation(net: Any, h: Tensor, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = net.layer(h)
        return h.float()

    recording = recorded(operation, layer=nn.Conv2d(8, 8, 1))
    (layer,), (conv1,) = nodes(recording, "layer"), nodes(recording, "conv1")
    assert layer.meta["autocast"] == ("cpu", True, torch.bfloat16)
    assert "autocast" not in conv1.meta
    assert torch.equal(replayed(recording, SMALL)[0], recording.output)


def test_checkpointed_code_is_noted_like_any_other() -> None:
    inside = nn.Sequential(nn.Conv2d(8, 5, 1), nn.ReLU(), nn.Conv2d(5, 8, 1))
    recording = recorded(lambda net, h, x: checkpoint(net.inside, h, use_reentrant=False), inside=inside)
    assert [node.target for node in recording.graph.nodes if str(node.target).startswith("inside")] == [
        "inside.0", "inside.1", "inside.2",
    ]  # fmt: skip


def scripted(function: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would have people compile instead
        return torch.jit.script(function)


def swish(x: Tensor) -> Tensor:
    return x.mul(torch.sigmoid(x)) + 1.0


def halves(x: Tensor) -> Tensor:
    if x.size(1) > 4:
        return x * 2.0
    return x


@pytest.mark.parametrize("training", [False, True])
def test_what_torchscript_functions_compute_is_noted_as_if_python_did(training: bool) -> None:
    function = scripted(swish)
    for _ in range(3):  # the first runs of such a function are others than the later ones
        recording = recorded(lambda net, h, x: function(h), training=training)
        called = [node.target for node in recording.graph.nodes if node.op == "call_function"]
        assert called[:3] == [torch.sigmoid, operator.mul, operator.add]
    assert list(proven(Middle(lambda net, h, x: function(h)), SMALL).frozen) == ["fc"]


def test_a_network_is_refused_in_which_a_torchscript_function_looks_at_widths() -> None:
    function = scripted(halves)
    with pytest.raises(TraceError, match="with fewer channels is something else"):
        ps.trace(Middle(lambda net, h, x: function(h)), SMALL, min_channels=1)


def test_values_of_weights_that_python_is_told_keep_the_weights() -> None:
    def operation(net: Any, h: Tensor, x: Tensor) -> Tensor:
        return h * float(np.abs(net.conv1.weight.detach().numpy()).mean())

    network = proven(Middle(operation), SMALL)
    assert network.frozen["conv1"] == "method 'numpy' has no rule"


def test_random_draws_of_python_and_numpy_are_noted() -> None:
    import random

    assert not recorded(lambda net, h, x: F.dropout(h, 0.5)).draws
    assert recorded(lambda net, h, x: h * random.random()).draws
    assert recorded(lambda net, h, x: h * float(np.random.rand())).draws  # noqa: NPY002


# --- no trace left ----------------------------------------------------------------------------------------------------


def _registers(net: Any, h: Tensor, x: Tensor) -> Tensor:
    if not hasattr(net, "grid"):
        net.register_buffer("grid", torch.linspace(0, 1, h.shape[-1]), persistent=False)
    return h + net.grid


def _remembers(net: Any, h: Tensor, x: Tensor) -> Tensor:
    if net.memory.get("width") is None:
        net.memory["width"] = h.shape[1]
    return h.flatten(2).view(-1, net.memory["width"], 6, 6)


def _counts(net: Any, h: Tensor, x: Tensor) -> Tensor:
    net.calls += 1
    net.history.append(h.shape)
    return h * net.calls


def _caches(net: Any, h: Tensor, x: Tensor) -> Tensor:
    if net.table is None:
        net.table = torch.arange(h.shape[2]).float().view(1, 1, -1, 1)
    return h + net.table


def _keeps(net: Any, h: Tensor, x: Tensor) -> Tensor:
    net.feature, net.width, net.sizes = h, h.shape[1], h.shape
    return net.feature.flatten(2).view(-1, net.width, *net.sizes[2:])


STORING = {"registers": _registers, "remembers": _remembers, "counts": _counts, "caches": _caches, "keeps": _keeps}


class Storing(Middle):
    def __init__(self, operation: Operation) -> None:
        super().__init__(operation)
        self.memory: dict[str, int] = {}
        self.history: list[Any] = []
        self.calls, self.table = 0, None


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", STORING)
def test_a_forward_that_stores_things_in_the_module_leaves_it_as_it_was(name: str, training: bool) -> None:
    torch.manual_seed(0)
    model = Storing(STORING[name]).train(training)
    model.bn1.momentum = 0.0  # statistics are values of tensors, and not looked after
    model.bn1.num_batches_tracked = None
    model.fc.register_forward_hook(lambda module, inputs, output: None)
    before, attributes, state = snapshot(model), [dict(vars(module)) for module in model.modules()], generators()
    noted(model)
    assert snapshot(model) == before
    assert generators() == state
    for module, held in zip(model.modules(), attributes, strict=True):
        assert list(vars(module)) == list(held)
        assert all(vars(module)[key] is value for key, value in held.items())
    assert (model.memory, model.history) == ({}, [])


@pytest.mark.parametrize("name", STORING)
def test_a_network_whose_forward_stores_things_is_pruned_rightly_in_both_modes(name: str) -> None:
    network = proven(Storing(STORING[name]), SMALL)
    assert network.notes == ()
    assert network.verify(2).training_difference is not None
    assert list(network.frozen) == ["fc"]


def test_a_forward_that_fails_leaves_the_module_as_it_was() -> None:
    torch.manual_seed(0)
    model = Storing(lambda net, h, x: [setattr(net, "calls", 3), net.history.append(1), h.view(7)][2]).eval()
    before = snapshot(model)
    with pytest.raises(TraceError, match="the forward fails at"):
        noted(model)
    assert snapshot(model) == before
    assert (model.calls, model.history) == (0, [])


KEPT: dict[str, Any] = {}


def test_numbers_that_a_forward_has_kept_elsewhere_are_plain_ones_afterwards() -> None:
    def operation(net: Any, h: Tensor, x: Tensor) -> Tensor:
        width = KEPT.setdefault("width", h.shape[1])
        return h.flatten(2).view(-1, width, 6, 6)

    KEPT.clear()
    network = proven(Middle(operation), SMALL)
    assert KEPT["width"] + 1 == 9
    assert type(KEPT["width"] + 1) is int
    assert network.frozen["conv1"].startswith("method 'view'")


def test_costs_are_counted_operator_by_operator_of_all_images() -> None:
    recording = recorded(lambda net, h, x: F.conv2d(h, net.weight), weight=nn.Parameter(torch.ones(8, 8, 1, 1)))
    assert sum(node.meta.get("flops", 0) for node in recording.graph.nodes) == recording.flops
    (conv1,) = nodes(recording, "conv1")
    assert Fraction(conv1.meta["flops"], 2 * recording.images) == 3 * 8 * 9 * 36


def test_a_recording_is_not_pickled() -> None:
    import pickle

    with pytest.raises(TypeError, match="Record it anew"):
        pickle.dumps(recorded(lambda net, h, x: h))


def longest(lengths: Tensor, *, extra: int = 0) -> Tensor:
    """(n,) lengths -> (n, longest) which steps are beyond them."""
    return torch.arange(int(lengths.max().item()) + extra) >= lengths[:, None]


class Sequences(nn.Module):
    """A forward whose function of the same file decides by values, as a Conformer's does."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        beyond = longest(lengths, extra=0)
        h = self.down(self.up(x).relu()).masked_fill(beyond[..., None], 0.0)
        return self.head(h).mean(1), lengths


def test_a_function_of_the_outermost_forward_that_decides_by_values_is_kept_whole() -> None:
    before = dict(Sequences.forward.__globals__)
    inputs = (image(2, 5, 4), torch.tensor([5, 3]))
    network = proven(Sequences(), inputs)
    assert list(network.leaves) == ["forward: longest()"]
    assert "decides by the values of its data" in network.leaves["forward: longest()"]
    assert [group.name for group in network.space.groups] == ["up", "down"]
    assert Sequences.forward.__globals__ == before
    assert "forward" not in vars(network.model)
    small = ps.slim(network, network.space.minimum, random_ranking(network)).eval()
    assert small(image(3, 4, 4), torch.tensor([1, 4, 2]))[0].shape == (3, 3)
    weights = InheritedWeights(network, random_ranking(network))
    structures = [network.space.minimum, network.space.full]
    for forward in (SharedForward(weights), StackedForward(weights)):
        for structure, found in zip(structures, forward.run(structures, inputs), strict=True):
            torch.testing.assert_close(found[0], weights.build(structure).eval()(*inputs)[0])


def test_a_function_that_the_forward_does_not_name_alone_is_refused_with_its_line() -> None:
    class Local(Sequences):
        def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            beyond = (lambda given: longest(given))(lengths)
            return self.head(self.up(x).relu()[..., :6].masked_fill(beyond[..., None], 0.0)).mean(1), lengths

    with pytest.raises(TraceError, match=r"test_recording.py:\d+, outside of any submodule"):
        ps.trace(Local(), (image(2, 5, 4), torch.tensor([5, 3])))


class Points(nn.Module):
    """Keypoints of each image, in a table as long as the longest list of them, as SuperPoint returns them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.score = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = [torch.nonzero(one[0] > one.mean()).float() for one in self.score(self.stem(x).relu())]
        table = torch.zeros(len(x), max(int(points.shape[0]) for points in found), 2)
        for i, points in enumerate(found):
            table[i, : points.shape[0]] = points
        return table


def test_a_forward_that_counts_what_its_data_decide_is_refused_with_the_line() -> None:
    torch.manual_seed(0)
    with pytest.raises(TraceError, match=r"counts what its data decide, at .*test_recording.py:\d+, outside of any"):
        ps.trace(Points(), image(2, 3, 40, 40))
