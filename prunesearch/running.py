"""How a search runs: by whom, told to whom. None of it changes what a structure scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunesearch.study.workers import Workers, as_workers

if TYPE_CHECKING:
    from prunesearch.study.events import Callback


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a search runs. None of it changes what a structure scores, so all of it may differ when a study goes on.

    Attributes:
        workers: How many processes score; or a `Workers`, for a cluster, a time limit per structure and the like. The
            history is the same for any.
        asynchronous: No worker waits for another; equal seeds no longer give equal results. The searcher is told each
            score as soon as it is known, so the order depends on how fast the workers are. Nothing races then, and the
            study is another.
        callbacks: Called with an `Event` for each new trial; one that returns True ends the search. A single one will
            do.
        cache: Folder that keeps statistics of layers between runs. Some criteria and weight sources gather such, which
            later runs then find there.
        device: Where structures are scored, such as cpu, cuda or cuda:1; by default on the GPU where there is one. The
            network that was given stays where it is, and what is built comes back there. Scores of a GPU differ from
            those of a CPU by rounding.
        open_another: Whether, without a `study_name`, a new study is opened whatever differs: the model, the data, the
            seed, ... Otherwise anything but the budget and the searcher is refused.

    Raises:
        TypeError: A value of another kind.
        ValueError: A number out of its range.
    """

    workers: int | Workers = 1
    asynchronous: bool = False
    callbacks: Callback | Sequence[Callback] = ()
    cache: str | Path | None = None
    device: str | None = None
    open_another: bool = False

    def __post_init__(self) -> None:
        as_workers(self.workers)
        if self.device is not None:
            object.__setattr__(self, "device", str(self.device))  # also of a torch.device
        object.__setattr__(self, "callbacks", as_callbacks(self.callbacks))

    @property
    def told(self) -> tuple[Callback, ...]:
        """The callbacks, also if only one was given."""
        return as_callbacks(self.callbacks)


def as_callbacks(given: Callback | Sequence[Callback]) -> tuple[Callback, ...]:
    """Callbacks in a tuple; a single one will do.

    Raises:
        TypeError: One cannot be called.
    """
    found = tuple(given) if isinstance(given, Iterable) else (given,)
    wrong = [callback for callback in found if not callable(callback)]
    if wrong:
        raise TypeError(f"Expected callbacks as functions that take an Event, got {wrong[0]!r}.")
    return found
