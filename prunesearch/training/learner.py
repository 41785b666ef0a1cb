"""What a training loop trains: a network, and whatever helps to train it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from prunesearch.models.nested import Batch
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.task import Task
from prunesearch.training.optimization import make_optimizer, parameter_groups
from prunesearch.training.recipe import Recipe


class Learner(nn.Module):
    """A network with a loss. Whatever changes while it trains is a parameter or a buffer, so that it can be resumed.

    Args:
        network: What is trained, evaluated and handed back.
        task: What reads batches.
        helpers: Networks that are only asked: moved along to the device, but no part of the state.
    """

    runs_in_parallel = True
    """Whether many processes may share its batches."""

    def __init__(self, network: nn.Module, task: Task, helpers: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.helpers = tuple(helpers)  # torch does not register what is in a tuple

    def forward(self, batch: Batch) -> Tensor:
        """Loss of a batch, the mean over its examples, in training mode."""
        raise NotImplementedError

    def over_sizes(self, batch: Batch, loss: Callable[[Batch], Tensor]) -> Tensor:
        """The mean over the examples of a batch of several sizes: that of each size, weighted by its examples.

        A batch of one size is given to `loss` as it is.

        Args:
            batch: Of n examples.
            loss: The mean over the examples of a batch of one size.
        """
        return Examples(batch, self.task).mean_by_size(lambda part: loss(part.batch))

    def optimizers(self, recipe: Recipe) -> Sequence[torch.optim.Optimizer]:
        """What takes the steps."""
        return [make_optimizer(parameter_groups(self.parameters(), recipe.weight_decay), recipe)]

    def judged(self, examples: Examples) -> Examples:
        """What the network is evaluated on, of what was held out."""
        return examples

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch."""

    def end_epoch(self, epoch: int) -> None:
        """Called after the last step of an epoch, before the network is evaluated."""
