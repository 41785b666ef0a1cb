"""How good a structure is before any finetuning: its network on data, with BatchNorm statistics of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from prunesearch.evaluators.batching import BatchedForward, Given
from prunesearch.evaluators.inputs import check_recorded
from prunesearch.evaluators.recalibration import Statistics
from prunesearch.evaluators.ways import Path, Precision, Way, Wish
from prunesearch.models.corrections import Corrections, TrainedStatistics, corrections_of
from prunesearch.models.isolation import as_found
from prunesearch.models.nested import Batch, joined, size_of, taken, tensors_in, without_arrays
from prunesearch.models.sizes import by_size
from prunesearch.models.weights import WeightSource
from prunesearch.models.wrappers import check_network
from prunesearch.ranges import whole_number
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.metric import Measured, compute_all
from prunesearch.tasks.scored import check_answer, measure, scored_by


class AccuracyEvaluator:
    """Scores a structure in one pass in which every BatchNorm normalises with the statistics of the batch itself.

    A slimmed network inherits the statistics of channels whose inputs are gone; scored as it stands, structures are
    ranked by that mismatch. Re-estimating them first is the idea of EagleEye (Li et al., ECCV 2020, arXiv:2007.02491).
    Departs from it: the statistics come from the very images that are scored, in the same pass, instead of 100
    training batches beforehand, which costs a small fraction of it (`evaluators.classic` has the original).

    Images of several sizes run one size at a time, in lockstep: statistics are those of the whole batch, as above.

    Two ways to compute the same, equal to about 1e-4. *Sliced*: narrow tensors, cheap; structures of one call share
    the beginnings of their forwards that they have in common. *Stacked*: several structures in one launch, as masks of
    the full network, for devices that a single one leaves idle.

    Args:
        weights: Where the weights of a structure come from.
        examples: What scores, with its task; inputs normalised like the training set.
        metric: `"loss"`: minus the loss of the task; it tells apart structures of equal accuracy. `"fidelity"`: minus
            the distance of the outputs from the unpruned network's, and `"agreement"`: the share about which both say
            the same; neither needs labels. `"metric"`, or its name, such as `"accuracy"`: that of the task. None takes
            the loss, or fidelity where the task has none.
        batch_size: Images per forward. Fewer than about 64 make poor statistics.
        calibration: (m, ...) inputs from which the statistics come instead; they precede every batch.
        statistics: `"images"`: those that the images have in the network of the structure. `"corrected"`: less the
            error that the same images make in the trained network, where its running statistics are known
            (`models.corrections`); its own score is then that of the network as it is. Better where images are few or
            unlike those of the training, and a little worse where they are many and of the same kind.
        path: `"sliced"`, `"stacked"`, or `"auto"`: sliced on a CPU; elsewhere, if the weights are slices of the traced
            network's, what is fastest with some structures (`evaluators.batching`). Only run on CPUs so far. Stacks
            may also have their channels last in memory, and be launched as a CUDA graph: `"stacked+channels_last"`,
            `"stacked+graph"`, `"stacked+channels_last+graph"`.
        at_once: Structures in one launch, if stacked; halved for good when memory runs out. None takes 16 on a CPU,
            and of 4, 16 and 64 what is fastest elsewhere.
        precision: `"fp32"`; `"bf16"`, which computes convolutions and products in 16 bits; or `"auto"`: 32 bits, unless
            `choose` finds that 16 are faster on a GPU and say the same. A search calls it, and the study keeps what it
            finds.

    Raises:
        ValueError: Unknown metric, path or precision, no examples, or a network that was traced with other inputs; or
            images of several sizes for which its forward does something else, or that are to be run stacked or with
            `calibration`; or `batch_size` or `at_once` below 1.
        TypeError: One of these two is no whole number.
    """

    def __init__(
        self,
        weights: WeightSource,
        examples: Examples,
        *,
        metric: str | None = None,
        batch_size: int = 256,
        calibration: Batch | None = None,
        statistics: Statistics = "images",
        path: Path = "auto",
        at_once: int | None = None,
        precision: Precision = "auto",
    ) -> None:
        if path not in get_args(Path):
            raise ValueError(f"Unknown path {path!r}; there are {', '.join(get_args(Path))}.")
        if precision not in get_args(Precision):
            raise ValueError(f"Unknown precision {precision!r}; there are {', '.join(get_args(Precision))}.")
        if at_once is not None:
            at_once = whole_number("at_once", at_once, at_least=1)
        if statistics not in get_args(Statistics):
            raise ValueError(f"Unknown statistics {statistics!r}; there are {', '.join(get_args(Statistics))}.")
        batch_size = whole_number("batch_size", batch_size, at_least=1)
        check_values(examples.inputs)
        check_recorded(weights.network, examples.inputs)
        wish = Wish(path, at_once, precision)
        if by_size(examples.inputs) is not None:
            _check_several(calibration, path)
            wish = Wish("sliced", at_once, "fp32" if precision == "auto" else precision)
        self._scored = scored_by(examples, metric, weights.network.model, batch_size=batch_size)
        self.measures, self.is_negated = self._scored.name, self._scored.is_negated
        self._batch_size = batch_size
        self._batches = _batches(self._scored.examples, batch_size)
        self._calibration = calibration
        self._model = weights.network.model
        self._trained = TrainedStatistics(self._model)
        self.statistics = statistics
        self._forward = BatchedForward(weights, wish, examples.device)
        self._said_first = f"accuracy(metric={self.measures}, images={len(examples)}, batch_size={batch_size}"
        self._said_first += "" if calibration is None else f", calibration={size_of(calibration)}"
        self._said_task = "" if examples.task.name == "classification" else f", task={examples.task.name}"
        self._said_path = f", path={path})" if path.startswith("stacked") else ")"
        self.precisions = ("fp32", "bf16") if wish.precision == "auto" else (wish.precision,)

    @property
    def description(self) -> str:
        """Name and settings in a line; see `Evaluator`."""
        return self.described(self._forward.precision)

    def described(self, precision: str) -> str:
        """The description with another precision, one of `precisions`."""
        of_statistics = "" if self.statistics == "images" else f", statistics={self.statistics}"
        precise = "" if precision == "fp32" else f", precision={precision}"
        return self._said_first + of_statistics + self._said_task + precise + self._said_path

    @property
    def way(self) -> Way | None:
        """How structures are run; None until that has been found out."""
        return self._forward.way

    def keep(self, way: Way) -> None:
        """Run structures as was chosen before, where nothing else was asked for; see `BatchedForward.keep`."""
        self._forward.keep(way)

    def choose(self, structures: Sequence[Structure]) -> None:
        """Find out in which way some structures are run fastest, if that is open; see `BatchedForward.choose`.

        Scores may be in 16 bits afterwards.
        """
        self._choose(structures, self._scored_from)

    def _choose(
        self, structures: Sequence[Structure], score: Callable[[Sequence[Any]], Sequence[float]] | None = None
    ) -> None:
        (part, *several) = self._batches[0]
        if self._forward.way is None and not several:
            corrections = self._corrections_of([part.inputs], 0)
            self._forward.choose(structures, self._given(part.inputs, corrections), score)

    def _scored_from(self, outputs: Sequence[Any]) -> list[float]:
        """Scores by what networks returned for the first batch."""
        (part,) = self._batches[0]
        measured = [self._scored.measured() for _ in outputs]
        for each, returned in zip(measured, outputs, strict=True):
            each.update(self._of_images(returned), part.batch, len(part))
        return [self._scored.as_score(value) for value in compute_all(measured)]

    @property
    def n_images(self) -> int:
        """How many examples it scores on."""
        return len(self._scored.examples)

    def on(self, images: Sequence[int]) -> AccuracyEvaluator:
        """The same on some of the examples; see `Divisible`."""
        examples = self._scored.examples
        chosen = examples.take(torch.as_tensor(images, device=examples.device))
        other = copy.copy(self)  # with the same recorded forward, which takes long to make
        other._scored = replace(self._scored, examples=chosen)
        other._batches = _batches(chosen, self._batch_size)
        other._trained = TrainedStatistics(self._model)
        return other

    @property
    def has_one_size(self) -> bool:
        """Whether all examples have inputs of one size."""
        return by_size(self._scored.examples.inputs) is None

    @property
    def keeps_statistics(self) -> bool:
        """Whether the network has a BatchNorm with running statistics."""
        return bool(corrections_of(self._model, [self._scored.examples.take(slice(2)).inputs]))

    def held_out(self, at_most: int) -> AccuracyEvaluator:
        """The same on half of the first examples, with statistics of the other half; for inputs of one size."""
        n = min(at_most, self.n_images)
        other = self.on(list(range(0, n, 2)))
        other._calibration = self._scored.examples.take(torch.arange(1, n, 2)).inputs
        return other

    def with_statistics(self, statistics: Statistics) -> AccuracyEvaluator:
        """The same with other statistics."""
        other = copy.copy(self)
        other.statistics = statistics
        return other

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score each structure; see `Evaluator`."""
        distinct = list(dict.fromkeys(structures))
        self._choose(distinct)
        measured = {structure: self._scored.measured() for structure in distinct}
        for index, parts in enumerate(self._batches):
            batches = [part.inputs for part in parts]
            returned = self._outputs(distinct, batches, self._corrections_of(batches, index))
            for structure, outputs in zip(distinct, returned, strict=True):
                for part, of_part in zip(parts, outputs, strict=True):
                    measured[structure].update(of_part, part.batch, len(part))
        computed = compute_all(measured.values())
        found = {s: self._scored.as_score(value) for s, value in zip(measured, computed, strict=True)}
        return [found[structure] for structure in structures]

    def outputs_by_size(self, structures: Sequence[Structure], batches: Sequence[Batch]) -> list[list[Any]]:
        """What the network of each structure returns for one batch, in parts of one size each.

        The statistics are those of all parts together.
        """
        return self._outputs(structures, batches, self._corrections_of(batches))

    def _outputs(
        self, structures: Sequence[Structure], batches: Sequence[Batch], corrections: Corrections | None
    ) -> list[list[Any]]:
        if len(batches) > 1:
            return self._forward.run_together(structures, batches, corrections)
        given = self._given(batches[0], corrections)
        return [[self._of_images(outputs)] for outputs in self._forward.run(structures, given)]

    def _given(self, inputs: Batch, corrections: Corrections | None) -> Given:
        """A batch, behind the images from which statistics come where these are others."""
        if self._calibration is None:
            return Given(inputs, None, corrections)
        return Given(joined([self._calibration, inputs]), size_of(self._calibration), corrections)

    def _of_images(self, outputs: Any) -> Any:
        """What was returned for the images that score."""
        return outputs if self._calibration is None else taken(outputs, slice(size_of(self._calibration), None))

    def _corrections_of(self, batches: Sequence[Batch], index: int | None = None) -> Corrections | None:
        """What the images get wrong that the statistics of a batch come from, if that is to be corrected.

        Args:
            batches: The batch, in parts of one size each.
            index: Which batch of the examples it is; None of other images, which are not remembered.
        """
        if self.statistics != "corrected":
            return None
        if self._calibration is not None:
            return self._trained.of(0, [self._calibration])
        return corrections_of(self._model, batches) if index is None else self._trained.of(index, batches)


def _check_several(calibration: Batch | None, path: Path) -> None:
    if calibration is not None:
        raise ValueError(
            "Expected no calibration= beside images of several sizes, as it precedes every batch. Leave it out: "
            "statistics come from the images that score."
        )
    if path.startswith("stacked"):
        raise ValueError("Images of several sizes cannot be run stacked. Use path='sliced'.")


def _batches(examples: Examples, batch_size: int) -> list[list[Examples]]:
    """Batches of examples, each in parts of one size."""
    return [batch.by_size() for batch in examples.batches(batch_size)]


def measured_on(model: nn.Module, examples: Examples, *, batch_size: int = 512) -> float:
    """The metric of the task on some examples, in eval mode; the model is left as it was.

    Raises:
        ValueError: A function of the task fails, or breaks its contract; or the network cannot take the examples, or
            returns NaN for some; or they do not fit it.
    """
    measured = Measured(examples.task)
    with as_found(model), torch.inference_mode():
        measure(model, examples.split(batch_size), measured, look=check_answer)
    return measured.compute()


def top1(model: nn.Module, images: Batch, labels: Tensor, *, batch_size: int = 512) -> float:
    """Share of `images` that the model classifies correctly in eval mode; the model is left as it was.

    Raises:
        ValueError: No images, not one label per image, which is a class of the network, images that it cannot take, or
            tensors of the meta device, which have no values.
        TypeError: The model is no network.
    """
    check_network(model)
    images, labels = without_arrays(images), without_arrays(labels)
    check_values(images)
    without = next((name for name, tensor in model.named_parameters() if tensor.is_meta), None)
    if without is not None:
        raise ValueError(f"{without} of {type(model).__name__} is on the meta device, which keeps no values.")
    examples = labelled(images, labels)
    return measured_on(model, examples, batch_size=batch_size)


def check_values(inputs: Batch) -> None:
    """Make sure that there are inputs with values.

    Raises:
        ValueError: There are none.
    """
    if size_of(inputs) == 0:
        raise ValueError("Expected images to score with, got none.")
    if any(x.is_meta for x in tensors_in(inputs)):
        raise ValueError("The images are on the meta device, which keeps no values. Load them to another device.")
