"""How a search runs: by whom, told to whom. None of it changes what a structure scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunesearch.given import as_callbacks
from prunesearch.ranges import whole_number
from prunesearch.study.events import Callback
from prunesearch.study.workers import Workers


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a search runs. None of it changes what a structure scores, so all of it may differ when a study goes on.

    Attributes:
        workers: How many processes score; or a `Workers`, for a cluster, a time limit per structure and the like. The
            history is the same for any.
        in_order: False tells the searcher each score as soon as it is known, so that no worker waits for another. The
            order then depends on how fast they are: **equal seeds no longer give equal results.** Nothing races then,
            and the study is another.
        callbacks: Called with an `Event` for each new trial; one that returns True ends the search. A single one will
            do.
        cache: Folder where statistics of layers, that some criteria and weight sources gather, are kept between runs.
        open_another: Whether, without a `study_name`, a new study is opened whatever differs: the model, the data, the
            seed, ... Otherwise anything but the budget and the searcher is refused.

    Raises:
        TypeError: A value of another kind.
        ValueError: A number out of its range.
    """

    workers: int | Workers = 1
    in_order: bool = True
    callbacks: Callback | Sequence[Callback] = ()
    cache: str | Path | None = None
    open_another: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "callbacks", as_callbacks(self.callbacks))
        if not isinstance(self.workers, Workers):
            Workers(whole_number("workers", self.workers, at_least=-1))  # which has more to say

    @property
    def crew(self) -> Workers:
        """The workers, also if only their number was given."""
        return self.workers if isinstance(self.workers, Workers) else Workers(int(self.workers))

    @property
    def told(self) -> tuple[Callback, ...]:
        """The callbacks, also if only one was given."""
        return as_callbacks(self.callbacks)
