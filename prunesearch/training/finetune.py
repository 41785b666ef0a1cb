"""Training a network: a pruned one from the weights it inherited, or any from scratch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from prunesearch.contracts import kind_of
from prunesearch.errors import PruneSearchError
from prunesearch.models.copying import copied
from prunesearch.models.fingerprint import model_fingerprint
from prunesearch.models.misfit import outputs_of, told_as
from prunesearch.models.nested import Batch, called, moved
from prunesearch.models.wrappers import check_network
from prunesearch.progress import Progress
from prunesearch.ranges import whole_number
from prunesearch.structure import Structure
from prunesearch.tasks import outputs
from prunesearch.tasks.examples import Examples, following, follows, judged_as
from prunesearch.tasks.metric import as_text, higher_is_better, name_of, training_loss
from prunesearch.tasks.task import Task
from prunesearch.training.accelerating import Log
from prunesearch.training.augmenting import place_of_images
from prunesearch.training.data import Data, Source, as_data
from prunesearch.training.distillation import Watched, answers, features_loss
from prunesearch.training.evaluation import check_test, metric_on_test
from prunesearch.training.fitting import check_weights
from prunesearch.training.learner import Learner
from prunesearch.training.loop import check_patience, run
from prunesearch.training.progress import State
from prunesearch.training.recipe import Recipe, check_recipe
from prunesearch.training.reports import EpochReport, Recorder, Session, StepReport
from prunesearch.training.scratch import drawn_anew


@dataclass(frozen=True, repr=False)
class Training:
    """A finished training.

    Attributes:
        best: The network of the epoch with the best validation metric; without `Data(validation=...)` the last.
        last: The network of the last epoch.
        reports: One per epoch.
        validation_before: Validation metric of the network that came in, before any step; None without
            `Data(validation=...)`. That of `best` is `validation_after`.
        metric: What the metric is called: `"accuracy"` of classification; `"loss"` of a task without one.
        higher_is_better: Of the metric.
        resumed_at: Epochs that earlier runs with the same checkpoint had done; as many as `reports` if there was
            nothing left to do.
    """

    best: nn.Module
    last: nn.Module
    reports: tuple[EpochReport, ...]
    validation_before: float | None = None
    resumed_at: int = 0
    metric: str = "accuracy"
    higher_is_better: bool = True

    def __repr__(self) -> str:
        before, after = (
            "" if value is None else f", validation {self.metric} {as_text(self.metric, value)} {when}"
            for value, when in ((self.validation_before, "before"), (self.validation_after, "after"))
        )
        return f"Training({type(self.best).__name__}, epochs: {len(self.reports)}{before}{after})"

    @property
    def did_harm(self) -> bool:
        """Whether `best` is worse on the validation examples than the network that came in."""
        before, after = self.validation_before, self.validation_after
        if before is None or after is None:
            return False
        return after < before if self.higher_is_better else after > before

    @property
    def validation_after(self) -> float | None:
        """Validation metric of `best`; None without `Data(validation=...)`."""
        return self.reports[self.reports[-1].best_epoch - 1].metric


def finetune(
    model: nn.Module,
    data: Data | Source,
    *,
    recipe: Recipe | None = None,
    teacher: nn.Module | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    log: Log | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    study: Recorder | None = None,
    device: str | None = None,
    progress: Progress = True,
) -> nn.Module:
    """Train a copy of `model` on `data.train`; it comes back in eval mode. `model` and `teacher` stay as they are.

    Runs on a GPU if there is one, in many processes if the program was started by `accelerate launch`. Run again with
    the same arguments and checkpoint, it goes on where it was, and ends with the same weights, to the last bit, as if
    it had never stopped (on GPUs as far as their kernels are deterministic).

    Args:
        model: Any network that the task of the data understands; by default a classifier that returns (n, classes)
            logits, or (n, 1) of two classes. In training mode there may be logits of auxiliary heads beside them, as
            GoogLeNet has (`tasks.classify`).
        data: Where the training images come from; with `validation`, the network of the best epoch comes back. A source
            alone, such as a DataLoader, is `Data(train=...)`.
        recipe: How to train; `Recipe(from_scratch=True)` draws new random weights first.
        teacher: With it, half of the loss (`Recipe.distillation`) pulls the outputs towards the teacher's
            (`Task.distil`; of classification Hinton et al. 2015, arXiv:1503.02531). Usually the unpruned network. Of a
            task without labels it is all of the loss, and must be given.
        seed: Decides the order of the images, their augmentation and every dropout.
        checkpoint: A file for the state of the training, written after every epoch and within long ones.
        log: Where to log a row per epoch.
        on_epoch: Called after every epoch.
        on_step: Called after every step; an exception from it stops the training, with the state on disk.
        study: What `search` returned: what is reached on validation and test examples is recorded there, and shown by
            reports and `prunesearch show`. Where it cannot be recorded, a warning says why.
        device: Where it runs; by default on the GPU where there is one. What comes back is where `model` was.
        progress: Whether to show how far it is, where there is a terminal or a notebook.

    Raises:
        ValueError: The model was not pruned from the network of the study, it has nothing to train or weights without
            values, or data, labels, teacher or recipe do not fit it.
        TrainingDiverged: The loss became NaN or infinite; carries the step and the last good network.
        CheckpointError: The checkpoint is damaged, of another training, or cannot be written.
    """
    data, session = as_data(data), Session(checkpoint, log, on_epoch, on_step, device, progress)
    check_network(model)
    structure = None if study is None else _of_study(study, model)
    if study is not None:
        check_test(model, data)
    trained = train(model, data, recipe=recipe, teacher=teacher, seed=seed, session=session)
    if study is not None and structure is not None:
        record_reached(study, structure, trained, model, data, teacher=teacher, seed=seed, device=device)
    return trained.best


def _of_study(study: Recorder, model: nn.Module) -> Structure:
    if not callable(getattr(study, "structure_of", None)):
        raise TypeError(f"Expected study as what search returned, got {kind_of(study)}.")
    return study.structure_of(model)


def record_reached(
    study: Recorder,
    structure: Structure,
    trained: Training,
    model: nn.Module,
    data: Data,
    *,
    teacher: nn.Module | None = None,
    seed: int = 0,
    device: str | None = None,
    **more: Any,
) -> Mapping[str, Any] | None:
    """Record in a study what a training reached; where that cannot be done, a warning says why.

    Args:
        study: The study.
        structure: Of the network.
        trained: The training.
        model: What came in.
        data: With the test examples, if there are any.
        teacher: The unpruned network, which is judged, too; a task without labels compares with it.
        seed: Of the training.
        device: Where the test examples are run.
        **more: Further plain values, such as the name of a file.

    Returns:
        What the networks reach on the test examples (`before`, `reached`, with a teacher `unpruned`), and how many
        `examples` these are; None if there are none.
    """
    last = trained.reports[-1]
    facts: dict[str, Any] = {
        "structure": list(structure),
        "metric": trained.metric,
        "before": trained.validation_before,
        "reached": trained.validation_after,
        "epochs": len(trained.reports),
        "loss": last.loss,
        "seed": seed,
        **more,
    }
    if data.test is not None and (teacher is not None or not follows(data.goal)):
        networks = {"before": model, "reached": trained.best} | ({} if teacher is None else {"unpruned": teacher})
        try:
            found = {name: metric_on_test(each, data, teacher, device=device) for name, each in networks.items()}
            facts["test"] = {name: value for name, (value, _) in found.items()} | {"examples": found["reached"][1]}
        except ValueError as error:  # hours of training are worth more than this
            warnings.warn(f"What the training reached on test examples is not known. {error}", stacklevel=3)
    try:
        study.record("finetuned", facts)
    except PruneSearchError as error:
        warnings.warn(f"What the training reached is not recorded in the study. {error}", stacklevel=3)
    return facts.get("test")


def train(
    model: nn.Module,
    data: Data | Source,
    *,
    recipe: Recipe | None = None,
    teacher: nn.Module | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Training:
    """What `finetune` does, with all that came of it: the best network, the last one, and how it went."""
    check_network(model)
    if teacher is not None:
        check_network(teacher, "teacher as a network")
    recipe, data = Recipe() if recipe is None else recipe, as_data(data)
    check_recipe(recipe)
    if recipe.features and teacher is None:
        raise ValueError(f"Expected a teacher to take the features {recipe.features} of, got none. Give teacher=.")
    whole_number("seed", seed, at_least=0)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{type(model).__name__} has no parameter to train: none has requires_grad.")
    network = start_from(model, recipe, seed)
    check_weights(network)
    if data.goal.loss is None and teacher is None:
        raise ValueError(
            f"The task {data.goal.name} has no labels to learn from, so it needs a network to follow. Give teacher=, "
            "usually the unpruned network."
        )
    learner = Student(network, None if teacher is None else _guide(model, teacher, data), recipe, data.goal)
    question = {
        "network": model_fingerprint(model),
        "teacher": None if teacher is None else model_fingerprint(teacher),
    }
    outcome = run(
        learner,
        data,
        recipe,
        seed=seed,
        session=session or Session(),
        question=question,
        given=model if recipe.from_scratch else None,
    )
    judged = judged_as(data.goal)
    return Training(
        best=as_module(model, outcome.best),
        last=as_module(model, outcome.last),
        reports=outcome.reports,
        validation_before=outcome.before,
        resumed_at=outcome.resumed_at,
        metric=name_of(judged),
        higher_is_better=higher_is_better(judged),
    )


def check_training(model: nn.Module, data: Data, recipe: Recipe) -> None:
    """Make sure that a recipe fits a network and data, before what comes before the training takes long.

    Raises:
        ValueError: There is nothing to stop early by, a module to take features of is not there or not called, images
            cannot be augmented, or test examples do not fit the network.
        TypeError: The recipe is none.
    """
    check_recipe(recipe)
    check_test(model, data)
    check_patience(recipe, data)
    with Watched(model, recipe.features) as watched:
        if recipe.features:
            outputs_of(model, moved(data.examples(), next(model.parameters()).device))
            _ = watched.features
    place_of_images(recipe.augmentation, data.first(), data.goal)


def start_from(model: nn.Module, recipe: Recipe, seed: int) -> nn.Module:
    """A copy of the network to begin with, its weights drawn anew if the recipe says so."""
    return drawn_anew(model, seed) if recipe.from_scratch else copied(model)


def as_module(model: nn.Module, state: State) -> nn.Module:
    """A copy of a network with another state, in eval mode."""
    trained = copied(model)
    trained.load_state_dict(state)
    return trained.eval()


class Student(Learner):
    """A network that learns from labels, and from a teacher if there is one.

    Args:
        network: What is trained.
        teacher: A network that is only asked; ours to move.
        recipe: How much it counts.
        task: What reads batches.
    """

    def __init__(self, network: nn.Module, teacher: nn.Module | None, recipe: Recipe, task: Task) -> None:
        super().__init__(network, task, [] if teacher is None else [teacher])
        self._recipe = recipe
        self._watched = Watched(network, [] if teacher is None else recipe.features)

    def forward(self, batch: Batch) -> Tensor:
        """The task's loss, mixed with the distance from what the teacher returns."""
        return self.over_sizes(batch, self._loss)

    def _loss(self, batch: Batch) -> Tensor:
        recipe, inputs = self._recipe, self.task.inputs(batch)
        with self._watched as watched:
            returned = called(self.network, inputs)
        if not self.helpers:
            return training_loss(self.task, returned, batch, recipe.label_smoothing)
        wanted, features = answers(self.helpers[0], inputs, recipe.features)
        loss = self.task.distil(returned, wanted, recipe.temperature).mean()
        if self.task.loss is not None:
            own = training_loss(self.task, returned, batch, recipe.label_smoothing)
            loss = (1 - recipe.distillation) * own + recipe.distillation * loss
        own_features = watched.features
        if len(own_features) != len(features):
            raise ValueError(
                f"Expected the modules {', '.join(recipe.features)} to be called as often as in the teacher, "
                f"{len(features)} times in all; they are called {len(own_features)} times. Name others."
            )
        for mine, theirs in zip(own_features, features, strict=True):
            loss = loss + recipe.feature_weight * features_loss(mine, theirs)
        return loss

    def judged(self, examples: Examples) -> Examples:
        """Without labels, how near the network comes to the teacher."""
        if not follows(self.task):
            return examples
        (guide,) = self.helpers
        device = next(guide.parameters()).device
        return following(examples.to(device), guide).to("cpu")


def _guide(model: nn.Module, teacher: nn.Module, data: Data) -> nn.Module:
    """A copy of the teacher, ready to be asked."""
    check_weights(teacher)
    guide = copied(teacher).requires_grad_(False).eval()
    inputs = data.examples()
    own, wanted = (outputs_of(network, moved(inputs, next(network.parameters()).device)) for network in (model, guide))
    with told_as(
        lambda _: (
            f"Expected a teacher whose outputs are comparable with those of {type(model).__name__}, "
            f"{outputs.described(own)}; got {outputs.described(wanted)}."
        )
    ):
        data.goal.distil(own, wanted, 1.0)
    return guide
