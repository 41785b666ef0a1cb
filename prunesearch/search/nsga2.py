"""A whole front of score against cost in one study: NSGA-II."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunesearch.budget import BudgetOrSet, as_structures
from prunesearch.ranges import number, whole_number
from prunesearch.search.proposals import BatchSearcher, put_new, put_random
from prunesearch.search.uniform import uniform_structure
from prunesearch.search.variation import crossovers, mutants, survivors
from prunesearch.structure import IntArray, Space

_ROUNDS = 8


@dataclass(frozen=True)
class NSGA2Settings:
    """Sizes of one generation.

    Attributes:
        population: Survivors, and structures per generation.
        mutation_probability: Probability that a width of a child changes; None is 1 in the number of groups.
        lowest_share: Share of the budget that the first structures use at least; they spread from there to all of it.
    """

    population: int = 20
    mutation_probability: float | None = None
    lowest_share: float = 0.5

    def __post_init__(self) -> None:
        whole_number("population", self.population, at_least=4)
        if self.mutation_probability is not None and not 0 < self.mutation_probability <= 1:
            raise ValueError(f"Expected a mutation_probability in (0, 1], or None, got {self.mutation_probability}.")
        number("lowest_share", self.lowest_share, "(0, 1]")


class NSGA2Searcher(BatchSearcher):
    """Evolves the front of score against the used share of the budget; `prunesearch.trial.pareto_front` reads it off.

    Source: Deb et al., IEEE TEC 2002. Departs from it: survivors are chosen among all trials told, not only the last
    two generations; every other child is scaled to the whole budget, so that this end of the front is searched as well
    as the rest; the others are repaired if they exceed it and stay as cheap as they are if not; DEAP's uniform
    crossover and integer mutation take the place of SBX and polynomial mutation; parents are drawn uniformly from the
    survivors, not by crowded tournaments of two.

    Args:
        space: Where structures live.
        budget: What every proposal must meet: the expensive end of the front.
        seed: Decides every draw.
        settings: Sizes of one generation.

    Raises:
        InfeasibleBudget: No structure meets the budget.
    """

    settings_type = NSGA2Settings
    spreads = True

    def __init__(
        self, space: Space, budget: BudgetOrSet, *, seed: int = 0, settings: NSGA2Settings | None = None
    ) -> None:
        super().__init__(space, budget, seed=seed)
        self._settings = settings or NSGA2Settings()

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put the children of the present front, or a first population from cheap to expensive."""
        wanted = self._settings.population
        structures, scores = self.told.scored()
        if batch == 0 or len(structures) < 2:
            self._put_spread(rng, wanted)
        else:
            objectives = np.stack([scores, -self.feasible.usage(structures)], axis=1)
            self._put_children(structures[survivors(objectives, wanted)], rng, wanted)
        put_random(self.queue, self.feasible, rng, wanted - len(self.queue))

    def _put_spread(self, rng: np.random.Generator, wanted: int) -> None:
        self.queue.put([uniform_structure(self.feasible)])
        for share in np.linspace(1.0, self._settings.lowest_share, wanted):
            self.queue.put(as_structures(self.feasible.tightened(share).fit(self.space.sample(rng, 1))))

    def _put_children(self, front: IntArray, rng: np.random.Generator, wanted: int) -> None:
        parents = self.space.indices(front)
        probability = self._settings.mutation_probability
        if probability is None:
            probability = 1 / max(parents.shape[1], 1)

        def breed(n: int) -> IntArray:
            crossed = np.array(crossovers(parents, rng, n))
            children = self.space.from_indices(mutants(crossed, self.space.choices, probability, rng, n))
            children[::2], children[1::2] = self.feasible.repair(children[::2]), self.feasible.fit(children[1::2])
            return children

        put_new(self.queue, breed, wanted, _ROUNDS)
