"""The values of a latency table: what was timed, where, and how long it took."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from prunesearch.structure import Structure, Width

FORMAT, VERSION = "prunesearch latency table", 1
REMOTE = "remote"
"""The backend of a table whose times were measured by other means, on a device that is not at hand."""
FORMERLY_REMOTE = "elsewhere"
"""What files of the first releases say in its place."""


@dataclass(frozen=True)
class Conditions:
    """Under which times hold.

    Attributes:
        backend: What runs the network: `eager`, `inductor`, `onnxruntime:PROVIDER`, or `remote`.
        device: `cpu`, `cuda`, or the name of another device.
        processor: Its name.
        threads: That the backend may use.
        batch_size: Images per forward; every time is that of one forward, not of one image.
        versions: Pairs (package, version).
    """

    backend: str
    device: str
    processor: str
    threads: int
    batch_size: int
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one forward: median, and quartiles, over repeats spread in time."""

    ms: float
    low: float
    high: float


@dataclass(frozen=True)
class Layer:
    """One distinct piece of work, wherever in the network it is done.

    Attributes:
        computes: Operators and the shapes of what goes in, at full width.
        axes: Per width that its time depends on, the widths it was timed at, ascending; at most two axes.
        timings: Of every combination of widths, the last axis running fastest; None where not measured yet.
    """

    computes: str
    axes: tuple[tuple[int, ...], ...]
    timings: tuple[Timing | None, ...]


@dataclass(frozen=True)
class Use:
    """A place in the network where a layer's work is done.

    Attributes:
        place: The layer's name in the model.
        layer: Index of what it computes, in `LatencyTimes.layers`.
        widths: Its width on each axis, as a function of a structure.
    """

    place: str
    layer: int
    widths: tuple[Width, ...]


@dataclass(frozen=True)
class Built:
    """A whole network of the space that was built and timed, or is to be: how the sum of layers is calibrated."""

    structure: Structure
    timing: Timing | None


@dataclass(frozen=True, repr=False)
class LatencyTimes:
    """Times of every distinct layer of one network over a grid of widths, under stated conditions.

    Attributes:
        conditions: Under which the times hold.
        groups: (name, full width, unit) of the network's groups.
        network: Fingerprint of the layers that it was measured for; allowed widths have no part in it.
        layers: Distinct pieces of work, with their times.
        uses: Where each is done.
        networks: Whole networks that were timed.
        reference_ms: What the reference kernel took, which was timed in between to watch the machine drift; all times
            are those of a machine at this speed, the median one while the table was measured.
        drift: The 5th, 50th and 95th percentile of what it took meanwhile, relative to `reference_ms`.
        correction: Factor learnt from networks built since; predictions are multiplied by it.
    """

    conditions: Conditions
    groups: tuple[tuple[str, int, int], ...]
    network: str
    layers: tuple[Layer, ...]
    uses: tuple[Use, ...]
    networks: tuple[Built, ...]
    reference_ms: float | None = None
    drift: tuple[float, float, float] | None = None
    correction: float = 1.0


def combinations_of(axes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The widths of each of a layer's timings, in their order."""
    return list(itertools.product(*axes))
