"""Scores and costs as curves in TensorBoard."""

from __future__ import annotations

from pathlib import Path

from prunesearch.study.events import Event


class TensorBoardLogger:
    """A callback that writes each trial's score, the best so far, MACs, parameters and seconds.

    A study that is continued goes on in the same curves, as trials are numbered through.

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
        self._writer = Writer(str(folder))

    def __call__(self, event: Event) -> None:
        """Write one trial."""
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
