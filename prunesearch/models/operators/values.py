"""What is known of tensors and numbers while labels run through a forward, and what rules may ask and tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import fx, nn

from prunesearch.models.coupling import Labels
from prunesearch.models.forms import Form
from prunesearch.models.recorded import Position
from prunesearch.structure import IntArray

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Tracked:
    """The channels of one tensor.

    Attributes:
        axes: For each dimension that holds channels, (size of the dimension,) their labels. All others keep their size.
    """

    axes: Mapping[int, IntArray]

    def at(self, dim: int) -> IntArray | None:
        """Labels along a dimension; None if it keeps its size."""
        return self.axes.get(dim)


Value: TypeAlias = "Tracked | tuple[Value, ...] | None"
"""Of a node: a tensor's channels, those of several values, or nothing."""


def tensors_of(value: Value) -> Iterator[Tracked]:
    """The channels of every tensor of which something is known."""
    if isinstance(value, tuple):
        for item in value:
            yield from tensors_of(item)
    elif value is not None:
        yield value


@dataclass(frozen=True)
class Number:
    """A number that would change if channels went.

    Attributes:
        labels: Labels of those channels.
        form: How it depends on them, as a sum of shares of arrays of labels and of attributes of modules; None if it
            does in another way.
        sources: Numbers that it is computed of in another way.
    """

    labels: IntArray
    form: Form | None
    sources: tuple[Number, ...] = ()


class Walk(Protocol):
    """What a rule may ask of, and tell to, the walk over the recorded forward (`models.walk`)."""

    labels: Labels

    def value(self, argument: Any) -> Tracked | None:
        """Channels of an argument that is a tensor; None for constants, and where nothing is known."""

    def values(self, argument: Any) -> Value:
        """The same of an argument that may be several tensors."""

    def number(self, argument: Any) -> Number | None:
        """What an argument that is no tensor depends on; None for constants."""

    def plain(self, argument: Any) -> Any:
        """An argument that is a number as it was in the recorded run, whatever it depends on."""

    def shape(self, argument: Any) -> Shape:
        """Shape of a tensor in the recorded run."""

    def is_tensor(self, argument: Any) -> bool:
        """Whether an argument is a tensor."""

    def depends_on_inputs(self, node: fx.Node) -> bool:
        """Whether a node is computed from the inputs, not from the model's tensors alone."""

    def of_images(self, argument: Any) -> frozenset[int]:
        """Dimensions of a tensor that are larger for more images; the first where nobody has compared."""

    def module_of(self, node: fx.Node) -> nn.Module:
        """The module that a `call_module` node calls."""

    def parameter(self, node: fx.Node, name: str) -> Tracked | None:
        """Channels of a tensor that a node's module owns, which is then narrowed with them; None if it has none."""

    def freeze(self, labels: IntArray | None, node: fx.Node, why: str) -> None:
        """Let channels stay, saying which operator made it necessary."""

    def freeze_inputs(self, node: fx.Node, why: str) -> None:
        """Let every channel stay that reaches an operator, or that a number that reaches it depends on."""

    def choose(self, node: fx.Node, options: int, labels: IntArray, *, alone: bool = False) -> int:
        """Which of several ways to take with these channels, from 0; it is tried which prunes most.

        One line of code takes one way wherever it runs, unless each module or operator chooses `alone`.
        """

    def keep(self, argument: Any, node: fx.Node, why: str) -> None:
        """Let a number stay what it is, whatever channels it depends on, saying which operator made it necessary."""

    def fits(self, node: fx.Node, position: Position, labels: IntArray) -> bool:
        """Let the number at a position be that of kept channels among `labels`; False if it cannot be changed so."""

    def stays(self, node: fx.Node, position: Position) -> None:
        """Say that the number at a position is the same however many of the channels go that it is computed of."""

    def differ(self, labels: IntArray, n: int, node: fx.Node, why: str) -> None:
        """Let the number of kept channels among `labels` never be `n`."""

    def is_uncounted(self, node: fx.Node) -> bool:
        """Whether torch counted nothing when an operator ran, though it costs something."""

    def count(self, node: fx.Node, attribute: str, labels: IntArray) -> None:
        """Record that an attribute of the node's module is the number of kept channels among `labels`."""

    def read(self, node: fx.Node, dim: int, labels: IntArray) -> None:
        """Record that the operator mixes these channels of its first argument."""

    def produce(self, node: fx.Node, labels: IntArray) -> None:
        """Record that the operator makes these channels."""

    def macs(self, node: fx.Node, size: int, factors: Sequence[IntArray]) -> None:
        """Record `size` times the numbers of kept channels of `factors` multiply-accumulates, for all images."""


Rule: TypeAlias = Callable[[Walk, fx.Node], Value]


# --- arguments of nodes -----------------------------------------------------------------------------------------------


def argument(node: fx.Node, index: int, *names: str, default: Any = None) -> Any:
    """An argument by position or by one of its names."""
    if index < len(node.args):
        return node.args[index]
    return next((node.kwargs[name] for name in names if name in node.kwargs), default)


def position(node: fx.Node, index: int, *names: str) -> Position:
    """The way to an argument that is given by position or by one of its names."""
    if index < len(node.args):
        return (index,)
    return next(((name,) for name in names if name in node.kwargs), (index,))


def listed(node: fx.Node, index: int, *names: str) -> list[tuple[Position, Any]]:
    """Several numbers, given as one argument or as all that follow, each with the way to it."""
    at = position(node, index, *names)
    value = argument(node, index, *names)
    if isinstance(value, (tuple, list)):
        return [((*at, i), item) for i, item in enumerate(value)]
    if at[0] != index:
        return [(at, value)]
    return [((i,), item) for i, item in enumerate(node.args) if i >= index]


def dims_of(walk: Walk, value: Any, n: int) -> list[int] | None:
    """Dimensions as non-negative numbers; None if they are not numbers."""
    entries = value if isinstance(value, (tuple, list)) else (value,)
    numbers = [walk.plain(entry) for entry in entries]
    if not all(type(number) is int and -n <= number < n for number in numbers):
        return None
    return [number % n for number in numbers]


# --- what several rules do --------------------------------------------------------------------------------------------


def labels_at(walk: Walk, node: fx.Node, source: Any, dim: int) -> IntArray:
    """Labels of a dimension of an argument; new ones that stay where it keeps its size."""
    value = walk.value(source)
    found = None if value is None else value.at(dim)
    if found is not None:
        return found
    labels = walk.labels.fresh(walk.shape(source)[dim])
    walk.freeze(labels, node, "reads channels of which nothing is known")
    return labels


def freeze_others(walk: Walk, node: fx.Node, source: Any, kept: Sequence[int], why: str) -> None:
    """Let the channels of all dimensions but some stay."""
    value = walk.value(source)
    for dim, labels in ({} if value is None else value.axes).items():
        if dim not in kept:
            walk.freeze(labels, node, why)


def takes_last_sizes(walk: Walk, node: fx.Node, index: int, n: int) -> None:
    """Say that of an `output_size` of all dimensions only the last `n` are looked at; images and channels are not."""
    for at, _ in listed(node, index, "output_size")[:-n]:
        walk.stays(node, at)


def tracked(axes: Mapping[int, IntArray | None]) -> Tracked | None:
    """A tensor's channels; None if it has none."""
    found = {dim: labels for dim, labels in axes.items() if labels is not None}
    return Tracked(found) if found else None


def give_up(walk: Walk, node: fx.Node) -> Value:
    """For calls that a rule does not cover."""
    walk.freeze_inputs(node, "moves channels in a way that is not followed")
    return None


def combined(walk: Walk, node: fx.Node, operands: Sequence[Any], shape: Shape) -> Tracked | None:
    """Channels of what tensors of one (broadcast) shape give together: those that meet are tied."""
    axes: dict[int, IntArray | None] = {}
    for dim in range(len(shape)):
        axes[dim] = _met(walk, node, operands, shape, dim)
    return tracked(axes)


def _met(walk: Walk, node: fx.Node, operands: Sequence[Any], shape: Shape, dim: int) -> IntArray | None:
    result: IntArray | None = None
    fixed = False
    for operand in operands:
        if not walk.is_tensor(operand):
            continue
        size = walk.shape(operand)
        own = dim - (len(shape) - len(size))  # broadcasting aligns the last dimensions
        if own < 0:
            continue
        value = walk.value(operand)
        labels = None if value is None else value.at(own)
        if size[own] != shape[dim]:  # one for all
            walk.freeze(labels, node, "broadcasts it over channels")
        elif labels is None:
            fixed = fixed or shape[dim] > 1
        elif result is None:
            result = labels
        else:
            walk.labels.tie(result, labels)
    if fixed and result is not None:
        walk.freeze(result, node, "combines it with something whose size stays")
        return None
    return result
