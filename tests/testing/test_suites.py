"""The suites that authors outside run find what breaks a promise, and pass what keeps them all, also without pytest."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunesearch import testing
from prunesearch.budget import Budget
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from prunesearch.search.random_search import RandomSearcher
from prunesearch.structure import IntArray, Space, Structure
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.task import Task
from prunesearch.testing import (
    CriterionContract,
    EvaluatorContract,
    ResourceContract,
    SearcherContract,
    Subject,
    TaskContract,
    WeightSourceContract,
)
from prunesearch.trial import Trial


@cache
def tiny() -> Subject:
    """A network that takes milliseconds, on images of two kinds that it was made to tell apart."""
    torch_seed = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.randn(64, 1, 6, 6, generator=torch_seed) + 3 * (labels * 2.0 - 1)[:, None, None, None]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        optimizer.zero_grad()
    return Subject(trace(model.eval(), images[:2]), labelled(images, labels))


def broken(suite: Any) -> set[str]:
    """The promises that are not kept."""
    return {promise.__name__.removeprefix("test_") for promise in testing.promises(suite) if not is_kept(promise)}


def is_kept(promise: Callable[[], object]) -> bool:
    try:
        promise()
    except AssertionError as error:
        if not str(error).startswith("Expected"):
            raise
        return False
    return True


class Searchers(SearcherContract):
    searcher = RandomSearcher

    def test_the_same_proposals_come_in_another_process_with_another_hash_seed(self) -> None:
        """That takes a process each time; it has a test of its own."""


class Walker(RandomSearcher):
    """Keeps all promises."""

    def __init__(self, space: Space, budget: Budget, *, seed: int = 0) -> None:
        super().__init__(space, budget, seed=seed)
        self.space = space


class OverBudget(Walker):
    def ask(self, n: int) -> list[Structure]:
        return [self.space.full, *super().ask(n)][:n]


class Forgets(RandomSearcher):
    def tell(self, trials: Sequence[Trial]) -> None:
        """What was scored elsewhere is proposed again."""


class Drawing(RandomSearcher):
    def ask(self, n: int) -> list[Structure]:
        np.random.random()  # noqa: NPY002
        return super().ask(n)


class Generous(RandomSearcher):
    def ask(self, n: int) -> list[Structure]:
        return super().ask(n + 1)


class Irreproducible(RandomSearcher):
    calls = itertools.count()

    def __init__(self, space: Space, budget: Budget, *, seed: int = 0) -> None:
        super().__init__(space, budget, seed=next(self.calls))


class Restless(Walker):
    def ask(self, n: int) -> list[Structure]:
        return super().ask(n) or [self.space.minimum]


class Strict(RandomSearcher):
    def tell(self, trials: Sequence[Trial]) -> None:
        assert all(trial.score is not None for trial in trials), "Expected scores"
        super().tell(trials)


class Careless(RandomSearcher):
    def __init__(self, space: Space, budget: Budget, *, seed: int = 0, **others: Any) -> None:
        super().__init__(space, budget, seed=seed)


class Backwards(RandomSearcher):
    def ask(self, n: int) -> list[Structure]:
        return super().ask(n)[::-1]


PROPOSALS = "every_proposal_is_in_the_space_within_the_budget_and_new"


@pytest.mark.parametrize(
    ("searcher", "promise"),
    [
        (OverBudget, PROPOSALS),
        (OverBudget, "full_width_a_hundred_times_over_the_budget_is_no_obstacle"),
        (Forgets, "structures_that_were_told_are_not_proposed_again"),
        (Drawing, "global_random_generators_are_left_as_they_were"),
        (Generous, "no_more_are_proposed_than_asked_for"),
        (Irreproducible, "the_same_seed_and_history_give_the_same_proposals"),
        (Irreproducible, "asking_for_fewer_gives_the_first_of_what_asking_for_more_would"),
        (Backwards, "asking_for_fewer_gives_the_first_of_what_asking_for_more_would"),
        (Restless, "a_small_space_is_exhausted_with_an_empty_ask_and_not_with_a_loop"),
        (Restless, "spaces_with_hardly_anything_to_choose_are_no_obstacle"),
        (Strict, "tell_takes_failed_tied_foreign_and_out_of_order_trials"),
        (Careless, "an_option_it_does_not_know_is_refused"),
    ],
)
def test_a_searcher_that_breaks_a_promise_is_found(searcher: type[RandomSearcher], promise: str) -> None:
    suite = Searchers()
    suite.searcher = searcher  # type: ignore[misc]
    assert not is_kept(getattr(suite, f"test_{promise}"))


def test_a_searcher_that_starts_all_the_same_under_a_budget_that_cannot_be_met_is_found() -> None:
    class Unrefusing(Searchers):
        def make(self, space: Space, budget: Budget, **options: Any) -> RandomSearcher:
            return RandomSearcher(space, budget if str(budget) != "macs=1" else Budget(macs="100%"), **options)

    assert broken(Unrefusing()) == {"an_infeasible_budget_is_refused_by_the_constructor_in_under_a_second"}


def test_a_searcher_that_keeps_its_promises_passes_without_pytest_and_without_torch() -> None:
    """Run from a program, in which nothing else was imported."""
    program = """
import sys
from prunesearch.testing import SearcherContract, promises
from prunesearch.search.random_search import RandomSearcher
class Suite(SearcherContract):
    searcher = RandomSearcher
    test_the_same_proposals_come_in_another_process_with_another_hash_seed = None
for promise in promises(Suite()):
    promise()
try:
    SearcherContract.test_the_same_proposals_come_in_another_process_with_another_hash_seed(Suite())
except AssertionError as error:
    assert "Expected a suite in a file" in str(error), error
else:
    sys.exit(4)
sys.exit(3 if {"pytest", "torch"} & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, "-O", "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class HashOrder(RandomSearcher):
    """Its proposals are in the order of a set of texts, which is another in each process."""

    def ask(self, n: int) -> list[Structure]:
        found = {str(structure): structure for structure in super().ask(n)}
        return [found[text] for text in {*found}]


class TestOtherProcess(SearcherContract):
    """Found by its name in the other process."""

    searcher = RandomSearcher

    @pytest.mark.slow
    def test_the_same_proposals_come_in_another_process_with_another_hash_seed(self) -> None:
        super().test_the_same_proposals_come_in_another_process_with_another_hash_seed()
        self.searcher = HashOrder  # type: ignore[misc]
        with pytest.raises(AssertionError, match="Expected the same proposals in another process, got others"):
            super().test_the_same_proposals_come_in_another_process_with_another_hash_seed()


class Criteria(CriterionContract):
    criterion = L1Criterion

    def subject(self) -> Subject:
        return tiny()


class Few:
    def keep(self, group: int, units: int) -> IntArray:
        return np.arange(min(units, 2))


class KeepsFew(L1Criterion):
    def rank(self, network: Network, examples: Any = None) -> Any:
        return Few()


class Luck(L1Criterion):
    calls = itertools.count()

    def rank(self, network: Network, examples: Any = None) -> NestedRanking:
        turned = next(self.calls) % 2
        return NestedRanking(tuple(tuple(range(group.units))[:: -1 if turned else 1] for group in network.space.groups))


class Changing(L1Criterion):
    def rank(self, network: Network, examples: Any = None) -> NestedRanking:
        network.model.train(not network.model.training)
        torch.rand(1)
        return super().rank(network, examples)


class Needy(L1Criterion):
    needs: Any = "inputs"


class Vague(L1Criterion):
    needs: Any = "everything"


@pytest.mark.parametrize(
    ("criterion", "promises"),
    [
        (L1Criterion, set()),
        (KeepsFew, {"it_keeps_as_many_units_as_asked_distinct_and_ascending"}),
        (Luck, {"the_same_seed_gives_the_same_ranking"}),
        (Changing, {"ranking_leaves_the_network_and_every_random_generator_as_they_were"}),
        (Needy, {"it_says_what_it_needs_and_refuses_without"}),
        (Vague, {"it_says_what_it_needs_and_refuses_without"}),
    ],
)
def test_a_criterion_that_breaks_a_promise_is_found(criterion: type[L1Criterion], promises: set[str]) -> None:
    suite = Criteria()
    suite.criterion = criterion  # type: ignore[misc]
    try:
        assert broken(suite) == promises
    finally:
        tiny().network.model.eval()


class Evaluators(EvaluatorContract):
    evaluator = AccuracyEvaluator

    def subject(self) -> Subject:
        return tiny()


class Wrong(AccuracyEvaluator):
    """An evaluator with something about it that a test says."""

    change: Callable[[AccuracyEvaluator, list[float]], list[float]]

    def score(self, structures: Sequence[Structure]) -> list[float]:
        return type(self).change(self, super().score(structures))


def wrong(change: Callable[[Any, list[float]], list[float]], **attributes: Any) -> type[AccuracyEvaluator]:
    return type("Wrong", (Wrong,), {"change": staticmethod(change), **attributes})


def remembering(evaluator: Any, scores: list[float]) -> list[float]:
    evaluator.calls = getattr(evaluator, "calls", 0) + 1
    return [score - evaluator.calls for score in scores]


COUNT = itertools.count()


@pytest.mark.parametrize(
    ("evaluator", "promises"),
    [
        (AccuracyEvaluator, set()),
        (
            wrong(lambda _, scores: [-score for score in scores]),
            {"every_structure_gets_a_finite_score_and_a_better_one_scores_higher"},
        ),
        (
            wrong(remembering),
            {
                "a_score_does_not_depend_on_its_batch_on_order_or_on_what_came_before",
                "an_evaluator_that_can_be_divided_scores_on_all_of_its_images_what_it_scores_undivided",
            },
        ),
        (
            wrong(lambda _, scores: [score + float(torch.rand(1)) * 0 for score in scores]),
            {"scoring_leaves_the_network_and_every_random_generator_as_they_were"},
        ),
        (wrong(lambda _, scores: scores or [0.0]), {"scoring_nothing_gives_nothing"}),
        (
            wrong(lambda _, scores: scores, description=property(lambda _: f"call {next(COUNT)}", lambda *_: None)),
            {"the_description_is_one_line_that_is_the_same_for_the_same_settings"},
        ),
        (
            wrong(lambda _, scores: scores, measures=property(lambda _: 3, lambda *_: None)),
            {"what_scores_measure_is_said_in_words"},
        ),
    ],
)
def test_an_evaluator_that_breaks_a_promise_is_found(evaluator: type[AccuracyEvaluator], promises: set[str]) -> None:
    suite = Evaluators()
    suite.evaluator = evaluator  # type: ignore[misc]
    assert broken(suite) == promises


class WeightSources(WeightSourceContract):
    weight_source: Any = None

    def make(self) -> InheritedWeights:
        on = tiny()
        return self.weight_source(on.network, on.ranking)

    def subject(self) -> Subject:
        return tiny()


class Doubled(InheritedWeights):
    def build(self, structure: Structure) -> nn.Module:
        model = super().build(structure)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        return model


class Everywhere(InheritedWeights):
    def influences(self, tensor: str) -> frozenset[int]:
        return frozenset()


class Whole(InheritedWeights):
    def kept(self, structure: Structure) -> Any:
        return np.ones_like(super().kept(structure))


class Shares(InheritedWeights):
    def build(self, structure: Structure) -> nn.Module:
        model = super().build(structure)
        model[8].bias = self.network.model[8].bias  # type: ignore[index, union-attr]
        return model


class Frozen(InheritedWeights):
    def build(self, structure: Structure) -> nn.Module:
        return super().build(structure).requires_grad_(False)


class Talkative(InheritedWeights):
    description = "inherited\nfrom somewhere"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("source", "promises"),
    [
        (InheritedWeights, set()),
        (
            Doubled,
            {"tensor_by_tensor_and_whole_are_the_same_network", "sliced_weights_are_those_of_the_traced_network"},
        ),
        (Everywhere, {"values_of_a_tensor_change_only_with_the_groups_that_influence_it"}),
        (Whole, {"a_structure_keeps_as_many_units_as_its_widths_say"}),
        (Shares, {"building_leaves_the_network_and_every_random_generator_as_they_were"}),
        (Frozen, {"what_is_built_costs_what_the_space_says_and_can_be_trained"}),
        (Talkative, {"the_description_is_one_line_that_is_the_same_for_the_same_weights"}),
    ],
)
def test_a_weight_source_that_breaks_a_promise_is_found(source: type[InheritedWeights], promises: set[str]) -> None:
    suite = WeightSources()
    suite.weight_source = source
    found = broken(suite)
    assert promises <= found
    assert promises or not found


class Widths:
    """A resource that keeps its promises: the sum of all widths."""

    name, unit, is_count = "widths", "channels", True
    offset = 0

    def meter(self, subject: Any) -> Widths:
        return self

    def costs(self, structures: Any) -> Any:
        return np.asarray(structures, dtype=np.int64).reshape(-1, 2).sum(axis=1) + self.offset


class Drifting(Widths):
    calls = itertools.count()

    def costs(self, structures: Any) -> Any:
        return super().costs(structures) + next(self.calls)


class Flat(Widths):
    def costs(self, structures: Any) -> Any:
        return 0 * super().costs(structures) + 5


class Cheaper(Widths):
    """Something in the middle costs less than the narrowest structure."""

    def costs(self, structures: Any) -> Any:
        found = super().costs(structures)
        return np.where(found % 7 == 3, 1, found)


class Spaced(Widths):
    name = "all widths"


class Negative(Widths):
    def quadratic(self) -> Any:
        return -np.ones((3, 3))


class Resources(ResourceContract):
    def network(self) -> Network:
        return tiny().network


@pytest.mark.parametrize(
    ("resource", "promises"),
    [
        (Widths, set()),
        (Drifting, {"a_cost_does_not_depend_on_its_batch_or_on_what_came_before"}),
        (Flat, {"the_narrowest_structure_costs_least_and_the_unpruned_one_more"}),
        (Cheaper, {"the_narrowest_structure_costs_least_and_the_unpruned_one_more"}),
        (Spaced, {"its_name_and_its_unit_are_words"}),
        (Negative, {"its_formula_has_no_negative_coefficient"}),
    ],
)
def test_a_resource_that_breaks_a_promise_is_found(resource: type[Widths], promises: set[str]) -> None:
    suite = Resources()
    suite.resource = resource  # type: ignore[misc]
    found = broken(suite)
    assert promises <= found
    assert promises or not found


def refuses(outputs: Any, batch: Any) -> None:
    raise ValueError("Expected something else.")


def pairs_loss(outputs: Any, batch: Any) -> Any:
    return torch.nn.functional.cross_entropy(outputs, batch[1], reduction="none")


class Tasks(TaskContract):
    def network(self) -> nn.Module:
        return tiny().network.model

    def batch(self) -> Any:
        return tiny().examples.take(slice(16)).batch


TASK = Task(loss=pairs_loss, name="pairs")


@pytest.mark.parametrize(
    ("task", "promises"),
    [
        (TASK, set()),
        ("classification", set()),
        (Task(inputs=lambda batch: batch[0][:5], name="few"), {"the_network_can_be_called_with_the_inputs_of_a_batch"}),
        (
            dataclasses.replace(TASK, loss=lambda outputs, batch: pairs_loss(outputs, batch) - outputs.mean()),
            {"losses_are_finite_and_those_of_a_batch_are_those_of_its_parts"},
        ),
        (dataclasses.replace(TASK, loss=lambda outputs, batch: batch[1] * 1.0), {"the_loss_has_gradients"}),
        (
            dataclasses.replace(TASK, metric=lambda outputs, batch: outputs.mean(1) * float("nan")),
            {"the_metric_is_a_finite_number"},
        ),
        (
            dataclasses.replace(TASK, distil=lambda outputs, wanted, temperature: (outputs - wanted).mean(1) + 1),
            {"a_network_is_at_no_distance_from_itself"},
        ),
        (dataclasses.replace(TASK, agreement=lambda outputs, wanted: outputs.mean(1)), {"a_network_is_at_no_distance"}),
        (dataclasses.replace(TASK, strata=lambda batch: batch[1] * 0.5), {"strata_are_whole_numbers"}),
        (dataclasses.replace(TASK, check=refuses), {"data_that_fit_are_not_refused"}),
    ],
)
def test_a_task_that_breaks_a_promise_is_found(task: Any, promises: set[str]) -> None:
    suite = Tasks()
    suite.task = task  # type: ignore[misc]
    found = broken(suite)
    assert all(any(each.startswith(promise) for each in found) for promise in promises), found
    assert promises or not found


def test_an_unknown_name_of_the_room_is_an_attribute_error() -> None:
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = testing.nonsense  # type: ignore[attr-defined]
