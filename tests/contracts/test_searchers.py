"""What every registered searcher promises. A new one inherits all of it by being listed in `SEARCHERS`."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from prunesearch.budget import Budget
from prunesearch.errors import InfeasibleBudget
from prunesearch.search import SEARCHERS, WITH_POLICY, learns_policy, make_searcher
from prunesearch.search.searcher import PolicySearcher, Searcher
from prunesearch.structure import Space, Structure
from prunesearch.trial import Trial
from tests.toys import bowl, chain_space, evidence, toy_table, trial, trials_of

SPACE = chain_space((16, 24, 32, 32, 16), 8)
BUDGETS = {
    "macs": Budget(macs="40%"),
    "params": Budget(params="25%"),
    "both": Budget(macs="50%", params="30%"),
    "tight": Budget(macs=SPACE.cost(SPACE.minimum).macs + 1),
    "loose": Budget(macs="100%"),
    "latency": Budget(latency_ms="60%", table=toy_table(SPACE)),
    "latency with cliffs": Budget(latency_ms="60%", macs="50%", table=toy_table(SPACE, cliff=1.5)),
}
SCORE = bowl(SPACE, (0.5, 0.4, 0.6, 0.3, 0.7))

pytestmark = pytest.mark.parametrize("name", sorted(SEARCHERS))


def make(name: str, space: Space, budget: Budget, *, seed: int = 0, **options: Any) -> Searcher:
    return make_searcher(name, space, budget, seed=seed, **evidence(space, name), **options)


def play(name: str, *, budget: Budget, seed: int = 0, batches: tuple[int, ...] = (20,) * 8):
    """Ask and tell a fresh searcher; return what it proposed."""
    searcher = make(name, SPACE, budget, seed=seed)
    proposed: list[Structure] = []
    for n in batches:
        asked = searcher.ask(n)
        searcher.tell(trials_of(asked, SCORE, start=len(proposed)))
        proposed += asked
    return proposed


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_every_proposal_is_in_the_space_within_the_budget_and_new(name: str, budget: Budget) -> None:
    proposed = play(name, budget=budget)
    feasible = budget.check(SPACE)
    assert proposed
    assert all(SPACE.check(structure) == structure for structure in proposed)
    assert feasible.contains(proposed).all()
    assert len(set(proposed)) == len(proposed)


def test_full_width_a_hundred_times_over_the_budget_is_no_obstacle(name: str) -> None:
    space = chain_space((400, 400), 400)
    budget = Budget(macs="1%")
    proposed = make(name, space, budget, seed=0).ask(16)
    assert proposed
    assert budget.check(space).contains(proposed).all()


def test_the_same_seed_and_history_give_the_same_proposals(name: str) -> None:
    assert play(name, budget=BUDGETS["macs"], seed=3) == play(name, budget=BUDGETS["macs"], seed=3)


@pytest.mark.slow
def test_the_same_proposals_come_in_another_process_with_another_hash_seed(name: str) -> None:
    code = (
        "from tests.contracts.test_searchers import BUDGETS, play;"
        f"print(play({name!r}, budget=BUDGETS['macs'], seed=5))"
    )
    environment = {"PYTHONHASHSEED": "123", "PYTHONPATH": str(_repository()), "OMP_NUM_THREADS": "1"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert there.stdout.strip() == str(play(name, budget=BUDGETS["macs"], seed=5))


def test_asking_for_fewer_gives_the_first_of_what_asking_for_more_would(name: str) -> None:
    few = make(name, SPACE, BUDGETS["macs"], seed=1).ask(7)
    many = make(name, SPACE, BUDGETS["macs"], seed=1).ask(30)
    assert many[: len(few)] == few


def test_global_random_generators_are_left_as_they_were(name: str) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    play(name, budget=BUDGETS["macs"])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


def test_tell_takes_failed_tied_foreign_and_out_of_order_trials(name: str) -> None:
    searcher = make(name, SPACE, BUDGETS["macs"], seed=0)
    asked = searcher.ask(20)
    told: list[Trial] = [trial(i, structure, None if i % 3 == 0 else 0.5) for i, structure in enumerate(asked)]
    foreign = [trial(90, (1, 2), 9.0), trial(91, SPACE.full, 9.0), trial(92, (-1,) * 5, None), trial(93, (), 1.0)]
    searcher.tell([*reversed(told), *foreign])
    searcher.tell([])
    following = searcher.ask(20)
    assert all(BUDGETS["macs"].check(SPACE).admits(SPACE.cost(structure)) for structure in following)
    assert not set(following) & {*asked}


def test_structures_that_were_told_are_not_proposed_again(name: str) -> None:
    proposed = play(name, budget=BUDGETS["macs"])
    searcher = make(name, SPACE, BUDGETS["macs"], seed=0)
    searcher.tell(trials_of(proposed[:10], SCORE))
    assert not set(searcher.ask(30)) & set(proposed[:10])


def test_a_small_space_is_exhausted_with_an_empty_ask_and_not_with_a_loop(name: str) -> None:
    space = chain_space((4, 4), 2)
    searcher = make(name, space, Budget(macs="100%"), seed=0)
    seen: list[Structure] = []
    for _ in range(20):
        asked = searcher.ask(10)
        if not asked:
            break
        searcher.tell(trials_of(asked, lambda structure: float(sum(structure)), start=len(seen)))
        seen += asked
    else:
        pytest.fail(f"{name} never finished on a space of {space.size} structures")
    assert len(set(seen)) == len(seen) <= space.size


@pytest.mark.parametrize("widths", [(), (8,), (1, 1)], ids=str)
def test_spaces_with_hardly_anything_to_choose_are_no_obstacle(name: str, widths: tuple[int, ...]) -> None:
    space = chain_space(widths, 1)
    searcher = make(name, space, Budget(macs="100%"), seed=0)
    seen: list[Structure] = []
    for _ in range(5):
        asked = searcher.ask(10)
        searcher.tell(trials_of(asked, lambda _: 1.0, start=len(seen)))
        seen += asked
    assert seen == [space.full]


def test_an_infeasible_budget_is_refused_by_the_constructor_in_under_a_second(name: str) -> None:
    start = time.monotonic()
    with pytest.raises(InfeasibleBudget, match="cannot be met"):
        make(name, SPACE, Budget(macs=1), seed=0)
    assert time.monotonic() - start < 1.0  # a loop that never ends is what this guards against


def test_it_is_known_without_building_it_whether_it_learns_a_policy(name: str) -> None:
    searcher = make(name, SPACE, BUDGETS["macs"])
    assert isinstance(searcher, PolicySearcher) == learns_policy(name) == (name in WITH_POLICY)


def test_an_option_it_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="nonsense"):
        make(name, SPACE, BUDGETS["macs"], seed=0, nonsense=1)


def _repository() -> str:
    import tests

    return tests.__path__[0].rsplit("/", 1)[0]
