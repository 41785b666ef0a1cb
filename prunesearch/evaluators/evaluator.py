"""The role: a structure goes in, a score comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from prunesearch.structure import Structure


class Evaluator(Protocol):
    """Scores structures; higher is better.

    Deterministic: the same structure gets the same score, whatever else is in the batch and whatever was scored
    before. Leaves the network, its mode and every random generator as found.

    It may have an attribute `measures` that says what its scores are: `"loss"` (minus a loss), `"accuracy"` or
    `"agreement"` (shares in [0, 1]).
    """

    @property
    def description(self) -> str:
        """Name and settings in a line; a stored study refuses to go on with another one."""

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score a batch, one score per structure in order.

        A score may be NaN or infinite; whoever called decides what that means.
        """
