"""Looking at what layers are given while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from torch import Tensor, nn

from prunesearch.evaluators.inputs import first_argument, first_input
from prunesearch.models.isolation import as_found

Look: TypeAlias = Callable[[Tensor], "Tensor | None"]
"""Called with the first input of a layer; what it returns, if it does, takes its place."""

Answer: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Called with a layer, its first input and its output; what it returns takes the output's place."""


@contextmanager
def watched(model: nn.Module, looks: Iterable[tuple[str, Look]]) -> Iterator[None]:
    """Let functions look at the inputs of layers while the model, in eval mode, runs; afterwards it is as before.

    Args:
        model: The network.
        looks: Pairs of a layer's qualified name and what looks at it.
    """
    with ExitStack() as stack:
        stack.enter_context(as_found(model))
        for name, look in looks:
            handle = model.get_submodule(name).register_forward_pre_hook(_hook(look), with_kwargs=True)
            stack.callback(handle.remove)
        yield


@contextmanager
def answered(model: nn.Module, answers: Iterable[tuple[str, Answer]]) -> Iterator[None]:
    """Let functions answer in place of layers while the model runs; afterwards it is as before.

    Args:
        model: The network.
        answers: Pairs of a layer's qualified name and what answers, from inputs that may have been changed before.
    """
    with ExitStack() as stack:
        for name, answer in answers:
            handle = model.get_submodule(name).register_forward_hook(_answering(answer), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _answering(answer: Answer) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor]:
    def hook(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Tensor) -> Tensor:
        return answer(layer, first_input(layer, arguments, keywords), output)

    return hook


def _hook(look: Look) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]:
    def hook(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        seen = look(first_input(layer, arguments, keywords))
        if seen is None:
            return None
        return ((seen, *arguments[1:]), keywords) if arguments else ((), {**keywords, first_argument(layer): seen})

    return hook
