"""A traced network: what is known of the caller's model, and what can be asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from prunesearch.models.explain import Explanation, explain
from prunesearch.models.traced import TracedModel
from prunesearch.models.verify import Verification, verify


@dataclass(frozen=True, repr=False)
class Network(TracedModel):
    """What `trace` returns; its attributes are those of `TracedModel`. The model is the caller's, never changed."""

    def __repr__(self) -> str:
        full = self.space.cost(self.space.full)
        return (
            f"Network({type(self.model).__name__}, {len(self.space.groups)} groups, {len(self.frozen)} frozen layers, "
            f"{full.macs:,} MACs, {full.params:,} parameters)"
        )

    def explain(self) -> Explanation:
        """What can be pruned, what cannot and why, and what the costs range over; print it."""
        return explain(self.space, self.frozen, self.notes)

    def verify(self, n: int = 10, seed: int = 0) -> Verification:
        """Check `n` random structures: slimmed equals masked, in eval and in training mode, and every cost is exact."""
        return verify(self, n, seed)
