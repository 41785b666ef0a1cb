"""Training a network: a pruned one from the weights it inherited, or any from scratch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.fingerprint import model_fingerprint
from prunesearch.models.logits import main_and_auxiliary
from prunesearch.models.nested import Batch, called, moved
from prunesearch.ranges import whole_number
from prunesearch.training.accelerating import Log
from prunesearch.training.data import Data, Source, as_data
from prunesearch.training.distillation import Watched, answers, attention_loss, soft_label_loss
from prunesearch.training.fitting import check_weights, output_count
from prunesearch.training.learner import Learner
from prunesearch.training.loop import run
from prunesearch.training.losses import auxiliary_loss
from prunesearch.training.progress import State
from prunesearch.training.recipe import Recipe
from prunesearch.training.reports import EpochReport, Session, StepReport
from prunesearch.training.scratch import drawn_anew


@dataclass(frozen=True, repr=False)
class Training:
    """A finished training.

    Attributes:
        best: The network of the epoch with the best validation accuracy; without `Data(validation=...)` the last.
        last: The network of the last epoch.
        reports: One per epoch.
        validation_before: Validation accuracy of the network that came in, before any step; None without
            `Data(validation=...)`. That of `best` is `validation_after`.
        resumed_at: Epochs that earlier runs with the same checkpoint had done; as many as `reports` if there was
            nothing left to do.
    """

    best: nn.Module
    last: nn.Module
    reports: tuple[EpochReport, ...]
    validation_before: float | None = None
    resumed_at: int = 0

    def __repr__(self) -> str:
        before, after = (
            "" if accuracy is None else f", validation {accuracy:.2%} {when}"
            for accuracy, when in ((self.validation_before, "before"), (self.validation_after, "after"))
        )
        return f"Training({type(self.best).__name__}, epochs: {len(self.reports)}{before}{after})"

    @property
    def validation_after(self) -> float | None:
        """Validation accuracy of `best`; None without `Data(validation=...)`."""
        return self.reports[self.reports[-1].best_epoch - 1].accuracy


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
) -> nn.Module:
    """Train a copy of `model` on `data.train`; it comes back in eval mode. `model` and `teacher` stay as they are.

    Runs where accelerate says: on a GPU if there is one, in many processes if the program was started by
    `accelerate launch`. Run again with the same arguments and checkpoint, it goes on where it was, and ends with the
    same weights, to the last bit, as if it had never stopped (on GPUs as far as their kernels are deterministic).

    Args:
        model: Any classifier that returns (n, classes) logits, or (n, 1) of two classes. In training mode there may be
            logits of auxiliary heads beside them, as GoogLeNet has (`training.losses`).
        data: Where the training images come from; with `validation`, the network of the best epoch comes back. A source
            alone, such as a DataLoader, is `Data(train=...)`.
        recipe: How to train; `Recipe(from_scratch=True)` draws new random weights first.
        teacher: With it, half of the loss (`Recipe.distillation`) pulls the outputs towards the teacher's (Hinton et
            al. 2015, arXiv:1503.02531). Usually the unpruned network.
        seed: Decides the order of the images, their augmentation and every dropout.
        checkpoint: A file for the state of the training, written after every epoch and within long ones.
        log: Where to log a row per epoch.
        on_epoch: Called after every epoch.
        on_step: Called after every step; an exception from it stops the training, with the state on disk.

    Raises:
        ValueError: The model has nothing to train or weights without values, or data, labels, teacher or recipe do not
            fit it.
        TrainingDiverged: The loss became NaN or infinite; carries the step and the last good network.
        CheckpointError: The checkpoint is damaged, of another training, or cannot be written.
    """
    session = Session(checkpoint, log, on_epoch, on_step)
    return train(model, data, recipe=recipe, teacher=teacher, seed=seed, session=session).best


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
    recipe, data = recipe or Recipe(), as_data(data)
    whole_number("seed", seed, at_least=0)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{type(model).__name__} has no parameter to train: none has requires_grad.")
    network = start_from(model, recipe, seed)
    check_weights(network)
    learner = Student(network, None if teacher is None else _guide(model, teacher, data), recipe)
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
    return Training(
        best=as_module(model, outcome.best),
        last=as_module(model, outcome.last),
        reports=outcome.reports,
        validation_before=outcome.before,
        resumed_at=outcome.resumed_at,
    )


def start_from(model: nn.Module, recipe: Recipe, seed: int) -> nn.Module:
    """A copy of the network to begin with, its weights drawn anew if the recipe says so."""
    return drawn_anew(model, seed) if recipe.from_scratch else copy.deepcopy(model)


def as_module(model: nn.Module, state: State) -> nn.Module:
    """A copy of a network with another state, in eval mode."""
    trained = copy.deepcopy(model)
    trained.load_state_dict(state)
    return trained.eval()


class Student(Learner):
    """A network that learns from labels, and from a teacher if there is one.

    Args:
        network: What is trained.
        teacher: A network that is only asked; ours to move.
        recipe: How much it counts.
    """

    def __init__(self, network: nn.Module, teacher: nn.Module | None, recipe: Recipe) -> None:
        super().__init__(network, [] if teacher is None else [teacher])
        self._recipe = recipe
        self._watched = Watched(network, [] if teacher is None else recipe.features)

    def forward(self, images: Batch, labels: Tensor) -> Tensor:
        """Cross-entropy, mixed with the divergence from the teacher's answers; that of auxiliary heads is added."""
        recipe = self._recipe
        with self._watched as watched:
            logits, auxiliary = main_and_auxiliary(called(self.network, images))
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        beside = auxiliary_loss(auxiliary, labels, recipe.label_smoothing)
        if not self.helpers:
            return loss + beside
        soft, features = answers(self.helpers[0], images, recipe.features)
        loss = (1 - recipe.distillation) * loss + recipe.distillation * soft_label_loss(
            logits, soft, recipe.temperature
        )
        for mine, theirs in zip(watched.features, features, strict=True):
            loss = loss + recipe.feature_weight * attention_loss(mine, theirs)
        return loss + beside


def _guide(model: nn.Module, teacher: nn.Module, data: Data) -> nn.Module:
    """A copy of the teacher, ready to be asked."""
    check_weights(teacher)
    guide = copy.deepcopy(teacher).requires_grad_(False).eval()
    images = data.examples()
    classes = [output_count(network, moved(images, next(network.parameters()).device)) for network in (model, guide)]
    if max(classes[0], 2) != max(classes[1], 2):
        raise ValueError(
            f"Expected a teacher with the {classes[0]} outputs of {type(model).__name__}, got {classes[1]}."
        )
    return guide
