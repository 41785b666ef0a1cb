"""No labels: a pruned network is to return what the unpruned one returns."""

from __future__ import annotations

from collections.abc import Callable

from prunesearch.models.nested import Batch
from prunesearch.tasks.task import Task, first_of_pair


def fidelity(inputs: Callable[[Batch], Batch] = first_of_pair) -> Task:
    """Structures are scored, and trained, by how near their outputs are to the unpruned network's, whatever these are.

    Args:
        inputs: What the network is called with, of a batch; by default the first of a pair, and else the whole batch.
    """
    return Task(inputs=inputs, targets_have_positions=False, name="fidelity")
