"""The role: the winner of a search goes in, whether it holds comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from prunesearch.evaluators.winner import Winner
from prunesearch.structure import Structure


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of a winner.

    Attributes:
        holds: Whether it is what was asked for.
        said: A sentence for the reader, where it does not hold.
        limits: Lower limits under which the search is to go on, by resource (`{"latency_ms": 3.8}`), where it does not
            hold. Without any only this structure is refused, and the next best one is looked at.
        shortfall: How far it is off, from 0, in any unit; of winners that do not hold the least off is returned.
        facts: What was found, as plain values that JSON can hold; kept with the study.
    """

    holds: bool
    said: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    shortfall: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


class Verifier(Protocol):
    """Says whether the winner of a search holds, and under which lower limits the search is to go on.

    A score and a prediction are estimates, and a search finds the structures whose estimates are too good. A verifier
    looks at the winner itself: times it, trains it for an epoch, runs it on a phone.
    """

    @property
    def description(self) -> str:
        """Name and settings in a line; verdicts are kept under it."""

    def verify(self, winner: Winner) -> Verdict:
        """Look at a winner, whose network is `winner.build()`; nothing of it may be changed."""


@dataclass(frozen=True)
class Verified:
    """What one verifier said of one winner.

    Attributes:
        verifier: Its description.
        structure: Of the winner.
        verdict: What it said.
    """

    verifier: str
    structure: Structure
    verdict: Verdict
