"""The protocols of the papers: re-estimate BatchNorm statistics on many training images, then validate. Slow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from prunesearch.evaluators.accuracy import check_values
from prunesearch.evaluators.inputs import check_inputs
from prunesearch.evaluators.recalibration import adaptive_bn, precise_bn
from prunesearch.models.devices import random_apart
from prunesearch.models.isolation import in_eval_mode
from prunesearch.models.nested import Batch, size_of
from prunesearch.models.weights import WeightSource
from prunesearch.ranges import whole_number
from prunesearch.structure import Structure
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.scored import measure, scored_by

_AT_ONCE = 512


class ClassicEvaluator:
    """The task's metric after the BatchNorm statistics of a structure's network were re-estimated in other passes.

    For comparison; `AccuracyEvaluator` costs a small fraction.

    Args:
        weights: Where the weights of a structure come from.
        examples: What scores, with its task.
        estimate: Re-estimates the statistics of a network on some images, in place.
        calibration: (m, ...) images to re-estimate from; None takes those that score.
        **settings: Further arguments of `estimate`, which the description tells.

    Raises:
        TypeError: One of the settings is no whole number.
        ValueError: No examples, a network that was traced with other inputs, or settings below 1.
    """

    def __init__(
        self,
        weights: WeightSource,
        examples: Examples,
        *,
        estimate: Callable[..., None],
        calibration: Batch | None,
        **settings: int,
    ) -> None:
        for name, value in settings.items():
            whole_number(name, value, at_least=1)
        check_values(examples.inputs)
        check_inputs(weights.network, examples.inputs)
        judged = "metric" if examples.task.metric is not None else None
        self._scored = scored_by(examples, judged, weights.network.model)
        self.measures, self.is_negated = self._scored.name, self._scored.is_negated
        self._weights = weights
        self._estimate = partial(estimate, **settings)
        self._calibration = examples.inputs if calibration is None else calibration
        used = {"images": len(examples), "calibration": size_of(self._calibration), **settings}
        self.description = f"{estimate.__name__}({', '.join(f'{name}={value}' for name, value in used.items())})"

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score each structure; see `Evaluator`."""
        return [self._score(self._weights.build(structure)) for structure in structures]

    def _score(self, model: nn.Module) -> float:
        measured = self._scored.measured()
        with random_apart(self._scored.examples.device, seed=0):  # what the forward draws
            self._estimate(model, self._calibration)
            with in_eval_mode(model), torch.inference_mode():
                measure(model, self._scored.examples.split(_AT_ONCE), measured)
        return self._scored.as_score(measured.compute())


def adaptive_bn_evaluator(
    weights: WeightSource,
    examples: Examples,
    *,
    calibration: Batch | None = None,
    batch_size: int = 128,
    batches: int = 100,
) -> ClassicEvaluator:
    """The protocol of EagleEye: exponential averages over 100 batches of training images, then the accuracy on others.

    Source: Li et al., EagleEye, ECCV 2020, arXiv:2007.02491; `recalibration.adaptive_bn` lists the departures.

    Args:
        weights: Where the weights of a structure come from.
        examples: What scores, with its task.
        calibration: (m, ...) images to re-estimate from, in the paper 12,800 others than score; fewer are gone through
            several times, shuffled. None takes those that score.
        batch_size: Images per batch of the re-estimation.
        batches: How many batches; each keeps nine tenths of what the statistics were before it.
    """
    return ClassicEvaluator(
        weights,
        examples,
        estimate=adaptive_bn,
        calibration=calibration,
        batch_size=batch_size,
        batches=batches,
    )


def precise_bn_evaluator(
    weights: WeightSource,
    examples: Examples,
    *,
    calibration: Batch | None = None,
    batch_size: int = 128,
) -> ClassicEvaluator:
    """The protocol of fvcore: statistics of all images together, then the accuracy.

    Source: Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv:2105.07576, section 3.2.

    Args:
        weights: Where the weights of a structure come from.
        examples: What scores, with its task.
        calibration: (m, ...) images to re-estimate from; None takes those that score.
        batch_size: Images per batch of the re-estimation.
    """
    return ClassicEvaluator(weights, examples, estimate=precise_bn, calibration=calibration, batch_size=batch_size)
