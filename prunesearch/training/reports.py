"""Where a training stands, for whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prunesearch.contracts import expect_kind, kind_of
from prunesearch.files import as_path
from prunesearch.progress import Progress
from prunesearch.structure import Structure
from prunesearch.training.accelerating import Log

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class StepReport:
    """Where training stands after a step.

    Attributes:
        step: Steps done, those of earlier runs included.
        steps: Steps in all.
        loss: Of this one.
        seconds_left: Estimate from the steps of this run.
    """

    step: int
    steps: int
    loss: float
    seconds_left: float


@dataclass(frozen=True)
class EpochReport:
    """Where training stands after an epoch.

    Attributes:
        epoch: Epochs done.
        epochs: Epochs in all.
        loss: Mean training loss of this one.
        validation_loss: On the images held out; None without such.
        metric: Likewise, that of the task (of classification the accuracy); the loss where it has none.
        best_epoch: The epoch with the best network so far, by the metric, then the loss; without such the last.
        seconds: Spent so far, earlier runs included.
        seconds_left: Estimate, if no early stop comes between.
    """

    epoch: int
    epochs: int
    loss: float
    validation_loss: float | None
    metric: float | None
    best_epoch: int
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer of those that are pruned one after the other.

    Attributes:
        name: Of its group of channels.
        layer: Which it was, from 1.
        layers: How many there are to prune.
        width: Channels that stay.
        of: Channels that it had.
        sensitivity: How much the unpruned network's score falls when this layer alone is narrowed so.
        score: On data, of the set of channels that was chosen, before training; minus the loss.
        scored: Sets of channels that were scored.
    """

    name: str
    layer: int
    layers: int
    width: int
    of: int
    sensitivity: float
    score: float
    scored: int


class Recorder(Protocol):
    """A study in which what a training reached is recorded, such as what `search` returns."""

    def structure_of(self, model: nn.Module) -> Structure:
        """The structure of a network that was pruned from that of the study.

        Raises:
            ValueError: It was not.
        """

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Add plain values of some kind to what is known of the study."""


@dataclass(frozen=True)
class Session:
    """Where a training runs, and what it leaves behind besides its result.

    Attributes:
        checkpoint: A file from which the same training goes on after a kill.
        log: Where its course is logged.
        on_epoch: Called after every epoch, when that is on disk.
        on_step: Called after every step. If it raises, the state is written first.
        device: Where it runs; by default on the GPU where there is one (`models.devices`).
        progress: Whether to show how far it is, where there is a terminal or a notebook.

    Raises:
        TypeError: A value of another kind.
    """

    checkpoint: str | Path | None = None
    log: Log | None = None
    on_epoch: Callable[[EpochReport], None] | None = None
    on_step: Callable[[StepReport], None] | None = None
    device: str | None = None
    progress: Progress = True

    def __post_init__(self) -> None:
        if self.checkpoint is not None:
            as_path(self.checkpoint)
        if self.log is not None:
            expect_kind("log", self.log, Log, 'Log("runs/a")')
        for name in ("on_epoch", "on_step"):
            given = getattr(self, name)
            if given is not None and not callable(given):
                raise TypeError(f"Expected {name} as a function that takes a report, got {kind_of(given)}.")
