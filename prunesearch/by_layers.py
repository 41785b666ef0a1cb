"""Pruning layer by layer: a genetic algorithm chooses the channels of one, the network learns, the next one comes.

Source: Hu et al., "A novel channel pruning method for deep neural network compression", 2018, arXiv:1805.11394. The
paper itself could not be had: its abstract, and a reader's summary. Published is that a trained network is pruned
layer by layer in the order of the layers' sensitivity, that a genetic algorithm over 0/1 chromosomes selects the
channels of a layer, with a fitness approximated in two steps from the error of the layer's output, and that the
network is finetuned with knowledge distillation after each layer. Ours are: how sensitivity is measured and that the
least sensitive layer comes first, the widths (the paper's users give them; here a budget or `structure=` does), what
the two steps are (`evaluators.two_step`), that BatchNorm statistics are re-estimated before anything is scored, and
every number. So this is no reproduction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunesearch.budget import AnyBudget, FeasibleSet, as_budget
from prunesearch.evaluators.channels.genetic import greedy_mask
from prunesearch.evaluators.diagnosis import check_finite
from prunesearch.evaluators.layer_inputs import layer_inputs
from prunesearch.evaluators.recalibration import recalibrate_bn
from prunesearch.evaluators.two_step import choose_units
from prunesearch.evaluators.width_errors import gram_matrices
from prunesearch.given import as_network
from prunesearch.models.copying import copied
from prunesearch.models.devices import devices_here
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.isolation import in_eval_mode
from prunesearch.models.nested import members
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import kept_units, named_tensors, put_back, slim
from prunesearch.models.tensor_file import content_of
from prunesearch.preparation import check_data
from prunesearch.progress import Progress
from prunesearch.ranges import whole_number
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import FloatArray, IntArray, Structure
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.scored import measure, scored_by
from prunesearch.training.accelerating import Log, accelerated
from prunesearch.training.checkpoint import CheckpointFile, Snapshot
from prunesearch.training.data import Data, Source, as_data
from prunesearch.training.evaluation import question_of_task
from prunesearch.training.finetune import train
from prunesearch.training.loop import check_patience
from prunesearch.training.recipe import Recipe, check_recipe
from prunesearch.training.reports import EpochReport, LayerReport, Session, StepReport
from prunesearch.training.settings import LayerwiseSettings

_AT_ONCE = 512
_SAVE_EVERY = 60.0
"""Seconds between checkpoints while sets of channels are scored."""


@dataclass(frozen=True, repr=False)
class LayerwisePruned:
    """What pruning layer by layer found.

    Attributes:
        structure: Kept channels per group; within the budget.
        ranking: Which channels stay at that structure.
        layers: What became of each layer, in the order in which they were pruned.
        model: The pruned network, finetuned, in eval mode; plain modules.
        reports: One per epoch of the trainings between layers, then of the last one.
    """

    structure: Structure
    ranking: NestedRanking
    layers: tuple[LayerReport, ...]
    model: nn.Module
    reports: tuple[EpochReport, ...]

    def __repr__(self) -> str:
        return f"LayerwisePruned({type(self.model).__name__}, layers: {len(self.layers)}, epochs: {len(self.reports)})"


def layerwise(
    network: Network | nn.Module,
    data: Data | Source,
    *,
    budget: AnyBudget,
    structure: Structure | None = None,
    recipe: Recipe | None = None,
    settings: LayerwiseSettings | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    log: Log | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_layer: Callable[[LayerReport], None] | None = None,
    on_score: Callable[[float], None] | None = None,
    device: str | None = None,
    progress: Progress = True,
) -> LayerwisePruned:
    """Prune a trained network layer by layer, with training in between; the traced model stays as it is.

    The least sensitive layer comes first. A genetic algorithm chooses its channels: a closed form, the change of the
    next layers' outputs, screens many sets, and the few that it finds best are scored on data. Then the network is
    trained for a little, with the unpruned one as teacher, and the next layer has its turn, until the budget is met;
    then comes the last finetuning, with the same teacher. A layer is a group of coupled channels. In one process only.

    Run again with the same arguments and checkpoint, it goes on where it was, also within a layer, and ends with the
    same weights, to the last bit, as if it had never stopped (on GPUs as far as their kernels are deterministic).

    Args:
        network: A traced network with trained weights; a module is traced first, with two of the images.
        data: Where the training images come from; `data.calibration_set()` scores sets of channels.
        budget: What the structure meets, also as a text such as `"macs=50%"`.
        structure: Widths that the layers get, all of them; by default `settings.share_of_budget` and the budget say.
        recipe: How to finetune at the end. Between layers likewise, but for `settings.epochs_per_layer` epochs.
        settings: How layers are pruned.
        seed: Decides everything random.
        checkpoint: A file for the state; trainings have one beside it, ending in `.layer` and in `.finetune`.
        log: Where to log a row per epoch, in a folder for each training: `layer-1`, ..., `finetune`.
        on_epoch: Called after every epoch; each training counts its epochs from 1.
        on_step: Called after every step.
        on_layer: Called after every layer, when that is on disk.
        on_score: Called with each score. If it raises, the state is written first.
        device: Where it runs; by default on the GPU where there is one. What comes back is where the network was.
        progress: Whether to show how far each training is, where there is a terminal or a notebook.

    Raises:
        InfeasibleBudget: No structure meets the budget.
        ValueError: A structure over the budget, a recipe that trains from scratch, or data that do not fit the network.
        TraceError: The module cannot be traced.
        TrainingDiverged: The loss became NaN or infinite.
        CheckpointError: The checkpoint is damaged, of another training, or cannot be written.
    """
    recipe, settings, data = Recipe() if recipe is None else recipe, settings or LayerwiseSettings(), as_data(data)
    check_recipe(recipe)
    settings.check(recipe)
    check_patience(recipe, data)
    seed = whole_number("seed", seed, at_least=0)
    network = as_network(network, data)
    feasible = as_budget(budget).check(network)
    widths = None if structure is None else network.space.check(structure)
    if widths is not None and not feasible.contains([widths])[0]:
        raise ValueError(
            f"Expected a structure within the budget {budget}; this one has {feasible.shown(feasible.cost(widths))}. "
            "Give a narrower one, or leave structure= out."
        )
    where = devices_here().chosen(device, network.device)
    with accelerated(recipe.precision, None, where) as accelerator:
        if accelerator.num_processes > 1:
            raise ValueError(f"Pruning layer by layer runs in one process, got {accelerator.num_processes}.")
    placed = network.to(where)
    examples = check_data(placed, data)
    check_finite(placed.model, examples.inputs)
    question = {
        "network": network.fingerprint(),
        "space": network.space.fingerprint,
        "budget": feasible.as_facts(),
        "structure": widths,
        "recipe": asdict(recipe),
        "settings": asdict(settings),
        "seed": seed,
        "torch": torch.__version__,
    }
    with ExitStack() as stack:
        file = None
        if checkpoint is not None:
            told: dict[str, Any] = {"data": data.fingerprint(), "calibration": fingerprint(*members(examples.batch))}
            told |= question_of_task(network.model, data)
            file = stack.enter_context(CheckpointFile(Path(checkpoint), {**question, **told}))
        session = Session(checkpoint, log, on_epoch, on_step, str(where), progress)
        layers = _Layers(placed, data, examples, recipe, settings, seed, session, file, on_score)
        found = layers.prune(feasible, widths, on_layer or (lambda report: None))
        return replace(found, model=found.model.to(network.device))


@dataclass
class _Progress:
    """How far it is; plain values, for the checkpoint.

    Attributes:
        sensitivity: By the index of a group, as text; empty until all are known.
        scores: By what was scored, of the step under way.
        units: By the index of a group, as text: those that stay, in the order in which groups were pruned.
        layers: What became of each.
        trained: After how many layers training has ended.
        reports: One per epoch between layers.
    """

    sensitivity: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    units: dict[str, list[int]] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    trained: int = 0
    reports: list[dict[str, Any]] = field(default_factory=list)


class _Layers:
    """The network on its way: weights at full width, and which units stay.

    What was trained at small widths is copied back to where it was, so that structures, masks and the budget are those
    of the one network that was traced.
    """

    def __init__(
        self,
        network: Network,
        data: Data,
        examples: Examples,
        recipe: Recipe,
        settings: LayerwiseSettings,
        seed: int,
        session: Session,
        file: CheckpointFile | None,
        on_score: Callable[[float], None] | None,
    ) -> None:
        self._unpruned, self._data, self._examples = network, data, examples
        self._recipe, self._settings, self._seed = recipe, settings, seed
        self._session, self._file, self._on_score = session, file, on_score
        self._wide = replace(network, model=copied(network.model).eval())
        self._groups = network.space.groups
        self._progress = _Progress()
        self._saved = time.monotonic()
        self._restore()

    def prune(
        self, feasible: FeasibleSet, structure: Structure | None, on_layer: Callable[[LayerReport], None]
    ) -> LayerwisePruned:
        """All of it."""
        widths = structure
        if widths is None:
            widths = uniform_structure(feasible.tightened(self._settings.share_of_budget))
        with self._saved_if_stopped():
            self._measure_sensitivity(widths)
        steps = self._steps(widths, None if structure is not None else feasible)
        progress = self._progress
        for number, (group, width) in enumerate(steps):
            if number == len(progress.units):
                self._forget_training()
                with self._saved_if_stopped():
                    self._choose(group, width, len(steps))
            if number == progress.trained:
                self._train(is_last=number == len(steps) - 1)
                on_layer(LayerReport(**progress.layers[number]))
        self._forget_training()
        last = train(
            slim(self._wide, self._structure(), self._ranking()),
            self._data,
            recipe=self._recipe,
            teacher=self._unpruned.model,
            seed=self._seed,
            session=self._session_of("finetune", "finetune"),
        )
        reports = tuple(EpochReport(**report) for report in progress.reports)
        layers = tuple(LayerReport(**report) for report in progress.layers)
        return LayerwisePruned(self._structure(), self._ranking(), layers, last.best, reports + last.reports)

    def _measure_sensitivity(self, widths: Structure) -> None:
        """How much the score falls when one group alone is narrowed, by what the closed form finds without search."""
        if self._progress.sensitivity:
            return
        space = self._unpruned.space
        narrowed = [group for group, width in enumerate(widths) if width < space.full[group]]
        grams = gram_matrices(self._wide, layer_inputs(self._wide, self._examples.inputs, seed=self._seed))
        full = self._remembered("full", lambda: self._score({}))
        found = {}
        for group in narrowed:
            units = np.flatnonzero(greedy_mask(grams[group], widths[group] // self._groups[group].unit))
            found[str(group)] = full - self._remembered(str(group), lambda of={group: units}: self._score(of))  # type: ignore[misc]
        self._progress.sensitivity = found
        self._progress.scores = {}
        self._save()

    def _steps(self, widths: Structure, feasible: FeasibleSet | None) -> list[tuple[int, int]]:
        """(group, width) of the layers to prune, the least sensitive first, until a budget is met, if one is given."""
        fall = self._progress.sensitivity
        order = sorted(map(int, fall), key=lambda group: (np.nan_to_num(fall[str(group)], nan=np.inf), group))
        structure, steps = list(self._unpruned.space.full), []
        for group in order:
            if feasible is not None and feasible.contains([structure])[0]:
                break
            candidates = [width for width in self._groups[group].widths if width >= widths[group]]
            trials = [[*structure[:group], width, *structure[group + 1 :]] for width in candidates]
            inside = [] if feasible is None else np.flatnonzero(feasible.contains(trials)).tolist()
            structure[group] = candidates[inside[-1] if inside else 0]  # the last one no further than needed
            steps.append((group, structure[group]))
        return steps

    def _choose(self, group: int, width: int, layers: int) -> None:
        """Let the genetic algorithm choose the channels of a layer."""
        progress, of = self._progress, self._groups[group]
        found = choose_units(
            self._gram(group),
            width // of.unit,
            lambda units: self._remembered(_as_text(units, of.units), lambda: self._score({group: units})),
            generations=self._settings.generations,
            scored=self._settings.scored,
            rng=np.random.default_rng([self._seed, 6, group]),
        )
        number, fall = len(progress.units) + 1, progress.sensitivity[str(group)]
        report = LayerReport(of.name, number, layers, width, of.width, fall, found.score, found.scored)
        progress.units[str(group)] = found.units.tolist()
        progress.layers.append(asdict(report))
        progress.scores = {}
        self._save()

    def _gram(self, group: int) -> FloatArray:
        """(u, u) of a group that is whole yet, in the network as it is pruned so far."""
        network, units = self._wide, self._wide.units[group]
        places = {read.place for read in network.reads if np.isin(read.units, units).any()}
        maps = [one for one in network.linear_maps if one.place in places and one.loses_inputs]
        readers = layer_inputs(network, self._examples.inputs, seed=self._seed, of=maps, kept=self._kept())
        return gram_matrices(network, readers)[group]

    def _train(self, *, is_last: bool) -> None:
        """Train what is left; not after the last layer, which the last finetuning follows."""
        small, progress = self._built({}), self._progress
        if self._settings.epochs_per_layer and not is_last:
            number = progress.trained + 1
            between = train(
                small,
                self._data,
                recipe=replace(self._recipe, epochs=self._settings.epochs_per_layer, patience=None),
                teacher=self._unpruned.model,
                seed=self._seed + number,  # another order of the images
                session=self._session_of("layer", f"layer-{number}"),
            )
            small = between.best
            progress.reports += [asdict(report) for report in between.reports]
        put_back(self._wide, small, self._kept())
        progress.trained += 1
        self._save()

    def _score(self, more: dict[int, IntArray]) -> float:
        """Of the network so far, with some further groups narrowed: that of the task on the calibration examples."""
        model, measured = self._built(more), self._scored.measured()
        with in_eval_mode(model), torch.inference_mode():
            measure(model, self._scored.examples.split(_AT_ONCE), measured)
        return self._scored.as_score(measured.compute())

    @cached_property
    def _scored(self) -> Any:
        return scored_by(self._examples, None, self._unpruned.model)

    def _built(self, more: dict[int, IntArray]) -> nn.Module:
        """The network of some masks, BatchNorm statistics re-estimated, in eval mode."""
        model = slim(self._wide, self._structure(more), self._ranking(more)).eval()
        recalibrate_bn(model, self._examples.inputs)
        return model

    def _masks(self, more: dict[int, IntArray]) -> list[FloatArray]:
        """Per group, (units,) 1 for those that stay."""
        masks = [np.ones(group.units) for group in self._groups]
        chosen = {int(group): np.array(units) for group, units in self._progress.units.items()}
        for group, units in {**chosen, **more}.items():
            masks[group] = np.zeros(self._groups[group].units)
            masks[group][units] = 1
        return masks

    def _structure(self, more: dict[int, IntArray] | None = None) -> Structure:
        pairs = zip(self._groups, self._masks(more or {}), strict=True)
        return tuple(int(mask.sum()) * group.unit for group, mask in pairs)

    def _ranking(self, more: dict[int, IntArray] | None = None) -> NestedRanking:
        orders = NestedRanking.by_importance(self._masks(more or {})).orders
        return NestedRanking(orders)

    def _kept(self) -> Any:
        return kept_units(self._wide, self._structure(), self._ranking())

    def _remembered(self, key: str, compute: Callable[[], float]) -> float:
        """A score of the step under way, which an earlier run may have computed."""
        scores = self._progress.scores
        if key not in scores:
            scores[key] = compute()
            if time.monotonic() - self._saved > _SAVE_EVERY:
                self._save()
            if self._on_score is not None:
                self._on_score(scores[key])
        return scores[key]

    def _session_of(self, ending: str, folder: str) -> Session:
        session = self._session
        path = None if session.checkpoint is None else f"{session.checkpoint}.{ending}"
        log = None if session.log is None else replace(session.log, folder=Path(session.log.folder) / folder)
        return replace(session, checkpoint=path, log=log)

    def _forget_training(self) -> None:
        """Remove the checkpoint of a training between layers that has ended; what came of it is in our own."""
        if self._session.checkpoint is not None:
            Path(f"{self._session.checkpoint}.layer").unlink(missing_ok=True)

    @contextmanager
    def _saved_if_stopped(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # an interrupt, as a rule; scores so far are found again
            self._save()
            raise

    def _save(self) -> None:
        if self._file is not None:
            self._file.write(Snapshot(named_tensors(self._wide.model), asdict(self._progress)))
        self._saved = time.monotonic()

    def _restore(self) -> None:
        found = None if self._file is None else self._file.read()
        if found is None or self._file is None:
            return
        with content_of(self._file.path), torch.no_grad():
            for name, tensor in named_tensors(self._wide.model).items():
                tensor.copy_(found.tensors[name])
            self._progress = _Progress(**found.facts)


def _as_text(units: Sequence[int] | IntArray, of: int) -> str:
    """A set of units in few characters."""
    mask = np.zeros(of, dtype=np.uint8)
    mask[np.asarray(units)] = 1
    return np.packbits(mask).tobytes().hex()
