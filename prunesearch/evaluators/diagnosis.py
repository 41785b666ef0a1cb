"""Why the scores of a search may mean nothing: checks that cost a few forwards, answered in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.evaluators.accuracy import AccuracyEvaluator, measured_on
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.models.corrections import corrections_of
from prunesearch.models.finite import first_not_finite
from prunesearch.models.isolation import as_found
from prunesearch.models.nested import Batch, Ragged, called, parts_of, taken, tensors_in
from prunesearch.models.sizes import batches_by_size, by_size, sizes_of
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure
from prunesearch.tasks import CLASSIFICATION
from prunesearch.tasks.examples import Examples

_TRIED = 64
_COMPARED, _FEW = 256, 8


def check_finite(model: nn.Module, *images: Batch) -> None:
    """Refuse what can only give scores that are no numbers.

    A tensor that is not finite does no harm where the outputs are finite all the same, such as a mask of `-inf`.

    Args:
        model: The network; it is only read.
        *images: (n, ...) images, or several inputs, each; the network is run on 64 of the first.

    Raises:
        ValueError: An image, or what the network returns, has a NaN or an infinity; the message has the number of the
            image, or the name of the first parameter or buffer that has one.
    """
    for name, some in (part for batch in images for part in parts_of(batch).items()):
        if not isinstance(some, (Tensor, Ragged)):
            continue
        broken = _not_finite(some)
        if broken:
            where = f" in the input {name}" if name else ""
            raise ValueError(
                f"Expected images of finite numbers; {len(broken)} of {len(some)} have a NaN or an infinity{where}, "
                f"the first of them at index {broken[0]}. Take them out, or mend how they are normalised."
            )
    with as_found(model), torch.inference_mode():
        outputs = [called(model, some) for some in batches_by_size(taken(images[0], slice(_TRIED)))]
    floats = [x for x in tensors_in(outputs) if x.is_floating_point()]
    if all(bool(torch.isfinite(x).all()) for x in floats):
        return
    tensor = first_not_finite(model)
    if tensor is not None:
        raise ValueError(
            f"The tensor {tensor} of the network has a NaN or an infinity, and so have its outputs. Load finite "
            "weights."
        )
    raise ValueError(
        "What the network returns is not finite, although its tensors and the images are: numbers on the way are too "
        f"large for {floats[0].dtype}. Normalise the images as in training, or search in torch.float32."
    )


def _not_finite(images: Tensor | Ragged) -> list[int]:
    """Indices of those images that have a NaN or an infinity."""
    if isinstance(images, Ragged):
        return [i for i, item in enumerate(images) if not all(bool(x.isfinite().all()) for x in tensors_in(item))]
    return (~torch.isfinite(images)).unsqueeze(-1).flatten(1).any(1).cpu().nonzero().flatten().tolist()


def diagnose(
    weights: WeightSource, examples: Examples, best: Structure, accuracy: Evaluator | None = None
) -> tuple[str, ...]:
    """What a user should know of a finished search.

    A classifier is at chance if it is not better, by three standard errors, than always naming the most frequent class.
    Another network is if its outputs fit their own examples no better, by three standard errors of the mean
    difference, than those of others. A task without labels is not judged.

    Args:
        weights: Where the weights of a structure come from.
        examples: What scored the structures.
        best: The best structure.
        accuracy: Scores by accuracy as the search did; by default with the statistics of the very images.
    """
    notes = []
    if not corrections_of(weights.network.model, [next(iter(examples.by_size())).take(slice(2)).inputs]):
        notes.append("The network has no BatchNorm that keeps statistics, so there was nothing to re-estimate.")
    notes += _of_sizes(weights, examples)
    if examples.task.name == CLASSIFICATION:
        return (*notes, *_of_a_classifier(weights, examples, best, accuracy))
    if examples.task.loss is None or not has_the_models_weights(weights):
        return tuple(notes)
    return (*notes, *_of_another(weights, examples, best))


def _of_sizes(weights: WeightSource, examples: Examples) -> list[str]:
    """Of which size costs are, where there are several."""
    if by_size(examples.inputs) is None:
        return []
    n = len(set(sizes_of(examples.inputs)))
    shapes = ", ".join(str(tuple(x.shape[1:])) for x in weights.network.inputs.tensors)
    return [
        f"The images have {n} sizes. Costs, and so budgets, are those of an image of shape {shapes}, with which the "
        "network was traced."
    ]


def _of_a_classifier(
    weights: WeightSource, examples: Examples, best: Structure, accuracy: Evaluator | None
) -> tuple[str, ...]:
    labels = examples.strata()
    chance = float(torch.bincount(labels).max()) / len(labels)
    if chance == 1:
        return (
            f"All images that score structures ({len(labels)}) have the label {int(labels[0])}, so accuracies say "
            "nothing, and losses little. Score on images of every class.",
        )
    limit = chance + 3 * math.sqrt(chance * (1 - chance) / len(labels))
    unpruned = measured_on(weights.network.model, examples) if has_the_models_weights(weights) else None
    if unpruned is not None and unpruned <= limit:
        return (
            f"The unpruned network classifies {unpruned:.1%} of the images correctly, and chance is {chance:.1%}: "
            "scores mean nothing. Are its weights trained, the images normalised as in training, the labels those of "
            "training?",
        )
    accuracy = accuracy or AccuracyEvaluator(weights, examples, metric="accuracy")
    there, found = accuracy.score([weights.network.space.full, best])
    if unpruned is not None and there <= limit:
        return (
            f"With re-estimated BatchNorm statistics the unpruned network falls from {unpruned:.1%} to {there:.1%}, "
            'which is chance: scores mean nothing. Score on more images, or with evaluator="adaptive_bn", which '
            "estimates statistics from all calibration images.",
        )
    if found <= limit:
        return (
            f"The best structure classifies {found:.1%} of the images correctly, and chance is {chance:.1%}: at this "
            "budget scores without training say little. Try a looser budget, or finetune several of the best.",
        )
    return ()


def _of_another(weights: WeightSource, examples: Examples, best: Structure) -> tuple[str, ...]:
    parts = [part for part in examples.take(slice(_COMPARED)).by_size() if len(part) > 1]  # with others of its size
    if sum(map(len, parts)) < _FEW:
        return ()
    model, full = weights.network.model, weights.network.space.full
    with as_found(model), torch.inference_mode():
        if _fit_no_better([called(model, part.inputs) for part in parts], parts):
            return (
                "What the unpruned network returns fits its own examples no better than others: scores mean nothing. "
                "Are its weights trained, the inputs normalised as in training, the targets those of training?",
            )
    evaluator = AccuracyEvaluator(weights, examples.take(slice(_COMPARED)))
    returned = evaluator.outputs_by_size([full, best], [part.inputs for part in parts])
    there, found = (_fit_no_better(outputs, parts) for outputs in returned)
    if there:
        return (
            "With re-estimated BatchNorm statistics the outputs of the unpruned network fit their own examples no "
            "better than others: scores mean nothing. Score on more images.",
        )
    if found:
        return (
            "What the best structure returns fits its own examples no better than others: at this budget scores "
            "without training say little. Try a looser budget, or finetune several of the best.",
        )
    return ()


def _fit_no_better(outputs: Sequence[Any], parts: Sequence[Examples]) -> bool:
    """Whether outputs are as good for other examples as for their own; False where losses are means, so unknown."""
    found = []
    for returned, part in zip(outputs, parts, strict=True):
        n = len(part)
        own = part.losses(returned)
        if own.dim() == 0:
            return False
        found.append(part.losses(taken(returned, (torch.arange(n) + n // 2) % n)) - own)
    gained = torch.cat(found).double()
    return float(gained.mean()) <= 3 * float(gained.std()) / math.sqrt(len(gained))


def has_the_models_weights(weights: WeightSource) -> bool:
    """Whether the unpruned network is the traced model itself; that of generated weights is another."""
    full, model = weights.network.space.full, weights.network.model
    return all(torch.equal(weights.values(name, full), values) for name, values in model.named_parameters())
