"""A moving average of a network's weights, which is often better than the last ones, and steadier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunesearch.models.copying import copied, copied_value


class Average:
    """Exponential moving average of everything that `state_dict` has; what is no float, and what is sparse, is copied.

    Source: Polyak and Juditsky 1992; the slow start is that of TensorFlow's ExponentialMovingAverage.

    Args:
        network: Averaged from now on.
        decay: Share of the average that stays at each step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copied(network).requires_grad_(False).eval()
        self._decay = decay
        self._with_extra_state = [
            name
            for name, module in network.named_modules()
            if type(module).get_extra_state is not nn.Module.get_extra_state
        ]

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the network as it is after `step` steps."""
        kept = min(self._decay, (1 + step) / (10 + step))
        for mine, new in zip(_tensors(self.network), _tensors(network), strict=True):
            if mine.is_floating_point() and mine.layout == torch.strided:
                mine.copy_(torch.where(mine == new, new, mine.lerp(new, 1 - kept)))  # infinities have no difference
            else:
                mine.copy_(new)
        for name in self._with_extra_state:
            extra = copied_value(network.get_submodule(name).get_extra_state())
            self.network.get_submodule(name).set_extra_state(extra)


def _tensors(network: nn.Module) -> list[Tensor]:
    """Each once, also those that have several names."""
    state = network.state_dict(keep_vars=True).values()
    return [*{id(x): x for x in state if isinstance(x, Tensor)}.values()]
