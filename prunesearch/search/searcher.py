"""The role: propose structures worth scoring, learn from what they scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from prunesearch.structure import Structure
from prunesearch.trial import Trial


class Searcher(Protocol):
    """Proposes structures, all within the budget, none twice.

    The caller owns the loop; a searcher evaluates nothing, prints nothing and touches no global state. It is a
    function of its seed and of what it was told: asking and telling the same again rebuilds it, so nothing of it is
    ever stored. Random draws come from `np.random.default_rng([seed, stage, index])`, never from a generator that
    lives on.

    Constructors take `(space, budget, *, seed=0)` and options of their own, and raise `InfeasibleBudget` at once.
    """

    def ask(self, n: int) -> list[Structure]:
        """Return at most `n` new structures; an empty list means finished.

        While something that was asked for is not told yet, it may also mean that the searcher waits for that.
        Asking for fewer gives the first ones of what asking for more would give. Fewer than `n` is not an error.
        """

    def tell(self, trials: Sequence[Trial]) -> None:
        """Absorb finished trials, foreign and failed ones included.

        A failed trial (score None) counts as worse than every score. A score may be an estimate: `Trial.error` is its
        standard error. Never raises for what a trial holds.
        """


@runtime_checkable
class PolicySearcher(Searcher, Protocol):
    """Learns a policy from what it is told, which answers any share of the budget without a further evaluation."""

    def policy(self, share: float) -> Structure:
        """What the policy keeps for a share of the budget; asking changes nothing of what is proposed later.

        Raises:
            ValueError: The share is not in (0, 1].
            InfeasibleBudget: No structure meets it.
        """
