"""The whole job in one call, and step by step with a training of the caller's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import prunesearch as ps
from prunesearch.models.network import Network
from prunesearch.training.data import Data
from tests.models_state import state_of

SHORT = ps.Recipe(epochs=1, batch_size=64, lr=0.01)
L1 = ps.Scoring(criterion="l1", images=64)  # takes no time; the default takes half of a search, more images curves


def few(digits_data: Data) -> Data:
    images, labels = digits_data.train  # type: ignore[misc]
    test = digits_data.test_set()
    return Data(train=(images[:320], labels[:320]), test=(test[0][:100], test[1][:100]), calibration=128)


def test_one_call_does_everything_and_goes_on_in_its_folder(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    before, said = state_of(network.model), []
    data = few(digits_data)
    small = ps.prune(
        network.model, data, "macs=50%", recipe=SHORT, n_trials=8, scoring=L1, folder=tmp_path, say=said.append
    )
    cost, full = (ps.count(model, data.examples(1)) for model in (small, network.model))
    assert cost.macs <= 0.5 * full.macs
    assert said[0].startswith("Traced ResNet: ")
    assert said[1].startswith("Found: best of 8 structures: loss ")
    accuracy = ps.top1(small, *data.test_set())
    assert said[-1].startswith(f"ResNet: MACs {full.macs:,} -> {cost.macs:,} (")
    assert said[-1].endswith(
        f"accuracy on 100 test examples {ps.top1(network.model, *data.test_set()):.2%} -> {accuracy:.2%}."
    )
    assert state_of(network.model) == before
    again = ps.prune(network.model, data, "macs=50%", recipe=SHORT, n_trials=8, scoring=L1, folder=tmp_path, say=None)
    assert state_of(again) == state_of(small)
    assert state_of(ps.load(tmp_path / "pruned.safetensors", network.model)) == state_of(small)


def test_a_training_that_is_stopped_goes_on_where_it_was(network: Network, digits_data: Data, tmp_path: Path) -> None:
    steps: list[int] = []

    def stop_at_three(report: ps.StepReport) -> None:
        steps.append(report.step)
        if steps == [1, 2, 3]:
            raise KeyboardInterrupt

    def prune() -> nn.Module:
        return ps.prune(
            network, few(digits_data), "macs=50%", recipe=SHORT, scoring=L1, n_trials=2, say=None, folder=tmp_path,
            on_step=stop_at_three,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        prune()
    prune()
    assert steps[:4] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (ps.Recipe(patience=2), "to stop early by"),
        (ps.Recipe(features=("nolayer",)), "no module 'nolayer' to take features of"),
        (ps.Recipe(augmentation=ps.Augmentation(crop=8)), "larger than crop=8 pixels to augment, got"),
    ],
    ids=["patience", "features", "augmentation"],
)
def test_a_recipe_that_does_not_fit_is_refused_before_the_search(
    network: Network, digits_data: Data, tmp_path: Path, recipe: ps.Recipe, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ps.prune(
            network, few(digits_data), "macs=50%", recipe=recipe, n_trials=8, scoring=L1, folder=tmp_path, say=None
        )
    assert not list(tmp_path.iterdir())


def test_what_is_said_is_printed_unless_told_otherwise(
    network: Network, digits_data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    data = few(digits_data)
    ps.prune(network, data, "macs=50%", recipe=SHORT, searcher="uniform", n_trials=1, scoring=L1)
    assert "-> " in capsys.readouterr().out.splitlines()[-1]
    ps.prune(network, data, "macs=50%", recipe=SHORT, searcher="uniform", n_trials=1, scoring=L1, say=None)
    assert capsys.readouterr().out == ""


def test_inputs_without_labels_are_pruned_by_one_call(network: Network, digits_data: Data) -> None:
    images = few(digits_data).examples(200)
    small = ps.prune(network.model, images, "macs=60%", recipe=SHORT, scoring=L1, n_trials=4, say=None)
    outputs, wanted = small(images), network.model(images)
    assert float((outputs.argmax(1) == wanted.argmax(1)).float().mean()) > 0.5


def in_place(data: Data, log: list[str]) -> Callable[[nn.Module], None]:
    def train(small: nn.Module) -> None:
        assert small.training
        log.append(f"{ps.count(small, data.examples(1)).macs}")
        optimizer = torch.optim.SGD(small.parameters(), lr=0.02, momentum=0.9)
        images, labels = data.train  # type: ignore[misc]
        for part in torch.arange(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(small(images[part]), labels[part]).backward()
            optimizer.step()

    return train


@pytest.mark.slow
def test_steps_tighten_in_terms_of_the_original_network_and_go_on_after_an_interrupt(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    before, data, log = state_of(network.model), few(digits_data), list[str]()
    full = network.space.cost(network.space.full).macs
    budgets = ["macs=75%", "macs=50%", ps.Budget(macs="30%", params="60%")]
    train = in_place(data, log)
    whole = ps.prune_in_steps(network.model, data, budgets, train, folder=tmp_path / "whole", scoring=L1, n_trials=6)
    costs = [int(cost) for cost in log]
    assert all(cost <= share * full for cost, share in zip(costs, (0.75, 0.5, 0.3), strict=True))
    assert costs[0] > costs[1] > costs[2]
    assert not whole.training

    def interrupted(small: nn.Module) -> None:
        if ps.count(small, data.examples(1)).macs <= 0.5 * full:
            raise KeyboardInterrupt
        train(small)

    with pytest.raises(KeyboardInterrupt):
        ps.prune_in_steps(network.model, data, budgets, interrupted, folder=tmp_path / "cut", scoring=L1, n_trials=6)
    said: list[str] = []
    again = ps.prune_in_steps(
        network.model, data, budgets, train, folder=tmp_path / "cut", scoring=L1, n_trials=6, say=said.append
    )
    assert said[0].startswith("Step 1 of 3 was done: ")
    assert said[1].startswith("Step 2 of 3: MACs ")
    assert state_of(again) == state_of(whole)
    assert state_of(network.model) == before


def test_a_network_that_meets_the_next_budget_already_is_trained_as_it_is(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    data, log = few(digits_data), list[str]()
    ps.prune_in_steps(
        network.model,
        data,
        ["macs=50%", "macs=50%"],
        in_place(data, log),
        folder=tmp_path,
        searcher="uniform",
        n_trials=1,
        scoring=L1,
    )
    assert log[0] == log[1]


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_loop_leaves_on_the_network_does_not_stay(
    network: Network, digits_data: Data, tmp_path: Path, wrapped: bool
) -> None:
    data = few(digits_data)

    def train(small: nn.Module) -> nn.Module:
        with torch.no_grad():
            small.get_parameter("bn1.bias").fill_(0.5)
        small.forward = partial(small.forward)  # as accelerate does for mixed precision
        return nn.DataParallel(small) if wrapped else small

    small = ps.prune_in_steps(
        network.model,
        data,
        ["macs=70%", "macs=50%"],
        train,
        folder=tmp_path,
        searcher="uniform",
        n_trials=1,
        scoring=L1,
    )
    assert type(small) is type(network.model)
    assert "forward" not in vars(small)
    assert torch.equal(small.get_parameter("bn1.bias"), torch.full_like(small.get_parameter("bn1.bias"), 0.5))
    assert ps.count(small, data.examples(1)).macs <= 0.5 * network.space.cost(network.space.full).macs


@pytest.mark.parametrize(
    ("budgets", "train", "error", "sentence"),
    [
        ([], None, ValueError, "Expected at least one budget"),
        (["macs=50%", "macs=60%"], None, ValueError, "macs=60% is looser in macs than the "),
        (["macs=50%", "params=50%"], None, ValueError, "params=50% is looser in macs than the "),
        (["macs=50%"], lambda small: 3, TypeError, "Expected train to return a torch.nn.Module, .*; got int"),
        (["macs=50%"], lambda small: nn.Flatten(), ValueError, "Expected train to give back the network that it was"),
        (["macs=50%"], nn.Sequential, ValueError, "ResNet; got Sequential, and only one of the two has 0.bn1.bias of "),
    ],
)
def test_steps_that_make_no_sense_are_refused(
    network: Network,
    digits_data: Data,
    tmp_path: Path,
    budgets: list[str],
    train: Callable[[nn.Module], nn.Module],
    error: type[Exception],
    sentence: str,
) -> None:
    with pytest.raises(error, match=sentence):
        ps.prune_in_steps(
            network.model,
            few(digits_data),
            budgets,
            train,
            folder=tmp_path / "f",
            searcher="uniform",
            n_trials=1,
            scoring=L1,
        )


@pytest.mark.parametrize("name", ["study", "study_name", "budget"])
def test_what_the_call_decides_itself_is_refused(
    network: Network, digits_data: Data, name: str, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=name):
        ps.prune_in_steps(network.model, few(digits_data), ["macs=50%"], print, folder=tmp_path, **{name: "x"})  # type: ignore[arg-type]


def test_the_best_few_are_different_structures_best_first(network: Network, digits_data: Data) -> None:
    result = ps.search(network, few(digits_data), budget="macs=50%", n_trials=12, searcher="random", scoring=L1)
    top = result.top(5)
    assert len({winner.structure for winner in top}) == len(top) == 5
    assert [winner.trial.assured for winner in top] == sorted((winner.trial.assured for winner in top), reverse=True)
    assert top[0].trial == result.best.trial
    assert state_of(result.build(top[1].trial)) == state_of(top[1].build())
    with pytest.raises(ValueError, match="k"):
        result.top(0)


def uniformly(model: Any, budgets: list[str], folder: Path, data: Data, **more: Any) -> nn.Module:
    """Steps without training."""
    return ps.prune_in_steps(
        model, data, budgets, lambda small: None, folder=folder, searcher="uniform", n_trials=1, **more
    )


def test_steps_of_another_network_budget_or_seed_are_not_taken_over(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    data, other = few(digits_data), copy.deepcopy(network.model)
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    whole = uniformly(network.model, ["macs=80%"], tmp_path, data)
    assert state_of(uniformly(network.model, ["macs=80%"], tmp_path, data)) == state_of(whole)
    for model, budget, seed, differs in (
        (network.model, "macs=30%", 0, "limits"),
        (other, "macs=80%", 0, "network"),
        (network.model, "macs=80%", 1, "seed"),
    ):
        with pytest.raises(ps.StudyMismatch, match=f"is of other steps: its {differs} was"):
            uniformly(model, [budget], tmp_path, data, seed=seed)
    further = uniformly(network.model, ["macs=80%", "macs=50%"], tmp_path, data)
    assert ps.count(further, data.examples(1)).macs <= 0.5 * ps.count(network.model, data.examples(1)).macs


def test_layers_that_a_traced_network_leaves_alone_stay_so_in_every_step(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    data = few(digits_data)
    name, layer = next((n, m) for n, m in network.model.named_modules() if isinstance(m, nn.Conv2d))
    traced = ps.trace(network.model, network.example_inputs, ignored_layers=[name])
    small = uniformly(traced, ["macs=90%", "macs=60%"], tmp_path, data)
    kept = small.get_submodule(name)
    assert isinstance(kept, nn.Conv2d)
    assert kept.out_channels == layer.out_channels
