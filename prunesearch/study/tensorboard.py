"""Scores and costs as curves in TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunesearch.study.events import Event

_log = logging.getLogger("prunesearch")


class TensorBoardLogger:
    """A callback that writes each trial's score, the best so far, MACs, parameters and seconds.

    A study that is continued goes on in the same curves, as trials are numbered through. A log that cannot be written
    is given up with a warning; the search goes on.

    Args:
        folder: Where to write; show it with `tensorboard --logdir FOLDER`.

    Raises:
        ValueError: The package `tensorboard` is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from tensorboard.summary import Writer
        except ImportError as error:
            raise ValueError(
                f"This logger needs one more package: pip install 'prunesearch[tensorboard]' ({error})."
            ) from None
        self._folder = folder
        self._writer: Any = None
        self._try(lambda: setattr(self, "_writer", Writer(str(folder))))

    def __call__(self, event: Event) -> None:
        """Write one trial."""
        if self._writer is not None:
            self._try(lambda: self._write(event))

    def _write(self, event: Event) -> None:
        trial = event.trial
        values = {
            "score": trial.score,
            "best score": None if event.best is None else event.best.score,
            "MACs": trial.cost.macs,
            "parameters": trial.cost.params,
            "seconds": trial.seconds,
        }
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(f"{event.study}/{name}", value, trial.number)
        self._writer.flush()

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:  # whatever its library raises: hours of scores are worth more than curves of them
            self._writer = None
            _log.warning(
                "The log for TensorBoard in %s cannot be written, and is given up: %s. The search goes on.",
                self._folder,
                error,
            )
