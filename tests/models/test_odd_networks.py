"""Networks that break pruners: each is either pruned rightly, or left alone with the operator as the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunesearch.models.network import Network
from prunesearch.models.saving import load, save
from prunesearch.models.slim import slim
from prunesearch.models.trace import trace
from tests.models.networks import (
    BLOCKS,
    SMALL,
    Depthwise,
    Inception,
    Middle,
    Shared,
    Shuffle,
    SqueezeExcite,
    Tied,
    Tokens,
    TwoInputs,
    chain,
    flat,
    image,
    names,
    proven,
    random_ranking,
)


def groups(network: Network) -> dict[str, tuple[int, int]]:
    return {group.name: (group.width, group.unit) for group in network.space.groups}


# --- networks that are pruned -----------------------------------------------------------------------------------------


def test_a_layer_that_is_called_with_other_weights_is_pruned_with_these() -> None:
    def between(net: Any, h: Tensor, x: Tensor) -> Tensor:
        weights = {"weight": net.layer.weight * 2, "bias": net.layer.bias}
        return torch.func.functional_call(net.layer, weights, (h,)) + net.layer(h)

    network = proven(Middle(between, 12, layer=nn.Conv2d(8, 12, 1)), SMALL)
    assert names(network) == ["conv1", "layer", "conv2"]


def test_a_method_that_maps_a_function_over_images_stays_whole_with_the_reason() -> None:
    network = proven(Mapped(), image(2, 3, 8, 8))
    assert names(network) == ["behind"]
    (reason,) = network.leaves.values()
    assert "computes in torch.vmap" in reason


class Mapped(nn.Module):
    """Divides every image by its largest value, with `torch.vmap`."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.behind, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 5, 1)

    def scaled(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda one: one / (1 + one.abs().amax()))(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.behind(self.scaled(F.relu(self.front(x))))))


def test_three_concatenated_branches_are_pruned_apart_also_when_concatenated_twice() -> None:
    network = proven(Inception(), SMALL)
    assert names(network) == ["stem", "a", "b.0", "b.2", "c.1", "head"]
    assert all("bn" in group.members for group in network.space.groups if group.name in ("a", "b.2", "c.1"))


def test_a_gated_residual_stream_is_one_group_and_its_squeeze_another() -> None:
    network = proven(SqueezeExcite(), SMALL)
    assert groups(network) == {"stem": (12, 1), "squeeze": (5, 1)}
    assert set(network.space.groups[0].members) == {"stem", "conv", "bn", "squeeze", "excite", "where", "head"}
    assert network.frozen["where"] == "function 'mul' broadcasts it over channels"


def test_depthwise_multipliers_and_grouped_convolutions_of_both_kinds_are_pruned() -> None:
    network = proven(Depthwise(), SMALL)
    # a channel of `stem` makes two of `twice`, which are one group of `many`, and groups i and i + 4 go together
    assert groups(network) == {"stem": (8, 2), "few": (12, 2)}


@pytest.mark.parametrize(("channels", "convolution_groups", "unit"), [(16, 8, 2), (16, 2, 2), (12, 3, 3), (16, 16, 1)])
def test_a_grouped_convolution_loses_whole_groups_or_the_same_channels_of_each(
    channels: int, convolution_groups: int, unit: int
) -> None:
    grouped = nn.Conv2d(channels, channels, 3, padding=1, groups=convolution_groups)
    network = proven(
        nn.Sequential(nn.Conv2d(3, channels, 1), grouped, nn.Flatten(), nn.Linear(36 * channels, 3)), SMALL
    )
    assert groups(network)["0"] == (channels, unit)


def test_grouped_convolutions_behind_each_other_lose_what_both_can_lose() -> None:
    """Alone the first would lose the same channels of each group and the second whole groups, so that none could go."""
    many, few = nn.Conv2d(32, 8, 1, groups=4), nn.Conv2d(8, 8, 3, padding=1, groups=4)
    network = proven(nn.Sequential(nn.Conv2d(3, 32, 1), many, few, nn.Flatten(), nn.Linear(36 * 8, 3)), SMALL)
    assert groups(network) == {"0": (32, 4), "1": (8, 4), "2": (8, 4)}


def test_a_convolution_called_twice_ties_what_it_reads_and_on_itself_what_it_writes() -> None:
    network = proven(Shared(), SMALL)
    assert groups(network) == {"left": (8, 1), "shared": (10, 1)}
    assert set(network.space.groups[0].members) == {"left", "right", "shared"}


def test_tensors_shared_by_two_layers_are_cut_once_whichever_is_used_first() -> None:
    network = proven(Tied(), SMALL)
    assert names(network) == ["stem"]
    slimmed = network.space.minimum
    assert network.space.cost(slimmed).params < network.space.cost(network.space.full).params


def test_a_weight_shared_by_a_grouped_and_a_dense_convolution_keeps_its_inner_size() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.pair = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 2, 1)
            self.grouped, self.dense = nn.Conv2d(16, 16, 3, groups=8), nn.Conv2d(2, 16, 3)
            self.dense.weight = self.grouped.weight
            self.fc = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((self.grouped(self.stem(x)) + self.dense(self.pair(x))).mean((2, 3)))

    assert "pair" in proven(Net(), SMALL).frozen


def test_two_inputs_that_meet_tie_the_layers_that_read_them() -> None:
    network = proven(TwoInputs(), (SMALL, image(2, 5)))
    assert names(network) == ["conv", "head"]
    assert set(network.space.groups[0].members) == {"conv", "embed", "head"}


def test_linear_layers_on_the_last_of_three_dimensions_are_pruned() -> None:
    network = proven(Tokens(), image(2, 7, 6))
    assert names(network) == ["up"]
    assert network.frozen["down"].startswith("function 'add'")


def test_each_channel_of_a_flattened_image_takes_all_its_positions_along() -> None:
    network = proven(flat(), SMALL)
    assert groups(network) == {"stem": (6, 1), "conv": (8, 1), "fc1": (10, 1)}
    one_less = network.space.cost((6, 7, 10)).params
    assert network.space.cost((6, 8, 10)).params - one_less == 6 * 9 + 1 + 9 * 10


def test_layers_of_any_depth_of_nesting_are_named_by_their_path() -> None:
    block = nn.Sequential(nn.ModuleDict({"x": nn.Conv2d(3, 4, 1)})["x"], nn.Sequential(nn.Conv2d(4, 5, 1), nn.Tanh()))
    assert names(proven(nn.Sequential(block, nn.Flatten(), nn.Linear(180, 2)), SMALL)) == ["0.0", "0.1.0"]


def test_what_runs_in_training_only_is_pruned_along_and_costs_nothing() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 4)
            self.aux, self.aux_head = nn.Conv2d(8, 5, 1), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            h = F.relu(self.stem(x))
            if self.training:
                return self.head(h.mean((2, 3))), self.aux_head(self.aux(h).mean((2, 3)))
            return self.head(h.mean((2, 3)))

    network = proven(Auxiliary(), SMALL)
    assert network.space.groups[0].members == ("stem", "head", "aux")
    assert set(network.space.layer_macs(network.space.full)) == {"stem", "head"}
    slimmed = slim(network, network.space.minimum, random_ranking(network)).train()
    assert [tuple(output.shape) for output in slimmed(SMALL)] == [(2, 4), (2, 4)]


def test_an_auxiliary_head_that_fails_on_the_inputs_is_named() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head, self.aux = nn.Conv2d(3, 8, 1), nn.Linear(8, 4), nn.Conv2d(8, 5, 9)

        def forward(self, x: Tensor) -> Any:
            h = self.stem(x)
            return (self.head(h.mean((2, 3))), self.aux(h)) if self.training else self.head(h.mean((2, 3)))

    (note,) = trace(Auxiliary(), SMALL).notes
    assert "Auxiliary: module 'aux' fails on example_inputs of shape (2, 3, 6, 6), in training mode" in note


def test_optional_arguments_of_the_forward_take_their_defaults() -> None:
    class Optional(Middle):
        def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 2.0, early: bool = False) -> Tensor:
            if mask is not None:
                x = x * mask
            if early:
                return self.conv1(x)
            return super().forward(x) * scale

    assert names(proven(Optional(lambda net, h, x: h), SMALL)) == ["conv1", "conv2"]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=6))
@example(["within groups", "twice", "whole groups", "residual"])
@example(["twice", "depthwise", "multiplied", "dense", "within groups"])
@example(["shuffle", "dense", "gate", "whole groups", "residual depthwise"])
def test_any_chain_of_blocks_is_pruned_rightly(blocks: list[str]) -> None:
    proven(chain(blocks), image(2, 3, 4, 4), min_channels=1)


# --- operators that freeze what reaches them --------------------------------------------------------------------------


@dataclass
class Features:
    """What some forwards return."""

    inner: Tensor
    logits: Tensor


def own(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of somebody's own, with a forward of its own."""
    return type("Own", (kind,), {"forward": lambda self, x: super(self.__class__, self).forward(x)})


def halves(net: nn.Module, h: Tensor, x: Tensor) -> Tensor:
    n, c, *sizes = h.shape
    volume = h.new_zeros(n, 2 * c, *sizes)
    volume[:, :c] = h
    volume[:, c:, :, 1:] = h[..., :-1]
    return volume


def in_turn(net: nn.Module, h: Tensor, x: Tensor) -> Tensor:
    n, c, *sizes = h.shape
    volume = h.new_zeros(n, 2 * c, *sizes)
    volume[:, ::2] = h
    volume[:, 1::2] = h.exp()
    return volume


FOLLOWED: dict[str, Callable[[], nn.Module]] = {
    "channels by ellipsis": lambda: Middle(lambda net, h, x: h[:, 1:, ...], channels=7),
    "cat of all chunks elsewhere": lambda: Middle(lambda net, h, x: torch.cat(h.chunk(2, 1), 2), channels=4),
    "some of the chunks": lambda: Middle(lambda net, h, x: torch.cat(h.chunk(4, 1)[1:], 1), channels=6),
    "chunks of positions": lambda: Middle(lambda net, h, x: h.chunk(2, 2)[0]),
    "split of positions": lambda: Middle(lambda net, h, x: h.split(3, 2)[0]),
    "half of the width": lambda: Middle(lambda net, h, x: h[:, : h.shape[1] // 2], channels=4),
    "every other channel": lambda: Middle(lambda net, h, x: h[:, ::2], channels=4),
    "positions by a tensor": lambda: Middle(lambda net, h, x: h[:, :, torch.tensor([[0, 2], [1, 3]])].flatten(2, 3)),
    "broadcast to each other": lambda: Middle(lambda net, h, x: sum(torch.broadcast_tensors(h, h.mean((2, 3), True)))),
    "products of three": lambda: Middle(
        lambda net, h, x: torch.einsum("nchw,nc,nhw->nchw", h, h.mean((2, 3)), h.mean(1)).relu()
    ),
    "repeated by a size": lambda: Middle(lambda net, h, x: h.repeat_interleave(x.shape[2] // 3, 2)),
    "channel shuffle": lambda: Middle(lambda net, h, x: net.op(h), op=Shuffle()),
    "nn.ChannelShuffle": lambda: Middle(lambda net, h, x: net.op(h), op=nn.ChannelShuffle(2)),
    "pixel shuffle": lambda: Middle(lambda net, h, x: F.pixel_shuffle(h, 2), channels=2),
    "LayerNorm of positions": lambda: Middle(lambda net, h, x: net.op(h), op=nn.LayerNorm(6)),
    "RMSNorm": lambda: Middle(lambda net, h, x: net.op(h.mT.transpose(1, 3)).transpose(1, 3).mT, op=nn.RMSNorm(8)),
    "RMSNorm as a function": lambda: Middle(
        lambda net, h, x: F.rms_norm(h.movedim(1, -1), (8,), net.op, 0.1).movedim(-1, 1), op=nn.Parameter(torch.ones(8))
    ),
    "GLU": lambda: Middle(lambda net, h, x: F.glu(h, 1), channels=4),
    "grouped transposed convolution": lambda: Middle(
        lambda net, h, x: net.op(h), op=nn.ConvTranspose2d(8, 8, 3, padding=1, groups=2)
    ),
    "transposed convolution subclass": lambda: Middle(lambda net, h, x: net.op(h), op=own(nn.ConvTranspose2d)(8, 8, 1)),
    "convolution as a function": lambda: Middle(lambda net, h, x: F.conv2d(h, net.op.weight), op=nn.Conv2d(8, 8, 1)),
    "convolution subclass": lambda: Middle(lambda net, h, x: net.op(h), op=own(nn.Conv2d)(8, 8, 1)),
    "convolution called by keyword": lambda: Middle(lambda net, h, x: net.op(input=h), op=nn.Conv2d(8, 8, 1)),
    "T": lambda: Middle(lambda net, h, x: h.mT),
    "permuted and flattened": lambda: Middle(
        lambda net, h, x: h + net.op(h.permute(0, 2, 3, 1).flatten(1)).mean(), op=nn.Linear(288, 2)
    ),
    "a parameter per channel, sliced": lambda: Middle(
        lambda net, h, x: h * net.op[:, None, None], op=nn.Parameter(torch.ones(8))
    ),
    "two parameters per channel, multiplied first": lambda: Middle(
        lambda net, h, x: h * (net.op * net.oq),
        op=nn.Parameter(torch.ones(8, 1, 1)),
        oq=nn.Parameter(torch.ones(8, 1, 1)),
    ),
    "new ones for each channel": lambda: Middle(lambda net, h, x: h + h.new_ones(8, 1, 1)),
    "new zeros as many as channels": lambda: Middle(lambda net, h, x: h + h.new_zeros(h.size(1), 1, 1)),
    "einsum": lambda: Middle(lambda net, h, x: torch.einsum("nchw,nchw->nchw", h, h)),
    "pooling with indices": lambda: Middle(lambda net, h, x: F.max_pool2d(h, 2, return_indices=True)[0]),
    "softmax": lambda: Middle(lambda net, h, x: h.softmax(1)),
    "mean over channels": lambda: Middle(lambda net, h, x: h + h.mean(1, keepdim=True)),
    "sum over everything": lambda: Middle(lambda net, h, x: h + h.sum()),
    "sum over no dims, which is all": lambda: Middle(lambda net, h, x: h + h.sum(dim=())),
    "max over channels": lambda: Middle(lambda net, h, x: h - h.max(1, keepdim=True)[0]),
    "its layer's weight": lambda: Middle(lambda net, h, x: h * net.conv1.weight.mean()),
    "its BatchNorm's statistics": lambda: Middle(lambda net, h, x: h * net.bn1.running_var.mean()),
    "the type of a tensor of more dimensions": lambda: Middle(lambda net, h, x: h + h.mean((0, 2, 3)).to(h).sum()),
    "permuted before images": lambda: Middle(
        lambda net, h, x: h + net.op(h.transpose(0, 1)).mean(), op=nn.Conv2d(2, 3, 1)
    ),
    "a parameter per channel that is used otherwise, too": lambda: Middle(
        lambda net, h, x: h * net.op + net.op.sum(), op=nn.Parameter(torch.ones(8, 1, 1))
    ),
    "its layer's bias": lambda: Middle(lambda net, h, x: h + net.conv1.bias.sum()),
    "a maximum whose place is not asked for": lambda: Middle(lambda net, h, x: h - h.max(1, keepdim=True).values),
    "a norm written by hand": lambda: Middle(
        lambda net, h, x: (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    ),
    "mean and variance at once": lambda: Middle(
        lambda net, h, x: (h - torch.var_mean(h, 1, keepdim=True)[1]) * torch.var_mean(h, 1, keepdim=True)[0].rsqrt()
    ),
    "normalised over channels": lambda: Middle(lambda net, h, x: F.normalize(h, dim=1)),
    "attention to positions": lambda: Middle(
        lambda net, h, x: h * net.op(torch.cat([h.mean(1, keepdim=True), h.amax(1, keepdim=True)], 1)).sigmoid(),
        op=nn.Conv2d(2, 1, 3, padding=1),
    ),
    "unpooling": lambda: Middle(lambda net, h, x: F.max_unpool2d(*F.max_pool2d(h, 2, return_indices=True), 2)),
    "unpooling to the size of its input": lambda: Middle(
        lambda net, h, x: F.max_unpool2d(*F.max_pool2d(h, 2, return_indices=True), 2, output_size=h.size())
    ),
    "unpooling by a module to the size of its input": lambda: Middle(
        lambda net, h, x: net.op(*F.max_pool2d(h, 2, return_indices=True), h.shape), op=nn.MaxUnpool2d(2)
    ),
    "a transposed convolution to the size of another tensor": lambda: Middle(
        lambda net, h, x: h + net.op(F.max_pool2d(h, 2), output_size=h.size()),
        op=nn.ConvTranspose2d(8, 8, 3, 2, padding=1),
    ),
    "samples at positions of a fixed map": lambda: Middle(
        lambda net, h, x: F.grid_sample(h, F.affine_grid(net.op, h.size(), False), align_corners=False),
        op=nn.Parameter(torch.randn(2, 2, 3)),
    ),
    "samples at positions that a layer makes": lambda: Middle(
        lambda net, h, x: F.grid_sample(x, net.op(h).tanh().permute(0, 2, 3, 1), align_corners=True),
        channels=3,
        op=nn.Conv2d(8, 2, 1),
    ),
    "samples at positions of a map that a layer makes": lambda: Middle(
        lambda net, h, x: F.grid_sample(
            x, F.affine_grid(net.op(h)[..., :3, 0], x.shape, align_corners=True), align_corners=True
        ),
        channels=3,
        op=nn.Conv2d(8, 2, 1),
    ),
    "samples of volumes": lambda: Middle(
        lambda net, h, x: F.grid_sample(
            h[..., None], F.affine_grid(net.op, (*h.size(), 1), False), align_corners=False
        ).squeeze(-1),
        op=nn.Parameter(torch.randn(2, 3, 4)),
    ),
    "a kernel repeated for each channel": lambda: Middle(
        lambda net, h, x: F.conv2d(h, net.op.repeat(h.shape[1], 1, 1, 1), padding=1, groups=h.shape[1]),
        op=nn.Parameter(torch.randn(1, 1, 3, 3)),
    ),
    "a kernel repeated as often as code says": lambda: Middle(
        lambda net, h, x: F.conv2d(h, net.op.repeat(8, 1, 1, 1), padding=1, groups=8),
        op=nn.Parameter(torch.randn(1, 1, 3, 3)),
    ),
    "a kernel repeated as often as a module says": lambda: Middle(
        lambda net, h, x: F.conv2d(
            h, net.op.repeat(net.conv1.out_channels, 1, 1, 1), padding=1, groups=net.conv1.out_channels
        ),
        op=nn.Parameter(torch.randn(1, 1, 3, 3)),
    ),
    "a kernel of fewer dimensions repeated for each channel": lambda: Middle(
        lambda net, h, x: F.conv2d(h, net.op.repeat(h.size(1), 1, 1, 1), padding=1, groups=h.size(1)),
        op=nn.Parameter(torch.randn(3, 3)),
    ),
    "a kernel expanded as often as code says": lambda: Middle(
        lambda net, h, x: F.conv2d(h, net.op.expand(8, 1, 3, 3), padding=1, groups=8),
        op=nn.Parameter(torch.randn(1, 1, 3, 3)),
    ),
    "a map of positions repeated for each channel": lambda: Middle(
        lambda net, h, x: h * h.mean(1, keepdim=True).repeat(1, h.shape[1], 1, 1)
    ),
    "a volume of twice its channels, one half after the other": lambda: Middle(halves, channels=16),
    "a volume of twice its channels, in turn": lambda: Middle(in_turn, channels=16),
    "twice as many zeros": lambda: Middle(
        lambda net, h, x: torch.cat([h, h.exp()], 1) + h.new_zeros(len(h), h.size(1) * 2, 6, 6), channels=16
    ),
    "rows looked up": lambda: Middle(
        lambda net, h, x: h + net.op[torch.tensor([1, 0])].sum(0)[:, None, None], op=nn.Parameter(torch.randn(3, 8))
    ),
    "sigmoid in place": lambda: Middle(lambda net, h, x: torch.sigmoid_(h * 2)),
    "cosines": lambda: Middle(lambda net, h, x: h * F.cosine_similarity(h, h.flip(2)).unsqueeze(1)),
    "distances": lambda: Middle(
        lambda net, h, x: h * F.pairwise_distance(h.mean((2, 3)), h.amax((2, 3)), keepdim=True)[..., None, None]
    ),
    "a spectrum of positions": lambda: Middle(
        lambda net, h, x: torch.fft.irfft2(torch.fft.rfft2(h, norm="ortho") * net.op, s=(6, 6), norm="ortho"),
        op=nn.Parameter(torch.randn(8, 6, 4)),
    ),
    "a spectrum as pairs": lambda: Middle(
        lambda net, h, x: torch.view_as_complex(torch.view_as_real(torch.fft.fft(h, dim=2)).contiguous()).imag
    ),
    "real and imaginary channels": lambda: Middle(
        lambda net, h, x: torch.complex(
            *torch.cat([(f := torch.fft.fftn(h, dim=(-2, -1))).real, f.imag], 1).chunk(2, 1)
        ).abs()
    ),
    "groups beside images": lambda: Middle(
        lambda net, h, x: (g := h.view(h.size(0) * 2, -1, 6, 6)).mul(g.mean(1, keepdim=True)).view(h.shape)
    ),
    "groups beside images, through layers": lambda: Middle(
        lambda net, h, x: net.op(h.reshape(h.size(0) * 2, -1, 6, 6)).reshape(h.size(0), -1, 6, 6), op=nn.Conv2d(4, 4, 1)
    ),
}

FREEZING: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "pad channels cyclically": (
        lambda: Middle(
            lambda net, h, x: F.pad(h.transpose(1, 3), (2, 2, 0, 0), "circular").transpose(1, 3), channels=12
        ),
        "function 'pad'",
    ),
    "cut off channels": (lambda: Middle(lambda net, h, x: F.pad(h, (0, 0, 0, 0, -2, 0)), channels=6), "'pad'"),
    "unequal chunks": (lambda: Middle(lambda net, h, x: h.chunk(3, 1)[1], channels=3), "method 'chunk'"),
    "unequal split": (lambda: Middle(lambda net, h, x: h.split(3, 1)[1], channels=3), "method 'split'"),
    "split by a width": (lambda: Middle(lambda net, h, x: h.split(x.size(1) + 1, 1)[1], channels=4), "method 'split'"),
    "sums of products of three": (
        lambda: Middle(lambda net, h, x: torch.einsum("nchw,nc,ndhw->ndhw", h, h.mean((2, 3)), x), channels=3),
        "function 'einsum'",
    ),
    "unbind": (lambda: Middle(lambda net, h, x: torch.stack(h.unbind(1), 1)), "method 'unbind'"),
    "last channels": (lambda: Middle(lambda net, h, x: h[:, -4:], channels=4), "function 'getitem'"),
    "every third channel": (lambda: Middle(lambda net, h, x: h[:, ::3], channels=3), "function 'getitem'"),
    "one channel": (lambda: Middle(lambda net, h, x: h[:, 3].unsqueeze(1), channels=1), "function 'getitem'"),
    "masked select": (lambda: Middle(lambda net, h, x: h + h[h.sigmoid().to(torch.bool)].mean()), "function 'getitem'"),
    "LayerNorm": (lambda: Middle(lambda net, h, x: net.op(h), op=nn.LayerNorm((8, 6, 6))), "module 'op'"),
    "which channel is largest": (
        lambda: Middle(lambda net, h, x: h + h.max(1, keepdim=True)[1] * 1e-3),
        "method 'max' says which",
    ),
    "cumulated over channels": (lambda: Middle(lambda net, h, x: h.cumsum(1)), "method 'cumsum' mixes channels"),
    "local response": (
        lambda: Middle(lambda net, h, x: net.op(h), op=nn.LocalResponseNorm(3)),
        "function 'local_response_norm' in 'op' has no rule",
    ),
    "its width, divided by": (lambda: Middle(lambda net, h, x: h / h.shape[1]), "function 'truediv' computes with"),
    "its width, multiplied by": (
        lambda: Middle(lambda net, h, x: h * h.size(1) ** -0.5),
        "function 'mul' computes with",
    ),
    "its number of elements": (lambda: Middle(lambda net, h, x: h / h.numel()), "function 'truediv' computes with"),
    "its width in another tensor": (
        lambda: Middle(lambda net, h, x: h * (x.mean() + h.shape[1])),
        "function 'add' computes with",
    ),
    "its width in a new tensor": (
        lambda: Middle(lambda net, h, x: h / x.new_full((1,), h.shape[1])),
        "method 'new_full' computes with",
    ),
    "its width squared": (
        lambda: Middle(lambda net, h, x: h * (h.size(1) * h.size(1))),
        "function 'mul' computes with",
    ),
    "resized to its width": (
        lambda: Middle(lambda net, h, x: F.interpolate(h, size=h.shape[1])),
        "function 'interpolate' computes with",
    ),
    "its layer's out_channels": (
        lambda: Middle(lambda net, h, x: h / net.conv1.out_channels),
        "'conv1.out_channels' is used as it is by function 'truediv'",
    ),
    "its BatchNorm's num_features": (
        lambda: Middle(lambda net, h, x: h / net.bn1.num_features),
        "'bn1.num_features' is used as it is by function 'truediv'",
    ),
    "views of a width that is not its own multiple": (
        lambda: Middle(lambda net, h, x: h + net.op(h.view(-1, h.size(1) + 280)).mean(), op=nn.Linear(288, 2)),
        "method 'view'",
    ),
    "views of its width squared": (
        lambda: Middle(
            lambda net, h, x: h + net.op(F.adaptive_avg_pool2d(h, (4, 2)).view(-1, h.size(1) * h.size(1))).mean(),
            op=nn.Linear(64, 2),
        ),
        "method 'view'",
    ),
    "views of as many rows as channels over four": (
        lambda: Middle(lambda net, h, x: h + net.op(h.view(h.size(1) // 4, -1)).mean(), op=nn.Linear(288, 2)),
        "method 'view'",
    ),
    "permuted and pooled": (
        lambda: Middle(lambda net, h, x: F.max_pool2d(h.permute(0, 2, 3, 1), 3, 1, 1).permute(0, 3, 1, 2)),
        "function 'max_pool2d'",
    ),
    "samples at points that are its channels": (
        lambda: Middle(
            lambda net, h, x: (
                x * F.grid_sample(x, h[..., :2, 0].tanh()[:, :, None], align_corners=True).mean((2, 3), True)
            ),
            channels=3,
        ),
        "function 'grid_sample' samples at it",
    ),
    "added to the input": (lambda: Middle(lambda net, h, x: h[:, :] + x.repeat(1, 3, 1, 1)[:, :8]), "function 'add'"),
    "a constant per channel": (lambda: Middle(lambda net, h, x: h * torch.linspace(1, 2, 8).view(8, 1, 1)), "'mul'"),
    "a spectrum of channels": (lambda: Middle(lambda net, h, x: torch.fft.fft(h, dim=1).real), "mixes channels"),
    "images beside channels": (
        lambda: Middle(lambda net, h, x: h.view(1, -1, 6, 6).softmax(1).view(h.shape)),
        "takes them together with the images of a batch",
    ),
    "reduced across images": (lambda: Middle(lambda net, h, x: h.view(h.size(1), -1).mean() + h), "method 'view'"),
    "max pooling that takes images for channels": (
        lambda: Middle(lambda net, h, x: h + F.max_pool2d(h.mean(3), 3, 1, 1).mean()),
        "function 'max_pool2d'",
    ),
    "LSTM": (
        lambda: Middle(lambda net, h, x: h + net.op(h.flatten(2))[0].mean(), op=nn.LSTM(36, 4)),
        "module 'op' runs over it",
    ),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_an_operator_that_moves_channels_in_a_way_of_its_own_is_followed(name: str) -> None:
    network = proven(FOLLOWED[name](), SMALL)
    assert names(network)[0] == "conv1"
    assert names(network)[-1] == "conv2"


@pytest.mark.parametrize("name", FREEZING)
def test_an_operator_that_we_do_not_follow_freezes_what_reaches_it_and_is_named(name: str) -> None:
    make, reason = FREEZING[name]
    network = proven(make(), SMALL)
    assert "conv1" not in names(network)
    assert reason in network.frozen["conv1"]
    assert names(network)[-1] == "conv2"  # what comes after it is still pruned


def test_the_width_of_one_stream_in_the_view_of_another_ties_both() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc, self.out = (
                nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Linear(8 * 36, 7), nn.Linear(7, 3),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x), self.b(x)
            return self.out(self.fc(a.view(a.size(0), b.size(1) * 36)))

    network = proven(Net(), SMALL)
    assert names(network) == ["a", "fc"]
    assert network.space.groups[0].members == ("a", "b", "fc")


@pytest.mark.parametrize(
    "output",
    [
        lambda h, y: (h, y),
        lambda h, y: [y, {"deep": (h,)}],
        lambda h, y: {"features": h, "logits": y},
        lambda h, y: Features(inner=h, logits=y),
    ],
    ids=["tuple", "nested", "dict", "dataclass"],
)
def test_inner_features_that_the_network_returns_keep_all_channels(output: Callable[[Tensor, Tensor], Any]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Any:
            h = self.stem(x)
            return output(h, self.fc(self.conv(h).mean((2, 3))))

    network = proven(Net(), SMALL)
    assert names(network) == ["conv"]
    assert {"stem", "fc"} <= set(network.frozen)
    assert network.outputs is None


def test_average_pooling_over_features_that_look_like_positions_freezes_them() -> None:
    model = nn.Sequential(nn.Linear(12, 8), nn.AvgPool1d(3, 1, 1), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    network = proven(model, image(2, 12))
    assert names(network) == ["2"]
    assert network.frozen["0"].startswith("module '1'")


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_layer_with_hooks_is_pruned_as_its_hooks_allow_and_counted(hook: str) -> None:
    model = Middle(lambda net, h, x: net.op(h), op=nn.Conv2d(8, 8, 1))
    getattr(model.op, hook)(lambda module, inputs, output=None: None)
    network = proven(model, SMALL)
    assert names(network) == ["conv1", "op", "conv2"]


def test_a_hook_that_changes_an_output_is_obeyed() -> None:
    model = Middle(lambda net, h, x: h)
    model.conv1.register_forward_hook(lambda module, inputs, output: output * torch.linspace(0, 1, 8).view(8, 1, 1))
    assert names(proven(model, SMALL)) == ["conv2"]


@pytest.mark.parametrize("kind", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_a_layer_whose_weights_have_lengths_of_their_own_is_pruned_and_a_note_says_what_that_does(kind: Any) -> None:
    model = Middle(lambda net, h, x: h)
    kind(model.conv1)
    kind(model.conv2)
    network = proven(model, SMALL)
    assert names(network) == ["conv1", "conv2"]
    assert "computed anew" in network.notes[-1]
    assert "conv1 (2 such layers)" in network.notes[-1]
    assert "remove_" in network.notes[-1]


@pytest.mark.parametrize("kind", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_a_layer_whose_weight_is_computed_of_all_of_it_is_pruned(kind: Any) -> None:
    model = Middle(lambda net, h, x: h)
    kind(model.conv1)
    assert names(proven(model, SMALL)) == ["conv1", "conv2"]


def test_a_submodule_with_a_forward_of_its_own_is_left_alone() -> None:
    model = Middle(lambda net, h, x: net.op(h), op=nn.ReLU())
    model.op.forward = lambda h: h.flip(1)
    assert names(proven(model, SMALL)) == ["conv2"]


class AutoEncoder(nn.Module):
    """A convolution and a transposed one that share their weight."""

    def __init__(self, decode: nn.Module) -> None:
        super().__init__()
        self.encode, self.other = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(3, 8, 3)
        self.decode = decode
        self.decode.weight = self.encode.weight
        self.head, self.fc = nn.Conv2d(8, 6, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.head(self.encode(self.decode(self.other(x)))).mean((2, 3)))


def test_a_weight_shared_by_an_encoder_and_a_decoder_ties_what_one_writes_to_what_the_other_reads() -> None:
    network = proven(AutoEncoder(nn.ConvTranspose2d(8, 3, 3, bias=False)), SMALL)
    assert {"encode", "other", "head"} <= set(network.space.groups[0].members)


def test_a_layer_tied_to_one_with_a_forward_of_its_own_is_pruned_with_it() -> None:
    network = proven(AutoEncoder(own(nn.ConvTranspose2d)(8, 3, 3, bias=False)), SMALL)
    assert {"encode", "other", "head"} <= set(network.space.groups[0].members)


@pytest.mark.parametrize(
    "used",
    [
        lambda net, x: torch.mul(x.mean(), net.kept[0]).sum(),
        lambda net, x: (net.conv1.bias * x.mean()).sum(),
        lambda net, x: net.kept[0].sum(),
        lambda net, x: sum(parameter.abs().sum() for parameter in net.conv1.parameters()),
        lambda net, x: net.conv1.state_dict()["bias"].mean(),
    ],
)
def test_a_parameter_used_besides_its_layer_is_narrowed_there_too(used: Callable[[Any, Tensor], Any]) -> None:
    model = Middle(lambda net, h, x: h * used(net, x))
    model.kept = [model.conv1.bias]
    assert names(proven(model, SMALL)) == ["conv1", "conv2"]


def test_a_parameter_whose_length_is_asked_for_stays() -> None:
    model = Middle(lambda net, h, x: h * len(net.kept[0]))
    model.kept = [model.conv1.bias]
    network = proven(model, SMALL)
    assert names(network) == ["conv2"]
    assert "conv1" in network.frozen


def test_a_layer_whose_weight_is_a_plain_tensor_is_pruned_like_others(tmp_path: Path) -> None:
    model = Middle(lambda net, h, x: h)
    weight = model.conv1.weight.detach()
    del model.conv1.weight
    model.conv1.weight = weight
    network = proven(model, SMALL)
    assert names(network) == ["conv1", "conv2"]
    small = slim(network, network.space.minimum, random_ranking(network))
    save(small, tmp_path / "small.safetensors")
    assert torch.equal(load(tmp_path / "small.safetensors", model).eval()(SMALL), small.eval()(SMALL))


def test_a_training_forward_that_cannot_be_followed_is_said() -> None:
    def forward(net: Any, h: Tensor, x: Tensor) -> Tensor:
        return h if not net.training or h.mean() > 0 else -h

    network = proven(Middle(forward), SMALL)
    (note,) = network.notes
    assert note.startswith(
        "What the forward does in training mode was not looked at in full: Middle decides by the values"
    )
    assert f"note: {note}" in str(network.explain())


class InTurns(nn.Module):
    """Runs one of several convolutions, each time the next one; the last is not as the others."""

    def __init__(self, several: int) -> None:
        super().__init__()
        self.first, self.head, self.runs = nn.Conv2d(3, 8, 3), nn.Linear(10, 4), 0
        self.turns = nn.ModuleList(nn.Conv2d(8, 10, 3) for _ in range(several))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        layer = self.turns[self.runs % len(self.turns)]
        return self.head(F.relu(layer(F.relu(self.first(x)))).mean((2, 3)))


@pytest.mark.parametrize("several", [2, 3])
def test_layers_that_run_in_turns_get_narrower_together(several: int) -> None:
    network = proven(InTurns(several), SMALL)
    assert names(network) == ["first", "turns.1"]
    assert network.notes == ("The forward runs other layers in later runs. Costs and scores are of its first.",)
    small = slim(network, network.space.minimum, random_ranking(network)).eval()
    kept = [random_ranking(network).keep(group, width) for group, width in enumerate(network.space.minimum)]
    first, second = map(list, kept)
    for run in range(1, 2 * several + 1):
        turn = small.turns[run % several]  # type: ignore[index,operator]
        assert torch.equal(turn.weight, network.model.turns[run % several].weight[second][:, first])  # type: ignore[index,operator]
        assert small(SMALL).shape == (len(SMALL), 4)


class Remembering(InTurns):
    """Makes a table in its first run, which later ones use."""

    table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.table is None:
            self.table = torch.linspace(0.0, 1.0, h.shape[1], device=x.device)
        return self.head(F.relu(self.turns[0](h * self.table[:, None, None])).mean((2, 3)))


def test_what_a_first_run_stores_for_later_ones_changes_nothing() -> None:
    network = trace(Remembering(1).eval(), SMALL)
    assert network.notes == ()
    assert "turns.0" in names(network)


def test_a_second_run_that_fails_is_said() -> None:
    def forward(net: Any, h: Tensor, x: Tensor) -> Tensor:
        if hasattr(net, "has_run"):
            raise RuntimeError("It runs once.")
        net.has_run = True
        return h

    (note,) = trace(Middle(forward).eval(), SMALL).notes
    assert note.startswith("What the forward does in later runs was not looked at in full: Middle: the forward fails")
    assert note.endswith("It runs once.")
