"""A genetic algorithm whose fitness has two steps: a closed form screens many, the evaluator scores the few left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from prunesearch.budget import BudgetOrSet, as_structures
from prunesearch.ranges import number, whole_number
from prunesearch.search.proposals import BatchSearcher, put_random
from prunesearch.search.variation import crossovers, mutants
from prunesearch.structure import FloatArray, IntArray, Space, Structure

_GENERATIONS_BEFORE_ANY_SCORE = 10
_PRIOR = 0.1  # how strongly groups are held to equal weight while little has been scored


@dataclass(frozen=True)
class GeneticSettings:
    """Sizes of one generation.

    Attributes:
        population: Structures that the evaluator scores per generation.
        parents: The best structures so far, from which children are made.
        screened: Children per generation that the closed form screens.
        newcomers: Random structures among the scored ones, which keep the weights of the closed form honest.
        mutation_probability: Probability that a width of a child changes.

    Raises:
        TypeError: One of them is no number, or no whole one.
        ValueError: One of them is too small or too large.
    """

    population: int = 10
    parents: int = 10
    screened: int = 200
    newcomers: int = 1
    mutation_probability: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("population", 2), ("parents", 2), ("screened", 2), ("newcomers", 0)):
            whole_number(name, getattr(self, name), at_least=least)
        if not self.newcomers < self.population <= self.screened:
            raise ValueError(f"Expected newcomers < population <= screened, got {self}.")
        number("mutation_probability", self.mutation_probability, "(0, 1]")


class GeneticSearcher(BatchSearcher):
    """Breeds many children, screens them by the sum of layer-wise errors, and proposes the best.

    Step one: the error that narrowing a group makes at the outputs of its next layers is a quadratic form in the
    channels dropped, `E(m) = (1 - m)' G (1 - m)` with the Gram matrix G of their contributions
    (`evaluators.width_errors.width_errors`), so a structure's is `sum(weight * error)` without a forward. Step two:
    the evaluator scores the survivors, and the weights are fitted to what it said (non-negative least squares).

    Source: Hu et al., arXiv:1805.11394, which could be had as an abstract only; that there is a GA, a layer-wise error,
    a sensitivity order and a fitness in two steps is theirs, the equations are ours. Theirs chooses channels inside one
    layer after another (`evaluators.channels.genetic` does); this searcher carries the fitness over to widths across
    layers.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.
        errors: Per group, (its allowed widths,) relative error at each width; 0 at full width.
        settings: Sizes of one generation.

    Raises:
        InfeasibleBudget: No structure meets the budget.
        ValueError: Errors that do not belong to the space.
    """

    needs = ("errors",)
    settings_type = GeneticSettings

    def __init__(
        self,
        space: Space,
        budget: BudgetOrSet,
        *,
        seed: int = 0,
        errors: Sequence[FloatArray],
        settings: GeneticSettings | None = None,
    ) -> None:
        super().__init__(space, budget, seed=seed)
        if [len(error) for error in errors] != space.choices.tolist():
            raise ValueError(
                f"Expected errors for each of the {space.choices.tolist()} widths of each group, got "
                f"{[len(error) for error in errors]}."
            )
        if not all(np.isfinite(error).all() and (np.asarray(error) >= 0).all() for error in errors):
            raise ValueError("Expected errors of at least 0, got NaN, infinite or negative ones.")
        self._errors = [np.asarray(error, dtype=np.float64) for error in errors]
        self._settings = settings or GeneticSettings()

    @property
    def sensitivity_order(self) -> tuple[int, ...]:
        """Groups from the least sensitive to the most: by the error at their narrowest width, as weighted by now."""
        worst = self._weights() * np.array([error[0] for error in self._errors])
        return tuple(np.argsort(worst, kind="stable").tolist())

    def screen(self, structures: IntArray) -> FloatArray:
        """(p,) predicted loss of (p, g) structures: the weighted sum of their errors."""
        return self._features(structures) @ self._weights()

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Breed, screen, and put the best into the queue."""
        sizes = self._settings
        parents = self.told.best(sizes.parents)
        if len(parents) < 2:
            parents = self._before_any_score(rng)
        ranked = self._bred(parents, rng, sizes.screened)
        self.queue.put(as_structures(ranked), at_most=sizes.population - sizes.newcomers)
        put_random(self.queue, self.feasible, rng, sizes.population - len(self.queue))

    def _before_any_score(self, rng: np.random.Generator) -> IntArray:
        """Parents by the closed form alone, from the structure in sensitivity order and random ones."""
        n = self._settings.screened
        pool = np.concatenate([[self._in_sensitivity_order()], self.feasible.fit(self.space.sample(rng, n))])
        for _ in range(_GENERATIONS_BEFORE_ANY_SCORE):
            parents = pool[np.argsort(self.screen(pool), kind="stable")][: max(1, n // 4)]
            pool = np.concatenate([parents, self._bred(parents, rng, n)])
        distinct = np.unique(pool, axis=0)
        return distinct[np.argsort(self.screen(distinct), kind="stable")][: max(self._settings.parents, 2)]

    def _in_sensitivity_order(self) -> Structure:
        """Narrow the least sensitive group as far as needed or possible, then the next."""
        indices = self.space.choices - 1
        for group in self.sensitivity_order:
            trials = np.repeat(indices[None], indices[group] + 1, axis=0)
            trials[:, group] = np.arange(indices[group] + 1)
            inside = np.flatnonzero(self.feasible.contains(self.space.from_indices(trials)))
            if len(inside):
                indices[group] = inside[-1]
                break
            indices[group] = 0
        return as_structures(self.space.from_indices([indices]))[0]

    def _bred(self, parents: IntArray, rng: np.random.Generator, n: int) -> IntArray:
        """(p, g) children within the budget, the best by the closed form first."""
        genes, sizes = self.space.indices(parents), self._settings
        crossed = np.array(crossovers(genes, rng, n)) if len(genes) > 1 else np.repeat(genes, n, axis=0)
        children = mutants(crossed, self.space.choices, sizes.mutation_probability, rng, n)
        fitted = np.unique(self.feasible.fit(self.space.from_indices(children)), axis=0)
        return fitted[np.argsort(self.screen(fitted), kind="stable")]

    def _features(self, structures: IntArray) -> FloatArray:
        indices = self.space.indices(structures)
        columns = [error[indices[:, group]] for group, error in enumerate(self._errors)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(indices), 0))

    def _weights(self) -> FloatArray:
        """(g,) weights that predict what was scored, held to equal ones by a ridge."""
        groups = len(self._errors)
        structures, scores = self.told.scored()
        spread = scores.std() if len(scores) > 2 else 0.0
        if spread == 0.0:
            return np.ones(groups)
        features = self._features(structures)
        ranks = -(scores - scores.mean()) / spread
        scale = features.std(axis=0).mean() or 1.0
        strength = np.sqrt(_PRIOR * groups)
        design = np.concatenate([(features - features.mean(axis=0)) / scale, strength * np.eye(groups)])
        target = np.concatenate([ranks, np.full(groups, strength / np.sqrt(groups))])
        return nnls(design, target)[0] + 1e-3
