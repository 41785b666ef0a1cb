"""What a training loop trains: a network, and whatever helps to train it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunesearch.models.nested import Batch
from prunesearch.training.optimization import make_optimizer, parameter_groups
from prunesearch.training.recipe import Recipe


class Learner(nn.Module):
    """A network with a loss. Whatever changes while it trains is a parameter or a buffer, so that it can be resumed.

    Args:
        network: What is trained, evaluated and handed back.
        helpers: Networks that are only asked: moved along to the device, but no part of the state.
    """

    runs_in_parallel = True
    """Whether many processes may share its batches."""

    def __init__(self, network: nn.Module, helpers: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.network = network
        self.helpers = tuple(helpers)  # torch does not register what is in a tuple

    def forward(self, images: Batch, labels: Tensor) -> Tensor:
        """Loss of a batch: the mean over (n, ...) images, or several inputs, with (n,) labels."""
        raise NotImplementedError

    def optimizers(self, recipe: Recipe) -> Sequence[torch.optim.Optimizer]:
        """What takes the steps."""
        return [make_optimizer(parameter_groups(self.parameters(), recipe.weight_decay), recipe)]

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch."""

    def end_epoch(self, epoch: int) -> None:
        """Called after the last step of an epoch, before the network is evaluated."""
