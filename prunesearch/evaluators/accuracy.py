"""How good a structure is before any finetuning: its network on data, with BatchNorm statistics of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from prunesearch.evaluators.batching import BatchedForward
from prunesearch.evaluators.inputs import check_recorded
from prunesearch.evaluators.ways import Path, Precision, Way, Wish
from prunesearch.models.isolation import in_eval_mode
from prunesearch.models.nested import Batch, joined, size_of, taken, tensors_in
from prunesearch.models.sizes import by_size
from prunesearch.models.weights import WeightSource
from prunesearch.ranges import whole_number
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.metric import Measured, compute_all
from prunesearch.tasks.scored import measure, scored_by


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
            `calibration`.
    """

    def __init__(
        self,
        weights: WeightSource,
        examples: Examples,
        *,
        metric: str | None = None,
        batch_size: int = 256,
        calibration: Batch | None = None,
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
        self._forward = BatchedForward(weights, wish, examples.device)
        self._told = f"accuracy(metric={self.measures}, images={len(examples)}, batch_size={batch_size}"
        self._told += "" if calibration is None else f", calibration={size_of(calibration)}"
        self._told += "" if examples.task.name == "classification" else f", task={examples.task.name}"
        self._path = path
        self.precisions = ("fp32", "bf16") if wish.precision == "auto" else (wish.precision,)

    @property
    def description(self) -> str:
        """Name and settings in a line; see `Evaluator`."""
        return self.described(self._forward.precision)

    def described(self, precision: str) -> str:
        """The description with another precision, one of `precisions`."""
        precise = "" if precision == "fp32" else f", precision={precision}"
        return f"{self._told}{precise}{f', path={self._path}' if self._path.startswith('stacked') else ''})"

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
            self._forward.choose(structures, *self._preceded(part.inputs), score)

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
        return other

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score each structure; see `Evaluator`."""
        distinct = list(dict.fromkeys(structures))
        self._choose(distinct)
        measured = {structure: self._scored.measured() for structure in distinct}
        for parts in self._batches:
            returned = self.outputs_by_size(distinct, [part.inputs for part in parts])
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
        if len(batches) == 1:
            return [[outputs] for outputs in self.outputs(structures, batches[0])]
        return self._forward.run_together(structures, batches)

    def outputs(self, structures: Sequence[Structure], inputs: Batch) -> list[Any]:
        """What the network of each structure returns for one batch."""
        return [self._of_images(found) for found in self._forward.run(structures, *self._preceded(inputs))]

    def _preceded(self, inputs: Batch) -> tuple[Batch, int | None]:
        """A batch behind the images from which statistics come, and how many these are."""
        if self._calibration is None:
            return inputs, None
        return joined([self._calibration, inputs]), size_of(self._calibration)

    def _of_images(self, outputs: Any) -> Any:
        """What was returned for the images that score."""
        return outputs if self._calibration is None else taken(outputs, slice(size_of(self._calibration), None))


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
    """The metric of the task on some examples, in eval mode; the model's modes are restored.

    Raises:
        ValueError: A function of the task fails, or breaks its contract.
    """
    measured = Measured(examples.task)
    with in_eval_mode(model), torch.inference_mode():
        measure(model, examples.split(batch_size), measured)
    return measured.compute()


def top1(model: nn.Module, images: Batch, labels: Tensor, *, batch_size: int = 512) -> float:
    """Share of `images` that the model classifies correctly in eval mode; the model's modes are restored.

    Raises:
        ValueError: No images, not one label per image, or tensors of the meta device, which have no values.
    """
    check_values(images)
    without = next((name for name, tensor in model.named_parameters() if tensor.is_meta), None)
    if without is not None:
        raise ValueError(f"{without} of {type(model).__name__} is on the meta device, which keeps no values.")
    return measured_on(model, labelled(images, labels), batch_size=batch_size)


def check_values(inputs: Batch) -> None:
    """Make sure that there are inputs with values.

    Raises:
        ValueError: There are none.
    """
    if size_of(inputs) == 0:
        raise ValueError("Expected images to score with, got none.")
    if any(x.is_meta for x in tensors_in(inputs)):
        raise ValueError("The images are on the meta device, which keeps no values. Load them to another device.")
