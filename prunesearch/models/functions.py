"""Functions and methods of our copy of a network that are run otherwise for a while.

Functions that the forward of a module calls, and that decide by the values of its data, are kept whole. The forward of
that module in our copy then finds another function by that name. It is the caller's code with other globals; the
caller's own module is not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, FunctionType, MethodType
from typing import Any

from torch import nn

_BETWEEN = "forward: "
"""What stands between a module and a function in the name that the function has among the parts that are kept whole."""


@dataclass(frozen=True)
class KeptFunction:
    """A function that is kept whole, as an operator.

    Attributes:
        module: Name of the module whose forward calls it; empty for the outermost one.
        name: By which the forward calls it.
        function: The function.
    """

    module: str
    name: str
    function: Callable[..., Any]

    @property
    def __name__(self) -> str:
        """How it is called in messages."""
        return self.name

    @property
    def key(self) -> str:
        """What it is called among the parts that are kept whole."""
        return _key(self.module, self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self.function(*args, **kwargs)


def _key(module: str, function: str) -> str:
    return f"{module}.{_BETWEEN}{function}()".lstrip(".")


def is_function(key: str) -> bool:
    """Whether a part that is kept whole is such a function."""
    return _BETWEEN in key


def called_by_forward(module: nn.Module, name: str, frame: FrameType | None) -> str:
    """The key of the function that the forward of a module called, and that called what runs in a frame.

    Empty if there is none that the forward has by a name of its file.

    Args:
        module: The module whose forward runs.
        name: What it is called in the network.
        frame: What runs.
    """
    code = getattr(type(module).forward, "__code__", None)
    while frame is not None and frame.f_back is not None:
        before, function = frame.f_back, frame.f_code.co_name
        if before.f_code is code and before.f_locals.get(code.co_varnames[0]) is module:
            found = before.f_globals.get(function)
            is_it = isinstance(found, FunctionType) and found.__code__ is frame.f_code
            return _key(name, function) if is_it and function in code.co_names else ""
        frame = before
    return ""


def kept_function(model: nn.Module, key: str) -> KeptFunction:
    """The function of a key."""
    module, _, rest = key.rpartition(_BETWEEN)
    module, name = module.removesuffix("."), rest.removesuffix("()")
    return KeptFunction(module, name, type(model.get_submodule(module)).forward.__globals__[name])


def replace_method(module: nn.Module, name: str, method: Callable[..., Any]) -> Callable[[], None]:
    """Let a module of our own run something else for one of its methods; returns what undoes that."""
    vars(module)[name] = method

    def undo() -> None:
        vars(module).pop(name, None)

    return undo


def replace_function(module: nn.Module, name: str, function: Callable[..., Any]) -> Callable[[], None]:
    """Let the forward of a module of our own call another function by a name; returns what undoes that."""
    mine: Any = vars(module).get("forward", None) or MethodType(type(module).forward, module)
    theirs = mine.__func__
    changed = FunctionType(
        theirs.__code__,
        {**theirs.__globals__, name: function},
        theirs.__name__,
        theirs.__defaults__,
        theirs.__closure__,
    )
    changed.__kwdefaults__ = theirs.__kwdefaults__
    return replace_method(module, "forward", MethodType(changed, module))
