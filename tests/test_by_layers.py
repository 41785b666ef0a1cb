"""Pruning layer by layer: what is chosen, that it meets the budget, and that it goes on after a stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunesearch.budget import Budget
from prunesearch.by_layers import LayerwisePruned, layerwise
from prunesearch.errors import CheckpointError, InfeasibleBudget
from prunesearch.evaluators.channels.genetic import errors, greedy_mask
from prunesearch.evaluators.layer_inputs import layer_inputs
from prunesearch.evaluators.two_step import choose_units
from prunesearch.evaluators.width_errors import gram_matrices
from prunesearch.latency_model import LatencyModel
from prunesearch.models.count import count
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import kept_units, named_tensors, put_back, slim
from prunesearch.models.trace import trace
from prunesearch.search.uniform import uniform_structure
from prunesearch.training.data import Data
from prunesearch.training.recipe import Recipe
from prunesearch.training.settings import LayerwiseSettings
from tests.models_state import state_of
from tests.toys import toy_table

RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05)
SETTINGS = LayerwiseSettings(generations=2, scored=2)
HALF = Budget(macs="50%")


class Tiny(nn.Module):
    """Three convolutions, the last two in a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.outer = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.outer(self.inner(x))).relu().mean((2, 3)))


@pytest.fixture
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Tiny()
        model(torch.randn(64, 1, 6, 6))  # statistics that are not those of a fresh BatchNorm
    return trace(model.eval(), torch.zeros(2, 1, 6, 6), time_limit=600)


@pytest.fixture
def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 3
    images = torch.randn(64, 1, 6, 6, generator=generator) + labels.view(-1, 1, 1, 1)
    return Data(train=(images, labels), calibration=48)


def run(network: Network, data: Data, **changes: Any) -> LayerwisePruned:
    return layerwise(network, data, **{"budget": HALF, "recipe": RECIPE, "settings": SETTINGS, **changes})


def test_the_least_sensitive_layer_comes_first_and_the_budget_is_met(network: Network, data: Data) -> None:
    before = state_of(network.model)
    told: list[Any] = []
    found = run(network, data, on_layer=told.append)
    assert state_of(network.model) == before
    assert HALF.check(network).contains([found.structure])[0]
    assert count(found.model, network.example_inputs).macs == network.space.cost(found.structure).macs
    assert tuple(told) == found.layers
    falls = [report.sensitivity for report in found.layers]
    assert falls == sorted(falls)
    assert [report.layer for report in found.layers] == list(range(1, len(falls) + 1))
    widths = {group.name: width for group, width in zip(network.space.groups, found.structure, strict=True)}
    assert all(widths[report.name] == report.width < report.of for report in found.layers)
    assert len(found.reports) == len(found.layers) - 1 + RECIPE.epochs
    assert not found.model.training


def test_the_most_sensitive_layer_keeps_its_width_once_the_budget_is_met(network: Network, data: Data) -> None:
    tight = run(network, data, budget="macs=80%", settings=replace(SETTINGS, share_of_budget=0.5, epochs_per_layer=0))
    assert len(tight.layers) == 1
    assert len(tight.reports) == RECIPE.epochs
    (spared,) = (group for group in network.space.groups if group.name != tight.layers[0].name)
    assert tight.structure[network.space.groups.index(spared)] == spared.width


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_layers_get_the_widths_of_the_uniform_structure(share: float) -> None:
    """Whatever the narrowest width of a layer is; only the last one may be left wider, as the budget is met."""
    layers = nn.Sequential(nn.Conv2d(1, 20, 3), nn.ReLU(), nn.Conv2d(20, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 1))
    layers.extend([nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)])
    network = trace(layers.eval(), torch.zeros(2, 1, 6, 6), round_to=4, min_channels={"0": 12})
    budget = Budget(params="60%")
    alike = uniform_structure(budget.check(network).tightened(share))
    images, labels = torch.randn(32, 1, 6, 6), torch.arange(32) % 3
    found = run(
        network,
        Data(train=(images, labels), calibration=16),
        budget=budget,
        settings=replace(SETTINGS, share_of_budget=share, epochs_per_layer=0),
    )
    wanted = {group.name: width for group, width in zip(network.space.groups, alike, strict=True)}
    assert len(found.layers) > 1
    assert all(report.width == wanted[report.name] for report in found.layers[:-1])
    assert found.layers[-1].width >= wanted[found.layers[-1].name]


def test_widths_can_be_given_as_in_the_paper(network: Network, data: Data) -> None:
    given = tuple(group.widths[len(group.widths) // 2 - 1] for group in network.space.groups)
    found = run(network, data, structure=given, settings=replace(SETTINGS, epochs_per_layer=0))
    assert found.structure == given
    built = slim(network, given, found.ranking)
    assert {name: x.shape for name, x in built.state_dict().items()} == {
        name: x.shape for name, x in found.model.state_dict().items()
    }


class Stopped(Exception):
    """Raised by a callback."""


def stopping(after: int) -> Any:
    """A callback that raises at its call number `after`, counted over all it is given to."""
    calls = iter(range(1, 1_000))

    def callback(_: object) -> None:
        if next(calls) == after:
            raise Stopped

    return callback


def runs(path: Path, stops: list[tuple[str, int]], network: Network, data: Data) -> Iterator[LayerwisePruned | None]:
    """What comes of one run after the other: each is stopped by one callback, the last one is not."""
    for name, after in stops:
        try:
            yield run(network, data, checkpoint=path, **{name: stopping(after)})
        except Stopped:
            yield None
    yield run(network, data, checkpoint=path)


def test_killed_after_every_stage_it_ends_with_the_same_bits(network: Network, data: Data, tmp_path: Path) -> None:
    whole = run(network, data)
    layers = len(whole.layers)
    assert layers > 1
    stops = [
        ("on_score", 1),  # while sensitivity is measured
        ("on_score", layers + 1),  # in the middle of the first layer
        ("on_step", 1),  # while it is trained for
        ("on_layer", 1),  # when that is done
        ("on_score", 2),  # in the middle of the second layer
        ("on_layer", layers - 1),
        ("on_step", 1),  # in the last finetuning
        ("on_epoch", 1),
    ]
    *stopped, again = runs(tmp_path / "state", stops, network, data)
    assert stopped == [None] * len(stops)
    assert again is not None
    assert state_of(again.model) == state_of(whole.model)
    assert (again.structure, again.ranking, again.layers) == (whole.structure, whole.ranking, whole.layers)
    losses = [[report.loss for report in each.reports] for each in (again, whole)]
    assert losses[0] == losses[1]
    scores: list[float] = []
    finished = run(network, data, checkpoint=tmp_path / "state", on_score=scores.append)
    assert (scores, state_of(finished.model)) == ([], state_of(whole.model))


def test_scores_of_a_stopped_layer_are_not_computed_again(network: Network, data: Data, tmp_path: Path) -> None:
    scores: list[float] = []

    def stop_in_the_first_layer(score: float) -> None:
        scores.append(score)
        if len(scores) == 5:
            raise Stopped

    with pytest.raises(Stopped):
        run(network, data, checkpoint=tmp_path / "state", on_score=stop_in_the_first_layer)
    found = run(network, data, checkpoint=tmp_path / "state", on_score=scores.append)
    sensitivities = 1 + len(found.layers)
    assert len(scores) == sensitivities + sum(layer.scored for layer in found.layers)


def test_a_checkpoint_of_another_question_is_refused(network: Network, data: Data, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(network, data, checkpoint=tmp_path / "state", on_score=stopping(1))
    with pytest.raises(CheckpointError, match="seed was 0, now it is 1"):
        run(network, data, checkpoint=tmp_path / "state", seed=1)


def test_a_checkpoint_by_another_latency_table_is_refused(network: Network, data: Data, tmp_path: Path) -> None:
    table, other = toy_table(network.space), toy_table(network.space, cliff=1.1)
    milliseconds = 0.9 * float(LatencyModel(table, network.space).predict([network.space.full])[0])
    state = tmp_path / "state"
    with pytest.raises(Stopped):
        run(network, data, budget=Budget(latency_ms=milliseconds, table=table), checkpoint=state, on_score=stopping(1))
    with pytest.raises(CheckpointError, match=r"by was \['table \w+'\], now it is"):
        run(network, data, budget=Budget(latency_ms=milliseconds, table=other), checkpoint=state)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"budget": "macs=0.1%"}, InfeasibleBudget, "cannot be met"),
        ({"budget": 3}, TypeError, "Expected budget as Budget"),
        ({"recipe": replace(RECIPE, from_scratch=True)}, ValueError, "trained weights"),
        ({"recipe": replace(RECIPE, patience=1)}, ValueError, "to stop early"),
        ({"structure": (6, 8)}, ValueError, "Expected a structure within the budget"),
        ({"structure": (6, 800)}, ValueError, "allows the widths"),
        ({"seed": -1}, ValueError, "Expected seed >= 0, got -1"),
    ],
)
def test_wrong_arguments_are_answered_with_a_sentence(
    network: Network, data: Data, changes: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        run(network, data, **changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"share_of_budget": 0.0}, "share_of_budget"),
        ({"share_of_budget": 1.5}, "share_of_budget"),
        ({"epochs_per_layer": -1}, "epochs_per_layer >= 0"),
        ({"generations": 0}, "generations >= 1"),
        ({"scored": 0}, "scored >= 1"),
    ],
)
def test_settings_have_ranges(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LayerwiseSettings(**change)


def test_images_of_another_shape_are_refused(network: Network) -> None:
    with pytest.raises(ValueError, match="Expected images of shape"):
        run(network, Data(train=(torch.zeros(32, 2, 6, 6), torch.zeros(32, dtype=torch.int64))))


def test_the_second_step_decides_among_what_the_first_lets_through() -> None:
    rng = np.random.default_rng(0)
    contributions = rng.normal(size=(40, 10))
    gram = contributions.T @ contributions
    wanted = {1, 4, 7}
    asked: list[float] = []

    def score(units: Any) -> float:
        value = float(len(wanted & set(units.tolist())))
        asked.append(value)
        return value

    found = choose_units(gram, 5, score, generations=6, scored=8, rng=np.random.default_rng(1))
    assert len(found.units) == 5
    assert found.score == max(asked) == len(wanted & set(found.units.tolist()))
    assert found.scored == len(asked) <= 6 * 8
    nan = choose_units(gram, 5, lambda units: float("nan"), generations=2, scored=3, rng=np.random.default_rng(1))
    mask = np.isin(np.arange(10), nan.units)
    assert errors(gram, mask[None])[0] <= errors(gram, greedy_mask(gram, 5)[None])[0]  # of equals the first step's


def test_moments_of_a_network_pruned_in_part_are_those_of_the_slimmed_one(network: Network, data: Data) -> None:
    images = data.examples(48)
    ranking = NestedRanking.by_importance(
        [np.arange(group.units, dtype=np.float64)[::-1] for group in network.space.groups]
    )
    names = [group.name for group in network.space.groups]
    stem = names.index("stem.0")
    structure = tuple(3 if group == stem else width for group, width in enumerate(network.space.full))
    kept = kept_units(network, structure, ranking)
    ours = gram_matrices(network, layer_inputs(network, images, kept=kept))[1 - stem]
    small = trace(slim(network, structure, ranking), network.example_inputs)
    same = [group.name for group in small.space.groups].index(names[1 - stem])
    theirs = gram_matrices(small, layer_inputs(small, images))[same]
    assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-7)
    assert not np.allclose(ours, gram_matrices(network, layer_inputs(network, images))[1 - stem], rtol=1e-2)


def test_what_is_put_back_is_cut_out_again(network: Network) -> None:
    ranking = NestedRanking.by_importance([np.arange(group.units, dtype=np.float64) for group in network.space.groups])
    structure = tuple(group.widths[2] for group in network.space.groups)
    small = slim(network, structure, ranking)
    with torch.no_grad():
        for tensor in named_tensors(small).values():
            tensor.add_(1)
    before = network.model.get_parameter("head.weight").detach().clone()
    kept = kept_units(network, structure, ranking)
    put_back(network, small, kept)
    assert state_of(slim(network, structure, ranking)) == state_of(small)
    (cut,) = network.cuts_of["head.weight"]
    gone = torch.from_numpy(~kept[cut.units])
    assert gone.any()
    assert torch.equal(network.model.get_parameter("head.weight")[:, gone], before[:, gone])
