"""How far a training is, and what it ends with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prunesearch.training.reports import EpochReport

State = dict[str, Any]
"""What `state_dict` gives: tensors, and the extra state of modules that have some."""


@dataclass(frozen=True)
class TrainedStates:
    """States of the network after training.

    Attributes:
        best: Of the epoch with the best validation accuracy; the last without validation.
        last: Of the last epoch.
        reports: One per epoch.
        before: Validation metric of the network that came in; None without validation.
        resumed_at: Epochs that earlier runs of the same training had done.
    """

    best: State
    last: State
    reports: tuple[EpochReport, ...]
    before: float | None = None
    resumed_at: int = 0


@dataclass
class Progress:
    """How far training is.

    Attributes:
        epoch: Epochs done.
        step: Steps done of the epoch under way.
        loss: Sum over those.
        seconds: Spent by earlier runs.
        best: What the best epoch has most of: the metric, or minus it, and minus the loss.
        before: Validation metric of the network that came in.
        reports: One per epoch done.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    best: tuple[float, float] | None = None
    before: float | None = None
    reports: list[EpochReport] = field(default_factory=list)
