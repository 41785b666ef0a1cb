"""Numbers that remember where they came from while a forward is recorded: sizes of tensors, and integers of modules.

They are ordinary `int` and `float` objects to the forward, which computes with them, compares them and gives them to
operators. Whoever hands them out (a `Ledger`) is told of each of these, so that it is known which numbers would be
others if channels went, and which decide what the forward does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import fx

from prunesearch.models.forms import OPPOSITES, Form


@dataclass(frozen=True)
class Attribute:
    """An integer that a module holds.

    Attributes:
        module: Qualified name of the module.
        path: The attribute, and the positions in it where it is a tuple or list.
    """

    module: str
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        name, *rest = self.path
        return f"{self.module}.{name}".lstrip(".") + "".join(f"[{position}]" for position in rest)


@dataclass(frozen=True)
class Size:
    """How large a tensor is along one dimension.

    Attributes:
        tensor: The node that gives the tensor.
        dim: The dimension, not negative.
    """

    tensor: fx.Node
    dim: int


Origin: TypeAlias = "fx.Node | Size | Form"
"""What a number is: computed by a node of the recorded forward, the size of a tensor, or made of attributes."""


class Ledger(Protocol):
    """Who is told what becomes of numbers."""

    def computed(self, function: Callable[..., Any], arguments: tuple[Any, ...], result: Any) -> Any:
        """An operator was applied to them; what is returned stands for the result."""

    def compared(self, one: Any, other: Any, relation: str) -> None:
        """Two of them, or one and a constant, were compared; `relation` holds: `"eq"`, `"ne"`, `"lt"` and so on."""

    def coerced(self, number: Any) -> None:
        """One was made a plain number, whose origin is not followed any more."""

    def hashed(self, number: Any) -> None:
        """One is looked for in a dictionary or set.

        Raises:
            TypeError: It is taken for a number that cannot be, such as symbols are.
        """


class TracedInt(int):
    """An integer with an origin."""

    origin: Origin
    ledger: Ledger

    def __bool__(self) -> bool:
        self.ledger.compared(self, 0, "ne" if int.__bool__(self) else "eq")
        return int.__bool__(self)

    def __pos__(self) -> int:
        return self

    def __reduce__(self) -> Any:
        self.ledger.coerced(self)  # a copy made by the forward is a plain number
        return int, (plain(self),)

    def __deepcopy__(self, memo: Any) -> int:
        self.ledger.coerced(self)
        return plain(self)


class TracedFloat(float):
    """A number computed from sizes that is no integer."""

    origin: Origin
    ledger: Ledger

    def __bool__(self) -> bool:
        self.ledger.compared(self, 0, "ne" if float.__bool__(self) else "eq")
        return float.__bool__(self)

    def __pos__(self) -> float:
        return self


Traced: TypeAlias = "TracedInt | TracedFloat"


def traced(value: Any, origin: Origin, ledger: Ledger) -> Any:
    """`value` with an origin; anything but an integer or a float as it is."""
    kind = {int: TracedInt, float: TracedFloat}.get(type(value))
    if kind is None:
        return value
    number = kind(value)
    number.origin = origin
    number.ledger = ledger
    return number


def plain(value: Any) -> Any:
    """A number without its origin; other values as they are."""
    if isinstance(value, TracedInt):
        return int.__add__(value, 0)
    return float.__add__(value, 0.0) if isinstance(value, TracedFloat) else value


def is_traced(value: Any) -> bool:
    """Whether a value is a number with an origin."""
    return isinstance(value, (TracedInt, TracedFloat))


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "truediv": operator.truediv,
    "mod": operator.mod,
    "pow": operator.pow,
}
_COERCING = (
    "__int__", "__float__", "__complex__", "__trunc__", "__round__", "__floor__", "__ceil__",
    "__str__", "__repr__", "__format__", "__invert__", "__divmod__", "__rdivmod__", "__and__", "__rand__", "__or__",
    "__ror__", "__xor__", "__rxor__", "__lshift__", "__rlshift__", "__rshift__", "__rrshift__", "bit_length",
    "bit_count", "to_bytes", "as_integer_ratio", "conjugate", "is_integer", "hex",
)  # fmt: skip
"""What gives a plain value, whose origin is not followed."""
_UNARY: dict[str, Callable[..., Any]] = {"neg": operator.neg, "abs": operator.abs}
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _binary(function: Callable[..., Any], *, swapped: bool) -> Callable[..., Any]:
    def method(self: Traced, other: Any) -> Any:
        if not _is_number(other):
            if isinstance(other, (list, tuple, str)) and function is operator.mul:
                self.ledger.coerced(self)
                return other * plain(self)
            return NotImplemented
        pair = (other, self) if swapped else (self, other)
        return self.ledger.computed(function, pair, function(*map(plain, pair)))

    return method


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Traced) -> Any:
        return self.ledger.computed(function, (self,), function(plain(self)))

    return method


def _coercing(kind: type, name: str) -> Callable[..., Any]:
    def method(self: Traced, *others: Any) -> Any:
        for number in (self, *others):
            if is_traced(number):
                number.ledger.coerced(number)
        return getattr(kind, name)(plain(self), *map(plain, others))

    return method


def _hash(self: Traced) -> int:
    self.ledger.hashed(self)
    return hash(plain(self))


def _comparison(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Traced, other: Any) -> Any:
        if not _is_number(other):
            return NotImplemented
        result = function(plain(self), plain(other))
        self.ledger.compared(self, other, name if result else OPPOSITES[name])
        return result

    return method


for _kind, _base in ((TracedInt, int), (TracedFloat, float)):
    setattr(_kind, "__hash__", _hash)  # noqa: B010
    for _name in _COERCING:
        if hasattr(_base, _name):
            setattr(_kind, _name, _coercing(_base, _name))
    for _name, _function in _ARITHMETIC.items():
        setattr(_kind, f"__{_name}__", _binary(_function, swapped=False))
        setattr(_kind, f"__r{_name}__", _binary(_function, swapped=True))
    for _name, _function in _UNARY.items():
        setattr(_kind, f"__{_name}__", _unary(_function))
    for _name, _function in _COMPARISONS.items():
        setattr(_kind, f"__{_name}__", _comparison(_name, _function))
