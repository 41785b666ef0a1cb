"""Following a forward by running it: every operator that it calls is noted with what it was given, as a graph.

The forward runs on real tensors, as it always does, so branches, loops, assertions, lists and dictionaries are
Python's. What is noted is what reaches torch (`torch.overrides.TorchFunctionMode`): calls of layers that have a rule,
and operators elsewhere. Sizes of tensors and integers of modules are numbers that remember where they came from
(`models.numbers`), so that it is known which of them channels decide. What depends on the *values* of data cannot be
followed; the smallest method or module that holds it is kept whole.
"""

from __future__ import annotations

import inspect
import operator
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType, FunctionType
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from prunesearch.errors import TraceError
from prunesearch.models import losses, numbers
from prunesearch.models.assertions import is_tested
from prunesearch.models.attention import can_be_followed, multi_head_attention
from prunesearch.models.deadline import Deadline
from prunesearch.models.flops import FlopCounter
from prunesearch.models.forms import Form, combined
from prunesearch.models.functions import called_by_forward, is_function, kept_function, replace_function, replace_method
from prunesearch.models.held import held_tensors
from prunesearch.models.isolation import attributes_kept, isolated, without_fast_paths
from prunesearch.models.misfit import advice
from prunesearch.models.nested import Nest, mapped, tensors_in
from prunesearch.models.normalised import (
    MethodOf,
    Operator,
    draws_at_random,
    normalised,
    part_of,
    reads_values,
    sized_by_values,
    written_by,
)
from prunesearch.models.numbers import Attribute, Origin, Size, is_traced, plain, traced
from prunesearch.models.ragged import SizesByData

Position: TypeAlias = tuple["int | str", ...]
"""The way to a value in the arguments of a node: a position or keyword first, then positions within it."""


@dataclass(frozen=True)
class Site:
    """Where in the code of a method an operator is called.

    Attributes:
        code: Of the function that calls it.
        instruction: Index of the instruction, in bytes.
        line: Number of the line.
        module: Name of the module that is the function's first argument; None if that is none.
        run: Number of the run of that function, if it turned numbers into plain ones; 0 for all others.
    """

    code: CodeType
    instruction: int
    line: int
    module: str | None
    run: int = 0


@dataclass(frozen=True)
class Decision:
    """Numbers that the forward compared, or went on with as plain numbers.

    Attributes:
        numbers: What they are; of two that were compared, one may be a constant.
        relation: Of two that were compared, what was found and must stay so: `"eq"`, `"ne"`, `"lt"`, `"le"`, `"gt"` or
            `"ge"`; empty if one was turned into a plain number.
        where: The line of the code, in words.
        site: Where one was turned into a plain number.
    """

    numbers: tuple[Origin | float, ...]
    relation: str
    where: str
    site: Site | None = None


@dataclass(frozen=True)
class Recording:
    """A forward that was followed.

    Attributes:
        model: The module whose forward it is.
        graph: What it computed. The placeholders are the tensors of the inputs, in order. In the `meta` of a node:
            `scope`, the name of the module whose code called it; `shape` of the tensor it gave, or `shapes` of several;
            `numbers`, the attributes among its arguments by position; `computed`, whether one of them is a number that
            neither a module nor the code that calls it holds; `site` where it was called; `flops` counted
            in it; once it was compared with another number of images, `of_one_image`, the share of that which one image
            takes, and `of_images`, the dimensions of the tensor whose size that number decides; `kind`, what is known
            of what it calls; `autocast`, if it ran under another state of it than the forward began with; `drawn`,
            whether it is of torch's random numbers; `parameter`, whether a tensor of the model is one.
        constants: Tensors that neither the inputs nor the model's parameters and buffers gave, by name of their node.
        held: Those of them that are attributes of modules, by name of their node.
        output: What the forward returned.
        decisions: Numbers that decided what it did.
        asked: Sizes that the forward asked for. Where they go cannot be seen everywhere: `range`, indices of lists and
            functions written in C take them without a word.
        leaves: Modules that could not be followed inside, and why; a method of one with its name and parentheses.
        draws: Whether it drew random numbers from Python or numpy, or went on with such of torch as plain numbers.
        reads_draws: Whether it did the latter.
        flops: Counted in all, two for each multiply-accumulate.
        training: Whether it ran in training mode.
        images: How many there were.
        counts: Where the outermost forward counts what its data decide, such as rows that a mask let through; empty if
            it does not.
        writes: Names of parameters whose values it changes.
    """

    model: nn.Module
    graph: fx.Graph
    constants: Mapping[str, Tensor]
    held: Mapping[str, str]
    output: Any
    decisions: tuple[Decision, ...]
    asked: tuple[Size, ...]
    leaves: Mapping[str, str]
    draws: bool
    flops: int
    training: bool
    images: int
    counts: str = ""
    writes: frozenset[str] = frozenset()
    reads_draws: bool = False

    def __getstate__(self) -> Any:
        """A record is of one process; another makes its own, of the model."""
        raise TypeError("A recorded forward cannot be pickled. Record it anew from the model.")


@dataclass(frozen=True)
class Inputs:
    """What a forward is called with."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor in them, in order."""
        return tuple(tensors_in((self.args, dict(self.kwargs))))

    @property
    def images(self) -> int:
        """How many there are: the size of the first tensor, or the length of the first list."""
        first = next(iter((*self.args, *self.kwargs.values())))
        if isinstance(first, (list, tuple)):
            return len(first)
        tensor = next(iter(self.tensors))
        return len(tensor) if tensor.dim() else 1

    @property
    def is_listed(self) -> bool:
        """Whether images come as a list, as detectors take them, so that another number is another forward."""
        return isinstance(next(iter((*self.args, *self.kwargs.values()))), (list, tuple))

    def with_tensors(self, tensors: Sequence[Tensor]) -> Inputs:
        """The same with other tensors, in the order of `tensors`."""
        given = iter(tensors)
        args, kwargs = mapped((self.args, dict(self.kwargs)), lambda _: next(given))
        return Inputs(args, kwargs)

    def without_data(self) -> Inputs:
        """The same in shapes and types alone, on the meta device."""
        return self.with_tensors([x.to("meta") for x in self.tensors])


def record(
    model: nn.Module,
    inputs: Inputs,
    deadline: Deadline,
    *,
    is_layer: Callable[[nn.Module], bool],
    leaves: Mapping[str, str] | None = None,
    seed: int = 0,
    in_place_of_meta: torch.device | None = None,
) -> Recording:
    """Follow the forward of `model`, a copy of our own, in the mode it is in.

    Args:
        model: The module; it is left as it was.
        inputs: What it is called with; not changed.
        deadline: When to give up.
        is_layer: Which modules are not entered: those whose behaviour is known by their class.
        leaves: Names of other modules that are not entered, and why.
        seed: Of what the forward draws at random.
        in_place_of_meta: The device that is noted where the forward asks for that of tensors without data.

    Raises:
        TraceError: The forward fails on the inputs, it decides by the values of its data outside of any submodule, or
            time is up.
    """
    whole = {**_scripted(model), **(leaves or {})}
    while True:
        recorder = _Recorder(model, whole, is_layer, deadline, in_place_of_meta)
        try:
            return recorder.run(inputs, seed)
        except _NotFollowed as found:
            if not found.holder:
                raise TraceError(
                    f"{type(model).__name__} {found.why}, outside of any submodule. Move that into a module of its "
                    "own, which is then kept whole."
                ) from found
            inside = f"{found.holder}."
            whole = {name: why for name, why in whole.items() if not name.startswith(inside)}
            whole[found.holder] = found.why


class _NotFollowed(Exception):
    """Something cannot be followed, in a module or a method, empty for the outermost forward."""

    def __init__(self, holder: str, why: str) -> None:
        super().__init__(why)
        self.holder = holder
        self.why = f"{why}, at {_where(_caller())}"


@dataclass
class _Whole:
    """What runs without being entered.

    Attributes:
        module: The module, or the one whose method it is.
        given: Its arguments as the graph has them, and which of their numbers modules hold.
        before: Flops counted before it.
        is_layer: Whether its class says what it does.
        used: Names of parameters and buffers that it was seen to use.
        is_sized_by_values: Whether how large something in it is depends on the values of data.
    """

    module: nn.Module
    given: Any
    before: int
    is_layer: bool
    used: set[str] = field(default_factory=set)
    is_sized_by_values: bool = False


@dataclass(frozen=True)
class _Part:
    """A tensor, or an object that holds some, inside of what a node gave."""

    parent: fx.Node | _Part
    function: Callable[..., Any]
    key: Any


class _Recorder(TorchFunctionMode):
    """Notes what one forward computes."""

    def __init__(
        self,
        model: nn.Module,
        leaves: Mapping[str, str],
        is_layer: Callable[[nn.Module], bool],
        deadline: Deadline,
        in_place_of_meta: torch.device | None,
    ) -> None:
        super().__init__()
        self._model = model
        self._leaves = dict(leaves)
        self._deadline = deadline
        self._in_place_of_meta = in_place_of_meta
        self._graph = fx.Graph()
        self._known: dict[
            int, tuple[Any, fx.Node | _Part]
        ] = {}  # by id; the object itself is kept, or ids would be reused
        self._sizes: dict[tuple[fx.Node, int], fx.Node] = {}
        self._constants: dict[str, Tensor] = {}
        self._held: dict[str, str] = {}
        self._attributes = {id(tensor): name for name, tensor in held_tensors(model).items()}
        self._held_fractions = {
            fraction
            for module in model.modules()
            for name, value in vars(module).items()
            if not name.startswith("_")
            for fraction in _fractions(value)
        }
        self._decisions: dict[Decision, None] = {}
        self._asked: dict[Size, None] = {}
        self._loose: dict[
            int, tuple[Any, str]
        ] = {}  # floats that went nowhere yet, by id, and where they were computed
        self._runs: dict[int, tuple[FrameType, int]] = {}  # by id; the frame itself is kept, or ids would be reused
        self._fed: set[fx.Node] = set()  # nodes that depend on the inputs
        self._sizes_by_data = SizesByData()
        self._flops: _Counter = _Uncounted() if model.training else FlopCounter()  # type: ignore[no-untyped-call]  # costs are those of eval
        self._names = {id(module): name for name, module in reversed(list(model.named_modules(remove_duplicate=False)))}
        layers = [module for module in model.modules() if is_layer(module) and not is_altered(module)]
        self._layers = {id(layer) for layer in layers}
        self._weights_of_layers = {_memory_of(weight) for layer in layers for weight in layer.parameters()}
        self._stack: list[str] = [""]
        self._entered: list[tuple[nn.Module, BaseException | None]] = []  # with the error that was being handled then
        self._failed: tuple[BaseException | None, str] | None = (
            None  # the last error, and the innermost module it is of
        )
        self._whole: _Whole | None = None
        tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
        self._tensors = {id(tensor): name for name, tensor in reversed(tensors)}
        self._parameters = {_memory_of(tensor): name for name, tensor in model.named_parameters()}
        self._writes: set[str] = set()
        self._autocast: Any = None
        self._counts = ""
        self._reads_draws = False
        self._tested: list[fx.Node] = []  # what assertions look at
        self._is_inside = False
        self._is_over = False  # numbers that the forward has kept somewhere are plain ones from then on

    # --- running

    def run(self, inputs: Inputs, seed: int) -> Recording:
        with isolated(inputs.tensors, seed) as copies:
            state = _generators()
            ours = inputs.with_tensors(copies)
            for tensor in copies:
                node = self._graph.placeholder(f"x{len(self._fed)}")
                self._describe(node, tensor)
                self._fed.add(node)
                self._known[id(tensor)] = tensor, node
            self._device = copies[0].device.type if copies and not copies[0].is_meta else "cpu"
            self._autocast = _autocast(self._device)
            with ExitStack() as stack:
                for context in (without_fast_paths(), attributes_kept(self._model), self._hooks(), self._flops, self):
                    stack.enter_context(context)
                _trace_attributes(self._model, self)
                output = self._call(ours)
            draws = _generators() != state or self._reads_draws
        for number, where in self._loose.values():
            self._decisions.setdefault(Decision((number.origin,), "", where))
        node = self._graph.output(self._noted(output)[0])
        node.meta["scope"] = ""
        self._drop_unused()
        self._known.clear()
        self._runs.clear()
        self._loose.clear()
        self._is_over = True
        return Recording(
            self._model,
            self._graph,
            self._constants,
            self._held,
            output,
            tuple(self._decisions),
            tuple(self._asked),
            self._leaves,
            draws,
            self._flops.get_total_flops(),
            self._model.training,
            inputs.images,
            self._counts,
            frozenset(self._writes),
            self._reads_draws,
        )

    def _call(self, inputs: Inputs) -> Any:
        try:
            return self._model(*inputs.args, **inputs.kwargs)
        except (_NotFollowed, TraceError):
            raise
        except Exception as error:  # whatever the caller's forward raises
            shapes = ", ".join(str(tuple(x.shape)) for x in inputs.tensors)
            mode = ", in training mode" if self._model.training else ""
            module = self._failed[1] if self._failed is not None and self._failed[0] is error else ""
            what = f"module {module!r} fails" if module else f"the forward fails{_line(error)}"
            raise TraceError(
                f"{type(self._model).__name__}: {what} on example_inputs of shape {shapes}{mode}: {error}"
                + advice(self._model, inputs.tensors, error)
            ) from error

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        handles: list[Any] = []
        undo = [
            self._keep_function_whole(key) if is_function(key) else self._keep_method_whole(key)
            for key in self._leaves
            if key.endswith("()")
        ]
        opaque: list[tuple[nn.Module, str, nn.Module]] = []
        try:
            for parent in list(self._model.modules()):
                if isinstance(parent, torch.jit.ScriptModule):
                    continue
                for name, child in parent._modules.items():
                    if isinstance(child, torch.jit.ScriptModule):  # takes no hooks
                        opaque.append((parent, name, child))
            for parent, name, child in opaque:
                wrapper = _Opaque(child)
                self._names[id(wrapper)] = self._names[id(child)]
                parent._modules[name] = wrapper
            for module in self._model.modules():
                if id(module) in self._names and not isinstance(module, torch.jit.ScriptModule):
                    handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
                    handles.append(module.register_forward_hook(self._leave, with_kwargs=True, always_call=True))
            yield
        finally:
            for parent, name, child in opaque:
                parent._modules[name] = child
            for handle in handles:
                handle.remove()
            for put_back in undo:
                put_back()

    def _holder(self) -> str:
        """The smallest thing that can be kept whole around the code that runs: a method, a function, or a module."""
        frame = _caller()
        while frame is not None and frame.f_code.co_name != "forward":
            code = frame.f_code
            owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            method = inspect.getattr_static(type(owner), code.co_name, None) if id(owner) in self._names else None
            if isinstance(method, FunctionType) and inspect.unwrap(method).__code__ is code:
                return f"{self._names[id(owner)]}.{code.co_name}()".lstrip(".")
            frame = frame.f_back
        name = self._stack[-1]
        return called_by_forward(self._model.get_submodule(name), name, _caller()) or name

    def _keep_method_whole(self, key: str) -> Callable[[], None]:
        """Let a method of our copy be noted as one operator; returns what undoes that."""
        name, _, method = key.removesuffix("()").rpartition(".")
        module = self._model.get_submodule(name)
        return replace_method(module, method, self._noting(module, MethodOf(name, method), getattr(module, method)))

    def _keep_function_whole(self, key: str) -> Callable[[], None]:
        """Let a function that a forward calls be noted as one operator; returns what undoes that."""
        kept = kept_function(self._model, key)
        module = self._model.get_submodule(kept.module)
        return replace_function(module, kept.name, self._noting(module, kept, kept.function))

    def _noting(self, module: nn.Module, target: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        """A function that notes its calls as one operator."""

        def whole(*args: Any, **kwargs: Any) -> Any:
            if self._whole is not None:
                return original(*args, **kwargs)
            with torch._C.DisableTorchFunction():
                (arguments, keywords), numbers = self._noted((args, kwargs))
            running = self._whole = _Whole(module, None, self._flops.get_total_flops(), is_layer=False)
            try:
                result = original(*args, **kwargs)
            finally:
                self._whole = None
            with torch._C.DisableTorchFunction():
                node = self._add("call_function", target, arguments, keywords, numbers, result)
            node.meta.update(flops=self._flops.get_total_flops() - running.before, used=running.used)
            if running.is_sized_by_values:
                self._sizes_by_data.begin(node)
            if self._names[id(module)] and _tells_values(result):
                raise _NotFollowed(self._names[id(module)], "decides by the values of its data")
            return self._with_numbers_by_data(node, (args, kwargs), result)

        return whole

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        name = self._names[id(module)]
        self._stack.append(name)
        self._entered.append((module, sys.exc_info()[1]))
        if self._whole is None and (id(module) in self._layers or name in self._leaves):
            self._deadline.check(f"module {name}")
            with torch._C.DisableTorchFunction():  # what we ask of tensors ourselves is not the forward's
                given = self._noted((args, kwargs))
            self._whole = _Whole(module, given, self._flops.get_total_flops(), is_layer=id(module) in self._layers)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """A module has returned, or has failed, which a forward may catch."""
        if not self._entered or self._entered[-1][0] is not module:  # it failed in a hook, before it was entered
            return output
        _, handled = self._entered.pop()
        error = sys.exc_info()[1]
        has_failed = error is not handled
        running = self._whole
        if running is not None and running.module is module and running.given is not None:
            self._whole = None
            if not has_failed:
                node = self._note_whole(running, output)
                output = output if running.is_layer else self._with_numbers_by_data(node, (args, kwargs), output)
        if has_failed and (self._failed is None or self._failed[0] is not error):
            self._failed = error, self._stack[-1]
        self._stack.pop()
        return output

    def _note_whole(self, running: _Whole, output: Any) -> fx.Node:
        (arguments, keywords), numbers = running.given
        with torch._C.DisableTorchFunction():
            node = self._add("call_module", self._names[id(running.module)], arguments, keywords, numbers, output)
        node.meta["flops"] = self._flops.get_total_flops() - running.before
        if running.is_sized_by_values:
            self._sizes_by_data.begin(node)
        return node

    def _with_numbers_by_data(self, node: fx.Node, given: Any, result: Any) -> Any:
        """What something returns that is kept whole; data decide the numbers in it, except sizes of tensors."""
        with torch._C.DisableTorchFunction():
            sizes = {plain(size) for x in tensors_in((given, result)) for size in _plain_shape(x)[1:]}

        def is_number(value: Any) -> bool:
            return type(value) in (int, float) and value not in sizes

        def has_numbers(value: Any) -> bool:
            items = value.values() if type(value) is dict else value if type(value) in (tuple, list) else ()
            return is_number(value) or any(map(has_numbers, items))

        def followed(value: Any, source: fx.Node) -> Any:
            if is_number(value):
                number = self._graph.call_function(operator.pos, (source,))
                number.meta.update(number=True, scope=self._stack[-1], value=value, fed=True)
                self._sizes_by_data.begin_number(number)
                return self._followed(value, number)
            if not has_numbers(value):
                return value
            if type(value) is dict:
                return {key: followed(item, part(source, key)) for key, item in value.items()}
            return type(value)(followed(item, part(source, i)) for i, item in enumerate(value))

        def part(source: fx.Node, key: Any) -> fx.Node:
            found = self._graph.call_function(part_of, (source, key))
            found.meta.update(scope=self._stack[-1], fed=True)
            return found

        return followed(result, node)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._whole is not None and not self._is_inside:
            self._look_inside(self._whole, func, args, kwargs or {})
        if self._whole is not None:
            return func(*args, **(kwargs or {}))
        self._is_inside = True  # what torch does with numbers is its own
        try:
            return self._called(func, args, kwargs or {})
        finally:
            self._is_inside = False

    def _look_inside(self, running: _Whole, func: Any, args: Any, kwargs: Any) -> None:
        """Note what code that is kept whole uses of the model, which then stays as it is."""
        if running.is_layer:
            return
        given = (args, kwargs)
        with torch._C.DisableTorchFunction():
            called = normalised(func, args, kwargs)
            running.is_sized_by_values |= called is not None and sized_by_values(called)
            running.used.update(self._tensors[id(x)] for x in tensors_in(given) if id(x) in self._tensors)
            if called is not None:
                self._note_writing(written_by(called))
            numbers = self._noted_numbers(given)
        for form in numbers:
            self._decide((form,))

    def _note_writing(self, tensors: Sequence[Tensor]) -> None:
        memories = map(_memory_of, tensors)
        self._writes |= {self._parameters[memory] for memory in memories if memory in self._parameters}

    def _noted_numbers(self, value: Any) -> list[Form]:
        """Numbers that modules hold, anywhere in some arguments."""
        if is_traced(value):
            return [value.origin] if isinstance(value.origin, Form) else []
        if isinstance(value, slice):
            value = (value.start, value.stop, value.step)
        if isinstance(value, dict):
            value = list(value.values())
        return (
            [found for item in value for found in self._noted_numbers(item)] if isinstance(value, (tuple, list)) else []
        )

    def _called(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.multi_head_attention_forward and can_be_followed(args, kwargs):
            return self._in_operators(multi_head_attention, args, kwargs)
        if func in losses.SPELT_OUT and losses.can_be_followed(func, args, kwargs):
            return self._in_operators(losses.SPELT_OUT[func], args, kwargs)
        called = normalised(func, args, kwargs)
        if called is None:  # asks for a type, a device and the like
            return func(*args, **kwargs)
        if called.target == "shape of":
            return self._shape(func(*args, **kwargs), args, kwargs)
        if reads_values(called) and self._depends_on_inputs(args, kwargs):
            if _is_check():
                self._tested += [self._node_of(tensor) for tensor in tensors_in((args, kwargs))]
                return func(*args, **kwargs)
            raise _NotFollowed(self._holder(), "decides by the values of its data")
        if reads_values(called):
            given = [self._node_of(tensor) for tensor in tensors_in((args, kwargs))]
            self._reads_draws |= any(node.meta.get("drawn") for node in given)
        written = written_by(called)
        if not self._weights_of_layers.isdisjoint(map(_memory_of, written)):
            raise _NotFollowed(self._holder(), "writes to weights of layers")
        self._note_writing(written)
        (arguments, keywords), numbers = self._noted((called.args, called.kwargs))  # before it runs: it may change them
        if isinstance(func, OpOverload):  # called by a TorchScript function, which may look at sizes
            self._ask_all((called.args, called.kwargs))
        self._refuse_counting(called)
        before, is_assigned = self._flops.get_total_flops(), False
        result = func(*args, **kwargs)
        if called.target == "__len__":
            self._note_plain(Size(arguments[0], 0))
        if result is None and written:  # an assignment
            result, is_assigned = called.args[0], True
        if not any(True for _ in tensors_in(result)) and not reads_values(called):
            is_number = called.target == "numel"
            return self._computed(called.op, called.target, arguments, result) if is_number else result
        node = self._add(called.op, called.target, arguments, keywords, numbers, result)
        node.meta.update(flops=self._flops.get_total_flops() - before, writes=bool(written))
        node.meta["drawn"] = draws_at_random(called) or any(other.meta.get("drawn") for other in node.all_input_nodes)
        if node.meta["fed"] and sized_by_values(called):
            self._sizes_by_data.begin(node)
        return None if is_assigned else result

    def _refuse_counting(self, called: Operator) -> None:
        source = next(iter(called.args), None)
        if isinstance(source, Tensor) and self._sizes_by_data.are_counted(called, self._node_of(source)):
            self._count_what_data_decide()

    def _count_what_data_decide(self) -> None:
        """How many rows there are decides what the forward does; what does so is kept whole, if it is a part of it."""
        holder = self._holder()
        if holder:
            raise _NotFollowed(holder, "decides by the values of its data")
        self._counts = self._counts or _where(_caller())

    def _in_operators(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run what stands for one of torch's functions, and note the operators that it calls."""
        self._is_inside = False
        try:
            with self:
                return function(*args, **kwargs)
        finally:
            self._is_inside = True

    # --- the graph

    def _add(
        self, op: str, target: Any, args: Any, kwargs: Any, numbers: Mapping[Position, Form], result: Any
    ) -> fx.Node:
        node = self._graph.create_node(op, target, tuple(args), dict(kwargs))
        node.meta["scope"] = self._stack[-1]
        node.meta["numbers"] = numbers
        if op != "call_module" and _has_integer((args, kwargs)):
            node.meta["site"] = self._site()
        fractions = set(_fractions((args, kwargs))) - self._held_fractions if op != "call_module" else set()
        node.meta["computed"] = bool(fractions) and not fractions <= _constants_of(_caller())
        state = _autocast(self._device)
        if state != self._autocast:
            node.meta["autocast"] = (self._device, *state)
        if not self._fed.isdisjoint(node.all_input_nodes):
            self._fed.add(node)
        node.meta["fed"] = node in self._fed
        self._describe(node, result)
        self._sizes_by_data.inherit(node)
        self._remember(result, node)
        return node

    def _describe(self, node: fx.Node, result: Any) -> None:
        if isinstance(result, Tensor):
            node.meta["shape"] = tuple(map(plain, _plain_shape(result)))
        else:
            node.meta["shapes"] = [tuple(map(plain, _plain_shape(x))) for x in tensors_in(result)]

    def _remember(self, value: Any, node: fx.Node | _Part) -> None:
        """Know a result again, and what is in it, when it is used."""
        if isinstance(value, Tensor):
            self._known[id(value)] = value, node
        elif isinstance(value, (tuple, list)):
            for index, item in enumerate(value):
                self._remember(item, _Part(node, part_of, index))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self._remember(item, _Part(node, part_of, key))
        elif hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module)) and not callable(value):
            self._known[id(value)] = value, node
            for key, item in vars(value).items():
                self._remember(item, _Part(node, getattr, key))

    def _noted(self, value: Any) -> tuple[Any, dict[Position, Form]]:
        """Arguments as the graph has them, and which of their numbers modules hold."""
        numbers: dict[Position, Form] = {}

        def noted(item: Any, position: Position) -> Any:
            if isinstance(item, Tensor):
                return self._node_of(item)
            if is_traced(item):
                self._loose.pop(id(item), None)
                if item.ledger is not self:  # an earlier run kept it
                    return plain(item)
                if isinstance(item.origin, Form):
                    numbers[position] = item.origin
                    return plain(item)
                return self._number_node(item.origin)
            if type(item) in (tuple, list, torch.Size):
                items = [noted(inner, (*position, i)) for i, inner in enumerate(item)]
                return items if isinstance(item, list) else tuple(items)
            if type(item) is dict:
                return {key: noted(inner, (*position, key)) for key, inner in item.items()}
            if isinstance(item, slice):
                return slice(*(noted(getattr(item, end), (*position, end)) for end in ("start", "stop", "step")))
            if isinstance(item, torch.device) and item.type == "meta" and self._in_place_of_meta is not None:
                return self._in_place_of_meta
            if any(True for _ in tensors_in(item)) or id(item) in self._known:
                return self._object(item)
            return item

        result = noted(value, ())
        # the outermost two levels are (args, kwargs) and then a position or keyword
        return result, {position[1:]: form for position, form in numbers.items() if len(position) > 1}

    def _node_of(self, tensor: Any) -> fx.Node:
        if id(tensor) in self._known:
            value, node = self._known[id(tensor)]
            if isinstance(node, _Part):
                node = self._part(node)
                self._known[id(tensor)] = value, node
            return node
        name = self._tensors.get(id(tensor))
        if name is None:
            name = f"_constant{len(self._constants)}"
            self._constants[name] = tensor.detach().clone()
            if id(tensor) in self._attributes:
                self._held[name] = self._attributes[id(tensor)]
        node = self._graph.create_node("get_attr", name)
        node.meta.update(scope=self._stack[-1], parameter=isinstance(tensor, nn.Parameter))
        self._describe(node, tensor)
        self._known[id(tensor)] = tensor, node
        return node

    def _part(self, part: _Part) -> fx.Node:
        parent = self._part(part.parent) if isinstance(part.parent, _Part) else part.parent
        node = self._graph.call_function(part.function, (parent, part.key))
        node.meta["scope"] = parent.meta.get("scope", "")
        node.meta["fed"] = parent in self._fed
        if parent in self._fed:
            self._fed.add(node)
        for value, known in self._known.values():
            if known is part:
                self._describe(node, value)
        self._sizes_by_data.inherit(node)
        return node

    def _object(self, item: Any) -> fx.Node:
        """An object that holds tensors: what a leaf returned, or one to be made anew of what is in it."""
        if id(item) in self._known:
            return self._node_of(item)
        parts = [self._node_of(tensor) for tensor in tensors_in(item)]
        return self._graph.call_function(Nest(item), tuple(parts))

    # --- numbers: `models.numbers.Ledger`

    def _shape(self, result: Any, args: Any, kwargs: Any) -> Any:
        """Sizes, as numbers that remember which tensor they are of."""
        tensor = args[0]
        node = self._node_of(tensor)
        if isinstance(result, torch.Size):
            return torch.Size([self._size(node, dim, size) for dim, size in enumerate(result)])
        dim = plain(args[1] if len(args) > 1 else kwargs.get("dim", 0))
        return self._size(node, dim % max(len(_plain_shape(tensor)), 1), result)

    def _ask_all(self, value: Any) -> None:
        for tensor in tensors_in(value):
            for dim in range(tensor.dim()):
                self._size(self._node_of(tensor), dim, 0)

    def _size(self, node: fx.Node, dim: int, result: int) -> Any:
        size = Size(node, dim)
        self._asked.setdefault(size)
        return traced(int(result), size, self)

    def _number_node(self, origin: Origin) -> fx.Node:
        if isinstance(origin, fx.Node):
            return origin
        assert isinstance(origin, Size)
        key = origin.tensor, origin.dim
        if key not in self._sizes:
            node = self._graph.create_node("call_method", "size", (origin.tensor, origin.dim))
            node.meta["number"] = True
            node.meta["fed"] = origin.tensor in self._fed
            node.meta["value"] = origin.tensor.meta["shape"][origin.dim] if "shape" in origin.tensor.meta else None
            if self._sizes_by_data.hold(origin):
                self._sizes_by_data.inherit(node)
            self._sizes[key] = node
        return self._sizes[key]

    def _computed(self, op: str, target: Any, arguments: Any, result: Any, held: Any = None) -> Any:
        node = self._graph.create_node(op, target, tuple(arguments))
        node.meta.update(number=True, scope=self._stack[-1], value=result, numbers=held or {})
        node.meta["fed"] = any(source.meta.get("fed") for source in node.all_input_nodes)
        self._sizes_by_data.inherit(node)
        return self._followed(result, node)

    def _followed(self, result: Any, origin: Origin) -> Any:
        """A number with its origin. Functions written in C take a float without a word, which must be noticed."""
        number = traced(result, origin, self)
        if isinstance(number, float):
            self._loose[id(number)] = number, _where(_caller())
        return number

    def computed(self, function: Callable[..., Any], arguments: tuple[Any, ...], result: Any) -> Any:
        for number in arguments:
            self._loose.pop(id(number), None)
        if self._is_torchs:
            return result
        if all(not is_traced(number) or isinstance(number.origin, Form) for number in arguments):
            return self._of_attributes(function, arguments, result)
        held = {(i,): x.origin for i, x in enumerate(arguments) if is_traced(x) and isinstance(x.origin, Form)}
        nodes = [
            self._number_node(number.origin)
            if is_traced(number) and not isinstance(number.origin, Form)
            else plain(number)
            for number in arguments
        ]
        return self._computed("call_function", function, nodes, result, held)

    def _of_attributes(self, function: Callable[..., Any], arguments: tuple[Any, ...], result: Any) -> Any:
        """What is computed of numbers that modules hold, and constants."""
        forms = [x.origin if is_traced(x) else Form((), x) for x in arguments if is_traced(x) or type(x) is int]
        name = function.__name__.replace("truediv", "floordiv")  # the same where it comes out even
        form = combined(name, *forms) if len(forms) == len(arguments) == 2 else None
        if form is not None and (type(result) is int or (type(result) is float and result.is_integer())):
            return self._followed(result, form)
        for number in arguments:
            if is_traced(number):
                self._decide((number.origin,))
        return result

    def compared(self, one: Any, other: Any, relation: str) -> None:
        self._loose.pop(id(one), None)
        self._loose.pop(id(other), None)
        mine = tuple(x.origin if is_traced(x) and x.ledger is self else plain(x) for x in (one, other))
        if not self._is_torchs and any(map(self._sizes_by_data.hold, mine)):
            self._count_what_data_decide()
        self._decide(mine, relation)

    def coerced(self, number: Any) -> None:
        self._loose.pop(id(number), None)
        frame = _caller()
        if self._is_torchs or frame is None:
            return
        if self._sizes_by_data.hold(number.origin):
            self._count_what_data_decide()
        self._note_plain(number.origin)

    def _note_plain(self, origin: Origin) -> None:
        """Code goes on with a number as a plain one, in the same run of a function or elsewhere."""
        frame = _caller()
        if frame is not None:
            self._runs.setdefault(id(frame), (frame, len(self._runs) + 1))
        self._decisions.setdefault(Decision((origin,), "", _where(frame), self._site()))

    def hashed(self, number: Any) -> None:
        frame = _caller()
        if frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "einops":
            raise TypeError("A size that is followed is no key.")  # it then does without its cache
        self.coerced(number)

    @property
    def _is_torchs(self) -> bool:
        """Whether it is torch that computes, in an operator or in a layer that is not entered; or nobody any more."""
        return self._is_over or self._is_inside or (self._whole is not None and self._whole.is_layer)

    def _decide(self, origins: tuple[Origin | float, ...], relation: str = "") -> None:
        if self._is_torchs:
            return
        self._decisions.setdefault(Decision(origins, relation, _where(_caller())))

    # --- helpers

    def _depends_on_inputs(self, args: Any, kwargs: Any) -> bool:
        for tensor in tensors_in((args, kwargs)):
            known = self._known.get(id(tensor))
            node: Any = None if known is None else known[1]
            while isinstance(node, _Part):
                node = node.parent
            if node in self._fed:
                return True
        return False

    def _site(self) -> Site | None:
        frame = _caller()
        if frame is None:
            return None
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        _, run = self._runs.get(id(frame), (frame, 0))
        return Site(code, frame.f_lasti, frame.f_lineno, self._names.get(id(first)), run)

    def _drop_unused(self) -> None:
        """Numbers and parameters that were asked for and went nowhere, and what assertions alone looked at."""
        tested = list(dict.fromkeys(self._tested))
        while tested:
            node = tested.pop()
            is_operator = node.op in ("call_function", "call_method")
            if is_operator and not node.users and not (node.meta.get("writes") or node.meta.get("flops")):
                tested += [source for source in node.all_input_nodes if source not in tested]
                self._graph.erase_node(node)
        decisive = {origin for decision in self._decisions for origin in decision.numbers}
        decisive |= {origin.tensor for origin in decisive if isinstance(origin, Size)}
        for node in reversed(list(self._graph.nodes)):
            if (node.meta.get("number") or node.op == "get_attr") and not node.users and node not in decisive:
                self._graph.erase_node(node)


class _Counter(Protocol):
    """What counts while it is entered."""

    def __enter__(self) -> Any:
        """Begin."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool | None:
        """End."""

    def get_total_flops(self) -> int:
        """How many so far."""


class _Uncounted(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Where nobody wants to know. What TorchScript functions do is seen only beneath a mode like this one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))

    def get_total_flops(self) -> int:
        """None were counted."""
        return 0


class _Opaque(nn.Module):
    """Stands for a TorchScript module, which takes no hooks."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def _scripted(model: nn.Module) -> dict[str, str]:
    return {
        name: "is a TorchScript program"
        for name, module in model.named_modules()
        if isinstance(module, torch.jit.ScriptModule)
    }


def is_altered(module: nn.Module) -> bool:
    """Whether a module may do something else than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _trace_attributes(model: nn.Module, ledger: Any) -> None:
    """Let integers that modules hold, also in tuples and lists, remember what they are."""

    def with_origin(value: Any, module: str, path: tuple[str | int, ...]) -> Any:
        if type(value) is int:
            return traced(value, Form.of(Attribute(module, path)), ledger)
        if type(value) in (tuple, list) and len(value) <= 64 and any(type(item) is int for item in value):
            return type(value)(with_origin(item, module, (*path, i)) for i, item in enumerate(value))
        return value

    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            held = module.__dict__
            held.update(
                {key: with_origin(value, name, (key,)) for key, value in held.items() if not key.startswith("_")}
            )


_TORCH = os.path.join(os.path.dirname(torch.__file__), "")
_OURS = {__file__, losses.__file__, numbers.__file__, isolated.__code__.co_filename}


def _is_between(filename: str) -> bool:
    """Whether code is torch's, or that of this module and its helpers: between the caller's forward and the record."""
    return filename.startswith(_TORCH) or filename in _OURS


def _caller() -> FrameType | None:
    """The frame of the code that called torch: the innermost one that is neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_between(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _is_check() -> bool:
    """Whether what runs is asked by a check that raises, of the caller or of torch, such as those of distributions."""
    last = _caller()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not last:
        if frame.f_code.co_filename not in _OURS and is_tested(frame.f_code, frame.f_lasti):
            return True
        frame = frame.f_back
    return last is not None and is_tested(last.f_code, last.f_lasti)


def _where(frame: FrameType | None) -> str:
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _line(error: BaseException) -> str:
    """Where in the caller's code it was raised, if it was there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_between(frame.filename)]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _has_integer(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_has_integer, value))
    if isinstance(value, dict):
        return any(map(_has_integer, value.values()))
    if isinstance(value, slice):
        return _has_integer((value.start, value.stop))
    return type(value) is int


def _fractions(value: Any) -> Iterator[float]:
    """Numbers that are not whole by their type, anywhere in some arguments."""
    if isinstance(value, float) and not is_traced(value):
        yield float(value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _fractions(item)
    elif isinstance(value, dict):
        yield from _fractions(tuple(value.values()))


def _constants_of(frame: FrameType | None) -> set[float]:
    """Numbers that are not whole in the code of a function."""
    return set() if frame is None else {*_fractions(frame.f_code.co_consts)}


def _tells_values(result: Any) -> bool:
    """Whether code that decides by data returns answers, or arrays of numpy, which are not followed."""
    if type(result) in (tuple, list):
        return any(map(_tells_values, result))
    return isinstance(result, (bool, np.generic, np.ndarray))


def _plain_shape(tensor: Tensor) -> tuple[int, ...]:
    with torch._C.DisableTorchFunction():
        return tuple(tensor.shape)


def _memory_of(tensor: Tensor) -> int:
    """The same for two tensors that live in one memory."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def _autocast(device: str) -> tuple[bool, torch.dtype | None]:
    enabled = torch.is_autocast_enabled(device)
    return enabled, torch.get_autocast_dtype(device) if enabled else None


def _generators() -> Any:
    state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, *places = state
    return random.getstate(), kind, keys.tobytes(), places
