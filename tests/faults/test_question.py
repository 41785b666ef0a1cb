"""F8, F10 to F15: other questions, chance level, budgets, costs, odd networks, the caller's state."""

from __future__ import annotations

import copy
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch import _version, preparation
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from prunesearch.study.store import Store
from prunesearch.training.data import Data
from tests.faults.tally import Tally
from tests.models_state import generators, state_of
from tests.toys import admits

pytestmark = pytest.mark.faults
BUDGET = ps.Budget(macs="50%")


def test_every_changed_field_of_the_question_is_refused_by_name_before_anything_is_scored(
    network: Network, digits_data: Data, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    same: dict[str, Any] = {"budget": BUDGET, "n_trials": 6, "searcher": "random", "study": url, "study_name": "a"}
    before = ps.search(network, digits_data, **same).trials
    retrained = copy.deepcopy(network.model)
    next(retrained.parameters()).data.mul_(1.001)
    changes: dict[str, tuple[Network, Data, dict[str, Any]]] = {
        "model": (ps.trace(retrained, images[:2]), digits_data, {}),
        "space": (ps.trace(network.model, images[:2], round_to=2), digits_data, {}),
        "data": (network, Data(train=digits_data.train, calibration=255), {}),
        "budget": (network, digits_data, {"budget": ps.Budget(macs="40%")}),
        "searcher": (network, digits_data, {"searcher": "evolution"}),
        "seed": (network, digits_data, {"seed": 1}),
        "criterion": (network, digits_data, {"scoring": ps.Scoring(criterion="l2")}),
        "weight_source": (network, digits_data, {"scoring": ps.Scoring(weight_source="compensated")}),
        "evaluator": (network, digits_data, {"scoring": ps.Scoring(metric="accuracy")}),
    }

    def must_not_score(*_: object) -> list[float]:
        pytest.fail("something was scored")

    with monkeypatch.context() as patched:
        patched.setattr("prunesearch.study.executors.score_all", must_not_score)  # a trial, that is
        for field, (traced, data, change) in changes.items():
            with pytest.raises(ps.StudyMismatch) as caught:
                ps.search(traced, data, **{**same, **change})
            assert caught.value.field == field
        patched.setattr(preparation, "__version__", _version.__version__ + ".1")
        with pytest.raises(ps.StudyMismatch) as caught:
            ps.search(network, digits_data, **same)
        assert caught.value.field == "versions"
    workers, callbacks = ps.Running(workers=2), ps.Running(callbacks=[ps.stop_after(100.0)])
    for allowed in ({"n_trials": 8}, {"running": workers}, {"running": callbacks}):
        found = ps.search(network, digits_data, **{**same, **allowed})
        assert found.trials[:6] == before
    tally.add("F8", "each field of the question, one at a time: refused by name, nothing scored", len(changes) + 1)


def test_a_tighter_budget_never_gets_a_winner_of_the_looser_one(
    network: Network, digits_data: Data, tmp_path: Path, tally: Tally
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for share in ("100%", "70%", "50%", "30%"):
        budget = ps.Budget(macs=share)
        found = ps.search(network, digits_data, budget=budget, n_trials=8, searcher="random", study=url)
        feasible = budget.check(network.space)
        assert all(admits(feasible, trial.cost) for trial in found.trials)
        assert admits(feasible, ps.count(found.best.build(), network.example_inputs))
    with closing(Store(url, create=False)) as store:
        assert len(store.studies()) == 4
    tally.add("F8", "the same file with tighter and tighter budgets: every winner meets its own", 4)


def test_scores_at_chance_level_are_diagnosed(network: Network, digits_data: Data, tally: Tally) -> None:
    images, labels = digits_data.train  # type: ignore[misc]
    wrong = Data(train=(images, labels.flip(0)), calibration=256)
    found = ps.search(network, wrong, budget=BUDGET, searcher="random", n_trials=2)
    assert "chance" in found.notes[0]
    tally.add("F10", "labels of other images: said so beside the result", 1)


@pytest.mark.parametrize("budget", [{"macs": "0.01%"}, {"params": 1}, {"macs": "50%", "params": "0.01%"}])
def test_a_budget_out_of_reach_is_refused_with_the_range(
    network: Network, digits_data: Data, budget: dict[str, Any], tally: Tally
) -> None:
    with pytest.raises(ps.InfeasibleBudget, match="The space reaches from") as caught:
        ps.search(network, digits_data, budget=ps.Budget(**budget))
    assert caught.value.reachable[0] > caught.value.limit
    tally.add("F11", "below the smallest structure, alone and with another limit", 1)


@pytest.mark.parametrize("macs", ["0%", "-5%", 0, -1, "nan%", "many"])
def test_a_budget_that_is_none_is_refused(macs: Any, tally: Tally) -> None:
    with pytest.raises((ValueError, TypeError)):
        ps.Budget(macs=macs)
    tally.add("F11", "zero, negative, no number", 1)


def test_costs_of_random_structures_are_those_of_the_built_networks(images: Tensor, tally: Tally) -> None:
    rng, tries = np.random.default_rng(0), 0
    for name, size in (("resnet8", 60), ("resnet8b", 40), ("vgg11", 40), ("mobilenet_v2", 15), ("mlp", 60)):
        model = ps.make_model(name, in_channels=1, image_size=8 if name != "vgg11" else 32)
        inputs = images[:2] if name != "vgg11" else torch.zeros(2, 1, 32, 32)
        network = trace(model, inputs)
        weights = InheritedWeights(network, _first(network))
        structures = [tuple(row) for row in network.space.sample(rng, size).tolist()]
        for structure in structures:
            assert ps.count(weights.build(structure), network.example_inputs) == network.space.cost(structure)
            tries += 1
    tally.add("F12", "built and counted; five networks of the zoo", tries)


def _first(network: Network) -> Any:
    from prunesearch.evaluators.channels import make_criterion

    return make_criterion("l1", seed=0).rank(network)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_masked_and_built_networks_of_torchvision_agree(name: str, tally: Tally) -> None:
    from torchvision import models

    network = trace(models.get_model(name, weights=None, num_classes=10).eval(), torch.randn(2, 3, 64, 64))
    found = network.verify(3)
    assert found.largest_difference <= 1e-5 * max(1.0, found.scale)
    assert found.costs_exact
    tally.add("F13", "four of torchvision here; docs/coverage.md has all", 3)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(torch.relu(self.conv(torch.relu(self.first(x)))))
        return self.out(x.mean((2, 3)))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


ODD = {
    "no BatchNorm": nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)),
    "groups": nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=4), nn.Flatten(), nn.Linear(128, 10)),
    "weights used twice": Tied(),
    "train mode": nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10)).train(),
    "one channel": nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(128, 10)),
}


@pytest.mark.parametrize("model", ODD.values(), ids=ODD)
def test_odd_networks_are_searched(model: nn.Module, tally: Tally) -> None:
    data = Data(train=(torch.randn(64, 1, 8, 8), torch.arange(64) % 10), calibration=64)
    network = ps.trace(model, torch.randn(2, 1, 8, 8))
    found = ps.search(network, data, budget=ps.Budget(params="90%"), searcher="random", n_trials=3)
    assert ps.count(found.best.build(), network.example_inputs) == found.best.cost
    tally.add("F14", "no BatchNorm, groups, weights used twice, train mode, one channel: searched", 1)


def test_control_flow_on_data_is_refused_naming_the_module(tally: Tally) -> None:
    with pytest.raises(ps.TraceError, match="module '1' decides by the values of its data"):
        ps.trace(nn.Sequential(nn.Conv2d(1, 8, 3), Branching()), torch.randn(2, 1, 8, 8))
    tally.add("F14", "control flow on data: refused, naming the module", 1)


class Stop(Exception):
    pass


def test_the_callers_model_and_generators_are_untouched_also_when_it_ends_badly(
    network: Network, digits_data: Data, tally: Tally
) -> None:
    def fail(event: ps.Event) -> bool:
        raise Stop

    def interrupt(event: ps.Event) -> bool:
        raise KeyboardInterrupt

    before = state_of(network.model), generators()
    for callbacks, expected in (([fail], Stop), ([interrupt], KeyboardInterrupt)):
        for workers in (1, 2):
            with pytest.raises(expected):
                ps.search(
                    network,
                    digits_data,
                    budget=BUDGET,
                    n_trials=4,
                    running=ps.Running(callbacks=callbacks, workers=workers),
                )
            assert (state_of(network.model), generators()) == before
    with pytest.raises(ps.InfeasibleBudget):
        ps.search(network, digits_data, budget=ps.Budget(macs="0.01%"))
    assert (state_of(network.model), generators()) == before
    tally.add("F15", "a callback raises, an interrupt, a budget out of reach: bit-identical", 5)
