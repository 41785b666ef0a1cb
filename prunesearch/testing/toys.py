"""Small spaces whose costs are known, and landscapes with a known optimum: what searchers are tested on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from prunesearch.latency_model import LatencyModel
from prunesearch.latency_table import LatencyTable, network_fingerprint
from prunesearch.latency_times import Built, Conditions, Layer, Timing, Use
from prunesearch.structure import Cost, Group, Space, Structure, Term, Width
from prunesearch.trial import Trial


def chain_space(
    full: Sequence[int] = (8, 12, 16), choices: int = 4, *, unit: int = 1, inputs: int = 3, outputs: int = 10
) -> Space:
    """A chain of 3x3 convolutions on 4x4 images, each of them a group; `choices` evenly spaced widths each."""
    groups = tuple(
        Group(
            name=f"conv{i}",
            width=width * unit,
            unit=unit,
            widths=tuple(width * unit * k // choices // unit * unit for k in range(1, choices + 1)),
            members=(f"conv{i}",),
        )
        for i, width in enumerate(full)
    )
    widths = [Width(inputs), *(Width(0, ((i, unit),)) for i in range(len(full))), Width(outputs)]
    pairs = list(itertools.pairwise(widths))
    macs = tuple(Term(f"conv{i}", 9 * 16, left, right) for i, (left, right) in enumerate(pairs))
    params = tuple(Term(f"conv{i}.weight", 9, left, right) for i, (left, right) in enumerate(pairs))
    return Space(groups, macs, params)


def bowl(space: Space, centre: Sequence[float]) -> Callable[[Structure], float]:
    """A landscape that is highest at the kept fractions `centre`, with an interaction between neighbours."""

    def score(structure: Structure) -> float:
        gaps = [
            width / group.width - middle for width, group, middle in zip(structure, space.groups, centre, strict=True)
        ]
        return -sum(gap * gap for gap in gaps) - 0.5 * sum(a * b for a, b in itertools.pairwise(gaps))

    return score


def evidence(space: Space, needs: Iterable[str]) -> dict[str, Any]:
    """What a searcher wants to know of the network, made up: every group matters alike.

    Args:
        space: The space.
        needs: Kinds of evidence, of `prunesearch.evaluators.EVIDENCE`.
    """
    made = {
        "similarity": [np.ones(1) for _ in space.groups],
        "errors": [1 - np.array(group.widths) / group.width for group in space.groups],
        "unit_scores": [np.arange(group.units) / group.units for group in space.groups],
        "curves": [np.array(group.widths) / group.width for group in space.groups],
    }
    return {need: made[need] for need in needs}


def toy_table(space: Space, noise: float = 0.0, cliff: float = 1.0) -> LatencyTable:
    """A latency table of a chain, made up: a microsecond per 1,000 MACs and 20 per layer.

    Args:
        space: Of `chain_space`.
        noise: How far the whole networks are off the sum, up and down in turn.
        cliff: How many times slower widths are that are no multiples of 8.
    """
    layers: list[Layer] = []
    uses: list[Use] = []
    for term in space.macs_terms:
        sides = [side for side in (term.right, term.left) if side.terms]
        axes = tuple(space.groups[side.terms[0][0]].widths for side in sides)
        constant = term.coefficient * np.prod([side.constant for side in (term.right, term.left) if not side.terms])
        times = []
        for widths in itertools.product(*axes):
            slow = cliff if any(width % 8 for width in widths) else 1.0
            ms = 0.02 + 1e-6 * float(constant * np.prod(widths)) * slow
            times.append(Timing(ms, ms, ms))
        uses.append(Use(term.layer, len(layers), tuple(sides)))
        layers.append(Layer(term.layer, axes, tuple(times)))
    table = LatencyTable(
        conditions=Conditions("remote", "toy", "toy", 1, 1, ()),
        groups=tuple((group.name, group.width, group.unit) for group in space.groups),
        network=network_fingerprint(space),
        layers=tuple(layers),
        uses=tuple(uses),
        networks=(),
    )
    model = LatencyModel(table, space)
    built = []
    for i, structure in enumerate([space.full, space.minimum] * 4 if noise else []):
        ms = float(model.predict([structure])[0]) * (1 + noise * (-1) ** (i // 2))
        built.append(Built(structure, Timing(ms, ms, ms)))
    return dataclasses.replace(table, networks=tuple(built))


def trial(number: int, structure: Structure, score: float | None) -> Trial:
    """A trial of a structure; one without a score failed."""
    return Trial(
        number=number,
        structure=structure,
        cost=Cost(1, 1),
        score=score,
        failure=None if score is not None else "It broke.",
        seconds=0.0,
        searcher="toy",
        evaluator="toy",
        worker="here:1",
    )


def trials_of(structures: Iterable[Structure], score: Callable[[Structure], float], start: int = 0) -> list[Trial]:
    """Trials of structures, numbered from `start`, with the scores of a landscape."""
    return [trial(start + i, structure, score(structure)) for i, structure in enumerate(structures)]
