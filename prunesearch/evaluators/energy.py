"""Energy of forwards, as the processor counts it: RAPL, where Linux lets its files be read."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunesearch.evaluators.inputs import example_batch
from prunesearch.evaluators.latency.backends import positional
from prunesearch.evaluators.latency.timing import processor_name
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import slim
from prunesearch.ranges import whole_number
from prunesearch.resources.energy import EnergyTable

POWERCAP = Path("/sys/class/powercap")
_SECONDS = 2.0  # of forwards for each structure; counters move about every millisecond


class EnergyCounter:
    """The energy counters of the processor's packages.

    Args:
        folder: Where the kernel shows them.

    Raises:
        ValueError: There are none, or they cannot be read.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        domains = sorted(each for each in folder.glob("intel-rapl:*") if each.name.count(":") == 1)  # no subdomains
        self._counters = [each / "energy_uj" for each in domains if (each / "energy_uj").exists()]
        if not self._counters:
            raise ValueError(
                f"This machine does not tell its energy: there is no {folder}/intel-rapl:0/energy_uj. Measure on Linux "
                "with a processor that has RAPL counters, not in a virtual machine; or limit latency_ms or macs."
            )
        try:
            self._ranges = [int((each.parent / "max_energy_range_uj").read_text()) for each in self._counters]
            self.read()
        except OSError as error:
            raise ValueError(
                f"The energy counter {error.filename} cannot be read ({error.strerror}). Let root allow it: chmod a+r "
                f"{folder}/intel-rapl:*/energy_uj."
            ) from error

    def read(self) -> list[int]:
        """Microjoules of each package so far; they begin at 0 again now and then."""
        return [int(each.read_text()) for each in self._counters]

    def joules_since(self, before: list[int]) -> float:
        """What all packages took since a reading, if no counter began again more than once."""
        pairs = zip(self.read(), before, self._ranges, strict=True)
        return 1e-6 * sum((now - then) % (most + 1) if now < then else now - then for now, then, most in pairs)


def measure(
    network: Network,
    *,
    structures: int = 8,
    batch_size: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
    counter: EnergyCounter | None = None,
    seconds: float = _SECONDS,
) -> EnergyTable:
    """Measure structures from the narrowest to the full one, evenly spaced; see `EnergyTable.measure`.

    Args:
        network: A traced network.
        structures: How many to measure.
        batch_size: Images per forward.
        on_progress: Called with the numbers of structures done and wanted.
        counter: Of the machine.
        seconds: For how long each runs.

    Raises:
        ValueError: The machine does not tell its energy, or a number is out of its range.
    """
    structures = whole_number("structures", structures, at_least=4)
    counter = counter or EnergyCounter()
    space = network.space
    shares = np.linspace(0.0, 1.0, structures)[:, None]
    wanted = np.array(space.minimum) + shares * (np.array(space.full) - np.array(space.minimum))
    chosen = [space.check(row) for row in space.from_indices(space.indices(wanted))]
    ranking = NestedRanking.by_importance([np.zeros(len(units)) for units in network.units])
    found = []
    for number, structure in enumerate(chosen):
        module, inputs = positional(slim(network, structure, ranking).eval(), example_batch(network), batch_size)
        found.append(1e3 * _joules_per_forward(partial(module, *inputs), counter, seconds))
        if on_progress is not None:
            on_progress(number + 1, structures)
    return EnergyTable(
        groups=tuple((group.name, group.width) for group in space.groups),
        structures=tuple(chosen),
        millijoules=tuple(found),
        processor=processor_name("cpu"),
        batch_size=batch_size,
    )


def _joules_per_forward(forward: Callable[[], Any], counter: EnergyCounter, seconds: float) -> float:
    with torch.inference_mode():
        forward()
        before, start, n = counter.read(), time.perf_counter(), 0
        while n == 0 or time.perf_counter() - start < seconds:
            forward()
            n += 1
        return counter.joules_since(before) / n
