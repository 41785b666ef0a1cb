"""Evaluators score structures on data; none of them trains."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesearch.registry import cached, resolve

if TYPE_CHECKING:
    from prunesearch.evaluators.evaluator import Evaluator
    from prunesearch.models.nested import Batch
    from prunesearch.models.network import Network
    from prunesearch.models.ranking import Ranking
    from prunesearch.models.weights import WeightSource
    from prunesearch.tasks.examples import Examples

EVALUATORS: Mapping[str, str] = {
    "accuracy": "prunesearch.evaluators.accuracy:AccuracyEvaluator",
    "adaptive_bn": "prunesearch.evaluators.classic:adaptive_bn_evaluator",
    "precise_bn": "prunesearch.evaluators.classic:precise_bn_evaluator",
}

WEIGHT_SOURCES: Mapping[str, str] = {
    "inherited": "prunesearch.models.weights:inherited_weights",
    "compensated": "prunesearch.evaluators.compensation:CompensatedWeights",
    "reconstructed": "prunesearch.evaluators.reconstructed:ReconstructedWeights",
    "generated": "prunesearch.models.generated:generated_weights",
}

EVIDENCE: Mapping[str, str] = {
    "similarity": "prunesearch.evaluators.hsic:similarity",
    "curves": "prunesearch.evaluators.curves:curves",
    "unit_scores": "prunesearch.evaluators.channels.criterion:comparable_scores",
    "errors": "prunesearch.evaluators.reconstruction:width_errors",
}
"""What searchers may want to know of a network before the first proposal, as arrays."""


def has_own_ranking(name: str) -> bool:
    """Whether a weight source brings its own choice of channels, so that a criterion has no part in it.

    Args:
        name: One of `WEIGHT_SOURCES`, with or without a file.

    Raises:
        ValueError: No weight source has this name; the message has the list.
    """
    kind = resolve(WEIGHT_SOURCES, name.partition(":")[0], "weight source")
    return "ranking" not in inspect.signature(kind).parameters


def make_weights(
    name: str, network: Network, ranking: Ranking | None, images: Batch, *, cache: str | Path | None = None
) -> WeightSource:
    """Build a weight source by name.

    Args:
        name: One of `WEIGHT_SOURCES`; those of a PruningNet are `"generated:FILE"`, with the file it is in.
        network: The traced network.
        ranking: Which channels stay; None will do for those that have a ranking of their own (`has_own_ranking`).
        images: (n, ...) images, for those that look at some.
        cache: Folder where those that gather statistics of layers keep them.

    Raises:
        ValueError: No weight source has this name, and the message has the list; or it needs a ranking, got None.
        CheckpointError: The file cannot be read, or is of another network.
    """
    owns = has_own_ranking(name)
    name, colon, file = name.partition(":")
    kind = resolve(WEIGHT_SOURCES, name, "weight source")
    if colon and "file" not in inspect.signature(kind).parameters:
        raise ValueError(f"The weight source {name!r} has no file, got {file!r}.")
    if ranking is None and not owns:
        raise ValueError(f"The weight source {name!r} needs a ranking that says which channels stay, got None.")
    arguments = [network, *([] if owns else [ranking]), images, *([file] if colon else [])]
    weights: WeightSource = kind(*arguments, **cached(kind, cache))
    return weights


def gather(name: str, weights: WeightSource, evaluator: Evaluator, images: Batch) -> Any:
    """Gather one kind of evidence for a searcher; deterministic.

    Args:
        name: One of `EVIDENCE`.
        weights: Where the weights of a structure come from.
        evaluator: What scores structures.
        images: (n, ...) images, normalised like the training set.

    Raises:
        ValueError: No kind of evidence has this name.
    """
    return resolve(EVIDENCE, name, "kind of evidence")(weights, evaluator, images)


def make_evaluator(name: str, weights: WeightSource, examples: Examples, **options: Any) -> Evaluator:
    """Build an evaluator by name.

    Args:
        name: One of `EVALUATORS`.
        weights: Where the weights of a structure come from.
        examples: What scores, with its task; inputs normalised like the training set.
        **options: Passed on to the evaluator's constructor.

    Raises:
        ValueError: No evaluator has this name; the message has the list.
    """
    evaluator: Evaluator = resolve(EVALUATORS, name, "evaluator")(weights, examples, **options)
    return evaluator
