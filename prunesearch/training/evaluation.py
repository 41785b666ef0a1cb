"""Metric and loss on examples that were held out."""

from __future__ import annotations

import math

import torch
from torch import nn

from prunesearch.models.copying import on_device
from prunesearch.models.devices import device_of_module, devices_here
from prunesearch.models.isolation import as_found
from prunesearch.models.misfit import outputs_of
from prunesearch.tasks.examples import Examples, followed, following, follows
from prunesearch.tasks.metric import Measured, higher_is_better
from prunesearch.tasks.scored import check_answer, measure
from prunesearch.training.data import Data

_AT_ONCE = 512


def evaluate(network: nn.Module, examples: Examples, device: torch.device) -> tuple[float, float | None]:
    """Metric and mean loss of a network, which is left in eval mode.

    Each of several processes computes all of it, as a metric need not be a mean that could be put together.

    Returns:
        The metric, or the loss where there is none; and the loss, None where there are no labels.
    """
    network.eval()
    metric = Measured(examples.task)
    loss = None if examples.task.loss is None else Measured(examples.task, "loss")
    with torch.no_grad():
        parts = (part.to(device) for part in examples.split(_AT_ONCE))
        measure(network, parts, metric, *([] if loss is None else [loss]))
    return metric.compute(), None if loss is None else loss.compute()


def question_of_task(network: nn.Module, data: Data) -> dict[str, str | None]:
    """What tells another task: its name, and the loss on the first training examples in two digits, if it has one.

    Raises:
        ValueError: The network does not run on them, or the targets do not fit it.
    """
    return {"task": data.goal.name, "loss at first": None if data.goal.loss is None else _first_loss(network, data)}


def _first_loss(network: nn.Module, data: Data) -> str:
    measured = Measured(data.goal, "loss")
    examples = data.examples_of(data.first())
    place = device_of_module(network)
    with as_found(network), torch.no_grad():
        measure(network, (examples if place is None else examples.to(place)).by_size(), measured, look=check_answer)
    return f"{measured.compute():.2g}"


def order_of(examples: Examples, metric: float, loss: float | None) -> tuple[float, float]:
    """What the better of two evaluations has more of: the metric, then minus the loss."""
    sign = 1.0 if higher_is_better(examples.task) else -1.0
    return _or_worst(sign * metric), 0.0 if loss is None else _or_worst(-loss)


def _or_worst(value: float) -> float:
    """The value; of NaN, such as a correlation of outputs that are all alike, what is worse than any."""
    return -math.inf if math.isnan(value) else value


def metric_on_test(
    network: nn.Module, data: Data, reference: nn.Module | None = None, *, device: str | None = None
) -> tuple[float, int]:
    """The metric of the task on the test examples, and how many there are; the network is left as it was.

    Args:
        network: What is judged.
        data: With test examples.
        reference: The unpruned network, with which a task that has no labels compares.
        device: Where it runs, as a copy if the network is elsewhere; by default on the GPU where there is one.

    Raises:
        ValueError: There are no test examples, the task has nothing to judge by, or the network cannot take them, or
            returns NaN for some; or their labels are not of it.
    """
    place = devices_here().chosen(device, device_of_module(network))
    network = _there(network, place)
    reference = None if reference is None else _there(reference, place)
    compares = follows(data.goal) and reference is not None
    measured = Measured(followed(data.goal) if compares else data.goal)
    with as_found(network), torch.no_grad():
        parts = (data.examples_of(batch).to(place) for batch in data.test_batches(_AT_ONCE))
        if compares and reference is not None:
            parts = (following(part, reference) for part in parts)
        n = measure(network, (some for part in parts for some in part.by_size()), measured, look=check_answer)
    return measured.compute(), n


def check_test(network: nn.Module, data: Data) -> None:
    """Make sure, before what takes long, that a network can be judged on the test examples, if there are any.

    Raises:
        ValueError: It cannot take some of them, or their labels are not of it.
    """
    if data.test is None or follows(data.goal):
        return
    place = device_of_module(network)
    examples = data.examples_of(data.some_of_test())
    try:
        for part in (examples if place is None else examples.to(place)).by_size():
            check_answer(outputs_of(network, part.inputs), part)
    except ValueError as error:
        raise ValueError(f"The test examples do not fit the network. {error}") from error


def _there(network: nn.Module, place: torch.device) -> nn.Module:
    """The network on a device: itself, or a copy."""
    return network if device_of_module(network) in (None, place) else on_device(network, place)
