"""What a person is told of a training while it goes on."""

from __future__ import annotations

from prunesearch.progress import Shown
from prunesearch.tasks.metric import as_text
from prunesearch.training.reports import EpochReport, StepReport


class LossAndMetric:
    """Tells of a training after each step: the loss, and the metric where examples were held out.

    Args:
        shown: Where.
        metric: What it is called.

    Attributes:
        begun: Whether there was a step at all.
    """

    def __init__(self, shown: Shown, metric: str) -> None:
        self._shown = shown
        self._metric = metric
        self._validation = ""
        self.begun = False

    def step(self, report: StepReport) -> None:
        """After a step."""
        self.begun = True
        self._shown.update(report.step, report.steps, f"loss {report.loss:.3f}{self._validation}")

    def epoch(self, report: EpochReport) -> None:
        """After an epoch."""
        if report.metric is not None:
            value = as_text(self._metric, report.metric)
            self._validation = f", validation {self._metric} {value} (best in epoch {report.best_epoch})"
