"""Channel criteria: which channels of a group stay when it is narrowed. One a file; each gives a `Ranking`."""

from __future__ import annotations

from collections.abc import Mapping

from prunesearch.evaluators.channels.criterion import Criterion
from prunesearch.registry import resolve

CRITERIA: Mapping[str, str] = {
    "l1": "prunesearch.evaluators.channels.l1:L1Criterion",
    "random": "prunesearch.evaluators.channels.random_order:RandomCriterion",
}


def make_criterion(name: str, *, seed: int = 0) -> Criterion:
    """Build a channel criterion by name.

    Raises:
        ValueError: No criterion has this name; the message has the list.
    """
    criterion: Criterion = resolve(CRITERIA, name, "channel criterion")(seed=seed)
    return criterion
