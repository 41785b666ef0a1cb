"""Networks in the ways that strangers write them: each found in public code, in its smallest form."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence
from torch.nn.utils import parametrizations

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.built_costs import structure_of
from prunesearch.models.count import count
from prunesearch.models.network import Network
from prunesearch.models.slim import slim
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from prunesearch.tasks.classify import labelled
from tests.models.networks import SMALL, image, names, prove, proven, random_ranking, randomised

# --- layers whose weights are computed --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [parametrizations.weight_norm, parametrizations.spectral_norm,
                                 nn.utils.weight_norm, nn.utils.spectral_norm])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_layers_with_normalised_weights_lose_inputs_and_outputs(how: Callable[..., nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), how(nn.Conv2d(8, 9, 3)), nn.ReLU(), nn.Conv2d(9, 4, 1))
    network = trace(model, SMALL)
    prove(network)
    assert network.verify(1).training_difference is not None
    assert len(network.space.groups) == 2
    assert network.space.minimum == (1, 1)


class Scaled(nn.Module):
    """Multiplies by the root of how many inputs there are, which a function in C is told as a quotient."""

    def __init__(self, inputs: int, outputs: int, how: str) -> None:
        super().__init__()
        self.weight, self.double, self.how = nn.Parameter(torch.empty(outputs, inputs)), 2 * inputs, how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "attribute":
            return F.linear(x, self.weight) * math.sqrt(self.double / 2)
        return F.linear(x, self.weight) * math.sqrt(self.weight.numel() / self.weight.shape[0])


@pytest.mark.parametrize(("how", "groups"), [("sizes", ["3"]), ("attribute", ["0", "2", "3"])])
def test_a_quotient_of_sizes_that_goes_where_nobody_sees_stays(how: str, groups: list[str]) -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), Scaled(8, 6, how), nn.Linear(6, 7), nn.Linear(7, 2))
    assert names(proven(model, image(2, 5))) == groups


class Iterated(nn.Module):
    """Spectral normalisation as GANs wrote it before torch had any: two parameters change in every forward."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer, weight = layer, layer.weight
        del layer._parameters["weight"]
        for name, size in (("weight_u", len(weight)), ("weight_v", weight[0].numel())):
            layer.register_parameter(name, nn.Parameter(torch.ones(size), requires_grad=False))
        layer.register_parameter("weight_bar", nn.Parameter(weight.data))

    def forward(self, x: Tensor) -> Any:
        u, v, rows = self.layer.weight_u, self.layer.weight_v, self.layer.weight_bar.view(len(self.layer.weight_u), -1)
        v.data = F.normalize(torch.mv(rows.data.t(), u.data), dim=0)
        u.data = F.normalize(torch.mv(rows.data, v.data), dim=0)
        self.layer.weight = self.layer.weight_bar / u.dot(rows.mv(v)).expand_as(self.layer.weight_bar)
        return self.layer.forward(x)


def test_layers_whose_weight_is_computed_of_parameters_that_change_are_pruned() -> None:
    model = nn.Sequential(Iterated(nn.Conv2d(3, 8, 3)), nn.ReLU(), Iterated(nn.Conv2d(8, 9, 3)), nn.Conv2d(9, 4, 1))
    network = proven(model, SMALL)
    assert not network.leaves
    assert network.space.minimum == (1, 1)


class Once(nn.Module):
    """A part that decides by its data, and moves a parameter when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(6, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        self.shift.data = self.shift.data * 2
        return x + self.shift if x.max() > 0 else x


def test_parameters_that_a_part_kept_whole_changes_are_put_back_before_what_was_recorded_is_compared() -> None:
    network = trace(
        randomised(nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 6, 1), Once(), nn.Conv2d(6, 2, 1))), SMALL
    )
    assert list(network.leaves) == ["2"]
    assert len(names(network)) == 1


class Quantised(nn.Module):
    """Returns losses beside what it decodes, as networks with a book of codes do."""

    def __init__(self, loss: Callable[..., Tensor], reduction: str) -> None:
        super().__init__()
        self.encode, self.decode, self.loss, self.reduction = nn.Linear(5, 8), nn.Linear(8, 5), loss, reduction

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encode(x)
        return self.decode(z.sign()), self.loss(z, z.sign(), reduction=self.reduction).sum()


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_in_a_forward_are_those_of_the_channels_that_stay(loss: Callable[..., Tensor], reduction: str) -> None:
    assert names(proven(Quantised(loss, reduction), image(2, 5))) == ["encode"]


def test_a_loss_with_options_that_are_not_followed_freezes() -> None:
    weights = torch.rand(2, 8)
    model = nn.Sequential(nn.Linear(5, 6), Quantised(functools.partial(F.mse_loss, weight=weights), "mean"))
    model[1].encode = nn.Linear(6, 8)
    assert names(trace(randomised(model), image(2, 5))) == ["0"]


class Graph(nn.Module):
    """Graph convolutions: weights are parameters (in, out) of products."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Parameter(torch.empty(5, 9)), nn.Parameter(torch.empty(9, 7))
        self.register_buffer("neighbours", torch.randn(4, 4))
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.neighbours @ (x @ self.one))
        return self.head(torch.einsum("bnd,de->bne", h, self.two).mean(1))


def test_parameters_that_inputs_are_multiplied_by_are_layers() -> None:
    network = proven(Graph(), image(2, 4, 5))
    assert [group.width for group in network.space.groups] == [9, 7]


# --- numbers of channels ----------------------------------------------------------------------------------------------


class Coupled(nn.Module):
    """An affine coupling: every second channel shifts, the others scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.both = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).chunk(2, 1)
        both = self.both(self.inner(a).relu())
        return self.last(torch.cat([a, (b + both[:, 0::2, ...]) * both[:, 1::2, ...].sigmoid()], 1))


def test_every_second_channel_goes_with_the_one_beside_it() -> None:
    network = proven(Coupled(), SMALL)
    assert list(network.frozen) == ["last"]
    assert [group.unit for group in network.space.groups if group.name == "both"] in ([], [2])


class Biased(nn.Module):
    """Attention of Swin V2: the bias of the keys is zeroed between two thirds of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(12, 36), nn.Linear(12, 12), 3
        self.inner, self.head = nn.Linear(5, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        n, tokens, c = x.shape
        bias = self.qkv.bias.clone()
        length = bias.numel() // 3
        bias[length : 2 * length].zero_()
        qkv = F.linear(x, self.qkv.weight, bias).reshape(n, tokens, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)).softmax(-1) @ v
        return self.head(x + self.proj(attended.transpose(1, 2).reshape(n, tokens, c))).mean(1)


def test_shares_of_a_bias_do_not_tie_all_of_its_channels() -> None:
    network = proven(Biased(), image(2, 4, 5))
    assert list(network.frozen) == ["head"]
    assert network.space.minimum < network.space.full


class Windows(nn.Module):
    """Masked windows of Swin: how many there are is divided by how many the mask has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(5, 6), nn.Linear(6, 4)
        self.register_buffer("mask", torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        rows, windows = h.shape[0] * h.shape[1], self.mask.shape[0]
        h = h.view(rows // windows // 4, windows, 4, -1) + self.mask[None, :, :, None]
        return self.last(h.mean((1, 2)))


def test_a_number_divided_by_the_size_of_a_buffer_is_followed() -> None:
    network = proven(Windows(), image(2, 8, 5))
    assert names(network) == ["inner"]


class Timed(nn.Module):
    """The time embedding of a diffusion network, with its case for odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.ch = 8
        self.conv, self.dense, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), nn.Conv2d(8, 3, 1)

    def embedded(self, t: Tensor) -> Tensor:
        half = self.ch // 2
        steps = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
        both = t.float()[:, None] * steps[None, :]
        both = torch.cat([both.sin(), both.cos()], dim=1)
        return F.pad(both, (0, 1, 0, 0)) if self.ch % 2 == 1 else both

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.last((self.conv(x) + self.dense(self.embedded(t))[:, :, None, None]).relu())


def test_a_remainder_that_is_compared_is_no_trouble() -> None:
    network = trace(randomised(Timed()), (SMALL, torch.tensor([3, 70])))
    prove(network)
    assert names(network) == ["conv"]


# --- operators --------------------------------------------------------------------------------------------------------


class Pairs(nn.Module):
    """Products of words by `einsum`, in several sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.head = (nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(5, 6), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.einsum("b i d, b j d -> b i j", self.q(x), self.k(x)).softmax(-1)
        return self.head(torch.einsum("b i j, b j d -> b i d", weights, self.v(x)).mean(1))


def test_what_torch_does_not_count_of_an_einsum_over_one_channel_cannot_come_about() -> None:
    model = randomised(Pairs())
    network = trace(model, image(2, 4, 5), min_channels=1)
    q = names(network).index("q")
    assert min(network.space.groups[q].widths) == 2
    structure = network.space.minimum
    slimmed = slim(network, structure, random_ranking(network))
    assert count(slimmed, image(2, 4, 5)) == network.space.cost(structure)


class Warped(nn.Module):
    """Features moved by a flow that is made of a grid of their type."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.flow, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        y = torch.linspace(-1, 1, h.shape[2])
        grid = torch.stack(torch.meshgrid(y, y, indexing="ij"), -1)[None].type_as(h).to(h)
        return self.last(F.grid_sample(h, grid + self.flow(h).permute(0, 2, 3, 1), align_corners=True))


def test_the_type_of_a_tensor_says_nothing_of_its_channels() -> None:
    assert "features" in names(proven(Warped(), SMALL))


class CostVolume(nn.Module):
    """Features of two views beside each other for each shift, written into zeros, as stereo networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.match, self.last = nn.Conv2d(3, 6, 1), nn.Conv3d(12, 5, 3, padding=1), nn.Conv3d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.features(x), self.features(x.flip(3))
        n, c, h, w = left.shape
        volume = left.new_zeros(n, c * 2, 3, h, w)
        for shift in range(3):
            if shift:
                volume[:, :c, shift, :, shift:] = left[..., shift:]
                volume[:, c:, shift, :, shift:] = right[..., :-shift]
            else:
                volume[:, :c, shift], volume[:, c:, shift] = left, right
        return self.last(self.match(volume.contiguous()).relu())


def test_cost_volumes_that_are_filled_by_slices_are_pruned() -> None:
    assert names(proven(CostVolume(), SMALL)) == ["features", "match"]


def test_deformable_convolutions_are_pruned() -> None:
    ops = pytest.importorskip("torchvision.ops")

    class Deformed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.offsets, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 18, 3, padding=1), nn.Conv2d(6, 2, 1)
            self.deformed = ops.DeformConv2d(8, 6, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x)
            return self.last(self.deformed(h, self.offsets(h)).relu())

    network = proven(Deformed(), SMALL)
    assert names(network) == ["stem", "deformed"]


class Checked(nn.Module):
    """Raises if its data are not what it wants, and else does nothing with what it looked at."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if torch.isnan(x).any() or x.abs().sum(1).argmax().item() < 0:
            raise ValueError(f"Not a number: {x}")
        assert x.min() > -1e6 and x.max() < 1e6, "too large"  # noqa: PT018 - as people write it
        return self.layer(x)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="where an instruction stands in its file is not known before")
def test_what_checks_look_at_decides_nothing() -> None:
    model = nn.Sequential(Checked(3, 8), nn.ReLU(), Checked(8, 6), nn.Conv2d(6, 2, 1))
    network = proven(model, SMALL)
    assert not network.leaves
    assert names(network) == ["0.layer", "2.layer"]
    small = slim(network, network.space.minimum, random_ranking(network))
    with pytest.raises(ValueError, match="Not a number"):
        small(SMALL * math.nan)


class Bounded(nn.Module):
    """Takes images whose values are between 0 and 1 and no others."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.min() < 0 or x.max() > 1:
            raise ValueError("Expected values between 0 and 1.")
        return self.b(self.a(x).relu())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="where an instruction stands in its file is not known before")
def test_images_with_noise_that_a_forward_refuses_are_not_compared() -> None:
    network = proven(Bounded(), SMALL.sigmoid().round())
    assert network.verify(1).training_difference is not None
    assert names(network) == ["a"]


class Latent(nn.Module):
    """An autoencoder with a distribution of torch, which checks what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.mean, self.scale = nn.Linear(5, 12), nn.Linear(12, 6), nn.Linear(12, 6)
        self.decode = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encode(x).relu()
        found = Normal(self.mean(h), self.scale(h).exp())
        z = found.rsample() if self.training else found.mean
        usual = Normal(torch.zeros_like(z), torch.ones_like(z))
        return self.decode(z), kl_divergence(found, usual).sum(-1)


class Actor(nn.Module):
    """Acts by a distribution over its actions."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.actions, self.value = nn.Linear(5, 12), nn.Linear(12, 4), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x).relu()
        found = Categorical(logits=self.actions(h))
        return found.probs, self.value(h)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="where an instruction stands in its file is not known before")
def test_what_distributions_check_decides_nothing() -> None:
    assert names(proven(Latent(), image(2, 5))) == ["encode", "mean", "decode.0"]
    assert names(proven(Actor(), image(2, 5))) == ["features"]


class Otherwise(Checked):
    """Does something else if its data are not what it wants."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.isnan(x).any():
            return x * 2
        if (largest := x.max()) > 1e6:
            raise ValueError(largest)
        return self.layer(x) * largest


def test_what_decides_something_besides_an_error_is_kept_whole() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 8, 1), Otherwise(8, 6), nn.Conv2d(6, 2, 1))
    assert list(proven(model, SMALL).leaves) == ["2"]


class Mixed(nn.Module):
    """Two tokens of each image, mixed by a convolution with a kernel of one position."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.mix, self.head = nn.Linear(5, 8), nn.Linear(5, 8), nn.Conv1d(2, 1, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(torch.stack([self.a(x), self.b(x)], 1)).squeeze(1))


def test_a_stride_in_a_list_of_one_holds_for_all_dimensions() -> None:
    layers = [nn.Conv2d(3, 8, 3, stride=[2], padding=[1]), nn.Conv2d(8, 8, 3, stride=[1], groups=8), nn.Conv2d(8, 2, 1)]
    assert names(proven(nn.Sequential(*layers), SMALL)) == ["0"]


def test_a_kernel_of_one_position_mixes_no_positions() -> None:
    assert names(proven(Mixed(), image(2, 5))) == ["a"]


# --- what data decide -------------------------------------------------------------------------------------------------


class Boxes(nn.Module):
    """A small detector: as many boxes as there are high scores, then a head for each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.score, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 1, 1), nn.Conv2d(8, 9, 1)
        self.inner, self.head = nn.Linear(9, 7), nn.Linear(7, 2)

    def chosen(self, scores: Tensor) -> Tensor:
        keep = torch.where(scores.flatten() > scores.median())[0]
        return keep[: max(len(keep) // 2, 1)]

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        found = []
        for x in images:
            h = self.stem(x[None]).relu()
            keep = self.chosen(self.score(h))
            rows = self.body(h)[0].flatten(1).t()
            found.append(self.head(self.inner(rows[keep]).relu()))
        return found


@pytest.fixture(scope="module")
def boxes() -> Network:
    return trace(randomised(Boxes()), ([image(3, 6, 6)],))


def test_what_data_choose_is_kept_whole_and_the_rest_is_pruned(boxes: Network) -> None:
    assert list(boxes.leaves) == ["chosen()"]
    assert names(boxes) == ["stem", "body", "inner"]


def test_networks_are_compared_in_what_the_kept_parts_are_given(boxes: Network) -> None:
    found = boxes.verify(3)
    assert found.largest_difference <= 1e-5 * found.scale
    assert found.costs_exact


def test_a_wrong_tensor_in_front_of_a_kept_part_is_noticed(boxes: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    from prunesearch.models import verify

    def wrong(*args: Any) -> nn.Module:
        slimmed = slim(*args)
        slimmed.score.bias.data.add_(0.5)
        return slimmed

    monkeypatch.setattr(verify, "slim", wrong)
    found = boxes.verify(1)
    assert found.largest_difference > 1e-3 * found.scale


class Refined(nn.Module):
    """A part that is kept whole calls another one, after which it decides by data itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = Guarded(), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        return self.last(h) if h.mean() > 0 else h


class Guarded(nn.Module):
    """Decides by its data."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.max() > 0 else x


class Denoised(nn.Module):
    """Decides by its data in training mode alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.stem, self.last = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 6, 1), nn.Conv2d(6, 2, 1)

    def noised(self, x: Tensor) -> Tensor:
        return x * 2 if self.training and x.max() > 0 else x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.noised(self.stem(self.first(x))))


def test_what_decides_by_data_in_training_mode_alone_is_compared_there() -> None:
    network = proven(Denoised(), SMALL)
    assert network.verify(1).training_difference is not None


def test_a_training_mode_that_cannot_be_followed_is_not_compared() -> None:
    class Skipped(Denoised):
        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(self.first(x))
            return self.last(h * 2 if self.training and h.max() > 0 else h)

    network = trace(randomised(Skipped()), SMALL)
    assert "training mode" in network.notes[0]
    assert network.verify(1).training_difference is None


def picked(x: Tensor, scale: float) -> Tensor:
    return torch.stack([image.flatten()[int(image.argmax())] * scale for image in x])


def gated_by(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x) if x.max() > 0 else x


class Pointed(nn.Module):
    """A head whose forward calls functions of its file that decide by data."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.b, self.c = (
            nn.Conv2d(8, 9, 1),
            nn.Conv2d(9, 9, 1),
            nn.Conv2d(9, 12, 3),
            nn.Conv2d(12, 4, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        heat = self.c(self.b(self.gate(gated_by(self.gate, self.a(x)))).relu())
        return picked(heat, 2.0), heat.mean((2, 3))


def test_functions_that_decide_by_data_are_kept_whole_in_any_module() -> None:
    network = proven(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Pointed()), SMALL)
    assert list(network.leaves) == ["2.forward: gated_by()", "2.forward: picked()"]
    assert names(network) == ["0", "2.b"]
    assert "gated_by" in network.frozen["2.gate"]


class Measured(nn.Module):
    """A method finds a number in its data, with which the forward goes on."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.how = nn.Conv2d(8, 12, 3), nn.Conv2d(12, 4, 1), how

    def longest(self, x: Tensor) -> tuple[Tensor, dict[str, int]]:
        return x * 2, {"longest": int(x.amax((1, 2, 3)).argmax()) + 1}

    def forward(self, x: Tensor) -> Tensor:
        y, found = self.longest(self.b(self.a(x).relu()))
        if self.how == "compares":
            return y * 2 if found["longest"] > 1 else y
        return y[..., : found["longest"]] if self.how == "slices" else y


@pytest.mark.parametrize(
    ("how", "groups"), [("compares", ["0"]), ("slices", ["0", "1", "3.a"]), ("", ["0", "1", "3.a"])]
)
def test_numbers_that_a_method_finds_in_its_data_decide_what_is_kept_whole(how: str, groups: list[str]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 7, 1), nn.Conv2d(7, 8, 3), nn.ReLU(), Measured(how))
    network = proven(model, image(2, 3, 13, 13))
    assert names(network) == groups
    assert list(network.leaves) == (["3"] if how == "compares" else ["3.longest()"])


class Answered(Measured):
    """A method answers a question about its data, by which the forward decides."""

    def is_large(self, x: Tensor) -> bool:
        return bool(x.max() > 0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x).relu())
        return y * 2 if self.is_large(y) else y


def test_who_goes_on_with_answers_about_data_is_kept_whole() -> None:
    network = proven(nn.Sequential(nn.Conv2d(3, 7, 1), nn.Conv2d(7, 8, 3), nn.ReLU(), Answered("")), SMALL)
    assert list(network.leaves) == ["3"]


def test_a_part_inside_of_another_that_is_kept_whole_is_no_part_of_its_own() -> None:
    stem, last = nn.Conv2d(3, 6, 1), nn.Conv2d(8, 2, 1)
    network = proven(nn.Sequential(stem, nn.Conv2d(6, 8, 1), Refined(), last), SMALL)
    assert list(network.leaves) == ["2"]
    assert names(network) == ["0"]


def test_attention_that_drops_out_is_compared_in_training_mode() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.3, batch_first=True)
    network = proven(nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 3)), image(2, 4, 5))
    assert network.verify(1).training_difference is not None


class Queried(nn.Module):
    """Attention in one kernel, of queries, keys and values that have layers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.last = (nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x)[:, None] for layer in (self.q, self.k, self.v))
        return self.last(F.scaled_dot_product_attention(q, k, v)[:, 0].relu()).mean(1)


class Attended(nn.Module):
    """The same between other layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.Linear(4, 5), Queried()

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.first(x))


def test_attention_costs_what_its_kernel_costs_of_large_inputs_too() -> None:
    inputs = image(2, 64, 4).repeat(1, 1, 260)  # so large that tracing would rather do without data
    network = trace(randomised(nn.Sequential(nn.Linear(1040, 4), Attended())), inputs)
    assert network.space.cost(network.space.full).macs == count(network.model, inputs).macs


def test_attention_keeps_the_kernel_that_it_runs_in() -> None:
    network = proven(Attended(), image(2, 6, 4))
    assert names(network) == ["first"]
    assert "values are as large as queries" in network.frozen["attention.v"]


class Positioned(nn.Module):
    """Adds codes of positions that are a plain tensor, and remembers what it gave, with its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.codes = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h + self.codes.to(h.device, dtype=h.dtype)
        self.last = h + self.b(torch.relu(h))
        return self.head(self.last.mean(1))


SEQUENCES = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(1))


def test_a_plain_tensor_of_a_module_is_narrowed_like_a_buffer(tmp_path: Path) -> None:
    model = Positioned()
    model(SEQUENCES)  # leaves a tensor behind that torch does not copy
    network = proven(model, SEQUENCES)
    assert [(group.name, group.width) for group in network.space.groups] == [("a", 16)]
    weights = InheritedWeights(network, random_ranking(network))
    small = weights.build(network.space.minimum)
    assert small.codes.shape == (5, 2)
    assert [name for name, _ in small.named_buffers()] == ["codes"]
    assert "codes" in vars(model)
    ps.save(small, tmp_path / "small.safetensors")
    back = ps.load(tmp_path / "small.safetensors", Positioned())
    torch.testing.assert_close(back(SEQUENCES), small(SEQUENCES), rtol=0, atol=0)
    ps.save(back, tmp_path / "again.safetensors")
    again = ps.load(tmp_path / "again.safetensors", Positioned())
    torch.testing.assert_close(again(SEQUENCES), small(SEQUENCES), rtol=0, atol=0)
    assert structure_of(network, again) == network.space.minimum


@pytest.mark.parametrize("path", ["sliced", "stacked"])
def test_a_plain_tensor_is_narrowed_in_scores(path: str) -> None:
    network = proven(Positioned(), SEQUENCES)
    weights = InheritedWeights(network, random_ranking(network))
    examples = labelled(SEQUENCES, torch.tensor([0, 1, 2, 0]))
    small = weights.build(network.space.minimum)
    (found,) = AccuracyEvaluator(weights, examples, path=path).score([network.space.minimum])
    expected = -F.cross_entropy(small(SEQUENCES), torch.tensor([0, 1, 2, 0])).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_network_that_remembers_its_features_is_trained() -> None:
    model = Positioned()
    model(SEQUENCES)
    data = SEQUENCES, torch.tensor([0, 1, 2, 0])
    trained = ps.finetune(model, ps.Data(data, calibration=2), teacher=model, recipe=ps.Recipe(epochs=1, batch_size=2))
    assert not torch.equal(trained.a.weight, model.a.weight)


class Waves(nn.Module):
    """Adds sines whose frequencies depend on how many channels there are."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        omega = torch.arange(h.shape[-1]) / h.shape[-1]
        return self.head(self.b(h + torch.sin(10_000**-omega)).relu().mean(1))


def test_channels_that_decide_values_stay_and_it_is_said_why() -> None:
    network = proven(Waves(), SEQUENCES)
    assert [group.name for group in network.space.groups] == ["b"]
    assert network.frozen["a"] == "function 'arange' makes values of how many there are"


class Routed(nn.Module):
    """A parameter is repeated for all images, and read together with them, as routers of tokens are."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Parameter(torch.empty(3, 4, 8))
        self.query, self.key, self.head = nn.Linear(8, 6), nn.Linear(5, 6), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, steps = len(x), self.router.shape[0]
        query = self.query(self.router[None].expand(n, steps, 4, 8).reshape(n * steps, 4, 8))
        key = self.key(x).repeat_interleave(3, 0).unsqueeze(1)
        return self.head((query * key).sum(-1)).view(n, -1)


def test_a_parameter_that_is_repeated_for_each_image_costs_as_often() -> None:
    network = proven(Routed(), image(2, 5))
    assert names(network) == ["query"]


class Classed(nn.Module):
    """Takes the token of the class apart, as multiscale transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = torch.tensor_split(self.a(x), indices=(1,), dim=1)
        return self.head(torch.cat((first, rest + self.b(rest)), dim=1)[:, 0])


def test_tokens_are_taken_apart_by_their_positions() -> None:
    network = proven(Classed(), SEQUENCES)
    assert list(network.frozen) == ["head"]
    assert [group.name for group in network.space.groups] == ["a"]
