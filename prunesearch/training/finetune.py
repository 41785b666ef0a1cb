"""Training a network: the unpruned one from scratch, or a pruned one from the weights it inherited."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.errors import TrainingDiverged
from prunesearch.training.data import Data


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Images per step.
        lr: Peak learning rate of SGD with Nesterov momentum.
        momentum: Of SGD.
        weight_decay: On weights of two or more dimensions; biases and BatchNorm have none.
        warmup: Fraction of all steps over which the rate rises linearly; after it, it falls as a cosine to zero.
        label_smoothing: Of the cross-entropy.
        distillation: With a teacher, the weight of its soft labels against the true ones.
        temperature: Of the soft labels.
    """

    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1
    label_smoothing: float = 0.0
    distillation: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.lr <= 0:
            raise ValueError(f"Expected epochs >= 1, batch_size >= 2 and lr > 0, got {self}.")
        if not (0 <= self.momentum < 1 and 0 <= self.warmup < 1 and 0 <= self.distillation <= 1):
            raise ValueError(f"Expected momentum and warmup in [0, 1) and distillation in [0, 1], got {self}.")
        if self.temperature <= 0 or self.weight_decay < 0 or not 0 <= self.label_smoothing < 1:
            raise ValueError(f"Expected temperature > 0, weight_decay >= 0 and label_smoothing in [0, 1), got {self}.")


@dataclass(frozen=True)
class EpochReport:
    """Where training stands after an epoch.

    Attributes:
        epoch: Epochs done.
        epochs: Epochs in all.
        loss: Mean training loss of this one.
    """

    epoch: int
    epochs: int
    loss: float


def finetune(
    model: nn.Module,
    data: Data,
    *,
    recipe: Recipe | None = None,
    teacher: nn.Module | None = None,
    seed: int = 0,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> nn.Module:
    """Train a copy of `model` on `data.train` and return it in eval mode; `model` and `teacher` stay as they are.

    Args:
        model: Any classifier; runs on the device its parameters are on.
        data: Where the training images come from.
        recipe: How to train.
        teacher: With it, half of the loss (`Recipe.distillation`) pulls the outputs towards the teacher's (Hinton et
            al. 2015, arXiv:1503.02531). Usually the unpruned network.
        seed: Decides the order of the images and every dropout.
        on_epoch: Called after every epoch.

    Raises:
        ValueError: The model has nothing to train.
        TrainingDiverged: The loss became NaN or infinite.
    """
    recipe = recipe or Recipe()
    student = copy.deepcopy(model)
    guide = None if teacher is None else copy.deepcopy(teacher).eval()
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise ValueError(f"{type(model).__name__} has no parameter to train: none has requires_grad.")
    device = next(student.parameters()).device
    optimizer = _optimizer(student, recipe)
    steps = data.steps_per_epoch(recipe.batch_size) * recipe.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps, recipe.warmup))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student.train()
        step = 0
        for epoch in range(recipe.epochs):
            losses = []
            for images, labels in data.train_batches(recipe.batch_size, np.random.default_rng([seed, 2, epoch])):
                loss = _loss(student, guide, images.to(device), labels.to(device), recipe)
                if not math.isfinite(value := loss.item()):
                    raise TrainingDiverged(
                        f"The training loss became {value} at step {step} of {steps}. Lower the learning rate "
                        f"(now {recipe.lr}), or check the images for NaN.",
                        step=step,
                    )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses.append(value)
                step += 1
            if on_epoch is not None:
                on_epoch(EpochReport(epoch + 1, recipe.epochs, sum(losses) / len(losses)))
    return student.eval()


def _loss(student: nn.Module, guide: nn.Module | None, images: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    logits = student(images)
    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    if guide is None:
        return loss
    with torch.no_grad():
        soft = F.log_softmax(guide(images) / recipe.temperature, dim=1)
    distance = F.kl_div(F.log_softmax(logits / recipe.temperature, dim=1), soft, reduction="batchmean", log_target=True)
    return (1 - recipe.distillation) * loss + recipe.distillation * recipe.temperature**2 * distance


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if parameter.dim() > 1]
    others = [parameter for parameter in parameters if parameter.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def _rate(progress: float, warmup: float) -> float:
    if progress < warmup:
        return (progress + 1e-8) / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
