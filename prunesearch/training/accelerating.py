"""The home of accelerate: on what device and in how many processes training runs, in what precision, who logs it."""

from __future__ import annotations

import atexit
import csv
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.tracking import GeneralTracker

from prunesearch.files import write_text
from prunesearch.models.devices import current
from prunesearch.training.recipe import Precision

__all__ = ["Accelerator", "Log", "accelerated"]

_log = logging.getLogger("prunesearch")


@dataclass(frozen=True)
class Log:
    """Where the course of a training is written.

    Attributes:
        folder: Made if it is not there.
        trackers: `"csv"` writes `metrics.csv`; any other name is one of accelerate's trackers, such as
            `"tensorboard"`, which needs its package. A single one may be given alone.
    """

    folder: str | Path
    trackers: tuple[str, ...] = ("csv",)

    def __post_init__(self) -> None:
        if isinstance(self.trackers, str):
            object.__setattr__(self, "trackers", (self.trackers,))


def _new_accelerator(**settings: Any) -> Accelerator:
    """An `Accelerator`; the group of processes that it starts, if it starts one, ends with the program.

    A process that exits while the threads of its group still run is aborted by the C++ library ("terminate called").
    """
    started = _in_a_group()
    accelerator = Accelerator(**settings)
    if _in_a_group() and not started:
        atexit.register(_leave_group)
    return accelerator


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _leave_group() -> None:
    if _in_a_group():
        dist.destroy_process_group()


@contextmanager
def accelerated(precision: Precision, log: Log | None, device: torch.device) -> Iterator[Accelerator]:
    """An `Accelerator` for one training; one that the caller has, with another precision, is not disturbed.

    Args:
        precision: In which it computes.
        log: Where its course is written.
        device: Where it runs; of several processes with GPUs each has its own.

    Raises:
        ValueError: The device cannot compute in this precision, or there is no such tracker.
    """
    with _own_state(), current(device):
        accelerator = _new_accelerator(
            cpu=device.type == "cpu",
            mixed_precision="no" if precision == "fp32" else precision,
            log_with=_trackers(log),
            project_dir=None if log is None else str(log.folder),
        )
        if accelerator.num_processes == 1:
            for state in (PartialState(), accelerator.state):
                state.device = device  # accelerate itself knows the first GPU, and the CPU
        if precision == "fp16" and accelerator.device.type == "cpu":
            raise ValueError('Expected precision "fp32" or "bf16" on a CPU, got "fp16".')
        try:
            yield accelerator
        finally:
            for tracker in accelerator.trackers:
                _try_to_log(tracker, tracker.finish)  # end_training would end the caller's process group, too
            if accelerator.device.type != "cpu" or precision != "fp32":
                accelerator.free_memory()  # collects garbage: a network in mixed precision refers to itself


def start_logging(accelerator: Accelerator, log: Log, settings: Mapping[str, Any], epoch: int) -> None:
    """Begin to log after `epoch` epochs; what an earlier run logged of later ones is dropped."""
    plain = {k: v if isinstance(v, (int, float, str)) else str(v) for k, v in settings.items()}
    try:
        accelerator.init_trackers("finetune", plain, {"tensorboard": {"purge_step": epoch + 1}})
    except OSError as error:
        accelerator.trackers = []
        _log.warning("Nothing can be logged in %s: %s. The training goes on.", log.folder, error)


def log_epoch(accelerator: Accelerator, values: Mapping[str, Any], epoch: int) -> None:
    """Hand values of an epoch to every tracker; one that cannot write is given up, and the training goes on."""
    for tracker in list(accelerator.trackers) if accelerator.is_main_process else ():
        if not _try_to_log(tracker, lambda tracker=tracker: tracker.log(dict(values), step=epoch)):  # type: ignore[misc]
            accelerator.trackers.remove(tracker)


def _try_to_log(tracker: Any, write: Callable[[], object]) -> bool:
    try:
        write()
    except Exception as error:  # whatever a tracker raises: a training is worth more than its log
        _log.warning(
            "The %s log of this training cannot be written, and is given up: %s. The training goes on.",
            tracker.name,
            error,
        )
        return False
    return True


@contextmanager
def _own_state() -> Iterator[None]:
    """Accelerate keeps the state of all accelerators of a process in one place; ours is there for a while only."""
    kinds = (AcceleratorState, GradientState) if _in_a_group() else (PartialState, AcceleratorState, GradientState)
    kept = [(kind, dict(kind._shared_state)) for kind in kinds]
    try:
        for kind, _ in kept:
            kind._shared_state.clear()
        yield
    finally:
        for kind, state in kept:
            kind._shared_state.clear()
            kind._shared_state.update(state)


def _trackers(log: Log | None) -> list[Any] | None:
    if log is None:
        return None
    Path(log.folder).mkdir(parents=True, exist_ok=True)
    return [_CSV(Path(log.folder) / "metrics.csv") if name == "csv" else name for name in log.trackers]


class _CSV(GeneralTracker):  # type: ignore[misc]  # accelerate is not typed
    """A row per epoch. Written anew each time, whole or not at all: a few hundred short lines."""

    name = "csv"
    requires_logging_directory = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    @property
    def tracker(self) -> Path:
        return self._path

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        rows = [row for row in self._rows() if int(row["epoch"]) < (step or 0)]
        rows.append({"epoch": step, **values})
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._path, text.getvalue())

    def _rows(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open(newline="") as file:
            return list(csv.DictReader(file))


def process_mean(accelerator: Accelerator, value: torch.Tensor) -> torch.Tensor:
    """Mean of a tensor over all processes."""
    return accelerator.reduce(value.detach(), reduction="mean")
