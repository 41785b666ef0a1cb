"""Timing a network that is built, against what a table predicted of it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from torch import nn

from prunesearch.evaluators.latency.backends import make_backend, positional
from prunesearch.evaluators.latency.timing import Reference, pinned, processor_name, time_calls
from prunesearch.latency_table import LatencyTable
from prunesearch.latency_times import Timing
from prunesearch.models.nested import Batch

_VISITS = 40


@dataclass(frozen=True)
class MeasuredLatency:
    """What a built network takes under the conditions of a table.

    Attributes:
        timing: Median and quartiles, at the speed the machine had when the table was measured.
        slowdown: How much slower than then the machine was this time, by the reference kernel; 1 is the same.
    """

    timing: Timing
    slowdown: float

    @property
    def now_ms(self) -> float:
        """The median at the speed the machine had this time."""
        return self.timing.ms * self.slowdown


def measure_built(model: nn.Module, inputs: Batch, table: LatencyTable) -> MeasuredLatency:
    """Time a network in eval mode as the table's layers were timed.

    Args:
        model: Any network; it is not changed.
        inputs: What it takes (`models.nested.Batch`); the first image is repeated to the table's batch size.
        table: Says how.

    Raises:
        ValueError: The table is of another machine, or of another device, or wants more threads than there are cores.
    """
    check_conditions(table)
    conditions = table.conditions
    modes = {module: module.training for module in model.modules()}
    with pinned(conditions.threads):
        runner = make_backend(conditions.backend, conditions.device, conditions.threads)
        try:
            call = runner.prepare(*positional(model.eval(), inputs, conditions.batch_size))
        finally:
            for module, training in modes.items():
                module.training = training
        reference = Reference(table.reference_ms) if table.reference_ms else Reference.at_present()
        (timing,) = time_calls([call], reference, visits=_VISITS)
    return MeasuredLatency(timing, statistics.median(reference.seen_ms) / reference.baseline_ms)


def check_conditions(table: LatencyTable) -> None:
    """Say so if what the table holds cannot be measured here.

    Raises:
        ValueError: It is of another machine, or of another device.
    """
    conditions = table.conditions
    if table.is_remote:
        raise ValueError(
            f"The times of this table were measured on another device ({conditions.device}). Time the network there."
        )
    here = processor_name(conditions.device if conditions.device.startswith("cuda") else "cpu")
    if conditions.processor != here:
        raise ValueError(
            f"The latency table was measured on {conditions.processor!r}, and this is {here!r}. Measure one here "
            "(prunesearch latency), or search with table.as_remote(), which trusts its predictions and times nothing."
        )
    with pinned(conditions.threads):
        pass
