"""Searchers, criteria, weight sources and evaluators of anybody's: objects, what makes them, names, places in modules.

Each is taken wherever a name is, and refused in a sentence that names the contract it breaks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import prunesearch as ps
from prunesearch.evaluators import make_evaluator, make_weights
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.channels.l2 import L2Criterion
from prunesearch.evaluators.compensation import CompensatedWeights
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking, Ranking
from prunesearch.models.weights import InheritedWeights, inherited_weights
from prunesearch.search import make_searcher
from prunesearch.search.random_search import RandomSearcher
from prunesearch.structure import Space, Structure
from prunesearch.tasks.classify import labelled
from prunesearch.trial import Trial
from tests.packages import install
from tests.test_given import BUDGET, IMAGES, LABELS, history, network, search

L2 = NestedRanking.by_importance(L2Criterion().rank(network()).scores or ())


class Last(InheritedWeights):
    """Inherited weights with a ranking of their own: the last channels stay."""

    def __init__(self, network: Network, images: Tensor) -> None:
        own = NestedRanking(tuple(tuple(range(group.units))[::-1] for group in network.space.groups))
        super().__init__(network, own)


def random_searcher(space: Space, budget: ps.Budget, *, seed: int) -> RandomSearcher:
    return RandomSearcher(space, budget, seed=seed)


def scored_by_accuracy(weights: Any, examples: ps.Examples, metric: str = "accuracy") -> AccuracyEvaluator:
    return AccuracyEvaluator(weights, examples, metric=metric)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"searcher": random_searcher}, {}),
        ({"searcher": partial(RandomSearcher)}, {}),
        ({"searcher": "prunesearch.search.random_search:RandomSearcher"}, {}),
        ({"criterion": L2Criterion}, {"criterion": "l2"}),
        ({"criterion": "prunesearch.evaluators.channels.l2:L2Criterion"}, {"criterion": "l2"}),
        ({"weight_source": CompensatedWeights}, {"weight_source": "compensated"}),
        ({"weight_source": "prunesearch.evaluators.compensation:CompensatedWeights"}, {"weight_source": "compensated"}),
        ({"weight_source": inherited_weights, "criterion": "l2"}, {"criterion": "l2"}),
        ({"evaluator": AccuracyEvaluator, "images": 48}, {"images": 48}),
        ({"evaluator": scored_by_accuracy, "images": 48}, {"metric": "accuracy", "images": 48}),
        (
            {"evaluator": scored_by_accuracy, "evaluator_options": {"metric": "agreement"}, "images": 32},
            {"metric": "agreement", "images": 32},
        ),
        (
            {"evaluator": "prunesearch.evaluators.accuracy:AccuracyEvaluator", "race": False},
            {"images": 48, "race": False},
        ),
        pytest.param(
            {"searcher": random_searcher, "asynchronous": True}, {"asynchronous": True}, marks=pytest.mark.slow
        ),  # two pools of processes
    ],
)
def test_what_makes_an_object_is_as_good_as_the_name_of_one(given: dict[str, Any], named: dict[str, Any]) -> None:
    assert history(search(**given)) == history(search(**named))


def test_a_weight_source_object_has_its_ranking_and_no_criterion_is_asked(tmp_path: Path) -> None:
    net = network()
    url = f"sqlite:///{tmp_path / 's.db'}"
    found = search(net, weight_source=InheritedWeights(net, L2), study=url)
    assert history(found) == history(search(net, criterion="l2"))
    again = search(net, weight_source=InheritedWeights(net, L2), criterion="fpgm", study=url)  # the same question
    assert (history(again), again.name) == (history(found), found.name)
    own = search(net, weight_source=Last)
    assert history(own) == history(search(net, weight_source=Last(net, IMAGES))) != history(found)


def test_the_winner_may_be_built_with_weights_of_somebody_elses() -> None:
    net = network()
    found = search(net, build_with=Last)
    assert history(found) == history(search(net))
    built, structure = found.best.build(), found.best.structure
    assert torch.equal(built.first.weight, net.model.first.weight[-structure[0] :])  # type: ignore[union-attr, index]


def test_objects_are_returned_by_what_makes_them_by_name() -> None:
    net = network()
    searcher, criterion = RandomSearcher(net.space, BUDGET), L2Criterion()
    weights = InheritedWeights(net, L2)
    examples = labelled(IMAGES, LABELS)
    evaluator = AccuracyEvaluator(weights, examples)
    assert make_searcher(searcher, net.space, BUDGET) is searcher
    assert make_criterion(criterion) is criterion
    assert make_weights(weights, net, None, IMAGES) is weights
    assert make_evaluator(evaluator, weights, examples) is evaluator
    for make in (
        lambda: make_searcher(searcher, net.space, BUDGET, batch=3),
        lambda: make_criterion(criterion, power=2),
        lambda: make_evaluator(evaluator, weights, examples, metric="loss"),
    ):
        with pytest.raises(ValueError, match="is an object, which has settings of its own"):
            make()


def test_names_of_an_installed_package_are_names_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        from prunesearch.evaluators.accuracy import AccuracyEvaluator
        from prunesearch.evaluators.channels.l2 import L2Criterion
        from prunesearch.models.weights import inherited_weights
        from prunesearch.search.random_search import RandomSearcher

        def weights(network, ranking, images, file="none"):
            made = inherited_weights(network, ranking, images)
            object.__setattr__(made, "description", f"from {file}")
            return made
    """
    install(
        tmp_path, "four-roles", code,
        {
            "prunesearch.searchers": {"mine": "RandomSearcher"},
            "prunesearch.criteria": {"mine": "L2Criterion"},
            "prunesearch.weight_sources": {"mine": "weights"},
            "prunesearch.evaluators": {"mine": "AccuracyEvaluator"},
        },
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "four_roles", raising=False)
    url = f"sqlite:///{tmp_path / 's.db'}"
    settings = {"searcher": "mine", "criterion": "mine", "evaluator": "mine", "images": 48, "study": url}
    expected = history(search(criterion="l2", images=48))
    assert history(search(**settings, weight_source="mine")) == expected
    assert history(search(**settings, weight_source="mine")) == expected
    with pytest.raises(ps.StudyMismatch, match="its weight_source is 'from none', not 'from here'"):
        search(**settings, weight_source="mine:here", study_name="search")


class Breaks:
    """A searcher whose proposals are what a test says."""

    def __init__(self, *proposals: Any) -> None:
        self._proposals = proposals

    def ask(self, n: int) -> Any:
        return self._proposals[0] if len(self._proposals) == 1 else list(self._proposals)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Forget them."""


class Untold:
    def ask(self, n: int) -> list[Structure]:
        return []


class Keeps:
    """A criterion, and its ranking, that keeps what a test says."""

    def __init__(self, keep: Callable[[int, int], Any]) -> None:
        self.keep = keep


class Ranks:
    def __init__(self, ranking: Any) -> None:
        self._ranking = ranking

    def rank(self, network: Network, images: Any = None, labels: Any = None) -> Ranking:
        return self._ranking


class Scores:
    description = "scores"

    def __init__(self, scores: Any = ()) -> None:
        self._scores = scores

    def score(self, structures: Sequence[Structure]) -> Any:
        return self._scores


HALF, FULL = (8, 12), (16, 24)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"searcher": Untold()}, "The searcher Untold breaks the contract Searcher: it has no tell(trials)."),
        (
            {"searcher": lambda *given, seed: Untold()},
            "contract Searcher: it made an object of Untold, which has no tell(trials).",
        ),
        ({"searcher": "tests.test_objects:Untold"}, "The searcher tests.test_objects:Untold breaks the contract"),
        (
            {"searcher": lambda space: None},
            "it cannot be made from (space, budget, seed=): too many positional arguments; it takes (space).",
        ),
        ({"searcher": lambda *given, **named: None}, "it made None, which has no ask(n) and no tell(trials)."),
        (
            {"searcher": Breaks((HALF, (16,)))},
            "Breaks breaks the contract Searcher: it proposed (16,), which is not of ",
        ),
        ({"searcher": Breaks(((7.5, 12),))}, "it proposed (7.5, 12), which is not of the space: "),
        ({"searcher": Breaks(((1000, 12),))}, "which is not of the space: Group 'first' allows the widths"),
        ({"searcher": Breaks((FULL,))}, "it proposed (16, 24), with "),
        ({"searcher": Breaks((FULL,))}, "which is over the budget macs=50%."),
        (
            {"searcher": Breaks((HALF, HALF))},
            "it proposed (8, 12), which was proposed before; expected each only once.",
        ),
        ({"searcher": Breaks((HALF,))}, "it proposed (8, 12), which was proposed before"),
        ({"searcher": Breaks([HALF] * 5)}, "ask(4) gave 5 structures; expected at most 4."),
        ({"searcher": Breaks(None)}, "ask(4) gave NoneType; expected a list of structures."),
        (
            {"criterion": Ranks(3)},
            "The channel criterion Ranks breaks the contract Criterion: rank(network, images, la",
        ),
        ({"criterion": Ranks(Keeps(lambda group, units: range(3)))}, "breaks the contract Ranking: keep(0, 2) gave"),
        ({"criterion": Keeps(lambda group, units: np.arange(units) + 1)}, "keep(0, 16) gave array([ 1,  2"),
        ({"criterion": Keeps(lambda group, units: np.zeros(units, int))}, "expected 2 different whole numbers from 0 "),
        (
            {"criterion": Keeps(lambda group, units: np.arange(units) / 1)},
            "to 15, ascending, the units of group 'first'",
        ),
        (
            {"criterion": Keeps(lambda group, units: np.arange(units)[::-1])},
            "The channel criterion Keeps breaks the con",
        ),
        ({"criterion": Keeps(lambda group, units: ["a"] * units)}, "keep(0, 2) gave ['a', 'a']; expected 2"),
        ({"criterion": NestedRanking(((0, 1), (0, 1)))}, "NestedRanking breaks the contract Ranking: keep(0, 3) gave"),
        (
            {"criterion": NestedRanking((tuple(range(16)),))},
            "keep(1, 3) failed with IndexError: tuple index out of range.",
        ),
        ({"criterion": lambda: L2Criterion()}, "contract Criterion: it cannot be made from (seed=): got an unexpected"),
        ({"criterion": lambda seed: Keeps}, "it made the class Keeps, which has no rank(network, examples)."),
        ({"evaluator": SimpleNamespace(score=len)}, "breaks the contract Evaluator: it has no description."),
        ({"evaluator": lambda weights: None}, "contract Evaluator: it cannot be made from (weights, examples): "),
        ({"evaluator": lambda *given: 3}, "it made 3, which has no score(structures) and no description."),
        (
            {"weight_source": SimpleNamespace(build=len)},
            "breaks the contract WeightSource: it has no kept(structure) and",
        ),
        (
            {"weight_source": lambda network: None},
            "contract WeightSource: it cannot be made from (network, ranking, ima",
        ),
        ({"weight_source": lambda network, images: None}, "it made None, which has no build(structure) and no kept"),
        (
            {"weight_source": InheritedWeights(SimpleNamespace(), L2)},  # type: ignore[arg-type]
            "InheritedWeights breaks the contract WeightSource: its weights are of another network; make it of the one",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_breaks_a_contract_is_refused_in_a_sentence_that_names_it(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ps.ContractBroken) as said:
        search(**given)
    assert message in str(said.value)


@pytest.mark.parametrize("scores", [[], [1.0], [1.0] * 5])
def test_an_evaluator_that_miscounts_is_refused(scores: list[float]) -> None:
    expected = (
        rf"contract Evaluator: score\(structures\) gave {len(scores)} scores for 4 structures; expected one for each"
    )
    with pytest.raises(ps.EvaluationFailed, match=expected):
        search(evaluator=Scores(scores))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"searcher": 3},
            r"Expected searcher as one of uniform, .*an object with ask\(n\), tell\(trials\), .*; got 3\.",
        ),
        (
            {"evaluator": None},
            r"Expected evaluator as one of accuracy, .* description, score\(structures\).*; got None\.",
        ),
        ({"criterion": 3}, r"Expected channel criterion as one of l1, .*; got 3\."),
        ({"weight_source": 3}, r"Expected weight source as one of inherited, .*; got 3\."),
        ({"build_with": 3}, r"Expected weight source as one of inherited, .*; got 3\."),
        ({"criterion_options": {"powr": 2}, "criterion": "cpmc"}, "'cpmc' has no option 'powr'; it has "),
        ({"evaluator": "accuracy", "evaluator_options": {"batchsize": 2}}, r"no option 'batchsize'; .*'batch_size'\?"),
    ],
)
def test_what_is_something_else_is_refused_with_what_would_do(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message) as said:
        search(**given)
    assert not isinstance(said.value, ps.ContractBroken)


def test_a_name_of_a_searcher_must_stand_for_a_fresh_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "used.py").write_text("from tests.test_objects import Breaks\nsearcher = Breaks()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="'used:searcher' to name a class or a function that makes a fresh searcher"):
        search(searcher="used:searcher")


def test_a_criterion_of_somebody_elses_is_part_of_the_question_by_what_it_keeps(tmp_path: Path) -> None:
    settings = {"study": f"sqlite:///{tmp_path / 's.db'}", "n_trials": 2}
    kept = partial(NestedRanking.by_importance)

    def first(seed: int) -> Any:
        return Ranks(kept([np.arange(float(group.units)) for group in network().space.groups]))

    def second(seed: int) -> Any:
        return Ranks(kept([-np.arange(float(group.units)) for group in network().space.groups]))

    second.__name__ = "first"
    search(criterion=first, **settings)
    search(criterion=first, **settings)
    with pytest.raises(ps.StudyMismatch, match="its criterion is 'first, kept "):
        search(criterion=second, **settings)
