"""Why the scores of a search may mean nothing: checks that cost a few forwards, answered in sentences."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunesearch.evaluators.accuracy import AccuracyEvaluator, top1
from prunesearch.evaluators.batchnorm import batch_norms
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure


def diagnose(weights: WeightSource, images: Tensor, labels: Tensor, best: Structure) -> tuple[str, ...]:
    """What a user should know of a finished search.

    A network is at chance if it is not better, by three standard errors, than always naming the most frequent class.

    Args:
        weights: Where the weights of a structure come from.
        images: (n, ...) images that scored the structures.
        labels: (n,) their classes.
        best: The best structure.
    """
    model = weights.network.model
    notes = []
    if not batch_norms(model):
        notes.append("The network has no BatchNorm that keeps statistics, so there was nothing to re-estimate.")
    chance = float(torch.bincount(labels).max()) / len(labels)
    limit = chance + 3 * math.sqrt(chance * (1 - chance) / len(labels))
    full = weights.network.space.full
    unpruned = top1(model, images, labels) if _has_the_models_weights(weights) else None
    if unpruned is not None and unpruned <= limit:
        notes.append(
            f"The unpruned network classifies {unpruned:.1%} of the images correctly, and chance is {chance:.1%}: "
            "scores mean nothing. Are its weights trained, the images normalised as in training, the labels those of "
            "training?"
        )
        return tuple(notes)
    there, found = AccuracyEvaluator(weights, images, labels, metric="accuracy").score([full, best])
    if unpruned is not None and there <= limit:
        notes.append(
            f"With the batch's own BatchNorm statistics the unpruned network falls from {unpruned:.1%} to {there:.1%}, "
            'which is chance: scores mean nothing. Score with evaluator="adaptive_bn", or on more images.'
        )
    elif found <= limit:
        notes.append(
            f"The best structure classifies {found:.1%} of the images correctly, and chance is {chance:.1%}: at this "
            "budget scores without training say little. Try a looser budget, or finetune several of the best."
        )
    return tuple(notes)


def _has_the_models_weights(weights: WeightSource) -> bool:
    """Whether the unpruned network is the traced model itself; that of generated weights is another."""
    full, model = weights.network.space.full, weights.network.model
    return all(torch.equal(weights.values(name, full), values) for name, values in model.named_parameters())
