"""What goes into the parts of a network that are kept whole, and what comes out, where two networks are compared.

A part that decides by the values of its data, such as the suppression of boxes, turns the last bit of a number into
another result: of two equal scores either may come first. Two networks are therefore compared in what they give to such
a part, and both go on with what it made of the one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunesearch.models.functions import is_function, replace_method
from prunesearch.models.nested import mapped, tensors_in
from prunesearch.models.normalised import MethodOf


@dataclass
class Calls:
    """Calls of parts that are kept whole, in order.

    Attributes:
        given: The tensors of each call's arguments.
        results: By the part, what each call returned.
        arguments: By the part, the tensors of each call's arguments.
    """

    given: list[Tensor] = field(default_factory=list)
    results: dict[str, list[Any]] = field(default_factory=dict)
    arguments: dict[str, list[list[Tensor]]] = field(default_factory=dict)

    def note(self, part: str, arguments: Any, result: Any) -> None:
        """Note a call; what is noted is not changed by what the forward does afterwards."""
        tensors = [x.detach().clone() for x in tensors_in(arguments)]
        self.given += tensors
        self.arguments.setdefault(part, []).append(tensors)
        self.results.setdefault(part, []).append(_copied(result))

    def taken(self) -> Calls:
        """The calls so far, which are then forgotten here."""
        found = Calls(list(self.given), dict(self.results), dict(self.arguments))
        for noted in (self.given, self.results, self.arguments):
            noted.clear()
        return found


def _copied(value: Any) -> Any:
    return mapped(value, torch.clone)


def part_called_by(node: fx.Node) -> str:
    """What a node would be called among `Network.leaves`."""
    if isinstance(node.target, MethodOf):
        return f"{node.target.module}.{node.target.method}()".lstrip(".")
    return str(node.target) if node.op == "call_module" else ""


def watched(model: nn.Module, parts: Iterable[str]) -> frozenset[str]:
    """The parts that can be watched: a TorchScript program takes no hooks, and is no place for what data decide.

    A function of the forward's file cannot be watched in a network that finds it there.
    """
    parts = [part for part in parts if not is_function(part)]
    found = {part for part in parts if part.endswith("()")}
    modules = {part: model.get_submodule(part) for part in parts if part not in found}
    return frozenset(
        found | {part for part, module in modules.items() if not isinstance(module, torch.jit.ScriptModule)}
    )


@contextmanager
def results_given(model: nn.Module, theirs: Calls) -> Iterator[Calls]:
    """Meanwhile parts of `model`, of our own, run and return what they returned in another network.

    Args:
        model: A network that has the same parts.
        theirs: The other network's calls.

    Yields:
        The calls in `model`, as they are made.

    Raises:
        LookupError: In the forward that runs meanwhile: it calls a part more often than the other network does.
    """
    mine = Calls()
    undo: list[Callable[[], Any]] = []

    def replaced(part: str, arguments: Any, result: Any) -> Any:
        before = len(mine.results.get(part, []))
        mine.note(part, arguments, result)
        return _copied(theirs.results[part][before])

    try:
        for part in theirs.results:
            undo.append(_watch_method(model, part, replaced) if part.endswith("()") else _watch(model, part, replaced))
        yield mine
    finally:
        for put_back in undo:
            put_back()


def _watch(model: nn.Module, part: str, replaced: Callable[[str, Any, Any], Any]) -> Callable[[], Any]:
    def hook(_: nn.Module, args: Any, kwargs: Mapping[str, Any], result: Any) -> Any:
        return replaced(part, (args, dict(kwargs)), result)

    return model.get_submodule(part).register_forward_hook(hook, with_kwargs=True).remove


def _watch_method(model: nn.Module, part: str, replaced: Callable[[str, Any, Any], Any]) -> Callable[[], Any]:
    module, method = _method(model, part)
    original = getattr(module, method)

    def run(*args: Any, **kwargs: Any) -> Any:
        given = mapped((args, kwargs), torch.clone)
        return replaced(part, given, original(*args, **kwargs))

    return replace_method(module, method, run)


@contextmanager
def arguments_given(model: nn.Module, theirs: Calls) -> Iterator[None]:
    """Meanwhile parts of `model`, of our own, run on what they were given in another network, whose weights they have.

    What a part costs may depend on its data, as on how many boxes it looks at.

    Args:
        model: A network that has the same parts.
        theirs: The other network's calls.
    """
    calls = {part: iter(noted) for part, noted in theirs.arguments.items()}
    undo: list[Callable[[], Any]] = []

    def replaced(part: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        tensors, given = next(calls[part], []), (args, dict(kwargs))
        if len(tensors) != sum(1 for _ in tensors_in(given)):  # it is called otherwise, and costs what it costs
            return given
        left = iter(tensors)
        found: tuple[Any, Any] = mapped(given, lambda _: next(left).clone())
        return found

    try:
        for part in calls:
            undo.append(_give_method(model, part, replaced) if part.endswith("()") else _give(model, part, replaced))
        yield
    finally:
        for put_back in undo:
            put_back()


def _give(model: nn.Module, part: str, replaced: Callable[[str, Any, Any], Any]) -> Callable[[], Any]:
    def hook(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return replaced(part, args, kwargs)

    return model.get_submodule(part).register_forward_pre_hook(hook, with_kwargs=True).remove


def _give_method(model: nn.Module, part: str, replaced: Callable[[str, Any, Any], Any]) -> Callable[[], Any]:
    module, method = _method(model, part)
    original = getattr(module, method)

    def run(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = replaced(part, args, kwargs)
        return original(*args, **kwargs)

    return replace_method(module, method, run)


def _method(model: nn.Module, part: str) -> tuple[nn.Module, str]:
    """The module of a part that is a method, and the method's name."""
    name, _, method = part.removesuffix("()").rpartition(".")
    return model.get_submodule(name), method
