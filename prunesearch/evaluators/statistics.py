"""Which BatchNorm statistics structures are scored and built with, chosen by what they are worth at the budget."""

from __future__ import annotations

import math

from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.diagnosis import has_the_models_weights
from prunesearch.evaluators.recalibration import Statistics
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure

_FEWEST, _MOST = 32, 256
"""Examples that it takes to choose, and that are looked at, half of them for statistics."""

_CLEARLY = 0.02
"""Share of the score by which corrected statistics must be better, so that no rounding decides."""


def better_statistics(weights: WeightSource, scorer: AccuracyEvaluator, probe: Structure) -> Statistics:
    """The statistics with which a structure scores better, estimated from half of the examples and judged by the rest.

    Those of the images where that cannot be asked: the network keeps none, the weights are not those that it was
    trained with, there are few examples, or they have several sizes.

    Args:
        weights: What the scorer builds networks with.
        scorer: Scores with the statistics of the images.
        probe: A structure like those that will be scored.
    """
    if scorer.n_images < _FEWEST or not scorer.has_one_size or not has_the_models_weights(weights):
        return "images"
    if not scorer.keeps_statistics:
        return "images"
    halves = scorer.held_out(_MOST)
    plain, corrected = (halves.with_statistics(kind).score([probe])[0] for kind in ("images", "corrected"))
    if not (math.isfinite(plain) and math.isfinite(corrected)):
        return "images"
    return "corrected" if corrected > plain + _CLEARLY * abs(plain) else "images"
