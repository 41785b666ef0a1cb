from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunesearch.api import search
from prunesearch.budget import Budget, as_budget
from prunesearch.errors import CheckpointError, InfeasibleBudget
from prunesearch.latency_model import LatencyModel
from prunesearch.latency_table import LatencyTable
from prunesearch.models.count import count
from prunesearch.models.export import export_program
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import kept_units, slim
from prunesearch.models.trace import trace
from prunesearch.models.zoo import make_model
from prunesearch.scoring import Scoring
from prunesearch.tasks import make_task
from prunesearch.tasks.classify import classification
from prunesearch.training.data import Data
from prunesearch.training.paam import AttentionPruned, Attentive, paam
from prunesearch.training.paam_filters import FilterAttention, leaky_exponential
from prunesearch.training.recipe import Recipe
from prunesearch.training.reports import StepReport
from prunesearch.training.settings import AttentionSettings
from tests.models_state import generators, state_of
from tests.toys import admits, toy_table

RECIPE = Recipe(epochs=7, batch_size=64, lr=0.05)


def few(data: Data) -> Data:
    images, labels = data.train  # type: ignore[misc]
    return Data(train=(images[:320], labels[:320]), calibration=64)


def attentive(network: Network, budget: Budget, seed: int = 0) -> Attentive:
    return Attentive(network, budget.check(network.space), AttentionSettings(), RECIPE, seed, 5, classification())


def test_scores_start_at_exactly_one_with_live_gradients() -> None:
    attention = FilterAttention(6, 10, hidden=4)
    score = leaky_exponential(attention(torch.randn(6, 10)))
    assert torch.equal(score, torch.ones(6))
    (score * torch.randn(6)).sum().backward()
    assert float(attention.key.grad.abs().max()) > 0  # type: ignore[union-attr]
    assert float(attention.bias.grad.abs().min()) > 0  # type: ignore[union-attr]


def test_scores_stay_in_their_range_and_their_gradients_never_die() -> None:
    u = torch.tensor([-60.0, -5.0, -1e-3, 0.0, 1e-3, 60.0], requires_grad=True)
    score = leaky_exponential(u)
    assert score.tolist() == pytest.approx([1e-3, np.exp(-5.0), np.exp(-1e-3), 1.0, 1.0, 1.0])
    assert bool((score > 0).all())
    assert bool((score <= 1).all())
    score.sum().backward()
    assert bool((u.grad > 0).all())  # type: ignore[operator]


def test_attention_is_the_mean_correlation_with_all_filters_as_its_definition_says() -> None:
    attention = FilterAttention(5, 12, hidden=3).double().requires_grad_(False)
    filters = torch.randn(5, 12, dtype=torch.float64)
    attention.key.normal_()
    attention.bias.normal_()
    rows = torch.stack([(row - row.mean()) / row.std(correction=0) for row in filters])
    key = attention.key / (12 * 3**0.5)
    expected = [
        sum(float((q @ attention.query) @ (k @ key)) / 3**0.5 for k in rows) / 5 + float(bias)
        for q, bias in zip(rows, attention.bias, strict=True)
    ]
    assert torch.allclose(attention(filters), torch.tensor(expected, dtype=torch.float64), rtol=1e-5)


def test_what_attention_learns_from_leaves_filters_and_statistics_alone(network: Network, digits_data: Data) -> None:
    learner = attentive(network, Budget(macs="50%"))
    images, labels = (part[:64] for part in digits_data.train)  # type: ignore[union-attr]
    before = state_of(learner.network.train())
    learner._attention_loss((images, labels)).backward()  # type: ignore[no-untyped-call]
    assert state_of(learner.network) == before
    assert all(parameter.grad is None for parameter in learner.network.parameters())
    assert all(parameter.grad is not None for parameter in learner.attention.parameters())


def test_under_a_mask_the_network_is_the_slimmed_one(network: Network, digits_data: Data) -> None:
    learner = attentive(network, Budget(macs="50%"))
    with torch.no_grad():
        for attention in learner.attention:
            attention.bias.normal_()  # type: ignore[union-attr, operator]
    learner.begin_epoch(RECIPE.epochs - 1)
    slimmed = slim(network, learner.structure(), NestedRanking.by_importance(learner.importances())).eval()
    images = digits_data.test_set()[0][:16]
    with torch.no_grad():
        assert torch.allclose(learner.network.eval()(images), slimmed(images), atol=1e-4)


def test_a_channel_that_nothing_reads_is_only_a_cost(network: Network, digits_data: Data) -> None:
    model = make_model("resnet8", in_channels=1, image_size=8)
    model.load_state_dict(network.model.state_dict())
    with torch.no_grad():
        model.get_submodule("layer1.0.conv2").weight[:, ::2] = 0.0  # type: ignore[index, operator]
    dead = trace(model.eval(), network.example_inputs)
    group = [group.name for group in dead.space.groups].index("layer1.0.conv1")
    learner = attentive(dead, Budget(macs="50%"))
    images, labels = (part[:64] for part in digits_data.train)  # type: ignore[union-attr]
    learner._attention_loss((images, labels)).backward()  # type: ignore[no-untyped-call]
    gradient = learner.attention[group].bias.grad  # type: ignore[union-attr]
    costs = torch.split(learner.costs, [len(units) for units in dead.units])
    price = float(learner.strength * costs[group][0] / learner.costs.sum())
    assert torch.allclose(gradient[::2], torch.full((8,), price), rtol=1e-4)
    assert bool(((gradient[1::2] - price).abs() > 1e-3 * price).all())


@pytest.fixture(scope="module")
def pruned(network: Network, digits_data: Data) -> AttentionPruned:
    return paam(network, few(digits_data), budget=Budget(macs="40%", params="50%"), recipe=RECIPE)


def test_the_budget_is_met_exactly_and_used_up(network: Network, pruned: AttentionPruned) -> None:
    feasible = Budget(macs="40%", params="50%").check(network.space)
    cost = network.space.cost(pruned.structure)
    assert admits(feasible, cost)
    assert count(pruned.model, network.example_inputs) == cost
    assert min(pruned.structure) >= 1
    assert np.array_equal(feasible.widen([pruned.structure])[0], pruned.structure)  # no group could be wider


def test_kept_units_have_the_highest_scores_of_their_group(network: Network, pruned: AttentionPruned) -> None:
    assert len(pruned.scores) == len(network.space.groups)
    for index, scores in enumerate(pruned.scores):
        kept = pruned.ranking.keep(index, pruned.structure[index] // network.space.groups[index].unit)
        dropped = np.setdiff1d(np.arange(len(scores)), kept)
        assert len(dropped) == 0 or scores[kept].min() >= scores[dropped].max()


def test_a_search_goes_on_from_what_was_learnt(digits_data: Data, pruned: AttentionPruned) -> None:
    result = search(
        pruned.network,
        few(digits_data),
        budget=Budget(macs="40%", params="50%"),
        searcher="global",
        scoring=Scoring(criterion=pruned.ranking),
    )
    assert result.best.structure == pruned.structure  # from the same scores by the same threshold


def test_the_pruned_network_is_plain_and_can_be_exported(network: Network, pruned: AttentionPruned) -> None:
    assert type(pruned.model) is type(network.model)
    assert not any(module._forward_pre_hooks for module in pruned.model.modules())
    images = torch.randn(3, 1, 8, 8)
    exported = export_program(pruned.model, images).module()
    with torch.no_grad():
        assert torch.allclose(exported(images), pruned.model(images), atol=1e-5)


def test_model_and_generators_stay_and_every_epoch_is_reported(network: Network, digits_data: Data) -> None:
    before = state_of(network.model), generators()
    result = paam(network, few(digits_data), budget=Budget(macs="60%"), recipe=replace(RECIPE, from_scratch=True))
    assert (state_of(network.model), generators()) == before
    assert [report.epoch for report in result.reports] == [1, 2, 3, 4, 1, 2, 3]
    assert not torch.equal(result.network.model.conv1.weight, network.model.conv1.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("stop", [12, 23])
def test_an_interrupted_run_goes_on_in_either_phase(
    network: Network, digits_data: Data, pruned: AttentionPruned, tmp_path: Path, stop: int
) -> None:
    steps = 0

    def interrupt(report: StepReport) -> None:
        nonlocal steps
        steps += 1
        if steps == stop:
            raise KeyboardInterrupt

    settings = {"budget": Budget(macs="40%", params="50%"), "recipe": RECIPE, "checkpoint": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        paam(network, few(digits_data), on_step=interrupt, **settings)  # type: ignore[arg-type]
    again = paam(network, few(digits_data), **settings)  # type: ignore[arg-type]
    assert again.structure == pruned.structure
    assert state_of(again.model) == state_of(pruned.model)


def test_a_checkpoint_of_other_widths_or_another_table_is_refused(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    table = toy_table(network.space)
    milliseconds = 0.6 * float(LatencyModel(table, network.space).predict([network.space.full])[0])

    def run(network: Network, table: LatencyTable, **more: Any) -> AttentionPruned:
        budget = Budget(latency_ms=milliseconds, table=table)
        return paam(network, few(digits_data), budget=budget, recipe=RECIPE, checkpoint=tmp_path / "run", **more)

    def interrupt(report: StepReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(network, table, on_step=interrupt)
    rounded = trace(network.model, network.example_inputs, round_to=8)
    with pytest.raises(CheckpointError, match="of another training: space was"):
        run(rounded, table)
    with pytest.raises(CheckpointError, match=r"of another training: by was \['table \w+'\], now it is"):
        run(network, toy_table(network.space, cliff=1.1))


def test_too_few_epochs_and_impossible_budgets_are_refused(network: Network, digits_data: Data) -> None:
    with pytest.raises(ValueError, match="at least 3 epochs with live scores and 1 of finetuning, got 2 of 4"):
        paam(network, digits_data, budget=Budget(macs="50%"), recipe=Recipe(epochs=4))
    with pytest.raises(InfeasibleBudget):
        paam(network, digits_data, budget=Budget(macs=10), recipe=RECIPE)


def test_a_residual_stream_has_one_score_per_channel_from_all_its_producers(network: Network) -> None:
    learner = attentive(network, Budget(macs="50%"))
    stream = [group.name for group in network.space.groups].index("conv1")
    tensors = [cut.tensor for cut, _ in learner._filters[stream]]
    assert {"conv1.weight", "layer1.0.conv2.weight"} <= set(tensors)
    assert learner.attention[stream].bias.shape == (len(network.units[stream]),)  # type: ignore[union-attr]


@pytest.mark.parametrize("more", [{"features": ("conv",)}, {"patience": 2}])
def test_what_the_finetuning_could_not_do_is_refused_before_the_first_epoch(
    more: dict[str, Any], network: Network, digits_data: Data
) -> None:
    done: list[Any] = []
    recipe = Recipe(epochs=5, batch_size=64, **more)
    with pytest.raises(ValueError, match=r"features|validation"):
        paam(network, few(digits_data), budget="macs=60%", recipe=recipe, on_epoch=done.append)
    assert not done


class TwoHeads(nn.Module):
    """With one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3)
        self.one, self.other = nn.Linear(6, 2), nn.Linear(6, 2)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3))
        return self.one(h) + self.other(h)


def test_attention_learns_with_tied_weights() -> None:
    torch.manual_seed(0)
    images = torch.randn(32, 1, 8, 8)
    data = Data(train=(images, torch.arange(32) % 2), calibration=16)
    traced = trace(TwoHeads().eval(), images[:2])
    found = paam(traced, data, budget="macs=60%", recipe=Recipe(epochs=5, batch_size=8)).model
    assert isinstance(found, TwoHeads)
    assert found.one.weight is found.other.weight


class OverImages(nn.Module):
    """A GroupNorm for (n, positions, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm, OverImages])
def test_under_a_mask_norms_over_channels_see_those_that_stay(norm: type[nn.Module]) -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), norm(8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.patch(x).flatten(2).transpose(1, 2)).mean(1))

    torch.manual_seed(0)
    images = torch.randn(4, 3, 8, 8)
    traced, structure = trace(Patches().eval(), images[:2]), (4,)
    ranking = NestedRanking.by_importance([np.arange(float(traced.space.groups[0].units))])
    feasible = as_budget("macs=60%").check(traced)
    learner = Attentive(traced, feasible, AttentionSettings(), Recipe(), 0, 3, make_task("classification"))
    learner.mask.copy_(torch.from_numpy(kept_units(traced, structure, ranking)))
    small = slim(traced, structure, ranking).eval()
    torch.testing.assert_close(learner.network.eval()(images), small(images))
