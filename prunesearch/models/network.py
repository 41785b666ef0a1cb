"""A traced network: what is known of the caller's model, and what can be asked of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from prunesearch.models.copying import on_device
from prunesearch.models.explain import Explanation, explain
from prunesearch.models.nested import moved
from prunesearch.models.traced import TracedModel
from prunesearch.models.verify import Verification, verify


@dataclass(frozen=True, repr=False)
class Network(TracedModel):
    """What `trace` returns; its attributes are those of `TracedModel`. The model is the caller's, never changed."""

    def __repr__(self) -> str:
        full = self.space.cost(self.space.full)
        return (
            f"Network({type(self.model).__name__}, groups: {len(self.space.groups)}, "
            f"frozen layers: {len(self.frozen)}, {full.macs:,} MACs, {full.params:,} parameters)"
        )

    @property
    def device(self) -> torch.device:
        """Where its example inputs are, and with them what is computed."""
        return self.inputs.tensors[0].device

    def is_on(self, device: torch.device) -> bool:
        """Whether it is on a device, of which an index need not be given."""
        return device.type == self.device.type and device.index in (None, self.device.index)

    def to(self, device: torch.device | str) -> Network:
        """The same network on a device, with a copy of the model; itself, if it is there already."""
        place = torch.device(device)
        if self.is_on(place):
            return self
        return replace(
            self,
            model=on_device(self.model, place),
            example_inputs=moved(self.example_inputs, place),
            example_keywords=moved(dict(self.example_keywords), place),
        )

    def explain(self) -> Explanation:
        """What can be pruned, what cannot and why, and what the costs range over; print it."""
        return explain(self.space, self.frozen, self.notes)

    def verify(self, n: int = 10, seed: int = 0) -> Verification:
        """Check `n` random structures: slimmed equals masked, in eval and in training mode, and every cost is exact."""
        return verify(self, n, seed)
