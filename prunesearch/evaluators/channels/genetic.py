"""Which channels go is chosen by a genetic algorithm over masks, by the error at the next layers in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunesearch.evaluators.channels.criterion import inputs_of
from prunesearch.evaluators.layer_inputs import layer_inputs
from prunesearch.evaluators.width_errors import gram_matrices
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray, IntArray
from prunesearch.tasks.examples import Examples

_POPULATION = 50
_GENERATIONS = 40
_ELITE = 2

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MaskRanking:
    """The mask with the least error for each width, found when asked for; not nested.

    Attributes:
        grams: Per group, (u, u) Gram matrix of the units' contributions to the next layers' outputs.
        seed: Decides every draw.
    """

    grams: tuple[FloatArray, ...]
    seed: int
    _found: dict[tuple[int, int], IntArray] = field(default_factory=dict, compare=False, repr=False)

    def keep(self, group: int, units: int) -> IntArray:
        """The units of the best mask."""
        if (group, units) not in self._found:
            rng = np.random.default_rng([self.seed, 4, group, units])
            self._found[group, units] = np.flatnonzero(best_mask(self.grams[group], units, rng))
        return self._found[group, units]


class GeneticCriterion:
    """Keeps the set of channels without which the next layers' outputs change least.

    The change is `E(m) = (1 - m)' G (1 - m)`, m the mask of kept channels and G the Gram matrix of contributions: exact
    for each layer, without a forward. Means of contributions count unless a BatchNorm follows at once, whose statistics
    are re-estimated; depthwise convolutions do not count, as they lose no inputs that outputs which stay would miss.
    One individual of the first population is the greedy answer (drop what adds least error, again and again), so the
    result is never worse than it.

    Source: Hu et al., arXiv:1805.11394, of which only the abstract could be had: a GA over 0/1 masks with a layer-wise
    error as fitness is theirs; E(m), the operators (tournament, uniform crossover and swaps that keep the number of
    ones, two elites) and their sizes are ours.

    Args:
        seed: Decides every draw.
        cache: Folder where moments of layers are kept (`evaluators.layer_inputs`).
    """

    needs = "inputs"

    def __init__(self, *, seed: int = 0, cache: str | Path | None = None) -> None:
        self._seed = seed
        self._cache = cache

    def rank(self, network: Network, examples: Examples | None = None) -> MaskRanking:
        """Gather the Gram matrices; masks are sought when asked for."""
        readers = layer_inputs(network, inputs_of(examples, "genetic"), seed=self._seed, cache=self._cache)
        return MaskRanking(tuple(gram_matrices(network, readers)), self._seed)


def errors(gram: FloatArray, masks: Masks) -> FloatArray:
    """(p,) change of the next layers' outputs for (p, u) masks of kept units."""
    dropped = (~masks).astype(np.float64)
    return ((dropped @ gram) * dropped).sum(axis=1)


def greedy_mask(gram: FloatArray, units: int) -> Masks:
    """(u,) drop the unit that adds least error, again and again, until `units` stay."""
    kept = np.ones(len(gram), dtype=np.bool_)
    added = np.diag(gram).copy()
    for _ in range(len(gram) - units):
        unit = int(np.argmin(np.where(kept, added, np.inf)))
        kept[unit] = False
        added += 2 * gram[unit]
    return kept


def best_mask(gram: FloatArray, units: int, rng: np.random.Generator) -> Masks:
    """(u,) mask of `units` ones with the least error that the genetic algorithm finds."""
    population = evolved(gram, units, rng)
    return population[int(np.argmin(errors(gram, population)))]


def evolved(gram: FloatArray, units: int, rng: np.random.Generator) -> Masks:
    """(p, u) masks of `units` ones: what the genetic algorithm ends with, by the error alone; the greedy one began."""
    total = len(gram)
    if units >= total:
        return np.ones((1, total), dtype=np.bool_)
    population = np.argsort(rng.random((_POPULATION, total)), axis=1) < units
    population[0] = greedy_mask(gram, units)
    for _ in range(_GENERATIONS):
        error = errors(gram, population)
        elite = population[np.argsort(error, kind="stable")[:_ELITE]]
        population = np.concatenate([elite, children(population, error, rng, _POPULATION - _ELITE)])
    return population


def children(population: Masks, cost: FloatArray, rng: np.random.Generator, n: int) -> Masks:
    """(n, u) masks with as many ones as their parents have: the units of both first, with a little disorder.

    Args:
        population: (p, u) masks of equally many ones.
        cost: (p,) by which parents are chosen, the lower of two that are drawn.
        rng: Decides every draw.
        n: How many.
    """
    pairs = rng.integers(0, len(population), (2, n, 2))
    parents = [np.where(cost[pair[:, 0]] <= cost[pair[:, 1]], pair[:, 0], pair[:, 1]) for pair in pairs]
    # both parents' units first, then those of one of them, with a little disorder that swaps a few
    votes = population[parents[0]].astype(np.float64) + population[parents[1]]
    order = np.argsort(-(votes + rng.random(votes.shape) * rng.choice([0.9, 1.6], (len(votes), 1))), axis=1)
    made = np.zeros((n, population.shape[1]), dtype=np.bool_)
    np.put_along_axis(made, order[:, : int(population[0].sum())], True, axis=1)
    return made
