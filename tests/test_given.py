"""What may be given to a search instead of what it works with: it is understood, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import prunesearch as ps
from prunesearch.budget import as_budget
from prunesearch.evaluators.channels.l2 import L2Criterion
from prunesearch.latency_table import LatencyTable, as_table
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.running import as_callbacks
from prunesearch.search.random_search import RandomSearcher
from prunesearch.structure import IntArray, Structure
from prunesearch.training.data import Data
from tests.asking import asking
from tests.toys import chain_space, toy_table

BUDGET = ps.Budget(macs="50%")
IMAGES, LABELS = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(x)

    def answer(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))


def network() -> Network:
    return ps.trace(Net(), IMAGES[:2])


def history(result: ps.SearchResult) -> list[tuple[Structure, float | None]]:
    return [(trial.structure, trial.score) for trial in result.trials]


def search(net: Any = None, data: Any = (IMAGES, LABELS), **settings: Any) -> ps.SearchResult:
    usual = {"budget": BUDGET, "n_trials": 4, "searcher": "random"}
    return ps.search(network() if net is None else net, data, **asking(**{**usual, **settings}))


def kinds(value: Any) -> str:
    """What a test is given, in words that are the same in every process."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{name} {getattr(item, '__name__', type(item).__name__)}" for name, item in value.items())


@pytest.mark.parametrize(
    "change",
    [
        {"net": Net()},
        {"budget": "macs=50%"},
        {"data": Data(train=(IMAGES, LABELS))},
        {"data": TensorDataset(IMAGES, LABELS)},
        {"data": DataLoader(TensorDataset(IMAGES, LABELS), batch_size=5)},
        {"data": (IMAGES.numpy(), LABELS.numpy())},
        {"searcher": RandomSearcher},
        {"searcher": RandomSearcher(network().space, BUDGET)},
        {"criterion": NestedRanking.by_importance(L2Criterion().rank(network()).scores or ()), "as": "l2"},
        {"criterion": L2Criterion(), "as": "l2"},
        {"workers": 1, "callbacks": lambda event: None},
    ],
    ids=kinds,
)
def test_what_is_understood_gives_what_it_stands_for(change: dict[str, Any]) -> None:
    criterion = change.pop("as", None)
    expected = search() if criterion is None else search(criterion=criterion)
    assert history(search(**change)) == history(expected)


class Keeping:
    """A ranking and nothing else, as somebody else may write it."""

    def keep(self, group: int, units: int) -> IntArray:
        return np.arange(units)


class Ranking:
    def rank(self, network: Network, examples: ps.Examples | None = None) -> Keeping:
        assert examples is not None
        return Keeping()


class ByWidth:
    """An evaluator that somebody else wrote: narrow first layers are best."""

    description = "by width"

    def score(self, structures: Sequence[Structure]) -> list[float]:
        return [-float(structure[0]) for structure in structures]


def test_an_evaluator_object_scores_as_it_likes() -> None:
    result = search(evaluator=ByWidth())
    assert [trial.score for trial in result.trials] == ByWidth().score([trial.structure for trial in result.trials])
    assert result.trials[0].evaluator == "by width"
    assert "score -" in str(result)
    assert result.unpruned == -16.0


@pytest.mark.parametrize("criterion", [Ranking(), Keeping(), L2Criterion()])
def test_a_study_with_objects_goes_on_with_equal_ones_and_refuses_others(criterion: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    settings = {"criterion": criterion, "evaluator": ByWidth(), "study": url}
    part = search(n_trials=2, **settings)
    again = {**settings, "criterion": type(criterion)(), "evaluator": ByWidth()}
    assert search(**again).trials[:2] == part.trials
    with pytest.raises(ps.StudyMismatch, match="its criterion is"):
        search(**{**settings, "criterion": "bn_scale"}, study_name="search")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluator": ByWidth(), "images": 8}, "images is only for a named evaluator"),
        ({"evaluator": ByWidth(), "evaluator_options": {"batch_size": 8}}, "evaluator_options is only for"),
        ({"criterion": Ranking(), "criterion_options": {"seed": 1}}, "criterion_options is only for"),
        (
            {"searcher": RandomSearcher(network().space, BUDGET), "options": {"x": 1}},
            "options is only for a named searcher",
        ),
        ({"net": "resnet18"}, "Expected network as trace.*got 'resnet18'"),
        ({"net": Net}, "Expected network as trace.*got the class Net"),
    ],
    ids=kinds,
)
def test_settings_that_nobody_would_look_at_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        search(**change)


def test_a_table_may_be_the_path_of_its_file(tmp_path: Path) -> None:
    toy_table(chain_space()).save(tmp_path / "table.json")
    table = LatencyTable.load(tmp_path / "table.json")
    assert as_table(tmp_path / "table.json") == as_table(str(tmp_path / "table.json")) == table
    expected = ps.Budget(latency_ms="60%", table=table)
    assert ps.Budget(latency_ms="60%", table=str(tmp_path / "table.json")) == expected  # type: ignore[arg-type]
    assert as_budget("latency_ms=60%", tmp_path / "table.json") == expected
    assert as_budget(expected) is expected
    with pytest.raises(ValueError, match="one latency table, got two"):
        as_budget(expected, table)


def test_a_budget_that_is_resolved_is_as_good_as_one_that_is_not() -> None:
    traced = network()
    resolved = BUDGET.check(traced)
    assert as_budget(resolved) is resolved
    found = search(traced, budget=resolved)
    assert history(found) == history(search(traced))
    assert found.within(ps.Budget(macs="45%").check(traced)) == found.within("macs=45%")
    with pytest.raises(ValueError, match="resolved already"):
        as_budget(resolved, toy_table(chain_space()))
    with pytest.raises(ValueError, match="to be resolved for"):
        search(traced, budget=BUDGET.check(chain_space()))


def test_trials_within_a_limit_of_memory_are_found_though_only_the_network_knows_it() -> None:
    traced = network()
    found = search(traced, n_trials=8).within("peak_memory=60%")
    assert ps.Budget(peak_memory="60%").check(traced).contains([found.structure])[0]


def test_one_callback_is_as_good_as_a_list_of_one() -> None:
    assert as_callbacks(print) == as_callbacks([print]) == as_callbacks((print,)) == (print,)
    assert as_callbacks(()) == ()


def test_a_searcher_that_is_bound_to_its_budget_cannot_follow_a_lower_one() -> None:
    with pytest.raises(ValueError, match="Give the class of the searcher instead of an object"):
        search(verifiers="latency", searcher=RandomSearcher(network().space, BUDGET))


class Keywords(Net):
    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        return self.answer(x)


class Star(Net):
    def forward(self, *inputs: Tensor) -> Tensor:
        return self.answer(inputs[0])


class Optional(Net):
    def forward(self, x: Tensor, scale: Tensor | None = None, *, shift: float = 0.0) -> Tensor:
        return self.answer(x if scale is None else x * scale)


class Two(Net):
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.answer(x + z)


@pytest.mark.parametrize("kind", [Optional, Keywords, Star])
def test_other_arguments_of_a_forward_may_be_left_out(kind: type[Net]) -> None:
    net = kind()
    result = search(net)
    assert history(result) == history(search(Net()))
    small = ps.finetune(result.best.build(), (IMAGES, LABELS), recipe=ps.Recipe(epochs=1, batch_size=16), teacher=net)
    assert ps.count(small, IMAGES[:1]) == result.best.cost


def test_data_of_one_input_are_refused_by_a_network_of_two_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\), got one tensor: the input 1 is missing"):
        search(ps.trace(Two(), (IMAGES[:2], IMAGES[:2])))
    with pytest.raises(ValueError, match=r"Two cannot run on images .*missing 1 required positional argument: 'z'"):
        ps.finetune(Two(), (IMAGES, LABELS), recipe=ps.Recipe(epochs=1))


@pytest.mark.parametrize("name", ["first.weight", "head.bias"])
@pytest.mark.parametrize("use", ["finetune", "teacher"])
def test_weights_that_are_no_numbers_are_named(name: str, use: str) -> None:
    net, recipe = Net(), ps.Recipe(epochs=1)
    net.get_parameter(name).data.flatten()[0] = float("nan")
    uses = {
        "finetune": lambda: ps.finetune(net, (IMAGES, LABELS), recipe=recipe),
        "teacher": lambda: ps.finetune(Net(), (IMAGES, LABELS), recipe=recipe, teacher=net),
    }
    with pytest.raises(ValueError, match=f"{name} of Net holds NaN"):
        uses[use]()


def test_weights_without_values_are_refused_in_a_sentence() -> None:
    with torch.device("meta"):
        net = Net()
    with pytest.raises(ValueError, match=r"first\.weight of Net is on the meta device"):
        ps.finetune(net, (IMAGES, LABELS))
    with pytest.raises(ValueError, match=r"first\.weight of Net is on the meta device"):
        ps.top1(net, IMAGES, LABELS)
    with pytest.raises(ValueError, match="The images are on the meta device"):
        ps.top1(Net(), IMAGES.to("meta"), LABELS)


@pytest.mark.parametrize(("images", "labels"), [(48, 47), (47, 48), (0, 0)])
def test_accuracy_wants_one_label_per_image(images: int, labels: int) -> None:
    with pytest.raises(ValueError, match=r"Expected one label per image \(4[78]\), got|Expected images to score with"):
        ps.top1(Net(), IMAGES[:images], LABELS[:labels])


def test_networks_are_compared_with_what_they_are() -> None:
    net = network()
    with pytest.raises(TypeError, match=r"Expected network as trace.*got Net"):
        ps.compare(Net())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Expected data as Data.*got tuple"):
        ps.compare(net, data=(IMAGES, LABELS))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="modules by name, got str under 'small'"):
        ps.compare(net, {"small": "small.st"})  # type: ignore[dict-item]
