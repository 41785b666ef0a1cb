"""What narrowing each group alone does to the score: the curves of a sensitivity analysis."""

from __future__ import annotations

import numpy as np

from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.models.nested import Batch
from prunesearch.models.weights import WeightSource
from prunesearch.structure import FloatArray, Space, Structure

_POINTS = 8


def curves(weights: WeightSource, evaluator: Evaluator, images: Batch) -> tuple[FloatArray, ...]:
    """Per group, (its allowed widths,) score of the network with only that group at each of them.

    At most 8 widths of a group are scored, evenly spread in their logarithm and the narrowest and widest among them;
    those between are interpolated. A score that is not finite counts as the lowest that is.

    Args:
        weights: Of the traced network.
        evaluator: Scores; its cost is that of `len(curve_structures(space))` structures.
        images: Not used; every kind of evidence takes them.
    """
    del images
    space = weights.network.space
    structures = curve_structures(space)
    scores = np.array(evaluator.score(structures), dtype=np.float64)
    finite = scores[np.isfinite(scores)]
    scores = np.where(np.isfinite(scores), scores, finite.min() if len(finite) else 0.0)
    return interpolated(space, dict(zip(structures, scores.tolist(), strict=True)))


def curve_structures(space: Space) -> list[Structure]:
    """The structures whose scores make the curves: the unpruned one, and those with one group narrowed."""
    narrowed = [
        (*space.full[:g], group.widths[at], *space.full[g + 1 :])
        for g, group in enumerate(space.groups)
        for at in _points(group.widths)
    ]
    return list(dict.fromkeys([space.full, *narrowed]))


def interpolated(space: Space, scores: dict[Structure, float]) -> tuple[FloatArray, ...]:
    """Curves through the scores of `curve_structures`, linear in the logarithm of the width."""
    found = []
    for g, group in enumerate(space.groups):
        known = [group.widths[at] for at in _points(group.widths)]
        structures = [(*space.full[:g], width, *space.full[g + 1 :]) for width in known]
        found.append(np.interp(np.log(group.widths), np.log(known), [scores[structure] for structure in structures]))
    return tuple(found)


def _points(widths: tuple[int, ...]) -> list[int]:
    """Positions of at most 8 of the widths."""
    wanted = np.geomspace(widths[0], widths[-1], _POINTS)
    return sorted({int(np.abs(np.array(widths) - width).argmin()) for width in wanted})
