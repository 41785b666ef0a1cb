"""Running a network on inputs that it may not take: what it returns, or what is wrong and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn

from prunesearch.models.isolation import as_found, isolated
from prunesearch.models.memory import is_out_of_memory
from prunesearch.models.nested import Batch, Nest, called, described, tensors_in

_OF_TYPES = re.compile(r"scalar type|dtype|should be the same|same type")
_OF_DIMENSIONS = re.compile(r"[Ee]xpected .*[34]D")
_COLOURS = (1, 3, 4)


def answer(model: nn.Module, inputs: Batch) -> Any:
    """What a network returns, in whatever mode it is.

    Raises:
        ValueError: It does not run on these inputs.
    """
    with errors_told(model, inputs):
        outputs = called(model, inputs)
    return outputs


def errors_told(model: nn.Module, inputs: Batch) -> AbstractContextManager[None]:
    """Meanwhile what a network raises is said with the inputs that it was given, and with what to do.

    Raises:
        ValueError: It raised something else than that memory is full.
    """
    return told_as(
        lambda error: (
            f"{type(model).__name__} cannot run on {'images' if isinstance(inputs, Tensor) else 'inputs'} of "
            f"{described(inputs)}: {error}{advice(model, [*tensors_in(inputs)], error)}"
        )
    )


@contextmanager
def told_as(say: Callable[[Exception], str], kind: type[Exception] = ValueError) -> Iterator[None]:
    """Meanwhile what the code of others raises, of whatever kind, becomes a sentence of ours.

    That memory is full, on a CPU or a GPU, is raised as it is: it says nothing about that code.

    Args:
        say: The sentence, from what was raised.
        kind: The class of what is raised instead.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise kind(say(error)) from error


def outputs_of(network: nn.Module, inputs: Batch) -> Any:
    """What a network returns in eval mode; nothing of it is changed.

    Raises:
        ValueError: It does not run on these inputs.
    """
    with as_found(network), isolated([*tensors_in(inputs)]) as copies:
        return answer(network, Nest(inputs)(*copies))


def advice(model: nn.Module, inputs: Sequence[Tensor], error: Exception) -> str:
    """What to do about an error of a forward, behind a full stop; nothing where that is not known.

    Args:
        model: The network; only the type of its weights is looked at.
        inputs: What it was given.
        error: What it raised.
    """
    said, first = str(error), next(iter(inputs), None)
    weights = next((x for x in model.parameters() if x.is_floating_point()), None)
    if first is None:
        return ""
    if weights is not None and first.dtype != weights.dtype and _OF_TYPES.search(said):
        types = f"The weights are {weights.dtype}, the inputs {first.dtype}"
        if first.is_floating_point():
            return f". {types}: give tensors of {weights.dtype}, or the network as network.to({first.dtype})."
        return f". {types}: convert and normalise them as in training, such as images.float() / 255."
    if first.dim() == 4 and "channels" in said and first.shape[3] in _COLOURS and first.shape[1] not in _COLOURS:
        return ". Their channels seem to be last: give (n, channels, height, width), images.permute(0, 3, 1, 2)."
    if first.dim() == 3 and _OF_DIMENSIONS.search(said):
        return f". Give a batch of images, such as images[None] of shape {(1, *first.shape)}."
    return ""
