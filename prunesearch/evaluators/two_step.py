"""Which channels of one layer stay: a genetic algorithm over 0/1 masks whose fitness has two steps.

Step one is a closed form, the change of the next layers' outputs by their Gram matrix, and screens many masks. Step two
is a score on data, and only the few that passed the first get one.

Source: Hu et al., arXiv:1805.11394, of which only the abstract could be had: 0/1 chromosomes for the channels of a
layer, a genetic algorithm, and a fitness approximated in two steps are theirs. What the two steps are, the operators
and all sizes are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from prunesearch.evaluators.channels.genetic import Masks, children, errors, evolved
from prunesearch.structure import FloatArray, IntArray

_BRED = 200
_PARENTS = 6

Score = Callable[[IntArray], float]
"""Of the units that stay, ascending; higher is better, and NaN is worst."""


@dataclass(frozen=True)
class Chosen:
    """What became of one layer.

    Attributes:
        units: Those that stay, ascending.
        score: Theirs.
        scored: How many sets of units were scored.
    """

    units: IntArray
    score: float
    scored: int


def choose_units(
    gram: FloatArray, units: int, score: Score, *, generations: int, scored: int, rng: np.random.Generator
) -> Chosen:
    """Choose which units of a layer stay.

    The first generation is what the closed form alone ends with, so the result never scores below the closed form's own
    answer.

    Args:
        gram: (u, u) Gram matrix of the units' contributions to the next layers' outputs; zeros tell nothing.
        units: How many stay.
        score: Step two.
        generations: At most; it ends before, if nothing new is bred.
        scored: Masks of a generation that are scored.
        rng: Decides every draw.
    """
    population = evolved(gram, units, rng)
    population = np.concatenate([population, _bred(population, errors(gram, population), rng)])
    found: dict[bytes, float] = {}
    for _ in range(generations):
        fresh = list(_screened(gram, population, found, scored))
        if not fresh:
            break
        for mask in fresh:
            value = score(np.flatnonzero(mask))
            found[mask.tobytes()] = -np.inf if np.isnan(value) else value
        parents = _best(gram, found)[:_PARENTS]
        population = _bred(parents, np.arange(len(parents), dtype=np.float64), rng)
    (best,) = _best(gram, found)[:1]
    return Chosen(np.flatnonzero(best), found[best.tobytes()], len(found))


def _bred(parents: Masks, cost: FloatArray, rng: np.random.Generator) -> Masks:
    """(p, u) children; of every other one a unit that stays and one that does not change places."""
    masks = children(parents, cost, rng, _BRED)
    draws = rng.random(masks.shape)
    rows = np.arange(0, _BRED, 2)
    leaving, coming = (np.where(side, draws, -1.0)[rows].argmax(axis=1) for side in (masks, ~masks))
    masks[rows, leaving], masks[rows, coming] = False, True
    return masks


def _screened(gram: FloatArray, population: Masks, known: Mapping[bytes, float], at_most: int) -> Iterator[Masks]:
    """The masks with the least error of those that are not known, each once."""
    taken = set(known)
    for index in np.argsort(errors(gram, population), kind="stable"):
        mask = population[index]
        if len(taken) == len(known) + at_most:
            return
        if mask.tobytes() not in taken:
            taken.add(mask.tobytes())
            yield mask


def _best(gram: FloatArray, found: Mapping[bytes, float]) -> Masks:
    """(p, u) the masks, the highest score first; of equal ones that with the least error."""
    masks = np.array([np.frombuffer(key, dtype=np.bool_) for key in found])
    return masks[np.lexsort((errors(gram, masks), -np.array(list(found.values()))))]
