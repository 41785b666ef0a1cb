"""Following a forward by running it: every operator that it calls is noted with what it was given, as a graph.

The forward runs on real tensors, as it always does, so branches, loops, assertions, lists and dictionaries are
Python's. What is noted is what reaches torch (`torch.overrides.TorchFunctionMode`): calls of layers that have a rule,
and operators elsewhere. Sizes of tensors and integers of modules are numbers that remember where they came from
(`models.numbers`), so that it is known which of them channels decide. What depends on the *values* of data cannot be
followed; the smallest method or module that holds it is kept whole.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

from prunesearch.errors import TraceError
from prunesearch.models import losses
from prunesearch.models.attention import can_be_followed, multi_head_attention
from prunesearch.models.callers import caller, is_check, line_of, where
from prunesearch.models.deadline import Deadline
from prunesearch.models.flops import Counter, FlopCounter, Uncounted
from prunesearch.models.forms import Form
from prunesearch.models.functions import called_by_forward, is_function, kept_function, replace_function, replace_method
from prunesearch.models.isolation import (
    as_in_training,
    attributes_kept,
    generators_beside_torch,
    isolated,
    without_fast_paths,
)
from prunesearch.models.memory import is_out_of_memory
from prunesearch.models.misfit import advice
from prunesearch.models.nested import mapped, tensors_in
from prunesearch.models.normalised import (
    MethodOf,
    Operator,
    draws_at_random,
    normalised,
    reads_values,
    sized_by_values,
    written_by,
)
from prunesearch.models.numbers import Size, is_traced, plain
from prunesearch.models.recorded import Inputs, Position, Recording
from prunesearch.models.recorded_graph import RecordedGraph, plain_shape
from prunesearch.models.recorded_numbers import RecordedNumbers


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
        self.why = f"{why}, at {where(caller())}"


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
        self._graph = RecordedGraph(model)
        # costs are those of eval
        self._flops: Counter = Uncounted() if model.training else FlopCounter()  # type: ignore[no-untyped-call]
        self._names = {id(module): name for name, module in reversed(list(model.named_modules(remove_duplicate=False)))}
        layers = [module for module in model.modules() if is_layer(module) and not _is_altered(module)]
        self._layers = {id(layer): _tensors_of(layer) for layer in layers}
        self._weights_of_layers = {_memory_of(weight) for layer in layers for weight in layer.parameters()}
        self._entered: list[tuple[nn.Module, BaseException | None]] = []  # with the error that was being handled then
        # the last error, and the innermost module it is of
        self._failed: tuple[BaseException | None, str] | None = None
        self._whole: _Whole | None = None
        self._parameters = {_memory_of(tensor): name for name, tensor in model.named_parameters()}
        self._writes: set[str] = set()
        self._unfrozen: dict[str, nn.Parameter] = {}
        self._autocast: Any = None
        self._counts = ""
        self._reads_draws = False
        self._droppable: list[fx.Node] = []  # what assertions look at, and what gradients alone need
        self._is_inside = False
        self._numbers = RecordedNumbers(
            model, self._graph, self._names, is_torch=self._is_torch, on_counted=self._count_what_data_decide
        )

    # --- running

    def run(self, inputs: Inputs, seed: int) -> Recording:
        with isolated(inputs.tensors, seed) as copies:
            state = generators_beside_torch()
            ours = inputs.with_tensors(copies)
            self._graph.begin(copies)
            self._device = copies[0].device.type if copies and not copies[0].is_meta else "cpu"
            self._autocast = _autocast(self._device)
            with ExitStack() as stack:
                self._unfrozen = stack.enter_context(as_in_training(self._model))
                for context in (without_fast_paths(), attributes_kept(self._model), self._hooks(), self._flops, self):
                    stack.enter_context(context)
                self._numbers.trace_attributes(self._model)
                has_stored = stack.enter_context(attributes_kept(self._model))
                output = self._call(ours)
                stores = has_stored()
            draws = generators_beside_torch() != state or self._reads_draws
        self._numbers.decide_loose()
        self._graph.end(self._noted(output)[0])
        self._graph.drop_unused(self._droppable, self._numbers.decided)
        self._numbers.end()
        return Recording(
            self._model,
            self._graph.graph,
            self._graph.constants,
            self._graph.held,
            mapped(output, Tensor.detach),
            tuple(self._numbers.decisions),
            tuple(self._numbers.asked),
            self._leaves,
            draws,
            self._flops.get_total_flops(),
            self._model.training,
            inputs.images,
            self._counts,
            frozenset(self._writes),
            self._reads_draws,
            stores,
        )

    def _call(self, inputs: Inputs) -> Any:
        try:
            return self._model(*inputs.args, **inputs.kwargs)
        except (_NotFollowed, TraceError):
            raise
        except Exception as error:  # whatever the caller's forward raises
            if is_out_of_memory(error):
                raise
            shapes = ", ".join(str(tuple(x.shape)) for x in inputs.tensors)
            mode = ", in training mode" if self._model.training else ""
            module = self._failed[1] if self._failed is not None and self._failed[0] is error else ""
            what = f"module {module!r} fails" if module else f"the forward fails{line_of(error)}"
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
        frame = caller()
        while frame is not None and frame.f_code.co_name != "forward":
            code = frame.f_code
            owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            method = inspect.getattr_static(type(owner), code.co_name, None) if id(owner) in self._names else None
            if isinstance(method, FunctionType) and inspect.unwrap(method).__code__ is code:
                return f"{self._names[id(owner)]}.{code.co_name}()".lstrip(".")
            frame = frame.f_back
        name = self._graph.scopes[-1]
        return called_by_forward(self._model.get_submodule(name), name, caller()) or name

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
                self._graph.by_data.begin(node)
            if self._names[id(module)] and _tells_values(result):
                raise _NotFollowed(self._names[id(module)], "decides by the values of its data")
            return self._with_numbers_by_data(node, (args, kwargs), result)

        return whole

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        name = self._names[id(module)]
        self._graph.scopes.append(name)
        self._entered.append((module, sys.exc_info()[1]))
        is_layer = self._layers.get(id(module)) == _tensors_of(module)  # `functional_call` puts others in their place
        if self._whole is None and (is_layer or name in self._leaves):
            self._deadline.check(f"module {name}")
            with torch._C.DisableTorchFunction():  # what we ask of tensors ourselves is not the forward's
                given = self._noted((args, kwargs))
            self._whole = _Whole(module, given, self._flops.get_total_flops(), is_layer=is_layer)

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
            self._failed = error, self._graph.scopes[-1]
        self._graph.scopes.pop()
        return output

    def _note_whole(self, running: _Whole, output: Any) -> fx.Node:
        (arguments, keywords), numbers = running.given
        with torch._C.DisableTorchFunction():
            node = self._add("call_module", self._names[id(running.module)], arguments, keywords, numbers, output)
        node.meta["flops"] = self._flops.get_total_flops() - running.before
        if running.is_sized_by_values:
            self._graph.by_data.begin(node)
        return node

    def _with_numbers_by_data(self, node: fx.Node, given: Any, result: Any) -> Any:
        """What something returns that is kept whole; data decide the numbers in it, except sizes of tensors."""
        with torch._C.DisableTorchFunction():
            sizes = {size for x in tensors_in((given, result)) for size in plain_shape(x)[1:]}

        def is_number(value: Any) -> bool:
            return type(value) in (int, float) and value not in sizes

        def has_numbers(value: Any) -> bool:
            items = value.values() if type(value) is dict else value if type(value) in (tuple, list) else ()
            return is_number(value) or any(map(has_numbers, items))

        def followed(value: Any, source: fx.Node) -> Any:
            if is_number(value):
                return self._numbers.followed(value, self._graph.add_number_by_data(source, value))
            if not has_numbers(value):
                return value
            if type(value) is dict:
                return {key: followed(item, self._graph.add_part(source, key)) for key, item in value.items()}
            return type(value)(followed(item, self._graph.add_part(source, i)) for i, item in enumerate(value))

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
            running.used.update(name for x in tensors_in(given) if (name := self._graph.name_of(x)) is not None)
            if called is not None:
                self._note_writing(written_by(called))
            numbers = self._noted_numbers(given)
        for form in numbers:
            self._numbers.decide((form,))

    def _note_writing(self, tensors: Sequence[Tensor]) -> None:
        memories = map(_memory_of, tensors)
        names = {self._parameters[memory] for memory in memories if memory in self._parameters}
        for name in names & self._unfrozen.keys() - self._writes:
            self._unfrozen[name].requires_grad_(False)
        self._writes |= names

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
        if _is_transformed((args, kwargs)):
            raise _NotFollowed(self._holder(), "computes in torch.vmap or another function of torch.func")
        called = normalised(func, args, kwargs)
        if called is None:  # asks for a type, a device and the like
            return func(*args, **kwargs)
        if called.target == "shape of":
            return self._numbers.sizes(func(*args, **kwargs), args, kwargs)
        if reads_values(called) and self._graph.depends_on_inputs((args, kwargs)):
            if is_check():
                self._droppable += [self._graph.node_of(tensor) for tensor in tensors_in((args, kwargs))]
                return func(*args, **kwargs)
            raise _NotFollowed(self._holder(), "decides by the values of its data")
        if reads_values(called):
            given = [self._graph.node_of(tensor) for tensor in tensors_in((args, kwargs))]
            self._reads_draws |= any(node.meta.get("drawn") for node in given)
        written = written_by(called)
        if not self._weights_of_layers.isdisjoint(map(_memory_of, written)):
            raise _NotFollowed(self._holder(), "writes to weights of layers")
        self._note_writing(written)
        (arguments, keywords), numbers = self._noted((called.args, called.kwargs))  # before it runs: it may change them
        if isinstance(func, OpOverload):  # called by a TorchScript function, which may look at sizes
            self._numbers.ask_all((called.args, called.kwargs))
        self._refuse_counting(called)
        before, is_assigned = self._flops.get_total_flops(), False
        result = func(*args, **kwargs)
        if called.target == "__len__":
            self._numbers.note_plain(Size(arguments[0], 0))
        if result is None and written:  # an assignment
            result, is_assigned = called.args[0], True
        if not any(True for _ in tensors_in(result)) and not reads_values(called):
            if called.target != "numel":
                return result
            return self._numbers.followed(
                result, self._graph.add_number(called.op, called.target, arguments, result, {})
            )
        node = self._add(called.op, called.target, arguments, keywords, numbers, result)
        node.meta.update(flops=self._flops.get_total_flops() - before, writes=bool(written))
        if getattr(func, "__name__", "") == "__set__":  # of `tensor.data`, to which gradients are nothing
            node.meta["untracked"] = self._model.training
        if func is torch.ops.aten.detach.default:  # a TorchScript function keeps a copy for the way back
            self._droppable.append(node)
        node.meta["drawn"] = draws_at_random(called) or any(other.meta.get("drawn") for other in node.all_input_nodes)
        if node.meta["fed"] and sized_by_values(called):
            self._graph.by_data.begin(node)
        return None if is_assigned else result

    def _refuse_counting(self, called: Operator) -> None:
        source = next(iter(called.args), None)
        if isinstance(source, Tensor) and self._graph.by_data.are_counted(called, self._graph.node_of(source)):
            self._count_what_data_decide()

    def _count_what_data_decide(self) -> None:
        """How many rows there are decides what the forward does; what does so is kept whole, if it is a part of it."""
        holder = self._holder()
        if holder:
            raise _NotFollowed(holder, "decides by the values of its data")
        self._counts = self._counts or where(caller())

    def _in_operators(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run what stands for one of torch's functions, and note the operators that it calls."""
        self._is_inside = False
        try:
            with self:
                return function(*args, **kwargs)
        finally:
            self._is_inside = True

    def _is_torch(self) -> bool:
        """Whether it is torch that computes, in an operator or in a layer that is not entered."""
        return self._is_inside or (self._whole is not None and self._whole.is_layer)

    # --- the graph

    def _add(
        self, op: str, target: Any, args: Any, kwargs: Any, numbers: Mapping[Position, Form], result: Any
    ) -> fx.Node:
        node = self._graph.add(op, target, args, kwargs, result)
        node.meta["numbers"] = numbers
        if op != "call_module" and _has_integer((args, kwargs)):
            node.meta["site"] = self._numbers.site()
        node.meta["computed"] = op != "call_module" and self._numbers.have_unseen_fractions((args, kwargs))
        state = _autocast(self._device)
        if state != self._autocast:
            node.meta["autocast"] = (self._device, *state)
        node.meta["untracked"] = self._model.training and not torch.is_grad_enabled()
        return node

    def _noted(self, value: Any) -> tuple[Any, dict[Position, Form]]:
        """Arguments as the graph has them, and which of their numbers modules hold."""
        numbers: dict[Position, Form] = {}

        def noted(item: Any, position: Position) -> Any:
            if isinstance(item, Tensor):
                return self._graph.node_of(item)
            if is_traced(item):
                given = self._numbers.given(item)
                if isinstance(given, Form):
                    numbers[position] = given
                    return plain(item)
                return given
            if type(item) in (tuple, list, torch.Size):
                items = [noted(inner, (*position, i)) for i, inner in enumerate(item)]
                return items if isinstance(item, list) else tuple(items)
            if type(item) is dict:
                return {key: noted(inner, (*position, key)) for key, inner in item.items()}
            if isinstance(item, slice):
                return slice(*(noted(getattr(item, end), (*position, end)) for end in ("start", "stop", "step")))
            if isinstance(item, torch.device) and item.type == "meta" and self._in_place_of_meta is not None:
                return self._in_place_of_meta
            if any(True for _ in tensors_in(item)) or self._graph.is_known(item):
                return self._graph.node_of_object(item)
            return item

        result = noted(value, ())
        # the outermost two levels are (args, kwargs) and then a position or keyword
        return result, {position[1:]: form for position, form in numbers.items() if len(position) > 1}


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


def _is_altered(module: nn.Module) -> bool:
    """Whether a module may do something else than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _tensors_of(layer: nn.Module) -> list[int]:
    """Which parameters and buffers a layer has."""
    return [id(tensor) for held in (layer._parameters, layer._buffers) for tensor in held.values()]


def _is_transformed(arguments: Any) -> bool:
    """Whether a tensor among some arguments stands for others, as inside of `torch.vmap`."""
    return any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors_in(arguments)))


def _has_integer(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_has_integer, value))
    if isinstance(value, dict):
        return any(map(_has_integer, value.values()))
    if isinstance(value, slice):
        return _has_integer((value.start, value.stop))
    return type(value) is int


def _tells_values(result: Any) -> bool:
    """Whether code that decides by data returns answers, or arrays of numpy, which are not followed."""
    if type(result) in (tuple, list):
        return any(map(_tells_values, result))
    return isinstance(result, (bool, np.generic, np.ndarray))


def _memory_of(tensor: Tensor) -> int:
    """The same for two tensors that live in one memory."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def _autocast(device: str) -> tuple[bool, torch.dtype | None]:
    enabled = torch.is_autocast_enabled(device)
    return enabled, torch.get_autocast_dtype(device) if enabled else None
