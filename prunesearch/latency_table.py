"""Measured times of a network's layers over a grid of widths: what a latency budget is predicted from.

A `LatencyTable` is what was measured, and one file. `latency_model.LatencyModel` predicts from it. Numpy only; the
measuring is done in `prunesearch.evaluators.latency`, or by you on a device of your own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from prunesearch.contracts import kind_of
from prunesearch.latency_file import read, write
from prunesearch.latency_times import FORMERLY_REMOTE, REMOTE, LatencyTimes, Timing
from prunesearch.progress import Progress
from prunesearch.registry import resolve
from prunesearch.structure import Space


@dataclass(frozen=True, repr=False)
class LatencyTable(LatencyTimes):
    """Times of every distinct layer of one network over a grid of widths, under stated conditions.

    Its attributes are those of `LatencyTimes`.
    """

    def __repr__(self) -> str:
        timings = sum(len(layer.timings) for layer in self.layers)
        where = f"{self.conditions.backend} on {self.conditions.processor}"
        return f"LatencyTable({where}, {len(self.layers)} layers, {timings} timings, {self.fingerprint})"

    @staticmethod
    def measure(
        network: Any,
        *,
        backend: str = "eager",
        device: str | None = None,
        batch_size: int = 1,
        threads: int | None = None,
        file: str | Path | None = None,
        points: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        progress: Progress = True,
    ) -> LatencyTable:
        """Time every distinct layer of a network over a grid of widths, and a few whole networks.

        Takes minutes, most of them in proportion to `points` squared. The model, its mode and the random generators are
        left as they were; garbage collection is off and threads are pinned meanwhile.

        Args:
            network: A traced network.
            backend: `"eager"` (torch as it is), `"inductor"` (`torch.compile`), `"onnxruntime"` (on the CPU), or
                `"onnxruntime:PROVIDER"` with the name of one of its execution providers.
            device: Where torch runs, such as `"cuda"`; None is where the network's example inputs are.
            batch_size: Images per forward. Times and budgets are those of one forward.
            threads: That the backend may use; None is as many as torch uses now.
            file: Keeps what is measured as it comes; what it has already is not measured again.
            points: Widths per axis of the grid; None leaves it to the backend.
            on_progress: Called with the numbers of timings done and wanted.
            progress: Whether to show how far it is, where there is a terminal or a notebook.

        Raises:
            ValueError: An unknown backend, a number out of range, more threads than there are cores, or a file with
                times of another network or other conditions.
            ImportError: The backend's package is not installed.
            TraceError: The network cannot be cut into layers.
        """
        table = {"measure": "prunesearch.evaluators.latency.measuring:measure"}
        measure = resolve(table, "measure", "function")  # by name: nouns know nothing of evaluators
        measured: LatencyTable = measure(
            network,
            backend=backend,
            device=device,
            batch_size=batch_size,
            threads=threads,
            file=file,
            points=points,
            on_progress=on_progress,
            progress=progress,
        )
        return measured

    @property
    def is_remote(self) -> bool:
        """Whether its times are of a device that is not at hand."""
        return self.conditions.backend == REMOTE

    @property
    def missing(self) -> int:
        """How many timings the file still lacks."""
        layers = sum(timing is None for layer in self.layers for timing in layer.timings)
        return layers + sum(built.timing is None for built in self.networks)

    @property
    def fingerprint(self) -> str:
        """Hash of everything in the table."""
        facts = asdict(self)
        if self.is_remote:  # studies know tables by what the first files said
            facts["conditions"]["backend"] = FORMERLY_REMOTE
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]

    def rescaled(self, factor: float) -> LatencyTable:
        """The same measurements for a machine that is slower by a factor, reference kernel and all."""
        return replace(
            self._with_times(lambda ms: factor * ms),
            reference_ms=None if self.reference_ms is None else factor * self.reference_ms,
            drift=None if self.drift is None else (self.drift[0] / factor, 1.0, self.drift[2] / factor),
        )

    def rounded(self) -> LatencyTable:
        """The same with times to a nanosecond, which is finer than they can be measured: a person reads the file."""
        return self._with_times(lambda ms: round(ms, 6))

    def _with_times(self, changed: Callable[[float], float]) -> LatencyTable:
        """The same with other milliseconds."""

        def other(timing: Timing | None) -> Timing | None:
            return None if timing is None else Timing(*map(changed, (timing.ms, timing.low, timing.high)))

        return replace(
            self,
            layers=tuple(replace(layer, timings=tuple(map(other, layer.timings))) for layer in self.layers),
            networks=tuple(replace(built, timing=other(built.timing)) for built in self.networks),
        )

    def as_remote(self) -> LatencyTable:
        """The same times as those of a device that is not at hand, so that no search tries to time its winner here."""
        return replace(self, conditions=replace(self.conditions, backend=REMOTE))

    def check(self, space: Space) -> None:
        """Say so if the table is of another network, or not complete.

        Raises:
            ValueError: It is.
        """
        own = tuple((group.name, group.width, group.unit) for group in space.groups)
        if network_fingerprint(space) != self.network or self.groups != own:
            raise ValueError(
                f"The latency table was measured for another network: {_first_difference(self.groups, own)}. Measure "
                "one for this network: prunesearch latency, or LatencyTable.measure(network, ...)."
            )
        if self.missing:
            raise ValueError(
                f"The latency table still lacks {self.missing} times. Run the same measurement again to continue, or "
                "fill in what you measured on another device."
            )

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all; docs/latency.md describes the format."""
        write(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> LatencyTable:
        """Read what `save` wrote, or what you filled in.

        Raises:
            InvalidInput: It is no latency table, is damaged, or of a newer version; the message says where.
            FileNotFoundError: There is no such file.
        """
        return LatencyTable(**vars(read(Path(path))))


def as_table(given: LatencyTable | str | Path | None) -> LatencyTable | None:
    """A latency table as it is; a path is that of its file.

    Raises:
        InvalidInput: The file is no latency table, is damaged, or of a newer version.
        TypeError: It is neither.
    """
    if isinstance(given, (str, Path)):
        return LatencyTable.load(given)
    if not isinstance(given, LatencyTable | None):
        raise TypeError(f"Expected table as a latency table, or the path of its file, got {kind_of(given)}.")
    return given


def network_fingerprint(space: Space) -> str:
    """Hash of a network's groups and layers; the same whatever widths are allowed."""
    groups = [(group.name, group.width, group.unit) for group in space.groups]
    facts = json.dumps([groups, [asdict(term) for term in space.macs_terms]])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _first_difference(stored: tuple[tuple[str, int, int], ...], own: tuple[Any, ...]) -> str:
    for theirs, ours in zip(stored, own, strict=False):
        if theirs != ours:
            return f"its group {theirs[0]!r} of {theirs[1]} channels is {ours[0]!r} of {ours[1]} here"
    if len(stored) != len(own):
        return f"it has {len(stored)} groups, this network {len(own)}"
    return "its layers have other shapes; the images may have another size, or the classes another number"
