"""Verifiers look at the winner of a search itself, and say whether it holds. One a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from prunesearch.contracts import Contract, kind_of
from prunesearch.errors import InfeasibleBudget
from prunesearch.registry import Registry

if TYPE_CHECKING:
    from prunesearch.budget import FeasibleSet
    from prunesearch.evaluators.winner import Winner
    from prunesearch.verifiers.verifier import Verdict, Verifier

    AnyVerifier: TypeAlias = str | Verifier | Callable[[FeasibleSet], Verifier]

VERIFIERS: Mapping[str, str] = {
    "latency": "prunesearch.verifiers.latency:LatencyVerifier",
}
VERIFIER = Contract(
    "Verifier",
    Registry("verifier", "prunesearch.verifiers", VERIFIERS),
    methods=("verify(winner)",),
    attributes=("description",),
    made_from="(wanted)",
)


def make_verifier(given: AnyVerifier, wanted: FeasibleSet) -> Verifier:
    """Build a verifier by name.

    Args:
        given: One of `VERIFIERS`, or a name that an installed package adds (entry points, `prunesearch.verifiers`);
            `"package.module:attribute"`; a class or function that takes the resolved budget; or an object, which is
            returned.
        wanted: The budget that winners are to meet.

    Raises:
        ValueError: No verifier has this name, and the message has the list; or it cannot verify this budget.
        TypeError: It is none of these.
        ContractBroken: What is made cannot verify, or cannot be made from the budget.
    """
    made: Verifier = VERIFIER.make(given, wanted)
    return made


def verdict_of(verifier: Verifier, winner: Winner, wanted: FeasibleSet) -> Verdict:
    """What a verifier of anybody's says of a winner, checked.

    Args:
        verifier: Who is asked.
        winner: About whom.
        wanted: The budget, whose limits may be lowered.

    Raises:
        ContractBroken: It gave no verdict, lower limits of what cannot be limited, or facts that JSON cannot hold.
    """
    from prunesearch.verifiers.verifier import Verdict

    verdict: Any = verifier.verify(winner)
    if not isinstance(verdict, Verdict):
        raise VERIFIER.broken(verifier, f"verify(winner) gave {kind_of(verdict)}; expected a Verdict")
    try:
        wanted.lowered_to(verdict.limits)
        json.dumps([dict(verdict.limits), float(verdict.shortfall), dict(verdict.facts)])
    except InfeasibleBudget:
        pass
    except (AttributeError, TypeError, ValueError) as error:
        said = str(error).rstrip(".")
        raise VERIFIER.broken(verifier, f"verify(winner) gave a verdict that cannot be followed: {said}") from None
    return verdict
