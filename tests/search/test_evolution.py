"""Evolution: what MetaPruning's loop does, and that it is worth its evaluations."""

from __future__ import annotations

import numpy as np
import pytest

from prunesearch.budget import Budget
from prunesearch.search import make_searcher
from prunesearch.search.evolution import EvolutionSearcher, EvolutionSettings
from prunesearch.search.uniform import uniform_structure
from prunesearch.search.variation import mutants
from prunesearch.structure import Structure
from tests.toys import bowl, chain_space, every_structure, trials_of

SPACE = chain_space((32, 48, 64, 64, 48, 32), 16)
BUDGET = Budget(macs="40%")
SCORE = bowl(SPACE, (0.9, 0.3, 0.7, 0.4, 0.8, 0.5))


def best_score(name: str, seed: int, n: int = 150) -> float:
    searcher = make_searcher(name, SPACE, BUDGET, seed=seed)
    scores: list[float] = []
    while len(scores) < n and (asked := searcher.ask(n - len(scores))):
        trials = trials_of(asked, SCORE, start=len(scores))
        searcher.tell(trials)
        scores += [SCORE(structure) for structure in asked]
    return max(scores)


def test_the_first_structure_is_the_uniform_one() -> None:
    assert EvolutionSearcher(SPACE, BUDGET).ask(1) == [uniform_structure(BUDGET.check(SPACE))]


def test_a_generation_has_the_size_of_the_population_and_the_next_is_bred_from_what_was_told() -> None:
    searcher = EvolutionSearcher(SPACE, BUDGET)
    first = searcher.ask(1000)
    assert len(first) == 50
    searcher.tell(trials_of(first, SCORE))
    second = searcher.ask(1000)
    assert len(second) == 50
    told_nothing = EvolutionSearcher(SPACE, BUDGET)
    told_nothing.ask(1000)
    assert told_nothing.ask(1000) != second


@pytest.mark.parametrize("name", ["random", "evolution"])
def test_another_seed_proposes_otherwise(name: str) -> None:
    one, other = (make_searcher(name, SPACE, BUDGET, seed=seed).ask(20) for seed in (0, 1))
    assert len(set(one) & set(other)) < 5  # of some 10^5 structures on the budget


def test_evolution_beats_random_search_at_equal_evaluations() -> None:
    """20 seeds each. A pair in which evolution is ahead has probability 1/2 if the two are equal, so 17 or more of 20
    would come by luck with probability 0.0013; measured when this was written: 20 of 20."""
    ahead = sum(best_score("evolution", seed) > best_score("random", seed) for seed in range(20))
    assert ahead >= 17


def test_the_optimum_of_an_enumerable_space_is_found() -> None:
    """With 64 structures on a loose budget and room for all of them, only a searcher that misses some can fail."""
    space = chain_space((8, 8, 8), 4)
    score = bowl(space, (0.5, 0.75, 0.25))
    searcher = EvolutionSearcher(
        space, Budget(macs="100%"), settings=EvolutionSettings(population=8, mutants=3, crossovers=3)
    )
    seen: list[Structure] = []
    while asked := searcher.ask(8):
        searcher.tell(trials_of(asked, score, start=len(seen)))
        seen += asked
    assert max(seen, key=score) == max(every_structure(space), key=score) == (4, 6, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 1}, "population >= 2"),
        ({"mutants": 40, "crossovers": 20}, "mutants \\+ crossovers <= population"),
        ({"mutation_probability": 0.0}, "mutation_probability in"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvolutionSettings(**settings)  # type: ignore[arg-type]


def test_a_group_with_a_single_width_is_no_obstacle() -> None:
    space = chain_space((8, 1, 8), 1)
    assert EvolutionSearcher(space, Budget(macs="100%")).ask(5) == [space.full]


def test_mutants_take_any_other_value_and_leave_most_genes_alone() -> None:
    """Each gene changes with probability 0.1: of 6 * 2000 genes 1200 +- 5 standard deviations (33 each)."""
    parents = SPACE.indices([SPACE.full])
    made = np.array(mutants(parents, SPACE.choices, 0.1, np.random.default_rng(0), 2000))
    changed = made != parents
    assert abs(int(changed.sum()) - 1200) < 5 * 33
    assert set(np.unique(made)) == set(range(16))
