"""Evolution over widths: MetaPruning's loop, with DEAP's variation operators."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from deap import tools

from prunesearch.budget import Budget, as_structures
from prunesearch.search.proposals import Queue, put_random
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import IntArray, Space, Structure
from prunesearch.trial import Trial, ranked

_ROUNDS = 10  # tries to find enough new children of one kind; the authors allow 10 batches of mutants


@dataclass(frozen=True)
class EvolutionSettings:
    """Sizes of one generation; the defaults are MetaPruning's.

    Attributes:
        population: Structures per generation.
        parents: The best structures so far, from which children are made.
        mutants: Children by mutation.
        crossovers: Children by crossover; what duplicates leave open is filled at random.
        mutation_probability: Of each width of a mutant.
    """

    population: int = 50
    parents: int = 10
    mutants: int = 25
    crossovers: int = 25
    mutation_probability: float = 0.1

    def __post_init__(self) -> None:
        if self.population < 2 or self.parents < 2 or self.mutants < 0 or self.crossovers < 0:
            raise ValueError(f"Expected population and parents of at least 2 and no negative sizes, got {self}.")
        if self.mutants + self.crossovers > self.population:
            raise ValueError(f"Expected mutants + crossovers <= population, got {self}.")
        if not 0 < self.mutation_probability <= 1:
            raise ValueError(f"Expected a mutation_probability in (0, 1], got {self.mutation_probability}.")


class EvolutionSearcher:
    """Keeps the best structures so far as parents; their mutants, crossovers and random newcomers come next.

    Source: Liu et al., MetaPruning, ICCV 2019, arXiv:1903.10258, and the authors' search script: a gene is the
    position of a group's width among its allowed ones; a mutated gene takes any other value; crossover takes each gene
    from either parent. Departs from it: the first structure is the uniform one; and where the authors reject what
    exceeds the budget, children are scaled to it (`FeasibleSet.fit`), so no draw is wasted and none stays far below.

    A new generation is bred when the last one has been handed out, from every trial told by then.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.
        settings: Sizes of one generation.

    Raises:
        InfeasibleBudget: No structure meets the budget.
    """

    def __init__(
        self, space: Space, budget: Budget, *, seed: int = 0, settings: EvolutionSettings | None = None
    ) -> None:
        self._feasible = budget.check(space)
        self._space = space
        self._seed = seed
        self._settings = settings or EvolutionSettings()
        self._queue = Queue()
        self._trials: list[Trial] = []
        self._generation = 0

    def ask(self, n: int) -> list[Structure]:
        """Return the next structures of this generation; breed another one when it is used up."""
        if not self._queue:
            self._breed()
        return self._queue.take(n)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember the trials whose structures are of this space."""
        known = [trial for trial in trials if self._is_of_space(trial.structure)]
        self._trials += known
        self._queue.mark_seen(trial.structure for trial in known)

    def _breed(self) -> None:
        sizes = self._settings
        rng = np.random.default_rng([self._seed, 1, self._generation])
        parents = self._space.indices(
            np.array([trial.structure for trial in ranked(self._trials)[: sizes.parents]], dtype=np.int64).reshape(
                -1, len(self._space.groups)
            )
        )
        if self._generation == 0:
            self._queue.put([uniform_structure(self._feasible)])
        with _seeded_deap(rng):
            if len(parents) > 0:
                self._put_children(sizes.mutants, lambda: [self._mutant(parents, rng) for _ in range(sizes.mutants)])
            if len(parents) > 1:
                self._put_children(
                    sizes.crossovers, lambda: [self._crossover(parents, rng) for _ in range(sizes.crossovers)]
                )
        put_random(self._queue, self._feasible, rng, sizes.population - len(self._queue))
        self._generation += 1

    def _put_children(self, wanted: int, make: Callable[[], list[list[int]]]) -> None:
        for _ in range(_ROUNDS):
            if wanted <= 0:
                return
            children = self._space.from_indices(make())
            wanted -= self._queue.put(as_structures(self._feasible.fit(children)), at_most=wanted)

    def _mutant(self, parents: IntArray, rng: np.random.Generator) -> list[int]:
        """Shift each gene, with the given probability, by 1 to choices - 1 positions, around the end if need be."""
        parent = parents[rng.integers(len(parents))]
        shift = [0] * len(parent)
        highest = np.maximum(self._space.choices - 1, 1).tolist()
        tools.mutUniformInt(shift, low=1, up=highest, indpb=self._settings.mutation_probability)
        return list((parent + shift) % self._space.choices)

    def _crossover(self, parents: IntArray, rng: np.random.Generator) -> list[int]:
        """Take each gene from either of two different parents."""
        one, other = (list(parents[i]) for i in rng.choice(len(parents), size=2, replace=False))
        return list(tools.cxUniform(one, other, indpb=0.5)[0])

    def _is_of_space(self, structure: Structure) -> bool:
        try:
            self._space.check(structure)
        except (ValueError, TypeError):
            return False
        return True


@contextmanager
def _seeded_deap(rng: np.random.Generator) -> Iterator[None]:
    """DEAP draws from the global `random`: seed it from our generator, and give the caller's state back."""
    state = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(state)
