"""Sensitivity and binary search: known answers on landscapes that add up."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from prunesearch.budget import Budget, FeasibleSet, as_structures
from prunesearch.latency_model import LatencyModel
from prunesearch.resources.energy import EnergyTable
from prunesearch.search.binary import BinarySearcher, widest
from prunesearch.search.sensitivity import SensitivitySearcher, greedy, losses, threshold
from prunesearch.structure import FloatArray, Space, Structure
from prunesearch.study.executors import InlineExecutor
from prunesearch.study.pool import Done, Lost, Pool
from prunesearch.study.scoring import Outcome
from prunesearch.study.study import Study
from prunesearch.trial import cheapest
from tests.study.toy import Scorer
from tests.toys import chain_space, every_structure, toy_table, trial, trials_of, with_costs

SPACE = chain_space((8, 12, 16), 4)
CURVES = [np.array([0.5, 0.7, 0.8, 0.9]), np.array([0.1, 0.6, 0.85, 0.9]), np.array([0.8, 0.85, 0.9, 0.9])]


def additive(structure: Structure) -> float:
    """A landscape in which the losses of the curves add up."""
    at = SPACE.indices([structure])[0]
    return 0.9 - sum(0.9 - curve[i] for curve, i in zip(CURVES, at, strict=True))


def threshold_slowly(feasible: FeasibleSet, losses: Sequence[FloatArray]) -> Structure:
    """The definition, spelled out."""
    levels = np.unique(np.concatenate([*losses, [0.0]]))
    indices = np.array([[int(np.argmax(loss <= level)) for loss in losses] for level in levels])
    structures = feasible.space.from_indices(indices)
    return as_structures(feasible.widen(structures[[int(np.argmax(feasible.contains(structures)))]]))[0]


def greedy_slowly(feasible: FeasibleSet, losses: Sequence[FloatArray]) -> Structure:
    """The definition, spelled out: every round builds every structure that it looks at."""
    space = feasible.space
    indices = space.choices - 1
    while not feasible.contains(space.from_indices([indices]))[0]:
        steps = [(group, to) for group, at in enumerate(indices) for to in range(at)]
        candidates = np.repeat(indices[None], len(steps), axis=0)
        for row, (group, to) in enumerate(steps):
            candidates[row, group] = to
        saved = feasible.usage(space.from_indices([indices])) - feasible.usage(space.from_indices(candidates))
        lost = np.array([losses[group][to] - losses[group][indices[group]] for group, to in steps])
        with np.errstate(divide="ignore", invalid="ignore"):
            price = np.where(saved > 0, lost / saved, np.inf)
        indices = candidates[np.lexsort((-saved, price))[0]]
    return as_structures(feasible.widen(space.from_indices([indices])))[0]


class Widths:
    """A resource of somebody else's, whose meter has nothing but costs; two groups of three make up the most."""

    name = "widths"
    unit = "channels"
    is_count = True

    def meter(self, subject: Any) -> Any:
        return self

    def costs(self, structures: Any) -> Any:
        return np.sort(np.asarray(structures), axis=1)[:, 1:].sum(axis=1)


class Slow:
    """Workers that are done only when all of them, or all that there is, have something to score."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._busy: dict[int, Sequence[Structure]] = {}

    def idle(self) -> int:
        return self.size - len(self._busy)

    def give(self, piece: int, part: int, structures: Sequence[Structure]) -> None:
        self._busy[piece] = structures

    def wait(self, seconds: float) -> list[Done | Lost]:
        piece, structures = next(iter(self._busy.items()))
        del self._busy[piece]
        return [Done(piece, tuple(Outcome(additive(each), None, None, 0.0, "w") for each in structures))]

    def dismiss(self, piece: int) -> None:
        del self._busy[piece]

    def close(self) -> None:
        self._busy.clear()


def test_losses_never_fall_as_a_group_narrows() -> None:
    bumpy = [np.array([0.5, 0.95, 0.7, 0.9]), *CURVES[1:]]
    assert losses(SPACE, bumpy)[0].tolist() == pytest.approx([0.4, 0.2, 0.2, 0.0])


def test_the_threshold_is_the_smallest_that_meets_the_budget() -> None:
    for budget in ("70%", "50%", "30%", "14%"):
        feasible = Budget(macs=budget).check(SPACE)
        lost = losses(SPACE, CURVES)
        found = SPACE.indices([threshold(feasible, lost)])[0]
        level = max(loss[at] for loss, at in zip(lost, found, strict=True))
        for lower in np.unique(np.concatenate(lost)):
            if lower < level:
                narrowest = [int(np.argmax(loss <= lower)) for loss in lost]
                assert not feasible.contains(SPACE.from_indices([narrowest]))[0]


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize(
    "limits",
    [
        {"macs": "50%"},
        {"params": "30%"},
        {"flops": "20%"},
        {"macs": "60%", "params": "40%"},
        {"latency_ms": "70%"},
        {"latency_ms": "75%", "macs": "40%"},
        {"energy_mj": "50%"},
        {"widths": "60%"},
        {"macs": "100%"},
    ],
    ids=str,
)
def test_greedy_and_threshold_are_what_their_definitions_say(limits: dict[str, str], unit: int) -> None:
    space, rng = chain_space((16, 24, 32), 8, unit=unit), np.random.default_rng(0)
    rows = np.vstack([space.minimum, space.full, space.sample(rng, 6)])
    energies = 2.0 + 1e-5 * space.macs(rows) + 1e-4 * space.params(rows)
    table = toy_table(space, noise=0.02, cliff=1.7) if "latency_ms" in limits else None
    if "energy_mj" in limits:
        names = tuple((group.name, group.width) for group in space.groups)
        energy = EnergyTable(names, tuple(as_structures(rows)), tuple(energies.tolist()), "toy", 1)
        budget = Budget(table=energy, **limits)  # type: ignore[arg-type]
    else:
        budget = Budget(table=table, resources=[Widths()] if "widths" in limits else [], **limits)  # type: ignore[arg-type]
    feasible = budget.check(space)
    flat = [np.round(rng.random(8), 1) for _ in space.groups]  # with equals, so that ties are decided, too
    for curves in (flat, [rng.random(8) for _ in space.groups], [np.zeros(8) for _ in space.groups]):
        for power in (1.0, 0.5, 2.0):
            lost = [loss**power for loss in losses(space, curves)]
            assert greedy(feasible, lost) == greedy_slowly(feasible, lost)
            assert threshold(feasible, lost) == threshold_slowly(feasible, lost)


def test_greedy_steps_look_at_whole_structures_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On networks of thousands of widths, all structures of every step would take minutes."""
    rows, macs = [0], Space.macs

    def counted(space: Space, structures: Any) -> Any:
        rows[0] += len(structures)
        return macs(space, structures)

    space = chain_space((64,) * 6, 64)
    feasible = Budget(macs="20%").check(space)
    lost = losses(space, [np.linspace(0.0, 1.0 + group, 64) ** 0.5 for group in range(6)])
    monkeypatch.setattr(Space, "macs", counted)
    greedy(feasible, lost)
    assert rows[0] < 3 * 6 * 64


def test_without_groups_there_is_one_structure() -> None:
    space = Space((), SPACE.macs_terms[:0], SPACE.params_terms[:0])
    assert greedy(FeasibleSet(space, (("macs", 0),)), []) == threshold(FeasibleSet(space, (("macs", 0),)), []) == ()


def test_greedy_steps_are_near_the_best_sum_of_losses() -> None:
    """All 64 structures are enumerated; greedy choices lose a step against the optimum at most, and often nothing."""
    lost = losses(SPACE, CURVES)

    def total(structure: Structure) -> float:
        return float(sum(loss[at] for loss, at in zip(lost, SPACE.indices([structure])[0], strict=True)))

    for budget in ("70%", "50%", "30%"):
        feasible = Budget(macs=budget).check(SPACE)
        best = min(total(s) for s in every_structure(SPACE) if feasible.contains([s])[0])
        assert total(greedy(feasible, lost)) <= best + 0.1


def test_a_handful_is_proposed_and_then_nothing() -> None:
    searcher = SensitivitySearcher(SPACE, Budget(macs="50%"), curves=CURVES)
    asked = searcher.ask(50)
    assert asked[0] == greedy(Budget(macs="50%").check(SPACE), losses(SPACE, CURVES))
    assert 1 <= len(asked) <= 4
    assert searcher.ask(50) == []


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        (CURVES[:2], "one curve per group"),
        ([CURVES[0][:3], *CURVES[1:]], "one curve per group"),
        ([CURVES[0] * np.nan, *CURVES[1:]], "finite"),
    ],
)
def test_curves_of_something_else_are_refused(curves: list[FloatArray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SensitivitySearcher(SPACE, Budget(macs="50%"), curves=curves)


def test_without_a_binding_budget_each_group_is_the_narrowest_that_its_step_allows() -> None:
    """The published search, by hand: thresholds 0.8, 0.7 and 0.6 in turn, everything later unpruned."""
    searcher = BinarySearcher(SPACE, Budget(macs="100%"), tolerance=0.3, passes=1)
    trials = []
    while asked := searcher.ask(64):
        assert len(asked) == 1
        trials += trials_of(asked, additive, start=len(trials))
        searcher.tell(trials[-1:])
    at = [SPACE.groups[0].widths[2], SPACE.groups[1].widths[2], SPACE.groups[2].widths[0]]
    assert trials[0].structure == SPACE.full
    assert tuple(at) in {trial.structure for trial in trials}
    assert additive(tuple(at)) >= 0.6
    found = cheapest(with_costs(trials, SPACE), at_least=0.6)
    assert found is not None
    assert found.structure == tuple(at)
    assert len(trials) <= 1 + 3 * 2  # two halvings of four widths per group


def test_within_a_budget_the_groups_not_yet_visited_use_what_is_left() -> None:
    feasible = Budget(macs="50%").check(SPACE)
    for width in SPACE.groups[0].widths:
        structure = widest(feasible, SPACE.full, {0: width})
        assert structure is not None
        assert structure[0] == width
        assert feasible.contains([structure])[0]
        rest = [group.widths.index(kept) for group, kept in zip(SPACE.groups[1:], structure[1:], strict=True)]
        wider = [(width, *(g.widths[min(i + 1, 3)] for g, i in zip(SPACE.groups[1:], rest, strict=True)))]
        assert rest == [3, 3] or not feasible.contains(wider)[0]


def test_later_passes_improve_on_the_first() -> None:
    space = chain_space((16, 16, 16, 16), 8)
    wanted = np.array([0.9, 0.4, 0.8, 0.3])

    def score(structure: Structure) -> float:
        return -float(((np.array(structure) / 16 - wanted) ** 2).sum())

    def best_after(passes: int) -> float:
        searcher, scores = BinarySearcher(space, Budget(macs="45%"), tolerance=0.05, passes=passes), [-np.inf]
        while asked := searcher.ask(1):
            searcher.tell([trial(len(scores), asked[0], score(asked[0]))])
            scores.append(score(asked[0]))
        return max(scores)

    assert best_after(6) > best_after(1)


def test_a_failed_structure_counts_as_below_the_threshold_and_the_search_goes_on() -> None:
    searcher, asked_in_all = BinarySearcher(SPACE, Budget(macs="60%")), set()
    for number in itertools.count():
        asked = searcher.ask(1)
        if not asked:
            break
        asked_in_all.add(asked[0])
        searcher.tell([trial(number, asked[0], None if number % 2 else additive(asked[0]))])
    assert len(asked_in_all) > 3


@pytest.mark.parametrize("workers", [1, 4])
def test_a_structure_under_way_is_waited_for_and_counts_as_what_it_scores(workers: int) -> None:
    budget, options = Budget(macs="100%"), {"tolerance": 0.3, "passes": 1}
    with Study("sqlite://", "toy", {}, SPACE) as study:
        pool = Pool(Slow(workers))
        found = study.run_as_finished(
            BinarySearcher(SPACE, budget, **options), pool, 50, searcher_name="binary", evaluator_name="toy"
        )
    with Study("sqlite://", "toy", {}, SPACE) as study:
        in_order = study.run(
            BinarySearcher(SPACE, budget, **options),
            InlineExecutor(Scorer(additive)),
            50,
            searcher_name="binary",
            evaluator_name="toy",
        )
    assert [trial.structure for trial in found] == [trial.structure for trial in in_order]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_a_width_with_which_nothing_is_fast_enough_is_passed_over(share: float) -> None:
    """Narrower can be slower: only the widths 8 and 16 are fast."""
    space = chain_space((16, 16, 16), 8)
    table = toy_table(space, cliff=4.0)
    low, high = LatencyModel(table, space).predict([space.minimum, space.full])
    budget = Budget(latency_ms=float(low + share * (high - low)), table=table)
    assert widest(budget.check(space), space.full, {0: 14}) is None
    searcher, asked_in_all = BinarySearcher(space, budget), list[Structure]()
    while asked := searcher.ask(1):
        searcher.tell(trials_of(asked, lambda structure: float(sum(structure)), start=len(asked_in_all)))
        asked_in_all += asked
    assert asked_in_all
    assert budget.check(space).contains(asked_in_all).all()


@pytest.mark.parametrize("options", [{"tolerance": -1.0}, {"tolerance": float("nan")}, {"passes": 0}])
def test_senseless_settings_of_the_bisection_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"Expected {next(iter(options))} >= "):
        BinarySearcher(SPACE, Budget(macs="60%"), **options)  # type: ignore[arg-type]
