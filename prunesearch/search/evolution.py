"""Evolution over widths: MetaPruning's loop, with DEAP's variation operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prunesearch.budget import BudgetOrSet
from prunesearch.ranges import number, whole_number
from prunesearch.search.proposals import BatchSearcher, put_new, put_random
from prunesearch.search.uniform import uniform_structure
from prunesearch.search.variation import crossovers, mutants
from prunesearch.structure import IntArray, Space

_ROUNDS = 10  # tries to find enough new children of one kind; the authors allow 10 batches of mutants


@dataclass(frozen=True)
class EvolutionSettings:
    """Sizes of one generation; the defaults are MetaPruning's.

    Attributes:
        population: Structures per generation.
        parents: The best structures so far, from which children are made.
        mutants: Children by mutation.
        crossovers: Children by crossover; what duplicates leave open is filled at random.
        mutation_probability: Probability that a width of a mutant changes.

    Raises:
        TypeError: One of them is no number, or no whole one.
        ValueError: One of them is too small or too large.
    """

    population: int = 50
    parents: int = 10
    mutants: int = 25
    crossovers: int = 25
    mutation_probability: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("population", 2), ("parents", 2), ("mutants", 0), ("crossovers", 0)):
            whole_number(name, getattr(self, name), at_least=least)
        if self.mutants + self.crossovers > self.population:
            raise ValueError(f"Expected mutants + crossovers <= population, got {self}.")
        number("mutation_probability", self.mutation_probability, "(0, 1]")


class EvolutionSearcher(BatchSearcher):
    """Keeps the best structures so far as parents; their mutants, crossovers and random newcomers come next.

    Source: Liu et al., MetaPruning, ICCV 2019, arXiv:1903.10258, and the authors' search script: a gene is the
    position of a group's width among its allowed ones; a mutated gene takes any other value; crossover takes each gene
    from either parent. Departs from it: the first structure is the uniform one; and where the authors reject what
    exceeds the budget, children are scaled to it (`FeasibleSet.fit`), so no draw is wasted and none stays far below.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.
        settings: Sizes of one generation.

    Raises:
        InfeasibleBudget: No structure meets the budget.
    """

    settings_type = EvolutionSettings

    def __init__(
        self, space: Space, budget: BudgetOrSet, *, seed: int = 0, settings: EvolutionSettings | None = None
    ) -> None:
        super().__init__(space, budget, seed=seed)
        self._settings = settings or EvolutionSettings()

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Breed a generation."""
        sizes = self._settings
        parents = self.space.indices(self.told.best(sizes.parents))
        if batch == 0:
            self.queue.put([uniform_structure(self.feasible)])
        if len(parents) > 0:
            probability, choices = sizes.mutation_probability, self.space.choices
            self._put(sizes.mutants, lambda n: mutants(parents, choices, probability, rng, n))
        if len(parents) > 1:
            self._put(sizes.crossovers, lambda n: crossovers(parents, rng, n))
        put_random(self.queue, self.feasible, rng, sizes.population - len(self.queue))

    def _put(self, wanted: int, breed: Callable[[int], list[list[int]]]) -> None:
        def make(_: int) -> IntArray:  # as the authors, whole litters: few children of many parents are new
            return self.feasible.fit(self.space.from_indices(breed(wanted)))

        put_new(self.queue, make, wanted, _ROUNDS)
