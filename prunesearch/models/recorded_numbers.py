"""What becomes of numbers while a forward is followed: sizes of tensors, integers of modules, and what they give.

A number that the forward computes is a node of the graph, or a form of attributes. One that it compares, or goes on
with as a plain number, is a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch import fx, nn

from prunesearch.models.callers import caller, where
from prunesearch.models.forms import Form, combined
from prunesearch.models.nested import tensors_in
from prunesearch.models.numbers import Attribute, Origin, Size, is_traced, plain, traced
from prunesearch.models.recorded import Decision, Site
from prunesearch.models.recorded_graph import RecordedGraph, plain_shape


class RecordedNumbers:
    """A `numbers.Ledger`: it hands numbers out, and is told what they are used for.

    Attributes:
        decisions: Of the forward, in order.
        asked: Sizes that it asked for, in order.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: RecordedGraph,
        modules: Mapping[int, str],
        *,
        is_torch: Callable[[], bool],
        on_counted: Callable[[], None],
    ) -> None:
        """Begin.

        Args:
            model: Whose forward it is.
            graph: Where they are added.
            modules: Names of the modules whose code runs, by id.
            is_torch: Whether what runs is torch's own, such as the inside of an operator.
            on_counted: Called where a number that data decide is compared, or becomes a plain one.
        """
        self.decisions: dict[Decision, None] = {}
        self.asked: dict[Size, None] = {}
        self._graph = graph
        self._modules = modules
        self._is_torch = is_torch
        self._on_counted = on_counted
        self._loose: dict[int, tuple[Any, str]] = {}  # floats that went nowhere yet, by id, and where they were made
        self._runs: dict[int, tuple[FrameType, int]] = {}  # by id; the frame itself is kept, or ids would be reused
        self._held_fractions = {
            fraction
            for module in model.modules()
            for name, value in vars(module).items()
            if not name.startswith("_")
            for fraction in _fractions(value)
        }
        self._is_over = False  # numbers that the forward has kept somewhere are plain ones from then on

    # --- what is handed out

    def trace_attributes(self, model: nn.Module) -> None:
        """Let integers that modules hold, also in tuples and lists, remember what they are."""

        def with_origin(value: Any, module: str, path: tuple[str | int, ...]) -> Any:
            if type(value) is int:
                return traced(value, Form.of(Attribute(module, path)), self)
            if type(value) in (tuple, list) and len(value) <= 64 and any(type(item) is int for item in value):
                return type(value)(with_origin(item, module, (*path, i)) for i, item in enumerate(value))
            return value

        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                held = vars(module)
                public = {key: value for key, value in held.items() if not key.startswith("_")}
                held.update({key: with_origin(value, name, (key,)) for key, value in public.items()})

    def sizes(self, result: Any, args: Any, kwargs: Any) -> Any:
        """What a call like `tensor.shape` or `tensor.size(dim)` gave, as numbers that remember which tensor it was."""
        tensor = args[0]
        node = self._graph.node_of(tensor)
        if isinstance(result, torch.Size):
            return torch.Size([self._size(node, dim, size) for dim, size in enumerate(result)])
        dim = plain(args[1] if len(args) > 1 else kwargs.get("dim", 0))
        return self._size(node, dim % max(len(plain_shape(tensor)), 1), result)

    def ask_all(self, arguments: Any) -> None:
        """Code that is not seen may ask for every size of some tensors."""
        for tensor in tensors_in(arguments):
            for dim in range(tensor.dim()):
                self._size(self._graph.node_of(tensor), dim, 0)

    def followed(self, result: Any, origin: Origin) -> Any:
        """A number with its origin. Functions written in C take a float without a word, which must be noticed."""
        number = traced(result, origin, self)
        if isinstance(number, float):
            self._loose[id(number)] = number, where(caller())
        return number

    def _size(self, node: fx.Node, dim: int, result: int) -> Any:
        size = Size(node, dim)
        self.asked.setdefault(size)
        return traced(int(result), size, self)

    # --- what they are used for

    def given(self, number: Any) -> Any:
        """What an operator is given for one of them: its form, its node, or a plain number that an earlier run kept."""
        self._use(number)
        if number.ledger is not self:
            return plain(number)
        return number.origin if isinstance(number.origin, Form) else self._graph.node_of_number(number.origin)

    def computed(self, function: Callable[..., Any], arguments: tuple[Any, ...], result: Any) -> Any:
        """An operator of Python gave a number for some: one that is followed, where that can be."""
        for number in arguments:
            self._use(number)
        if self._is_nobodys:
            return result
        if all(not is_traced(number) or isinstance(number.origin, Form) for number in arguments):
            return self._of_attributes(function, arguments, result)
        held = {(i,): x.origin for i, x in enumerate(arguments) if is_traced(x) and isinstance(x.origin, Form)}
        nodes = [
            self._graph.node_of_number(number.origin)
            if is_traced(number) and not isinstance(number.origin, Form)
            else plain(number)
            for number in arguments
        ]
        return self.followed(result, self._graph.add_number("call_function", function, nodes, result, held))

    def _of_attributes(self, function: Callable[..., Any], arguments: tuple[Any, ...], result: Any) -> Any:
        """What is computed of numbers that modules hold, and constants."""
        forms = [x.origin if is_traced(x) else Form((), x) for x in arguments if is_traced(x) or type(x) is int]
        name = function.__name__.replace("truediv", "floordiv")  # the same where it comes out even
        form = combined(name, *forms) if len(forms) == len(arguments) == 2 else None
        if form is not None and (type(result) is int or (type(result) is float and result.is_integer())):
            return self.followed(result, form)
        for number in arguments:
            if is_traced(number):
                self.decide((number.origin,))
        return result

    def compared(self, one: Any, other: Any, relation: str) -> None:
        """The forward decides by two of them, or by one and a constant."""
        self._use(one)
        self._use(other)
        mine = tuple(x.origin if is_traced(x) and x.ledger is self else plain(x) for x in (one, other))
        if not self._is_nobodys and any(map(self._graph.by_data.hold, mine)):
            self._on_counted()
        self.decide(mine, relation)

    def coerced(self, number: Any) -> None:
        """The forward goes on with a plain number."""
        self._use(number)
        if self._is_nobodys or caller() is None:
            return
        if self._graph.by_data.hold(number.origin):
            self._on_counted()
        self.note_plain(number.origin)

    def hashed(self, number: Any) -> None:
        """One is looked for in a dictionary or set, as a plain number.

        Raises:
            TypeError: It is einops that looks, which can do without.
        """
        frame = caller()
        if frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "einops":
            raise TypeError("A size that is followed is no key.")  # it then does without its cache
        self.coerced(number)

    def have_unseen_fractions(self, arguments: Any) -> bool:
        """Whether a number among some arguments is not whole, and neither a module nor the code that runs holds it."""
        unseen = {*_fractions(arguments)} - self._held_fractions
        frame = caller()
        return bool(unseen) and not (frame is not None and unseen <= {*_fractions(frame.f_code.co_consts)})

    def note_plain(self, origin: Origin) -> None:
        """Code goes on with a number as a plain one, in the same run of a function or elsewhere."""
        frame = caller()
        if frame is not None:
            self._runs.setdefault(id(frame), (frame, len(self._runs) + 1))
        self.decisions.setdefault(Decision((origin,), "", where(frame), self.site()))

    def decide(self, origins: tuple[Origin | float, ...], relation: str = "") -> None:
        """Numbers decide what the forward does."""
        if not self._is_nobodys:
            self.decisions.setdefault(Decision(origins, relation, where(caller())))

    def site(self) -> Site | None:
        """Where the code stands that runs."""
        frame = caller()
        if frame is None:
            return None
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        _, run = self._runs.get(id(frame), (frame, 0))
        return Site(code, frame.f_lasti, frame.f_lineno, self._modules.get(id(first)), run)

    def _use(self, number: Any) -> None:
        self._loose.pop(id(number), None)

    @property
    def _is_nobodys(self) -> bool:
        """Whether it is not the caller's code that computes."""
        return self._is_over or self._is_torch()

    # --- the end

    def decide_loose(self) -> None:
        """Floats that nobody was seen to use have gone somewhere unseen."""
        for number, place in self._loose.values():
            self.decisions.setdefault(Decision((number.origin,), "", place))

    @property
    def decided(self) -> set[Origin | float]:
        """Numbers that the forward decided by, and constants that it compared them with."""
        return {number for decision in self.decisions for number in decision.numbers}

    def end(self) -> None:
        """The forward has returned."""
        self._runs.clear()
        self._loose.clear()
        self._is_over = True


def _fractions(value: Any) -> Iterator[float]:
    """Numbers that are not whole by their type, anywhere in some arguments."""
    if isinstance(value, float) and not is_traced(value):
        yield float(value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _fractions(item)
    elif isinstance(value, dict):
        yield from _fractions(tuple(value.values()))
