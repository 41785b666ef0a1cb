"""What strangers' networks do with numbers of channels, with attention and with images, each in its smallest form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.errors import TraceError
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.slim import slim
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from tests.models.networks import SMALL, Middle, image, names, proven, random_ranking, randomised, some_structures

# --- numbers ----------------------------------------------------------------------------------------------------------


class Halves(nn.Module):
    """Takes a stage apart, works on one part, and puts them together, as cross-stage partial networks do."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.wide, self.ratio = how, 16, 0.5
        self.stem, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.out, self.head = nn.Conv2d(16, 12, 1), nn.Linear(12, 4)

    def parts(self, x: Tensor) -> Any:
        c = self.wide // 2
        if self.how == "a half of an attribute":
            return x.split(self.wide // 2, 1)
        if self.how == "both halves":
            return x.split((self.wide // 2, self.wide - self.wide // 2), 1)
        if self.how == "slices":
            return x[:, :c], x[:, c:]
        if self.how == "the rest of the channels":
            return x.split([c, x.shape[1] - c], dim=1)
        if self.how == "made an integer":
            half = int(x.size(1) / 2)
            return torch.split(x, half, 1)
        if self.how == "an attribute made an integer":
            return torch.split(x, int(self.wide / 2), 1)
        if self.how == "compared with twice a half":
            assert x.size(1) == c * 2
            return torch.split(x, c, 1)
        if self.how == "a position":
            return torch.tensor_split(x, (c,), dim=1)
        if self.how == "as many parts":
            return x.tensor_split(2, dim=1)
        return x.chunk(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.parts(F.relu(self.stem(x)))
        return self.head(self.out(torch.cat([a, self.conv(b)], 1)).mean((2, 3)))


@pytest.mark.parametrize(
    "how",
    [
        "a half of an attribute", "both halves", "slices", "the rest of the channels", "made an integer",
        "an attribute made an integer", "compared with twice a half", "a position", "as many parts", "chunk",
    ],
)  # fmt: skip
def test_parts_of_a_stage_are_pruned_whatever_arithmetic_says_how_large_they_are(how: str) -> None:
    network = proven(Halves(how), SMALL)
    assert list(network.frozen) == ["head"]
    assert {"stem", "conv", "out"} <= {group.name for group in network.space.groups}


class Padded(nn.Module):
    """A shortcut without weights: zeros for the channels that it lacks."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.planes = how, 16
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, padding=1)
        self.c, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 4)

    def shortcut(self, x: Tensor, y: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 1, stride=2)
        if self.how == "an attribute minus a size":
            zeros = torch.zeros(x.size(0), self.planes - x.size(1), x.size(2), x.size(3), device=x.device)
            return torch.cat([x, zeros], 1)
        if self.how == "where sizes differ":
            if x.size(1) != y.size(1):
                x = torch.cat([x, x.new_zeros(x.size(0), y.size(1) - x.size(1), *x.shape[2:])], 1)
            return x
        return F.pad(x, (0, 0, 0, 0, self.planes // 4, self.planes // 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        y = self.b(x)
        x = F.relu(y + self.shortcut(x, y))
        return self.head(F.relu(self.c(x) + x).mean((2, 3)))


@pytest.mark.parametrize("how", ["an attribute minus a size", "where sizes differ", "a quarter on either side"])
def test_zeros_beside_a_shortcut_are_as_many_as_its_stream_lacks(how: str) -> None:
    network = proven(Padded(how), SMALL)
    assert list(network.frozen) == ["head"]


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1), nn.Linear(12, 4)
        self.groups = 4

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, h, w = x.size()
        each = int(c / self.groups)
        x = x.view(n, self.groups, each, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.head(self.b(x).mean((2, 3)))


def test_a_number_that_int_made_plain_is_followed_where_the_source_shows_all_of_its_uses() -> None:
    network = proven(Shuffled(), SMALL)
    assert names(network) == ["a", "b"]
    assert network.space.groups[0].unit == 4


class Compared(Shuffled):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, h, w = x.size()
        each = int(c / self.groups)
        x = x.view(n, self.groups, each, h, w).flatten(1, 2)
        return self.head(self.b(x if each > 2 else -x).mean((2, 3)))


def test_one_that_code_uses_otherwise_stays() -> None:
    network = proven(Compared(), SMALL)
    assert "decides what the forward does" in network.frozen["a"]


class WhereEqual(nn.Module):
    """Adds what it was given where that is of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.c, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b, self.c):
            y = layer(x)
            x = F.relu(y + x) if y.shape == x.shape else F.relu(y)
        return self.head(x.mean((2, 3)))


def test_sizes_that_a_forward_found_unequal_never_become_equal() -> None:
    network = proven(WhereEqual(), SMALL)
    first, second = network.space.groups
    assert (first.name, second.name) == ("a", "b")
    assert not set(first.widths) & set(second.widths)
    assert 3 not in first.widths  # as many as the images have


@pytest.mark.parametrize(
    ("condition", "is_pruned"),
    [
        ("h.size(1) > 0", True),
        ("h.size(1) <= 8", True),
        ("h.size(1) > 4", True),
        ("h.size(1) + x.size(1) > 9", True),
        ("h.size(1) > 7", False),
        ("h.size(1) % 2 == 0", False),
        ("h.size(1) != x.size(1)", True),
        ("h.size(1) == net.width", True),
    ],
)
def test_channels_stay_only_where_a_comparison_could_come_out_otherwise(condition: str, *, is_pruned: bool) -> None:
    operation = eval(f"lambda net, h, x: h if {condition} else h * 2")
    model = Middle(operation)
    model.width = 8
    network = proven(model, SMALL, min_channels=1)
    assert ("conv1" in names(network)) == is_pruned


@pytest.mark.parametrize(
    ("condition", "narrowest"),
    [("h.size(1) > 4", 5), ("h.size(1) + x.size(1) >= 9", 6), ("not h.size(1) <= 5.5", 6)],
)
def test_widths_that_would_turn_a_comparison_are_left_out(condition: str, narrowest: int) -> None:
    operation = eval(f"lambda net, h, x: h if {condition} else h * 2")
    network = proven(Middle(operation), SMALL, min_channels=1)
    assert network.space.groups[0].name == "conv1"
    assert network.space.groups[0].widths == tuple(range(narrowest, 9))


class SumOfBranches(nn.Module):
    """What reads a sum of several branches asks whether that has other channels than it shall have."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 12
        self.a, self.b, self.fit = nn.Conv2d(3, 12, 3), nn.Conv2d(3, 12, 3), nn.Conv2d(24, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.a(x), self.b(x)], 1)
        x = self.fit(x) if x.size(1) != self.width else x
        return self.head(x.view(x.size(0), self.width, -1).mean(2))


def test_branches_stay_wide_enough_to_be_wider_together_than_something_else() -> None:
    network = proven(SumOfBranches(), SMALL)
    assert names(network) == ["a", "b", "fit"]
    a, b, fit = (group.widths for group in network.space.groups)
    assert a[0] + b[0] > fit[-1] == 12
    assert a[0] < 12


def test_channels_in_pairs_stay_a_multiple_of_two() -> None:
    network = proven(Middle(lambda net, h, x: torch.cat(h.chunk(2, 1), 1) if h.size(1) % 2 == 0 else h), SMALL)
    assert names(network) == ["conv1", "conv2"]
    assert network.space.groups[0].unit == 2


# --- channels become positions ----------------------------------------------------------------------------------------


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.up = nn.Linear(6, 16 * 4 * 4), nn.ConvTranspose2d(16, 8, 4, 2, 1)
        self.bn, self.out = nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 3, 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.fc(z).view(-1, 16, 4, 4)
        return self.out(F.relu(self.bn(self.up(F.relu(x)))))


def test_a_linear_layer_whose_outputs_become_an_image_loses_channels_of_that_image() -> None:
    network = proven(Generator(), image(2, 6))
    assert names(network) == ["fc", "up"]
    assert network.space.groups[0].unit == 16
    assert network.space.groups[0].width == 16 * 16


# --- attention --------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Patches, one layer of attention, a classifier.

    Args:
        mask: What is added to the scores.
        stream: Whether the size of a head is that of the stream over the number of heads.
    """

    def __init__(self, mask: str = "none", *, stream: bool = True) -> None:
        super().__init__()
        self.patch, self.qkv = nn.Conv2d(3, 16, 2, 2), nn.Linear(16, 48)
        self.proj, self.head = nn.Linear(16, 16), nn.Linear(16, 4)
        self.heads, self.size, self.mask, self.stream = 4, 4, mask, stream
        self.table = nn.Parameter(torch.randn(5, 4))
        self.register_buffer("index", torch.arange(81).reshape(9, 9) % 5)
        self.register_buffer("fixed", torch.randn(1, 4, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        n, length, c = x.shape
        size = c // self.heads if self.stream else self.size
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, size).permute(2, 0, 3, 1, 4).unbind(0)
        mask = {
            "none": lambda: None,
            "one for all heads": lambda: torch.zeros(n, 1, length, length),
            "a table": lambda: self.table[self.index.view(-1)].view(length, length, -1).permute(2, 0, 1)[None],
            "fixed for each head": lambda: self.fixed * 1.0,
        }[self.mask]()
        if mask is not None and self.mask.startswith("fixed"):
            mask = mask + torch.linspace(0, 1, 4).view(1, 4, 1, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return self.head((x + self.proj(y)).mean(1))


@pytest.mark.parametrize("mask", ["none", "one for all heads", "a table"])
@pytest.mark.parametrize("stream", [True, False])
def test_whole_heads_go_with_their_masks(mask: str, *, stream: bool) -> None:
    network = proven(Attention(mask, stream=stream), SMALL)
    assert list(network.frozen) == ["head"]
    slimmed: Any = slim(network, network.space.minimum, random_ranking(network))
    assert slimmed.heads < 4
    assert slimmed.qkv.out_features == 3 * slimmed.heads * 4


def test_heads_stay_where_a_mask_has_as_many() -> None:
    network = proven(Attention("fixed for each head", stream=False), SMALL)
    assert names(network) == ["patch"]
    assert "qkv" in network.frozen


class OfTorch(nn.Module):
    """`nn.MultiheadAttention` and a feed-forward layer."""

    def __init__(self, *, across: bool = False, weights: bool = False) -> None:
        super().__init__()
        self.patch, self.other = nn.Conv2d(3, 16, 2, 2), nn.Conv2d(3, 16, 3, 3)
        self.attention, self.norm = nn.MultiheadAttention(16, 4, batch_first=True), nn.LayerNorm(16)
        self.wide, self.narrow, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)
        self.across, self.weights = across, weights

    def forward(self, x: Tensor) -> Tensor:
        query = self.norm(self.patch(x).flatten(2).transpose(1, 2))
        key = self.other(x).flatten(2).transpose(1, 2) if self.across else query
        y, how_much = self.attention(query, key, key, need_weights=self.weights)
        y = query + y
        y = y + self.narrow(F.gelu(self.wide(self.norm(y))))
        y = self.head(y.mean(1))
        return y if how_much is None else y * how_much.amax((1, 2))[:, None]


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("weights", [False, True])
def test_multi_head_attention_of_torch_loses_heads_and_what_surrounds_it(*, across: bool, weights: bool) -> None:
    network = proven(OfTorch(across=across, weights=weights), SMALL)
    assert set(network.frozen) == {"head"}
    slimmed: Any = slim(network, network.space.minimum, random_ranking(network))
    assert slimmed.attention.num_heads == 1
    assert slimmed.attention.embed_dim == 4
    assert slimmed.attention.in_proj_weight.shape == (12, 4)


def test_an_encoder_of_torch_is_pruned() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
            self.patch, self.encoder = nn.Conv2d(3, 16, 2, 2), nn.TransformerEncoder(layer, 2)
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))

    network = proven(Encoder(), SMALL)
    assert set(network.frozen) == {"head"}
    assert 1 - network.explain().minimum.macs / network.explain().full.macs > 0.8


class ClassToken(nn.Module):
    """A token that is expanded to all images and goes through layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.mix, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        token = self.token.expand(x.shape[0], -1, -1)
        token = token + self.mix(self.norm(token))
        return self.head(torch.cat([token, x], 1).mean(1))


def test_an_expanded_parameter_may_be_given_to_modules() -> None:
    assert list(proven(ClassToken(), SMALL).frozen) == ["head"]


# --- normalisations and weights that are made -------------------------------------------------------------------------


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


def test_a_standardised_weight_is_so_over_the_channels_that_it_still_reads() -> None:
    model = nn.Sequential(
        Standardised(3, 8, 3), nn.ReLU(), Standardised(8, 6, 1), nn.ReLU(), Standardised(6, 6, 3), nn.Flatten(1),
        nn.Linear(24, 2),
    )  # fmt: skip
    network = proven(model, SMALL)
    assert names(network) == ["0", "2", "4"]


MIXING: dict[str, Any] = {
    "a norm by hand": lambda net, h, x: (
        (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    ),
    "softmax": lambda net, h, x: h.softmax(1),
    "largest": lambda net, h, x: h - h.max(1, keepdim=True)[0],
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_channels_is_the_same_however_many_structures_run_at_once(name: str) -> None:
    network = proven(Middle(MIXING[name]), SMALL)
    structures = some_structures(network)
    weights = InheritedWeights(network, random_ranking(network))
    images = image(5, 3, 6, 6)
    shared = SharedForward(weights).run(structures, images)
    stacked = StackedForward(weights).run(structures, images)
    for one, other in zip(shared, stacked, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# --- draws and images -------------------------------------------------------------------------------------------------


class Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.mean, self.spread = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)
        self.decode, self.out = nn.ConvTranspose2d(6, 8, 2, 2), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.encode(x))
        mean, spread = self.mean(h), torch.exp(0.5 * self.spread(h))
        return self.out(F.relu(self.decode(mean + torch.randn_like(spread) * spread)))


def test_noise_for_each_channel_is_no_difference() -> None:
    network = proven(Variational(), SMALL)
    assert names(network) == ["encode", "mean", "decode"]
    found = network.verify(3)
    assert found.training_difference is not None
    assert found.training_difference < 1e-5


class OneByOne(nn.Module):
    """Runs over its images."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.head(torch.cat([self.b(h[i : i + 1]).mean((2, 3)) for i in range(len(x))]))


def test_a_loop_over_images_holds_for_their_number_alone_and_says_so() -> None:
    network = proven(OneByOne(), SMALL)
    assert names(network) == ["a", "b"]
    assert network.verify(2).training_difference is not None
    assert network.verify(2).training_difference == pytest.approx(0, abs=1e-5)
    assert "another number of images than 2" in network.notes[0]
    forward = SharedForward(InheritedWeights(network, random_ranking(network)))
    with pytest.raises(ValueError, match="traced with 2 and holds for no other number"):
        forward.run([network.space.full], image(4, 3, 6, 6))


class Nearest(nn.Module):
    """Takes the positions with the largest values, where rounding decides between equals."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(F.relu(self.a(x.flatten(2).transpose(1, 2))))
        best = h.sum(-1).topk(4, dim=1).indices
        return self.head(h[torch.arange(len(h)).view(-1, 1), best].mean(1))


def test_rows_taken_by_their_values_keep_their_channels() -> None:
    network = trace(randomised(Nearest()), image(2, 3, 4, 4))
    assert "a" in names(network)
    found = network.verify(4)
    assert found.largest_difference < 1e-4 * found.scale


def test_a_number_through_a_function_of_mathematics_still_freezes() -> None:
    model = Middle(lambda net, h, x: h * math.sqrt(h.size(1)))
    assert "conv1" in proven(model, SMALL).frozen
    with pytest.raises(TraceError):
        trace(Middle(lambda net, h, x: h * sum(range(h.size(1))) * 1e-2), SMALL, min_channels=1)


def test_structures_drawn_of_widths_that_must_differ_are_all_allowed() -> None:
    network = proven(WhereEqual(), SMALL)
    for row in network.space.sample(np.random.default_rng(0), 20):
        a, b = row.tolist()
        assert a != b
