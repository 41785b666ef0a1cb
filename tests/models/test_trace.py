"""What tracing finds, which widths it allows, what it refuses, and that it leaves no trace."""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunesearch.errors import TraceError
from prunesearch.models.slim import slim
from prunesearch.models.trace import trace
from prunesearch.models.zoo import make_model
from tests.models.networks import (
    SMALL,
    Depthwise,
    SqueezeExcite,
    image,
    names,
    prove,
    proven,
    random_ranking,
    randomised,
    snapshot,
)
from tests.models_state import generators


class Plain(nn.Module):
    """Three convolutions of 8, 12 and 10 channels and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 10, 1))
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(F.relu(self.stem(x))).mean((2, 3)))


class Restless(Plain):
    """Draws from every random generator, also in eval mode, and changes its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.rand(1) + random.random() + np.random.rand()  # noqa: NPY002
        return F.dropout(super().forward(x.mul_(0.5))) + noise


def trained(model: nn.Module) -> nn.Module:
    """A model as it is in the middle of its training: gradients, hooks, mixed modes, a frozen weight."""
    randomised(model)
    model.train()
    model(SMALL.clone()).sum().backward()
    first, *_, last = model.parameters()
    first.requires_grad_(False)
    last.grad = None
    for module in list(model.modules())[2::2]:
        module.eval()
    list(model.modules())[-1].register_forward_hook(lambda module, inputs, output: None)
    return model


# --- what it finds ----------------------------------------------------------------------------------------------------


def test_a_chain_has_one_group_per_inner_layer_with_everything_that_gets_narrower() -> None:
    network = trace(Plain(), SMALL, min_channels=1)
    assert [(group.name, group.members) for group in network.space.groups] == [
        ("stem", ("stem", "body.0")),
        ("body.0", ("body.0", "body.1", "body.3")),
        ("body.3", ("body.3", "fc")),
    ]
    assert network.frozen == {"fc": "is an output of the network"}
    assert network.space.full == (8, 12, 10)
    assert network.outputs == 5
    assert network.model.fc.out_features == 5


class SeveralWeights(nn.Module):
    """Three layers as functions, whose weights one module has."""

    def __init__(self) -> None:
        super().__init__()
        shapes = ((20, 3), (12, 20), (8, 12))
        self.first, self.second, self.third = (nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(F.relu(F.linear(x, self.first)), self.second)), self.third)


def test_groups_of_a_module_with_several_weights_have_names_of_their_own() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), SeveralWeights(), nn.ReLU(), nn.Linear(8, 4))
    network = proven(model, SMALL)
    assert names(network) == ["2", "2#2", "2#3"]
    assert [group.width for group in network.space.groups] == [20, 12, 8]


def test_the_same_network_gives_the_same_space_and_other_rules_another() -> None:
    one, two = (trace(SqueezeExcite(), SMALL).space for _ in range(2))
    assert one == two
    assert one.fingerprint == two.fingerprint
    assert trace(SqueezeExcite(), SMALL, round_to=4).space.fingerprint != one.fingerprint


def test_the_fingerprint_of_a_network_follows_every_tensor_and_the_class() -> None:
    torch.manual_seed(0)
    model = Plain()
    before = trace(model, SMALL).fingerprint()
    assert trace(model, SMALL).fingerprint() == before
    model.body[1].running_var[3] += 1
    changed = trace(model, SMALL).fingerprint()
    assert changed != before
    model.body[2] = nn.Tanh()
    assert trace(model, SMALL).fingerprint() not in (before, changed)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_costs_are_of_one_image_whatever_the_batch(n: int) -> None:
    model = Plain()
    assert trace(model, image(n, 3, 6, 6)).space == trace(model, SMALL).space


def test_the_inputs_may_be_a_list_of_tensors() -> None:
    assert trace(Plain(), [SMALL]).space == trace(Plain(), SMALL).space


# --- widths -----------------------------------------------------------------------------------------------------------


def widths(model: nn.Module, **rules: Any) -> dict[str, tuple[int, ...]]:
    return {group.name: group.widths for group in proven(model, SMALL, **rules).space.groups}


def test_round_to_gives_multiples_and_the_full_width() -> None:
    assert widths(Plain(), round_to=4, min_channels=1) == {
        "stem": (4, 8),
        "body.0": (4, 8, 12),
        "body.3": (4, 8, 10),
    }


def test_min_channels_as_a_count_is_rounded_up_to_a_multiple_of_round_to() -> None:
    assert widths(Plain(), min_channels=5, round_to=3) == {
        "stem": (6, 8),
        "body.0": (6, 9, 12),
        "body.3": (6, 9, 10),
    }


def test_min_channels_as_a_fraction_is_of_each_group_and_rounded_up() -> None:
    found = widths(Plain(), min_channels=0.51)
    assert {name: allowed[0] for name, allowed in found.items()} == {"stem": 5, "body.0": 7, "body.3": 6}


@pytest.mark.parametrize(("fraction", "least"), [(0.07, 7), (0.14, 14), (0.28, 28), (0.29, 29), (0.55, 55), (0.57, 57)])
def test_a_fraction_of_a_hundred_channels_is_exact(fraction: float, least: int) -> None:
    model = nn.Sequential(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 2))
    assert trace(model, image(2, 4), min_channels=fraction).space.minimum == (least,)


def test_units_of_several_channels_keep_widths_divisible_by_both() -> None:
    network = proven(Depthwise(), SMALL, round_to=4, min_channels=1)
    assert [(group.unit, group.widths) for group in network.space.groups] == [(2, (4, 8)), (2, (4, 8, 12))]


class Gated(nn.Module):
    """The second layer makes half as many channels of each unit as the first, or a quarter."""

    def __init__(self, halve: Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.halve = halve
        self.first = nn.Conv2d(3, 32 * channels, 1)
        self.second, self.head = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        halved = self.halve(self.first(x))
        return self.head(halved + F.relu(self.second(halved))).mean((2, 3))


@pytest.mark.parametrize(
    ("halve", "channels"), [(lambda x: F.glu(x, 1), 2), (lambda x: F.pixel_shuffle(x, 2), 4)], ids=["glu", "shuffle"]
)
@pytest.mark.parametrize(
    ("rules", "least", "step"),
    [
        ({"round_to": 8, "min_channels": 1}, 8, 8),
        ({"round_to": {"second": 8}, "min_channels": 1}, 8, 8),
        ({"min_channels": {"second": 12}}, 12, 1),
        ({"min_channels": 12, "round_to": 5}, 15, 5),
    ],
)
def test_width_rules_hold_for_each_layer_of_a_group_whatever_it_makes_of_a_unit(
    halve: Callable[[Tensor], Tensor], channels: int, rules: dict[str, Any], least: int, step: int
) -> None:
    network = proven(Gated(halve, channels), SMALL, **rules)
    (group,) = network.space.groups
    assert group.unit == channels
    assert group.widths == tuple(channels * n for n in (*range(least, 32, step), 32))


def test_a_group_with_one_allowed_width_is_frozen_with_that_as_the_reason() -> None:
    network = proven(Plain(), SMALL, min_channels=9)
    assert names(network) == ["body.0", "body.3"]
    assert network.frozen["stem"] == "has a single allowed width, 8"


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 14), st.one_of(st.integers(1, 14), st.floats(0.01, 1.0)))
def test_allowed_widths_are_all_the_multiples_between_the_minimum_and_the_full_width(
    round_to: int, min_channels: int | float
) -> None:
    full = {"stem": 8, "body.0": 12, "body.3": 10}
    expected = {}
    for name, width in full.items():
        least = min_channels if isinstance(min_channels, int) else min_channels * width
        allowed = [w for w in range(1, width + 1) if w == width or (w % round_to == 0 and w >= least - 1e-9)]
        if len(allowed) > 1:
            expected[name] = tuple(allowed)
    try:
        space = trace(Plain(), SMALL, round_to=round_to, min_channels=min_channels).space
    except TraceError:
        assert not expected
    else:
        assert {group.name: group.widths for group in space.groups} == expected


@pytest.mark.parametrize(
    ("ignored", "left"),
    [
        (["stem"], ["body.0", "body.3"]),
        (("body.*",), ["stem"]),
        (["body"], ["stem"]),
        (["body.1"], ["stem", "body.3"]),
        (["*.3", "stem"], ["body.0"]),
        (["b?dy.[0-2]"], ["stem", "body.3"]),
        (["fc"], ["stem", "body.0", "body.3"]),
        ([], ["stem", "body.0", "body.3"]),
    ],
)
def test_ignored_layers_and_all_inside_them_keep_their_outputs(ignored: Any, left: list[str]) -> None:
    network = proven(Plain(), SMALL, ignored_layers=ignored)
    assert names(network) == left
    assert all(network.frozen[name] == "is one of ignored_layers" for name in {"stem", "body.0", "body.3"} - {*left})


class Pooling(nn.Module):
    """A head that pools by itself, in front of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(F.relu(x).mean((2, 3)))))


class Scaled(nn.Module):
    """A convolution whose weight is scaled when it runs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 0.1)


class Headed(nn.Module):
    """Two convolutions, the second of a kind of its own, and such a head."""

    def __init__(self, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), second, Pooling()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(F.relu(self.first(x))))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(8, 12, 3),
        lambda: Scaled(8, 12),
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 12, 3)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 12, 3)),
    ],
)
@pytest.mark.parametrize(
    ("ignored", "left"),
    [
        ("second", ["first", "head.first"]),
        ("head", ["first", "second"]),
        ("head.first", ["first", "second"]),
    ],
)
def test_what_an_ignored_layer_reads_is_pruned(make: Callable[[], nn.Module], ignored: str, left: list[str]) -> None:
    torch.manual_seed(0)
    network = proven(Headed(make()), SMALL, ignored_layers=[ignored])
    assert names(network) == left
    assert set(network.frozen) == {"first", "second", "head.first", "head.second"} - {*left}


def test_ignoring_one_member_of_a_residual_stream_freezes_all_of_it() -> None:
    assert names(proven(SqueezeExcite(), SMALL, ignored_layers=["excite"])) == ["squeeze"]


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"round_to": 0}, "round_to as an integer >= 1, got 0"),
        ({"round_to": -8}, "got -8"),
        ({"round_to": 2.0}, "got 2.0"),
        ({"round_to": "8"}, "got '8'"),
        ({"min_channels": 0}, r"min_channels as a count >= 1 or a fraction in \(0, 1\], got 0"),
        ({"min_channels": -1}, "got -1"),
        ({"min_channels": 0.0}, "got 0.0"),
        ({"min_channels": 1.5}, "got 1.5"),
        ({"min_channels": float("nan")}, "got nan"),
        ({"min_channels": "0.5"}, "got '0.5'"),
        ({"ignored_layers": ["stem", "layer9.*"]}, r"no module of Plain matches 'layer9\.\*'\. It has \w+, \w+"),
        ({"ignored_layers": ["fcc"]}, r"no module of Plain matches 'fcc'\. Did you mean 'fc'\?"),
        ({"ignored_layers": [""]}, "no module of Plain matches ''"),
    ],
)
def test_rules_out_of_range_are_refused_with_their_value(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(Plain(), SMALL, **rules)


@pytest.mark.parametrize("tied", [["0", "2"], "02", [("0", "2"), "4"]])
def test_names_that_are_not_grouped_are_no_tied_layers(tied: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with pytest.raises(TypeError, match=r"Expected tied_layers as sequences of names.*, got the string '\d+'"):
        trace(model, SMALL, tied_layers=tied)


def test_tied_layers_get_one_width() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    assert names(proven(model, SMALL)) == ["0", "2"]
    network = proven(model, SMALL, tied_layers=[("0", "2")])
    assert names(network) == ["0"]
    assert network.space.full == (8,)
    assert network.space.cost((3,)).params == (3 * 3 + 3) + (9 * 3 * 3 + 3) + (3 * 2 + 2)
    with pytest.raises(ValueError, match=r"equally many channels, got \{'0': 8, '4': 2\}"):
        trace(model, SMALL, tied_layers=[("0", "4")])
    with pytest.raises(ValueError, match=r"got \{'0': 8, 'conv9': None\}"):
        trace(model, SMALL, tied_layers=[("0", "conv9")])


def test_ignored_layers_as_a_string_is_refused_rather_than_taken_for_letters() -> None:
    with pytest.raises(TypeError, match=r"got the string 'stem'"):
        trace(Plain(), SMALL, ignored_layers="stem")


@pytest.mark.parametrize("model", [lambda x: x, None, Plain, "resnet18"])
def test_what_is_no_module_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match=r"Expected a network \(.*\), got (function|NoneType|the class Plain|str)"):
        trace(model, SMALL)


@pytest.mark.parametrize("inputs", [(), [], [SMALL.tolist()], (torch.tensor(1.0),), "x", {"x": "y"}])
def test_inputs_that_are_no_batches_of_tensors_are_refused(inputs: Any) -> None:
    with pytest.raises(TypeError, match="Expected example_inputs as a batch"):
        trace(Plain(), inputs)


@pytest.mark.parametrize("inputs", [(SMALL, SMALL[:1]), (SMALL[:0],)])
def test_inputs_that_disagree_on_the_number_of_images_are_refused(inputs: Any) -> None:
    with pytest.raises(ValueError, match=r"one n >= 1, got .*\([01], 3, 6, 6\)"):
        trace(Plain(), inputs)


@pytest.mark.parametrize("count", [2, 3])
def test_another_number_of_inputs_than_the_forward_takes_is_refused(count: int) -> None:
    with pytest.raises(TraceError, match=rf"Plain\.forward cannot take {count} example_inputs: too many"):
        trace(Plain(), (SMALL,) * count)


def test_a_module_with_control_flow_on_data_is_kept_whole() -> None:
    class Moody(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Sequential(nn.ReLU(), Moody()), nn.Flatten(), nn.Linear(144, 2)
    )
    network = trace(model, SMALL)
    assert [group.name for group in network.space.groups] == ["0"]
    assert list(network.leaves) == ["2.1"]
    assert network.frozen["1"].startswith("module '2.1' decides by the values of its data, at ")
    prove(network)


def test_control_flow_in_the_outermost_forward_is_refused_naming_the_model() -> None:
    class Moody(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.mean() > 0 else -x)

    with pytest.raises(
        TraceError, match=r"Moody decides by the values of its data, at .*test_trace\.py:\d+, outside of any"
    ):
        trace(Moody(), SMALL)


@pytest.mark.parametrize(
    ("inputs", "layer", "shape"),
    [
        (image(2, 4, 6, 6), "stem", r"\(2, 4, 6, 6\)"),
        (SMALL.double(), "stem", r"\(2, 3, 6, 6\)"),
        (SMALL.long(), "stem", r"\(2, 3, 6, 6\)"),
        (image(2, 3), "stem", r"\(2, 3\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_naming_the_layer_and_their_shape(
    inputs: Tensor, layer: str, shape: str
) -> None:
    with pytest.raises(
        TraceError, match=f"^Plain: module '{layer}' fails on example_inputs of shape {shape}: "
    ) as caught:
        trace(Plain(), inputs)
    assert "While executing" not in str(caught.value)  # what torch.fx would add of its own


def test_a_layer_deep_inside_that_does_not_fit_is_named_by_its_path() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.ReLU(), nn.Conv2d(5, 4, 1)))
    with pytest.raises(TraceError, match=r"module '1\.1' fails on"):
        trace(model, SMALL)


class Shuffled(nn.Module):
    """A block of the first ShuffleNet, with 3 groups of channels whose number 3 does not divide."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 4, 1)
        self.one, self.two = nn.Conv2d(12, 12, 1, groups=3), nn.Conv2d(12, 12, 1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(F.channel_shuffle(self.one(self.stem(x)).relu(), 3)))


def test_a_layer_whose_channels_are_all_tied_to_each_other_says_so() -> None:
    network = proven(Shuffled(), SMALL)
    assert names(network) == ["stem", "two"]
    assert network.frozen["one"] == "has a single allowed width, 12: all its channels can only go together"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Conv2d(3, 8, 1), "is an output of the network"),
        (nn.Sequential(nn.Conv2d(3, 8, 1)), "0: is an output of the network"),
        (
            nn.Sequential(nn.Conv2d(3, 8, 1), nn.LocalResponseNorm(3), nn.Flatten(), nn.Linear(288, 2)),
            "function 'local_response_norm' in '1' has no rule",
        ),
        (nn.Sequential(nn.ReLU(), nn.Flatten()), "It has no layers we know"),
        (nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten(), nn.Linear(36, 2)), "0: has a single allowed width, 1"),
        (nn.Sequential(nn.Conv2d(3, 3, 1, groups=3), nn.Flatten(), nn.Linear(108, 2)), "'0' reads channels of which"),
    ],
)
def test_a_network_in_which_nothing_can_be_pruned_is_refused_with_the_reasons(model: nn.Module, reason: str) -> None:
    with pytest.raises(TraceError, match=f"Nothing can be pruned in (Sequential|Conv2d).*({reason})"):
        trace(model, SMALL)


def test_keeping_every_channel_leaves_nothing_to_prune() -> None:
    with pytest.raises(TraceError, match=r"Nothing can be pruned in Plain.*stem: has a single allowed width, 8"):
        trace(Plain(), SMALL, min_channels=1.0)


def test_lazy_layers_are_refused_until_they_have_run_once() -> None:
    model = nn.Sequential(nn.LazyConv2d(6, 1), nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(TraceError, match=r"Sequential: 0\.weight has no shape yet\. Run the model once"):
        trace(model, SMALL)
    model(SMALL)
    assert names(proven(model, SMALL)) == ["0"]


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = Plain()
    model.lock = threading.Lock()
    with pytest.raises(TraceError, match=r"Plain cannot be copied, which tracing needs: cannot pickle '_thread\.lock'"):
        trace(model, SMALL)


def test_a_model_that_holds_a_computed_tensor_is_traced() -> None:
    model = Plain()
    model.cache = model.stem.weight * 2  # not a leaf of the graph, which torch refuses to copy
    prove(trace(model, SMALL))


def test_a_forward_replaced_on_the_instance_is_refused_because_copies_might_run_the_original() -> None:
    model = Plain()
    model.forward = lambda x: Plain.forward(model, x)
    with pytest.raises(TraceError, match="Plain: forward was replaced on the instance"):
        trace(model, SMALL)


@pytest.mark.parametrize(
    ("wrap", "instead"),
    [
        (lambda model: torch.compile(model, backend="eager"), r"Trace model\._orig_mod"),
        (nn.DataParallel, r"Trace model\.module"),
    ],
)
def test_a_wrapped_network_is_refused_saying_what_to_trace(wrap: Any, instead: str) -> None:
    with pytest.raises(TraceError, match=instead):
        trace(wrap(Plain()), SMALL)


def test_a_dynamically_quantised_layer_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(144, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will move this elsewhere
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    network = trace(quantised, SMALL)
    assert [group.name for group in network.space.groups] == ["0"]
    assert "has no rule" in network.frozen["2"]


def test_a_hook_that_resizes_the_models_input_is_counted_as_it_runs() -> None:
    model = Plain()
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0][:, :, ::2, ::2],))
    small = trace(model, SMALL)
    prove(small)
    large = trace(Plain(), SMALL)
    assert small.space.layer_macs(small.space.full)["stem"] * 4 == large.space.layer_macs(large.space.full)["stem"]


# --- no trace left ----------------------------------------------------------------------------------------------------


def test_tracing_leaves_the_callers_model_untouched() -> None:
    model = trained(Plain())
    before, inputs = snapshot(model), SMALL.clone()
    network = trace(model, inputs)
    network.explain()
    network.fingerprint()
    assert snapshot(model) == before
    assert torch.equal(inputs, SMALL)
    assert network.model is model


def test_verifying_leaves_the_callers_model_untouched() -> None:
    model = trained(Plain())
    network = trace(model, SMALL)
    before = snapshot(model)
    prove(network)
    assert snapshot(model) == before


@pytest.mark.parametrize("inputs", [image(2, 4, 6, 6), image(2, 3, 6)], ids=["channels", "dimensions"])
def test_a_model_whose_forward_fails_is_left_untouched(inputs: Tensor) -> None:
    model = trained(Plain())
    before, state = snapshot(model), generators()
    with pytest.raises(TraceError):
        trace(model, inputs)
    assert snapshot(model) == before
    assert generators() == state


def test_a_model_that_cannot_be_traced_is_left_untouched() -> None:
    class Moody(Restless):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    model, inputs = trained(Moody()), SMALL.clone()
    before, state = snapshot(model), generators()
    with pytest.raises(TraceError, match="decides by the values of its data"):
        trace(model, inputs)
    assert snapshot(model) == before
    assert generators() == state
    assert torch.equal(inputs, SMALL)


def test_random_forwards_and_forwards_that_write_to_their_input_leave_the_process_as_it_was() -> None:
    model, inputs = Restless(), SMALL.clone()
    state, before = generators(), snapshot(model)
    network = trace(model, inputs)
    network.verify(2)
    assert generators() == state
    assert snapshot(model) == before
    assert torch.equal(inputs, SMALL)


# --- modes, types and contexts ----------------------------------------------------------------------------------------


def test_a_model_in_train_mode_is_traced_as_in_eval_mode() -> None:
    model = Plain()
    evaluated = trace(model.eval(), SMALL)
    network = trace(model.train(), SMALL)
    assert network.space == evaluated.space
    assert all(module.training for module in model.modules())


def test_a_batch_of_one_is_enough_also_for_a_model_in_train_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).train()
    assert names(trace(model, image(1, 4))) == ["0"]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01), (torch.float64, 1e-13)], ids=str
)
def test_networks_of_other_precision_are_traced_fingerprinted_and_slimmed(dtype: torch.dtype, tolerance: float) -> None:
    model = randomised(SqueezeExcite()).to(dtype)
    network = trace(model, SMALL.to(dtype))
    assert network.space == trace(SqueezeExcite(), SMALL).space
    assert len(network.fingerprint()) == 16
    prove(network, tolerance=tolerance)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_networks_slimmed_where_gradients_are_off_can_be_trained_elsewhere(context: Any) -> None:
    with context():
        made_inside = Plain()
        slimmed = []
        for model in (made_inside, Plain()):
            network = trace(model, SMALL)
            prove(network)
            slimmed.append(slim(network, network.space.minimum, random_ranking(network)))
    for small in slimmed:
        assert all(parameter.requires_grad for parameter in small.parameters())
        small(SMALL).sum().backward()
        assert all(parameter.grad is not None for parameter in small.parameters())


def test_a_zoo_network_survives_being_traced_again_after_slimming() -> None:
    network = trace(randomised(make_model("resnet8", image_size=8)), image(2, 3, 8, 8))
    small = slim(network, network.space.minimum, random_ranking(network))
    again = trace(small, image(2, 3, 8, 8), min_channels=1)
    assert again.space.full == network.space.minimum
    prove(again)


def test_width_rules_by_name_hold_for_the_layers_they_match_and_the_first_match_counts() -> None:
    model = make_model("resnet8", in_channels=1, image_size=8)
    space = trace(
        model,
        image(2, 1, 8, 8),
        round_to={"layer1.*": 1, "layer[12]": 8, "*": 16},
        min_channels={"layer1": 12, "*": 0.5},
    ).space
    widths = {group.name: group.widths for group in space.groups}
    assert widths["layer1.0.conv1"] == (12, 13, 14, 15, 16)
    assert widths["layer2.0.conv1"] == (16, 24, 32)
    assert widths["layer3.0.conv1"] == (32, 48, 64)


def test_what_several_layers_of_a_group_want_all_holds() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 24, 1), nn.Conv2d(3, 24, 1), nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((self.a(x) + self.b(x)).mean((2, 3)))

    (group,) = trace(Sum(), SMALL, round_to={"a": 4, "b": 6}, min_channels={"b": 5}).space.groups
    assert group.widths == (12, 24)


@pytest.mark.parametrize("rules", [{"round_to": {"stem.*": 8}}, {"min_channels": {"nothing.*": 4}}])
def test_a_rule_for_a_layer_that_is_not_there_is_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(rules))}: no module of Plain matches"):
        trace(Plain(), SMALL, **rules)


def test_tracing_gives_up_when_its_time_is_over_and_says_where_it_was() -> None:
    with pytest.raises(TraceError, match=r"longer than time_limit=0 s; it was at module conv1"):
        trace(make_model("resnet20"), image(1, 3, 32, 32), time_limit=0.0)
