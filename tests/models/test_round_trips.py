"""Slim, save, load into a fresh network: nothing is lost, for every kind of layer that has a rule."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.models.operators import (
    BUILT_IN,
    KINDS,
    elementwise,
    joining,
    matrices,
    normalisation,
    recurrent,
    shapes,
    single,
)
from prunesearch.models.operators import (
    convolutions as convolving,
)
from prunesearch.models.operators import spatial as positions
from prunesearch.models.operators.values import Rule
from prunesearch.models.zoo.layers import PadShortcut
from tests.models.networks import image, random_ranking, randomised, some_structures

Make = Callable[[], nn.Module]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def dimensions(kind: Any) -> int:
    """Of the images that a kind of layer takes, by its name; 2 if that does not say."""
    return next((d for d in (1, 2, 3) if f"{d}d" in kind.__name__), 2)


def between(kind: Any, *arguments: Any, after: int = 8, **settings: Any) -> nn.Module:
    """The layer between two convolutions."""
    convolution = CONVOLUTIONS[dimensions(kind) - 1]
    return nn.Sequential(convolution(3, 8, 1), kind(*arguments, **settings), convolution(after, 4, 1))


class ChannelsLast(nn.Module):
    """The layer on the last dimension, between linear layers."""

    def __init__(self, kind: Any, *arguments: Any, **settings: Any) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(4, 8), kind(*arguments, **settings), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.first(x)))


class Padded(nn.Module):
    """The layer beside a convolution."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.stem, self.beside, self.layer = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 13, 1, 2), kind(8, 13, 2)
        self.head = nn.Conv2d(13, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.beside(x) + self.layer(x))


class Unpooled(nn.Module):
    """Convolutions around the layer and the pooling whose positions it wants."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        d = dimensions(kind)
        conv, pool = CONVOLUTIONS[d - 1], getattr(nn, f"MaxPool{d}d")
        self.first, self.pool, self.layer = conv(3, 8, 1), pool(2, return_indices=True), kind(2)
        self.last = conv(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(*self.pool(self.first(x))))


class Words(nn.Module):
    """The layer in front of a linear one, on words."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.layer, self.last = kind(11, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x).mean(1))


class Steps(nn.Module):
    """The layer between linear ones, on steps."""

    def __init__(self, kind: Any, **more: Any) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(4, 8), kind(8, 6, **more)
        width = more.get("proj_size", 6) * (2 if more.get("bidirectional") else 1)
        self.last = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.first(x)
        made = self.layer(steps.mean(1) if isinstance(self.layer, nn.RNNCellBase) else steps)
        return self.last(made[0] if isinstance(made, tuple) else made)


def recurrences(kind: Any) -> list[Make]:
    projected = [partial(Steps, kind, proj_size=3)] if kind is nn.LSTM else []
    return [partial(Steps, kind), partial(Steps, kind, num_layers=2, bidirectional=True, bias=False), *projected]


def convolutions(kind: Any) -> list[Make]:
    settings = ({}, {"groups": 8}, {"groups": 4, "bias": False}, {"groups": 2})  # the last two: whole groups, or within
    return [partial(between, kind, 8, 8, 3, **more) for more in settings]


def statistics(kind: Any) -> list[Make]:
    settings = ({}, {"affine": False}, {"track_running_stats": False}, {"affine": True, "track_running_stats": True})
    return [partial(between, kind, 8, **more) for more in settings]


def spatial(kind: Any) -> list[Make]:
    name = kind.__name__
    if "psampl" in name:
        return [partial(between, kind, scale_factor=2)]
    if name.startswith(("LPPool", "ConstantPad")):
        return [partial(between, kind, 2, 2)]
    return [partial(between, kind, 1 if "Adaptive" in name or "Pad" in name else 2)]


RULES: dict[Rule, Callable[[Any], list[Make]]] = {
    convolving.convolution: convolutions,
    convolving.transposed_convolution: lambda kind: [
        partial(between, kind, 8, 8, 3, bias=bias) for bias in (True, False)
    ],
    matrices.embedding: lambda kind: [lambda: Words(kind)],
    recurrent.recurrent: recurrences,
    recurrent.cell: lambda kind: [partial(Steps, kind), partial(Steps, kind, bias=False)],
    joining.glu: lambda kind: [partial(between, kind, 1, after=4)],
    positions.unpool: lambda kind: [partial(Unpooled, kind)],
    positions.pixel_shuffle: lambda kind: [partial(between, kind, 2, after=2)],
    positions.pixel_unshuffle: lambda kind: [partial(between, kind, 2, after=32)],
    positions.channel_shuffle: lambda kind: [partial(between, kind, 2)],
    positions.unfold: lambda kind: [lambda: nn.Sequential(nn.Conv2d(3, 8, 1), kind(2), nn.Conv1d(32, 4, 1))],
    matrices.linear: lambda kind: [partial(ChannelsLast, kind, 8, 8), partial(ChannelsLast, kind, 8, 8, bias=False)],
    normalisation.layer_norm: lambda kind: [
        partial(ChannelsLast, kind, 8),
        *([partial(ChannelsLast, kind, 8, elementwise_affine=False)] if kind in (nn.LayerNorm, nn.RMSNorm) else []),
    ],
    normalisation.layer_norm_2d: lambda kind: [partial(between, kind, 8)],
    normalisation.group_norm: lambda kind: [partial(between, kind, *sizes) for sizes in ((4, 8), (2, 8), (1, 8))],
    single.prelu: lambda kind: [partial(between, kind, 8), partial(between, kind)],
    normalisation.batch_norm: statistics,
    normalisation.instance_norm: statistics,
    shapes.flatten: lambda kind: [lambda: nn.Sequential(nn.Conv2d(3, 8, 1), kind(), nn.Linear(8 * 36, 4))],
    elementwise.along: lambda kind: [partial(between, kind, dim=-1)],
    single.pad_shortcut: lambda kind: [partial(Padded, kind)],
    elementwise.elementwise: lambda kind: [partial(between, kind, *([0.1, 0.0] if kind is nn.Threshold else []))],
    positions.spatial: spatial,
}
"""Networks with a kind of layer that has a rule, by the rule. A new rule of layers wants networks here."""

LAYERS = [
    kind
    for kind in KINDS
    if (isinstance(kind, type) and not kind.__name__.startswith("_")) or (isinstance(kind, str) and "." in kind)
]
"""Classes of layers, those of other libraries by their names."""

OTHERWISE: dict[str, list[Any]] = {
    "timm.layers.norm.GroupNorm": [(8, 2), (8, 4)],
    "timm.layers.norm.GroupNorm1": [(8,)],
}
"""Arguments of layers that take others than the rest of their rule."""


def imported(name: str) -> Any:
    """What a name of the table is; the test is skipped where the library is not installed."""
    module, _, attribute = name.rpartition(".")
    pytest.importorskip(name.partition(".")[0])
    return getattr(importlib.import_module(module), attribute)


def cases(kind: Any) -> list[Make]:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name in OTHERWISE:
        return [partial(between, kind, *arguments) for arguments in OTHERWISE[name]]
    known = BUILT_IN.of(kind)
    rule = None if known is None else known.rule
    assert rule in RULES, f"{name} has a rule and no network here that goes to a file and comes back."
    return RULES[rule](kind)


def images_of(model: nn.Module) -> Tensor:
    if isinstance(model, Words):
        return torch.arange(10).view(2, 5)
    if isinstance(model, (ChannelsLast, Steps)):
        return image(2, 5, 4)
    return image(2, 3, *([6] * dimensions(type(next(model.children())))))


def slimmed(model: nn.Module) -> list[nn.Module]:
    """As narrow as can be, and of random widths."""
    network = ps.trace(model, images_of(model), min_channels=1)
    return [ps.slim(network, structure, random_ranking(network)) for structure in some_structures(network, n=1)]


def smallest(model: nn.Module) -> nn.Module:
    return slimmed(model)[0]


def attributes(model: nn.Module) -> list[Any]:
    """All plain values of all modules, and what their tensors are like."""
    plain = (bool, int, float, str, tuple, type(None))
    return [
        (name, type(module).__name__, {key: value for key, value in vars(module).items() if isinstance(value, plain)})
        for name, module in model.named_modules()
    ] + [
        (name, tuple(tensor.shape), tensor.dtype, isinstance(tensor, nn.Parameter), tensor.requires_grad)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    ]


def assert_comes_back(small: nn.Module, fresh: nn.Module, images: Tensor, path: Path) -> nn.Module:
    ps.save(small, path)
    loaded = ps.load(path, fresh)
    small.train(fresh.training)
    assert type(loaded) is type(small)
    assert attributes(loaded) == attributes(small)
    for mode in (True, False):  # in training, too, where running statistics are followed
        with torch.no_grad():
            torch.manual_seed(0)
            expected = small.train(mode)(images)
            torch.manual_seed(0)
            assert torch.equal(loaded.train(mode)(images), expected)
    return loaded


@pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: getattr(kind, "__name__", kind))
def test_a_narrowed_layer_of_every_kind_comes_back(kind: Any, tmp_path: Path) -> None:
    kind = imported(kind) if isinstance(kind, str) else kind
    if not isinstance(kind, type):
        pytest.skip("a function has no attributes that a file could lose")
    for make in cases(kind):
        model = randomised(make())
        small, other = slimmed(model)
        assert attributes(small) != attributes(model), "nothing was pruned, so nothing is proved"
        assert_comes_back(small, make(), images_of(model), tmp_path / "small.safetensors")
        assert_comes_back(other, make(), images_of(model), tmp_path / "other.safetensors")


def test_pad_shortcuts_narrow_in_the_network_that_proves_it() -> None:
    small = smallest(Padded(PadShortcut))
    assert (small.layer.before, small.layer.after) < (2, 3)


# --- buffers that are no part of the state ----------------------------------------------------------------------------


class Positions(nn.Module):
    """Adds what is in a buffer to each channel; looks up a second one, and keeps what the last image was."""

    def __init__(self, persistent: bool = False) -> None:
        super().__init__()
        self.register_buffer("position", torch.randn(1, 8, 6, 6), persistent=persistent)
        self.register_buffer("sign", torch.randint(0, 2, (8, 1, 1)) * 2 - 1, persistent=persistent)
        self.register_buffer("order", torch.arange(6), persistent=persistent)
        self.register_buffer("last", None, persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.position) * self.sign


class WithPositions(nn.Module):
    def __init__(self, *, persistent: bool = False) -> None:
        super().__init__()
        self.stem, self.positions, self.head = nn.Conv2d(3, 8, 1), Positions(persistent), nn.Conv2d(8, 4, 1)
        self.register_buffer("scale", torch.rand(1, 4, 1, 1), persistent=persistent)
        self.alias = self.positions

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.positions(self.stem(x)).relu()) * self.scale


@pytest.mark.parametrize("persistent", [False, True])
def test_narrowed_buffers_come_back_whether_or_not_they_are_part_of_the_state(persistent: bool, tmp_path: Path) -> None:
    small = smallest(WithPositions(persistent=persistent))
    assert small.positions.position.shape[1] == small.positions.sign.shape[0] == small.stem.out_channels < 8
    fresh = WithPositions(persistent=persistent)
    loaded = assert_comes_back(small, fresh, image(2, 3, 6, 6), tmp_path / "small.safetensors")
    assert loaded.alias is loaded.positions
    assert loaded.positions.position.data_ptr() != fresh.positions.position.data_ptr()
    assert_comes_back(loaded, fresh, image(2, 3, 6, 6), tmp_path / "again.safetensors")


def test_other_readers_find_the_state_and_nothing_else(tmp_path: Path) -> None:
    small = smallest(WithPositions())
    ps.save(small, tmp_path / "small.safetensors", example_inputs=image(2, 3, 6, 6))
    assert safetensors.torch.load_file(tmp_path / "small.safetensors").keys() == small.state_dict().keys()
    small.load_state_dict(safetensors.torch.load_file(tmp_path / "small.safetensors"))
    ps.load_weights(small, tmp_path / "small.safetensors")


def test_a_buffer_that_a_fresh_network_has_not_filled_yet_is_left_to_it(tmp_path: Path) -> None:
    small = smallest(WithPositions())
    small.positions.last = image(3, 3)
    ps.save(small, tmp_path / "small.safetensors")
    assert ps.load(tmp_path / "small.safetensors", WithPositions()).positions.last is None


@pytest.mark.parametrize("odd", [torch.eye(3).to_sparse(), torch.zeros(3, device="meta")], ids=["sparse", "meta"])
def test_a_buffer_that_is_not_in_the_state_and_that_no_file_can_hold_is_left_to_the_fresh_network(
    odd: Tensor, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    model.register_buffer("odd", odd, persistent=False)
    ps.save(model, tmp_path / "small.safetensors")
    assert ps.load(tmp_path / "small.safetensors", model).odd.layout == odd.layout
    model.register_buffer("twice", torch.zeros(3, dtype=torch.complex128), persistent=False)
    with pytest.raises(ps.CheckpointError, match="Of twice, one is of a type that no file can hold: torch"):
        ps.save(model, tmp_path / "small.safetensors")


def test_buffers_that_a_file_has_no_room_for_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prunesearch.models import tensor_file

    model = WithPositions()
    for limit in ("_MOST_BYTES", "_MOST_TEXT"):
        with monkeypatch.context() as patch:
            patch.setattr(tensor_file, limit, 10)
            with pytest.raises(ps.CheckpointError, match=r"take 0 MB, .* Make positions\.position persistent\."):
                ps.save(model, tmp_path / "small.safetensors")
    assert list(tmp_path.iterdir()) == []
