"""Variation and selection of widths with DEAP's operators. A gene is the position of a width among the allowed ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from deap import base, tools

from prunesearch.structure import FloatArray, IntArray


def mutants(
    parents: IntArray, choices: IntArray, probability: float, rng: np.random.Generator, n: int
) -> list[list[int]]:
    """Make `n` mutants of random parents: each gene, with the given probability, takes any other allowed value.

    Args:
        parents: (p, g) genes.
        choices: (g,) number of allowed values of each gene.
        probability: Of each gene.
        rng: Decides every draw.
        n: How many.
    """
    highest = np.maximum(choices - 1, 1).tolist()
    made = []
    with _seeded_deap(rng):
        for _ in range(n):
            parent = parents[rng.integers(len(parents))]
            shift = [0] * len(parent)
            tools.mutUniformInt(shift, low=1, up=highest, indpb=probability)
            made.append(list((parent + shift) % choices))
    return made


def crossovers(parents: IntArray, rng: np.random.Generator, n: int) -> list[list[int]]:
    """Make `n` children that take each gene from either of two different parents, of (p, g) with p > 1."""
    made = []
    with _seeded_deap(rng):
        for _ in range(n):
            one, other = (list(parents[i]) for i in rng.choice(len(parents), size=2, replace=False))
            made.append(list(tools.cxUniform(one, other, indpb=0.5)[0]))
    return made


def survivors(objectives: FloatArray, n: int) -> list[int]:
    """Indices of the `n` best of (p, k) objectives, all to be maximised: NSGA-II's non-dominated sorting and crowding.

    Source: Deb et al., A fast and elitist multiobjective genetic algorithm, IEEE TEC 2002, section III.
    """
    individuals = [_Individual(i, row) for i, row in enumerate(objectives.tolist())]
    return [individual.index for individual in tools.selNSGA2(individuals, n)]


class _Fitness(base.Fitness):  # type: ignore[misc]
    def __init__(self, values: list[float]) -> None:
        self.weights = (1.0,) * len(values)
        super().__init__(values)


class _Individual:
    def __init__(self, index: int, objectives: list[float]) -> None:
        self.index = index
        self.fitness = _Fitness(objectives)


@contextmanager
def _seeded_deap(rng: np.random.Generator) -> Iterator[None]:
    """DEAP draws from the global `random`: seed it from our generator, and give the caller's state back."""
    state = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(state)
