from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.models.misfit import outputs_of, told_as
from prunesearch.tasks.metric import Measured
from prunesearch.training.finetune import train

FULL = r"can't allocate memory|not enough memory|out of memory|paging file"  # as torch says it of CPUs


def fill() -> None:
    torch.empty(10**15)


class Greedy(nn.Module):
    """Takes more memory than there is once it is run on so many images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            fill()
        return self.head(self.conv(x).relu().mean((2, 3)))


def of_task(**functions: Any) -> None:
    task = ps.Task(name="mine", loss=lambda outputs, batch: outputs[:, 0], **functions)
    Measured(task).update(torch.zeros(2, 2), (torch.zeros(2, 1), torch.zeros(2)), 2)


def of_teacher() -> None:
    def distil(own: Any, wanted: Any, temperature: float) -> Any:
        fill()

    task = ps.Task(name="mine", loss=lambda outputs, batch: outputs[:, 0], distil=distil)
    data = ps.Data(train=(torch.zeros(4, 1, 4, 4), torch.zeros(4)), task=task)
    train(Greedy(9), data, recipe=ps.Recipe(epochs=1, batch_size=2), teacher=Greedy(9))


@pytest.mark.parametrize(
    "run",
    [
        lambda: outputs_of(Greedy(1), torch.zeros(2, 1, 4, 4)),
        lambda: ps.count(Greedy(1), torch.zeros(2, 1, 4, 4)),
        lambda: ps.trace(Greedy(1), torch.zeros(2, 1, 4, 4)),
        lambda: of_task(metric=lambda outputs, batch: fill()),
        of_teacher,
    ],
    ids=["forward", "count", "trace", "metric", "distil"],
)
def test_that_memory_of_a_cpu_is_full_is_no_fault_of_inputs_or_functions(run: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match=FULL):
        run()


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA out of memory")]
)
def test_it_is_known_by_its_class_or_its_words(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, told_as(str):
        raise error
    assert caught.value is error
    with pytest.raises(ValueError, match="out of memory, says a label"), told_as(str):
        raise KeyError("out of memory, says a label")
