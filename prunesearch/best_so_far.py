"""What a person is told of a search while it goes on."""

from __future__ import annotations

from collections.abc import Callable

from prunesearch.progress import Shown
from prunesearch.study.events import Event


class BestSoFar:
    """Tells of a search after each trial: the best score and what it costs, the front, the rate.

    Args:
        shown: Where.
        macs: Of the unpruned network.
        told: A score in words, such as `"loss 0.128"`.
    """

    def __init__(self, shown: Shown, macs: int, told: Callable[[float], str]) -> None:
        self._shown, self._macs, self._told = shown, macs, told
        self._fresh = 0

    def __call__(self, event: Event) -> None:
        """Count one more."""
        self._fresh += 1
        rate = self._fresh / max(event.seconds, 1e-3)
        best = "none yet"
        if event.best is not None and event.best.score is not None:
            best = f"{self._told(event.best.score)} with {event.best.cost.macs / self._macs:.1%} of the MACs"
        told = f"best {best}, front {len(event.front)}, {rate:.1f}/s"
        self._shown.update(event.trial.number + 1, event.n_trials, told)
