"""Every operator with a rule, between two convolutions: what comes before it is pruned, and pruned rightly."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from prunesearch.models.operators import KINDS
from prunesearch.models.operators import elementwise as pointwise
from prunesearch.models.operators import spatial as positions
from prunesearch.models.operators.values import Rule
from tests.models.networks import SMALL, ChannelsLast, Middle, Scale, image, names, proven

TWO = {
    operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul, operator.truediv,
    operator.itruediv, operator.pow, torch.add, torch.sub, torch.subtract, torch.mul, torch.multiply, torch.div,
    torch.divide, torch.true_divide, torch.pow, torch.maximum, torch.minimum, torch.fmod, torch.remainder,
    torch.floor_divide, torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge, torch.logical_and, torch.logical_or,
    torch.atan2, torch.heaviside, torch.hypot,
}  # fmt: skip
DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)
CALLS: dict[Any, Callable[[Tensor], Tensor]] = {
    torch.clamp: lambda h: torch.clamp(h, 0.2, 0.8),
    torch.clamp_: lambda h: torch.clamp_(h.clone(), 0.2, 0.8),
    torch.complex: lambda h: torch.complex(h, h.exp()).abs(),
    torch.polar: lambda h: torch.polar(h.exp(), h).real,
    torch.clamp_min: lambda h: torch.clamp_min(h, 0.5),
    torch.clamp_max: lambda h: torch.clamp_max(h, 0.5),
    torch.where: lambda h: torch.where(h > 0.5, h, 1 - h),
    torch.lerp: lambda h: torch.lerp(h, 1 - h, 0.3),
    torch.addcmul: lambda h: torch.addcmul(h, h.exp(), h),
    torch.addcdiv: lambda h: torch.addcdiv(h, h.exp(), h + 1),
    torch.full_like: lambda h: h + torch.full_like(h, 0.5),
    torch.zeros_like: lambda h: h + torch.zeros_like(h),
    torch.ones_like: lambda h: h + torch.ones_like(h),
    torch.isnan: lambda h: h + torch.isnan(h),
    torch.isinf: lambda h: h + torch.isinf(h),
    torch.isfinite: lambda h: h + torch.isfinite(h),
    torch.logical_not: lambda h: h + torch.logical_not(h),
    torch.broadcast_to: lambda h: torch.broadcast_to(h, h.shape),
    torch.threshold_: lambda h: torch.threshold_(h.clone(), 0.5, 0.1),
    F.threshold: lambda h: F.threshold(h, 0.5, 0.1),
    torch.dropout: lambda h: torch.dropout(h, 0.5, False),
    F.interpolate: lambda h: F.interpolate(h, scale_factor=2),
    F.lp_pool1d: lambda h: F.lp_pool1d(h, 2, 2),
    F.lp_pool2d: lambda h: F.lp_pool2d(h, 2, 2),
    F.max_pool2d_with_indices: lambda h: F.max_pool2d_with_indices(h, 2)[0],
    F.adaptive_max_pool2d_with_indices: lambda h: F.adaptive_max_pool2d_with_indices(h, 2)[0],
    F.upsample: lambda h: F.interpolate(h, scale_factor=2),  # of which it is the old name
    **{dropout: lambda h, dropout=dropout: dropout(h, 0.5, False) for dropout in DROPOUTS},
}
RANDOM = {
    torch.bernoulli, torch.normal, torch.rand_like, torch.randn_like, torch.empty_like, torch.rrelu_, F.rrelu,
    "bernoulli", "uniform_", "normal_", "cuda",
}  # fmt: skip
"""What draws for each channel, so that no two widths agree, or what needs a device."""
METHOD_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "clamp": (0.2, 0.8),
    "clamp_": (0.2, 0.8),
    "clip_": (0.2, 0.8),
    "fmod": (0.5,),
    "lerp_": (torch.tensor(0.5), 0.3),
    **dict.fromkeys(("atan2", "hypot"), (torch.tensor(0.5),)),
    **dict.fromkeys(("addcmul_", "addcdiv_"), (torch.tensor(0.5), torch.tensor(0.7))),
    "to": (torch.float32,),
    "bernoulli_": (1.0,),  # certain, or no two networks would agree
    **dict.fromkeys(("subtract", "multiply", "divide", "true_divide", "pow", "pow_", "remainder"), (0.5,)),
    **dict.fromkeys(("clamp_min", "clamp_max", "clamp_min_", "clamp_max_", "clip", "fill_"), (0.5,)),
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne", "__floordiv__", "__mod__", "floor_divide"), (0.5,)),
    **dict.fromkeys(("maximum", "minimum", "logical_and", "logical_or", "copy_"), (torch.tensor(0.5),)),
    **dict.fromkeys(("addcmul", "addcdiv"), (torch.tensor(0.5), torch.tensor(0.7))),
    "lerp": (torch.tensor(0.5), 0.3),
    "type": (torch.float64,),
    "masked_fill": (torch.zeros(1, 1, 6, 6, dtype=torch.bool), 0.5),
    "masked_fill_": (torch.zeros(1, 1, 6, 6, dtype=torch.bool), 0.5),
    "where": (torch.ones(1, 1, 6, 6, dtype=torch.bool), torch.tensor(0.0)),
    "expand_as": (),
}


def listed(rule: Rule) -> list[Any]:
    return [entry for entry, kind in KINDS.items() if kind.rule is rule and entry not in RANDOM]


def modules_with(rule: Rule) -> list[Any]:
    return [entry for entry in listed(rule) if isinstance(entry, type)]


def functions_with(rule: Rule) -> list[Any]:
    return [entry for entry in listed(rule) if not isinstance(entry, (type, str))]


def methods_with(rule: Rule) -> list[Any]:
    return [entry for entry in listed(rule) if isinstance(entry, str)]


def id_of(entry: Any) -> str:
    return entry if isinstance(entry, str) else entry.__name__


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x.sigmoid())


def assert_follows(model: nn.Module, *, also: tuple[str, ...] = ()) -> None:
    """`conv1` is pruned, rightly, together with `also`."""
    network = proven(model, SMALL)
    assert names(network)[0] == "conv1"
    assert set(also) <= set(network.space.groups[0].members)


def assert_follows_between(name: str, module: nn.Module) -> None:
    """The module leaves channels alone, between convolutions of as many dimensions as its name says."""
    found = re.search(r"([13])d", name)
    d = int(found[1]) if found else 2
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[d - 1]
    model = nn.Sequential(convolution(3, 8, 1), module, convolution(8, 5, 1), nn.Flatten(), nn.LazyLinear(4))
    x = image(2, 3, *([4] * d))
    model.eval()(x)
    assert names(proven(model, x)) == ["0", "2"]


@pytest.mark.parametrize("kind", modules_with(pointwise.elementwise), ids=id_of)
def test_pointwise_modules_leave_channels_alone(kind: type[nn.Module]) -> None:
    assert_follows_between(kind.__name__, kind(0.1, 0.0) if kind is nn.Threshold else kind())


@pytest.mark.parametrize("function", [f for f in functions_with(pointwise.elementwise) if f not in TWO], ids=id_of)
def test_pointwise_functions_leave_channels_alone(function: Callable[..., Tensor]) -> None:
    assert_follows_between(id_of(function), Call(CALLS.get(function, function)))


@pytest.mark.parametrize("function", sorted(TWO, key=id_of), ids=id_of)
def test_functions_of_two_tensors_tie_them(function: Callable[..., Tensor]) -> None:
    model = Middle(lambda net, h, x: function(h.sigmoid() + 0.1, net.other(x).sigmoid() + 0.1).float())
    assert_follows(model, also=("other", "conv2"))


@pytest.mark.parametrize("method", methods_with(pointwise.elementwise), ids=id_of)
def test_pointwise_methods_leave_channels_alone(method: str) -> None:
    if method.rstrip("_") in ("add", "sub", "mul", "div", "expand_as", "type_as", "view_as"):
        model = Middle(lambda net, h, x: getattr(h, method)(net.other(x).exp()))
    else:
        arguments = METHOD_ARGUMENTS.get(method, ())
        model = Middle(lambda net, h, x: getattr(h.sigmoid(), method)(*arguments).float())
    assert_follows(model)


def spatial_module(kind: type[nn.Module]) -> nn.Module:
    if "Adaptive" in kind.__name__:
        return kind(2)
    if kind.__name__.startswith("Upsampl"):
        return kind(scale_factor=2)
    if kind.__name__.startswith(("LPPool", "ConstantPad")):
        return kind(2, 2)
    return kind(1) if "Pad" in kind.__name__ else kind(2)


@pytest.mark.parametrize("kind", modules_with(positions.spatial), ids=id_of)
def test_spatial_modules_leave_channels_alone(kind: type[nn.Module]) -> None:
    assert_follows_between(kind.__name__, spatial_module(kind))


@pytest.mark.parametrize("function", functions_with(positions.spatial), ids=id_of)
def test_spatial_functions_leave_channels_alone(function: Callable[..., Tensor]) -> None:
    assert_follows_between(id_of(function), Call(CALLS.get(function, lambda h: function(h, 2))))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_convolutions_and_batch_norms_of_every_dimension_are_pruned(d: int) -> None:
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[d - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[d - 1]
    drop = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)[d - 1]
    model = nn.Sequential(
        convolution(2, 6, 3, stride=2), norm(6), drop(),
        convolution(6, 4, 2, padding=1, dilation=2, bias=False), norm(4), nn.ReLU(True),
        nn.Flatten(), nn.Linear(4 * 2**d, 3),
    )  # fmt: skip
    network = proven(model, image(2, 2, *([6] * d)))
    assert [group.members for group in network.space.groups] == [("0", "1", "3"), ("3", "4", "7")]


def test_sync_batch_norm_is_pruned_like_batch_norm() -> None:
    assert_follows(Middle(lambda net, h, x: net.norm(h), norm=nn.SyncBatchNorm(8)), also=("norm",))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
def test_batch_norm_may_lack_a_scale_or_running_statistics(affine: bool, tracks: bool) -> None:
    norm = nn.BatchNorm2d(8, affine=affine, track_running_stats=tracks)
    assert_follows(Middle(lambda net, h, x: net.norm(h), norm=norm))


@pytest.mark.parametrize(
    ("norm", "unit"),
    [
        (nn.GroupNorm(2, 8), 2),
        (nn.GroupNorm(4, 8), 2),
        (nn.GroupNorm(1, 8), 1),
        (nn.GroupNorm(8, 8), 1),
        (nn.GroupNorm(2, 8, affine=False), 2),
        (nn.PReLU(8), 1),
        (nn.PReLU(), 1),
        (ChannelsLast(nn.LayerNorm(8)), 1),
        (ChannelsLast(nn.LayerNorm((8,), elementwise_affine=False)), 1),
        (ChannelsLast(nn.LayerNorm(8, bias=False, eps=0.1)), 1),
        (ChannelsLast(nn.Linear(8, 8)), 1),
        (Scale(8), 1),
    ],
    ids=str,
)
def test_layers_with_a_value_per_channel_are_narrowed(norm: nn.Module, unit: int) -> None:
    network = proven(Middle(lambda net, h, x: net.norm(h), norm=norm), SMALL)
    assert (network.space.groups[0].name, network.space.groups[0].unit) == ("conv1", unit)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_transposed_convolutions_of_every_dimension_are_pruned(d: int) -> None:
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[d - 1]
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[d - 1]
    model = nn.Sequential(
        convolution(3, 8, 1), transposed(8, 6, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
        transposed(6, 5, 1, bias=False), convolution(5, 4, 1), nn.Flatten(), nn.Linear(4 * 4**d, 2),
    )  # fmt: skip
    network = proven(model, image(2, 3, *([2] * d)))
    assert [group.members for group in network.space.groups] == [("0", "1"), ("1", "3"), ("3", "4"), ("4", "6")]


@pytest.mark.parametrize(
    "moved",
    [
        lambda h: h.permute(0, 2, 3, 1).permute((0, 3, 1, 2)),
        lambda h: torch.permute(h, (0, 1, 3, 2)),
        lambda h: h.permute(0, -1, 1, -2).permute(dims=(0, 2, 3, 1)),
        lambda h: torch.transpose(h, 1, 3).transpose(-1, 1),
        lambda h: h.transpose(2, 3).transpose(0, 2).transpose(0, 2),
    ],
)
def test_channels_are_followed_to_another_dimension_and_back(moved: Callable[[Tensor], Tensor]) -> None:
    assert_follows(Middle(lambda net, h, x: moved(h)))


@pytest.mark.parametrize(
    ("joined", "channels"),
    [
        (lambda a, b: a * b.sigmoid(), 4),
        (lambda a, b: torch.cat([b, a.relu()], 1), 8),
        (lambda a, b: a, 4),
        (lambda a, b: torch.cat([b, b, a], 1), 12),
    ],
)
@pytest.mark.parametrize(
    "chunk", [lambda h: h.chunk(2, 1), lambda h: torch.chunk(h, 2, dim=-3), lambda h: h.chunk(dim=1, chunks=2)]
)
def test_equal_chunks_lose_the_same_channels(joined: Any, channels: int, chunk: Any) -> None:
    network = proven(Middle(lambda net, h, x: joined(chunk(h)[0], chunk(h)[-1]), channels=channels), SMALL)
    assert [(group.name, group.unit) for group in network.space.groups] == [("conv1", 2), ("conv2", 1)]


def test_parameters_and_buffers_on_channels_are_narrowed_with_them_and_tie_what_they_meet() -> None:
    gamma = nn.Parameter(torch.ones(8, 1, 1))
    model = Middle(lambda net, h, x: torch.sub(h * net.gamma + net.other(x) * net.gamma, net.shift), gamma=gamma)
    model.register_buffer("shift", torch.linspace(-1, 1, 8).view(1, 8, 1, 1))
    network = proven(model, SMALL)
    assert names(network) == ["conv1", "conv2"]
    assert network.space.groups[0].members == ("conv1", "bn1", "gamma", "other", "shift", "conv2")


def test_parameters_on_the_last_dimension_of_tokens_are_narrowed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm, self.down = nn.Linear(6, 10), nn.LayerNorm(10), nn.Linear(10, 3)
            self.scale, self.position = nn.Parameter(torch.ones(10)), nn.Parameter(torch.ones(7, 10))

        def forward(self, x: Tensor) -> Tensor:
            return self.down((self.norm(self.up(x)) * self.scale + self.position).mean(1))

    network = proven(Net(), image(2, 7, 6))
    assert [(group.name, group.width) for group in network.space.groups] == [("up", 10)]
    assert network.space.cost((9,)).params == 7 * 9 + 2 * 9 + 9 * 3 + 3 + 8 * 9


def test_new_tensors_that_take_only_a_type_from_another_do_no_harm() -> None:
    assert_follows(Middle(lambda net, h, x: h + h.new_ones(1) * h.new_zeros((1, 1, 6, 6)) + h.new_empty(1).zero_()))


def test_stochastic_depth_and_the_layer_norm_of_torchvision_are_followed() -> None:
    model = ConvNeXt([CNBlockConfig(8, 12, 2), CNBlockConfig(12, None, 1)], stochastic_depth_prob=0.2, num_classes=4)
    network = proven(model, image(2, 3, 16, 16))
    assert names(network) == [
        "features.0.0", "features.1.0.block.3", "features.1.1.block.3", "features.2.1", "features.3.0.block.3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "reduced",
    [
        lambda h: h.mean(dim=(2, 3)),
        lambda h: h.mean((-1, -2)),
        lambda h: h.sum([2, 3]),
        lambda h: h.amax(3).mean(2),
        lambda h: torch.mean(h, (2, 3)),
        lambda h: torch.sum(h, dim=[2, 3]),
        lambda h: torch.amax(h, dim=(2, 3), keepdim=True).flatten(1),
        lambda h: h.mean(2, keepdim=True).mean(dim=3).flatten(1),
        lambda h: h.flatten(1),
        lambda h: torch.flatten(h, 1),
        lambda h: h.flatten(start_dim=1, end_dim=-1),
        lambda h: h.view(h.size(0), -1),
        lambda h: h.view(2, -1),
        lambda h: h.view((h.shape[0], -1)),
        lambda h: h.reshape(len(SMALL), -1),
        lambda h: torch.reshape(h, (h.shape[0], -1)),
        lambda h: h.view(h.size(0), h.size(1) * h.size(2) * h.size(3)),
        lambda h: h.view(-1, h.shape[1] * 36),
        lambda h: h.mean((2, 3)).view(h.size(dim=0), h.size(1)),
    ],
)
def test_what_comes_before_a_classifier_is_pruned_however_it_is_flattened(reduced: Callable[[Tensor], Tensor]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.LazyLinear(5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(reduced(self.conv1(x)))

    model = Net()
    model(SMALL)
    assert_follows(model)


@pytest.mark.parametrize(
    "joined",
    [
        lambda h, g: torch.cat([h, g], dim=1),
        lambda h, g: torch.cat((h, g), -3),
        lambda h, g: torch.concat([h, g], 1),
        lambda h, g: torch.cat(tensors=[h, g], dim=1),
        lambda h, g: torch.cat([h, g], axis=1),
    ],
)
def test_concatenated_channels_are_pruned_apart(joined: Callable[[Tensor, Tensor], Tensor]) -> None:
    network = proven(Middle(lambda net, h, x: joined(h, net.other(x)), channels=16), SMALL)
    assert names(network) == ["conv1", "other", "conv2"]


@pytest.mark.parametrize("dim", [0, 2, 3, -1])
def test_tensors_concatenated_along_another_dimension_are_tied(dim: int) -> None:
    assert_follows(Middle(lambda net, h, x: torch.cat([h, net.other(x)], dim)), also=("other",))


def test_a_stream_concatenated_with_itself_is_one_group() -> None:
    network = proven(Middle(lambda net, h, x: torch.cat([h, h], 1), channels=16), SMALL)
    assert [(group.name, group.width) for group in network.space.groups] == [("conv1", 8), ("conv2", 6)]


def test_a_stream_concatenated_with_the_input_is_pruned() -> None:
    assert_follows(Middle(lambda net, h, x: torch.cat([x, h, x], 1), channels=14))


@pytest.mark.parametrize(
    "sliced",
    [
        lambda h: h[:, :, ::2, 1:],
        lambda h: h[:, :, : h.shape[2] // 2],
        lambda h: h[:, :],
    ],
)
def test_slices_that_leave_channels_alone_are_followed(sliced: Callable[[Tensor], Tensor]) -> None:
    assert_follows(Middle(lambda net, h, x: sliced(h)))


def test_layers_that_run_for_one_image_of_the_batch_only_are_pruned_and_counted_alike() -> None:
    model = Middle(lambda net, h, x: h[:1])
    for images in (SMALL, SMALL[:1]):
        network = proven(model, images)
        assert names(network) == ["conv1", "conv2"]
        assert network.space.layer_macs(network.space.full)["fc"] == 30


@pytest.mark.parametrize(
    "computed",
    [
        lambda net, h, x: h * 3 - 0.5,
        lambda net, h, x: 1 / (2 - h.sigmoid()),
        lambda net, h, x: h * net.scale,
        lambda net, h, x: h / (h.shape[0] + h.size(2) * h.size()[3]),
        lambda net, h, x: h * x.shape[1],
        lambda net, h, x: h * h.dim() * h.ndim,
        lambda net, h, x: F.interpolate(h, size=h.shape[2:]),
        lambda net, h, x: F.interpolate(net.other(x)[:, :, :3], size=(h.shape[-2], h.shape[-1])) + h,
        lambda net, h, x: h + x.mean(1, keepdim=True),
        lambda net, h, x: h + x[:, :1],
        lambda net, h, x: h.to(x.dtype).to(x.device),
        lambda net, h, x: h.add_(net.other(x)).mul_(2),
        lambda net, h, x: F.relu(h, inplace=True),
        lambda net, h, x: torch.relu(input=h),
    ],
)  # fmt: skip
def test_numbers_and_tensors_that_are_the_same_at_any_width_do_no_harm(computed: Any) -> None:
    model = Middle(computed)
    model.scale = nn.Parameter(torch.ones(1, 1, 6, 6))
    assert_follows(model)
