"""Evaluators score structures on data; none of them trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from prunesearch.contracts import Contract, name_of
from prunesearch.registry import Registry, cached, parameters_of, resolve

if TYPE_CHECKING:
    from prunesearch.evaluators.evaluator import Evaluator
    from prunesearch.models.nested import Batch
    from prunesearch.models.network import Network
    from prunesearch.models.ranking import Ranking
    from prunesearch.models.weights import WeightSource
    from prunesearch.tasks.examples import Examples

    AnyEvaluator: TypeAlias = str | Evaluator | Callable[..., Evaluator]
    AnyWeights: TypeAlias = str | WeightSource | Callable[..., WeightSource]

EVALUATORS: Mapping[str, str] = {
    "accuracy": "prunesearch.evaluators.accuracy:AccuracyEvaluator",
    "adaptive_bn": "prunesearch.evaluators.classic:adaptive_bn_evaluator",
    "precise_bn": "prunesearch.evaluators.classic:precise_bn_evaluator",
}
EVALUATOR = Contract(
    "Evaluator",
    Registry("evaluator", "prunesearch.evaluators", EVALUATORS),
    methods=("score(structures)",),
    attributes=("description",),
    made_from="(weights, examples)",
)

WEIGHT_SOURCES: Mapping[str, str] = {
    "inherited": "prunesearch.models.weights:inherited_weights",
    "compensated": "prunesearch.evaluators.compensation:CompensatedWeights",
    "reconstructed": "prunesearch.evaluators.reconstructed:ReconstructedWeights",
    "generated": "prunesearch.models.generated:generated_weights",
}
WEIGHT_SOURCE = Contract(
    "WeightSource",
    Registry("weight source", "prunesearch.weight_sources", WEIGHT_SOURCES),
    methods=("build(structure)", "kept(structure)", "influences(tensor)", "values(tensor, structure)"),
    attributes=("network", "ranking", "description", "sliced"),
    made_from="(network, ranking, images), or (network, images) if it has a ranking of its own",
)

EVIDENCE: Mapping[str, str] = {
    "similarity": "prunesearch.evaluators.hsic:similarity",
    "curves": "prunesearch.evaluators.curves:curves",
    "unit_scores": "prunesearch.evaluators.channels.criterion:comparable_scores",
    "errors": "prunesearch.evaluators.width_errors:width_errors",
}
"""What searchers may want to know of a network before the first proposal, as arrays."""


def has_own_ranking(given: AnyWeights) -> bool:
    """Whether a weight source brings its own choice of channels, so that a criterion has no part in it.

    Args:
        given: As `make_weights` takes it. An object has its ranking already; what makes one has one of its own unless
            it takes a `ranking`.

    Raises:
        ValueError: No weight source has this name; the message has the list.
    """
    found = WEIGHT_SOURCE.found(file_after(given)[0])
    return WEIGHT_SOURCE.is_met(found) or "ranking" not in parameters_of(found)


def make_weights(
    given: AnyWeights, network: Network, ranking: Ranking | None, images: Batch, *, cache: str | Path | None = None
) -> WeightSource:
    """Build a weight source by name.

    Args:
        given: One of `WEIGHT_SOURCES`, or a name that an installed package adds (entry points,
            `prunesearch.weight_sources`); those of a PruningNet are `"generated:FILE"`, with the file it is in.
            `"package.module:attribute"`; a class or function that takes (network, ranking, images); or an object, which
            is returned.
        network: The traced network.
        ranking: Which channels stay; None will do for those that have a ranking of their own (`has_own_ranking`).
        images: (n, ...) images, for those that look at some.
        cache: Folder where those that gather statistics of layers keep them.

    Raises:
        ValueError: No weight source has this name, and the message has the list; it needs a ranking, got None; or it is
            of another network.
        ContractBroken: It has not all that a weight source has, or cannot be made from these arguments.
        CheckpointError: The file cannot be read, or is of another network.
    """
    name, file = file_after(given)
    found = WEIGHT_SOURCE.found(name)
    owns = has_own_ranking(given)
    if file is not None and "file" not in parameters_of(found):
        raise ValueError(f"The weight source {name!r} has no file, got {file!r}.")
    if ranking is None and not owns:
        raise ValueError(
            f"The weight source {name_of(given)!r} needs a ranking that says which channels stay, got None."
        )
    arguments = [network, *([] if owns else [ranking]), images, *([] if file is None else [file])]
    weights: WeightSource = WEIGHT_SOURCE.make(name, *arguments, **cached(found, cache))
    other: Any = weights.network
    if other is not network and (type(other) is not type(network) or other.fingerprint() != network.fingerprint()):
        raise WEIGHT_SOURCE.broken(given, "its weights are of another network; make it of the one that is searched")
    return weights


def file_after(given: AnyWeights) -> tuple[Any, str | None]:
    """A name of a weight source and the file after its colon, if that is a name; whatever else is given as it is."""
    if isinstance(given, str):
        name, colon, file = given.partition(":")
        if colon and WEIGHT_SOURCE.names.has(name):
            return name, file
    return given, None


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


def make_evaluator(given: AnyEvaluator, weights: WeightSource, examples: Examples, **options: Any) -> Evaluator:
    """Build an evaluator by name.

    Args:
        given: One of `EVALUATORS`, or a name that an installed package adds (entry points, `prunesearch.evaluators`);
            `"package.module:attribute"`; a class or function that takes (weights, examples); or an object, which
            is returned.
        weights: Where the weights of a structure come from.
        examples: What scores, with its task; inputs normalised like the training set.
        **options: Passed on to the evaluator's constructor.

    Raises:
        ValueError: No evaluator has this name, and the message has the list; or options are given with an object.
        TypeError: It has no such option.
        ContractBroken: What is made cannot score, or cannot be made from these arguments.
    """
    evaluator: Evaluator = EVALUATOR.make(given, weights, examples, options=options)
    return evaluator
