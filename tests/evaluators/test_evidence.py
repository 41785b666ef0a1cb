"""What searchers learn of a network before they start, against the definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.evaluators import EVIDENCE, gather
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.curves import curve_structures
from prunesearch.evaluators.hsic import nhsic
from prunesearch.evaluators.layer_inputs import layer_inputs
from prunesearch.evaluators.width_errors import gram_matrices, width_errors
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import IntArray, Structure
from prunesearch.tasks.classify import labelled
from tests.models.networks import Enlarging, image, randomised
from tests.models_state import generators, state_of


class Readers(nn.Module):
    """Groups that a depthwise, a strided, a grouped and a linear layer read; so few positions that all are sampled."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), norm
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.strided = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(12, 6, (1, 3), groups=2, padding=(0, 2), dilation=2)
        self.head = nn.Linear(6 * 2 * 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depthwise(F.relu(self.first(x))))
        x = F.relu(self.norm(self.strided(x)))
        return self.head(F.relu(self.grouped(x)).flatten(1))


def test_errors_of_widths_ask_the_ranking_for_one_group_at_a_time() -> None:
    """On networks of thousands of widths, asking for whole structures takes minutes."""

    class Asked(InheritedWeights):
        def kept(self, structure: Structure) -> Any:
            raise AssertionError("a whole structure")

    network, images = trace(randomised(Readers(nn.BatchNorm2d(12))).eval(), image(2, 3, 4, 4)), image(40, 3, 4, 4)
    weights, space = InheritedWeights(network, L1Criterion().rank(network)), network.space
    nobody: Any = None
    found = width_errors(Asked(network, weights.ranking), nobody, images)
    grams = gram_matrices(network, layer_inputs(network, images))
    for index, (group, gram) in enumerate(zip(space.groups, grams, strict=True)):
        for width, error in zip(group.widths, found[index], strict=True):
            structure = (*space.full[:index], width, *space.full[index + 1 :])
            dropped = ~weights.kept(structure)[network.units[index]]
            assert error == (max(float(dropped @ gram @ dropped), 0.0) if gram.any() else dropped.mean())


@pytest.mark.parametrize("normalised", [False, True])
def test_the_quadratic_form_is_what_dropping_channels_does_to_the_outputs(normalised: bool) -> None:
    """Against the definition: run every reader that mixes channels with and without the dropped ones.

    A BatchNorm takes means away, and nothing else does.
    """
    norm = nn.BatchNorm2d(12) if normalised else nn.Identity()
    readers = trace(randomised(Readers(norm)).eval(), image(2, 3, 4, 4))
    images = image(40, 3, 4, 4)
    grams = gram_matrices(readers, layer_inputs(readers, images))
    rng = np.random.default_rng(0)
    given: dict[str, Tensor] = {}
    hooks = [
        readers.model.get_submodule(read.place).register_forward_pre_hook(
            lambda _, inputs, name=read.place: given.update({name: inputs[0]})
        )
        for read in readers.reads
    ]
    with torch.no_grad():
        readers.model(images)
        for hook in hooks:
            hook.remove()
        for g, gram in enumerate(grams):
            dropped = rng.random(len(readers.units[g])) < 0.4
            expected = 0.0
            for read in (one for one in readers.reads if one.place in ("strided", "grouped", "head")):
                layer = readers.model.get_submodule(read.place)
                inside = np.isin(read.units, readers.units[g][dropped])
                mask = torch.from_numpy(inside).view(-1, *[1] * (given[read.place].dim() - 2))
                bias = layer(torch.zeros_like(given[read.place]))
                whole, part = (layer(x) - bias for x in (given[read.place], given[read.place] * mask))
                if normalised and read.place == "strided":
                    axes = (0, 2, 3) if whole.dim() == 4 else (0,)
                    whole, part = (y - y.mean(axes, keepdim=True) for y in (whole, part))
                expected += float(part.double().square().sum() / whole.double().square().sum())
            assert dropped @ gram @ dropped == pytest.approx(expected, rel=1e-4)


def test_similarity_is_centred_kernel_alignment(network: Network, images: Tensor) -> None:
    """The published definition with centring matrices, between all features."""
    between, owners = nhsic(network, images[:50])
    assert between == pytest.approx(between.T)
    assert np.diag(between) == pytest.approx(1.0)
    assert ((between > 0) & (between <= 1 + 1e-9)).all()
    given: list[Tensor] = []

    def note(of: IntArray) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            for group in np.unique(of[of >= 0]):
                given.append(inputs[0][:, torch.from_numpy(of == group)].flatten(1).double())

        return hook

    hooks = [
        network.model.get_submodule(read.place).register_forward_pre_hook(note(network.group_of[read.units]))
        for read in network.reads
    ]
    with torch.no_grad():
        network.model.eval()(images[:50])
    for hook in hooks:
        hook.remove()
    assert len(given) == len(owners)
    centre = torch.eye(50, dtype=torch.float64) - 1 / 50
    kernels = [centre @ (x @ x.T) @ centre for x in given]
    for i, one in enumerate(kernels):
        for j, other in enumerate(kernels):
            aligned = float((one * other).sum() / (one.norm() * other.norm()))
            assert between[i, j] == pytest.approx(aligned)


def test_curves_are_the_scores_of_single_groups_and_interpolated_between(
    network: Network, images: Tensor, labels: Tensor
) -> None:
    weights = InheritedWeights(network, L1Criterion().rank(network))
    evaluator = AccuracyEvaluator(weights, labelled(images[:64], labels[:64]))
    found = gather("curves", weights, evaluator, images)
    space = network.space
    structures = curve_structures(space)
    assert len(structures) <= 1 + 7 * len(space.groups)
    for structure, score in zip(structures, evaluator.score(structures), strict=True):
        narrowed = [g for g, (kept, full) in enumerate(zip(structure, space.full, strict=True)) if kept < full]
        for g in narrowed or range(len(space.groups)):
            assert found[g][space.groups[g].widths.index(structure[g])] == score
    assert [len(curve) for curve in found] == space.choices.tolist()
    assert all(np.isfinite(curve).all() for curve in found)


@pytest.mark.parametrize("name", sorted(EVIDENCE))
def test_gathering_is_deterministic_and_leaves_everything_as_found(
    network: Network, images: Tensor, labels: Tensor, name: str
) -> None:
    before = state_of(network.model), generators()
    hooks = sum(len(module._forward_pre_hooks) for module in network.model.modules())
    weights = InheritedWeights(network, L1Criterion().rank(network))
    one, other = (gather(name, weights, AccuracyEvaluator(weights, labelled(images, labels)), images) for _ in range(2))
    assert len(one) == len(network.space.groups)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert (state_of(network.model), generators()) == before
    assert sum(len(module._forward_pre_hooks) for module in network.model.modules()) == hooks


def test_errors_fall_with_the_width_to_nothing(network: Network, images: Tensor, labels: Tensor) -> None:
    weights = InheritedWeights(network, L1Criterion().rank(network))
    for error in gather("errors", weights, AccuracyEvaluator(weights, labelled(images, labels)), images):
        assert error[-1] == 0
        assert error[0] > error[len(error) // 2] > 0


def test_a_group_that_only_unknown_layers_read_has_its_dropped_share() -> None:
    model = nn.Sequential(Enlarging(nn.Conv1d(3, 8, 3, padding=1), nn.ConvTranspose1d(8, 4, 3), 8), nn.Flatten())
    network = trace(randomised(model), image(2, 3, 6))
    weights = InheritedWeights(network, L1Criterion().rank(network))
    images = image(20, 3, 6)
    errors = gather(
        "errors", weights, AccuracyEvaluator(weights, labelled(images, torch.zeros(20, dtype=torch.long))), images
    )
    assert errors[0] == pytest.approx(1 - np.array(network.space.groups[0].widths) / 8)
