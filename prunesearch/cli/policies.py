"""What the policy of a search answers for a share of the budget (`--policy-share`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunesearch.budget import Budget
    from prunesearch.result import SearchResult
    from prunesearch.structure import Cost, Space, Structure
    from prunesearch.trial import Trial


@dataclass(frozen=True)
class Answer:
    """The structure for a share of the budget.

    Attributes:
        share: What was asked for.
        structure: What the policy keeps.
        cost: What that costs, also in milliseconds where the budget limits them.
        full: What the unpruned network costs.
        trial: The trial that scored this very structure; None if it was not scored.
        measured: Its score, as what it measures; None if it was not scored.
    """

    share: float
    structure: Structure
    cost: Cost
    full: Cost
    trial: Trial | None
    measured: str | None

    def __str__(self) -> str:
        latency = f", predicted {self.cost['latency_ms']:.3g} ms" if "latency_ms" in self.cost.more else ""
        return (
            f"The policy for a share of {self.share:g} of the budget: MACs {self.cost.macs:,} "
            f"({self.cost.macs / self.full.macs:.1%}), parameters {self.cost.params:,} "
            f"({self.cost.params / self.full.params:.1%}){latency}. {self._scored()}"
        )

    def as_json(self) -> dict[str, Any]:
        """For programs: the score is null where it was not scored."""
        return {
            "share": self.share,
            "structure": self.structure,
            "cost": self.cost.amounts,
            "trial": None if self.trial is None else self.trial.number,
            "score": None if self.trial is None else self.trial.score,
        }

    def _scored(self) -> str:
        if self.trial is None:
            return "It was not scored."
        return f"It was scored as trial {self.trial.number}: {self.measured}."


def answer(result: SearchResult, budget: Budget, share: float) -> Answer:
    """Ask the policy.

    Raises:
        InfeasibleBudget: No structure meets the share.
    """
    structure = result.policy(share)
    feasible = budget.check(result.space)
    scored = [trial for trial in result.trials if trial.structure == structure and trial.score is not None]
    full, trial = result.space.cost(result.space.full), next(iter(scored), None)
    known = None if trial is None or trial.score is None else f"{result.measures} {result.shown(trial.score)}"
    return Answer(share, structure, feasible.cost(structure), full, trial, known)


def check_can_be_met(budget: Budget, space: Space, share: float) -> None:
    """Find out before hours of search whether any structure meets a share of the budget.

    Raises:
        InfeasibleBudget: None does.
    """
    from prunesearch.search.conditional import of_share

    of_share(budget.check(space), share)
