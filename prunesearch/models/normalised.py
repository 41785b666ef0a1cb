"""What torch is asked to do, in one form: however it is spelt, an operator is a function or the name of a method."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import GetSetDescriptorType, MethodWrapperType
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn import functional


@dataclass(frozen=True)
class Operator:
    """A call: `op` is "call_function" or "call_method", as in torch.fx."""

    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def set_item(tensor: Tensor, index: Any, value: Any) -> Tensor:
    """`tensor[index] = value`, as an operator that returns the tensor."""
    tensor[index] = value
    return tensor


@dataclass(frozen=True)
class MethodOf:
    """A method of a submodule that is kept whole, as an operator; whoever runs a recorded forward finds the module.

    Attributes:
        module: Qualified name of the module.
        method: Name of the method.
    """

    module: str
    method: str

    @property
    def __name__(self) -> str:
        """How it is called in messages."""
        return f"{self.module}.{self.method}".lstrip(".")

    def __call__(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Call it on the module of that name in `model`."""
        return getattr(model.get_submodule(self.module), self.method)(*args, **kwargs)


def part_of(value: Any, key: Any) -> Any:
    """One of several values that an operator gave."""
    return value[key]


_BINARY: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "true_divide": operator.truediv,
    "pow": operator.pow,
    "matmul": operator.matmul,
    "__matmul__": operator.matmul,
    "add_": operator.iadd,
    "sub_": operator.isub,
    "mul_": operator.imul,
    "div_": operator.itruediv,
    "__getitem__": operator.getitem,
    "__setitem__": set_item,
}
_SWAPPED: Mapping[str, Callable[..., Any]] = {
    "__rsub__": operator.sub,
    "__rdiv__": operator.truediv,
    "__rtruediv__": operator.truediv,
    "__rpow__": operator.pow,
    "__rmatmul__": operator.matmul,
}
_DUNDERS: Mapping[str, str] = {"__and__": "logical_and", "__or__": "logical_or", "__invert__": "logical_not"}
_VALUES = {
    "__bool__", "__int__", "__float__", "__index__", "__complex__", "__array__", "__contains__",
    "item", "tolist", "numpy", "equal", "allclose", "is_nonzero", "__dlpack__",
}  # fmt: skip
"""Methods and functions that tell Python values of a tensor's data."""


def normalised(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operator | None:
    """The operator that torch was asked for; None for questions whose answer is no tensor and no size."""
    name = getattr(func, "__name__", "")
    owner: object = getattr(func, "__self__", None)
    if isinstance(func, MethodWrapperType) and isinstance(owner, GetSetDescriptorType):
        kinds = {"__get__": _attribute, "__set__": _assigned}
        return kinds[name](owner.__name__, args) if name in kinds else None
    if isinstance(func, type):
        return None
    if isinstance(func, OpOverload):
        return _of_overload(func, args, kwargs)
    is_method = getattr(func, "__qualname__", "").startswith(("Tensor.", "TensorBase.", "_TensorBase."))
    if name == "size" and is_method:
        return Operator("call_method", "shape of", args, kwargs)
    if name in ("numel", "nelement"):
        return Operator("call_method", "numel", args, kwargs)
    if name in _BINARY and is_method and not kwargs and len(args) == (3 if name == "__setitem__" else 2):
        return Operator("call_function", _BINARY[name], args, kwargs)
    if name in _SWAPPED and is_method:
        return Operator("call_function", _SWAPPED[name], args[::-1], kwargs)
    if name == "neg" and is_method:
        return Operator("call_function", operator.neg, args, kwargs)
    if is_method:
        return Operator("call_method", _DUNDERS.get(name, name), args, kwargs)
    return Operator("call_function", func, args, kwargs)


def _of_overload(func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operator:
    """The operator that a TorchScript function called, as Python code would have called it."""
    namespace, _, name = func._schema.name.partition("::")
    if namespace != "aten":
        return Operator("call_function", func, args, kwargs)
    if name in _BINARY and len(args) == 2 and not kwargs:
        return Operator("call_function", _BINARY[name], args, kwargs)
    for home in (torch, functional, torch._C._nn):
        if callable(getattr(home, name, None)) and not name.endswith("_"):
            return Operator("call_function", getattr(home, name), args, kwargs)
    if hasattr(Tensor, name):
        return Operator("call_method", name, args, kwargs)
    return Operator("call_function", func, args, kwargs)


def reads_values(called: Operator) -> bool:
    """Whether Python is told values of data."""
    name = called.target if isinstance(called.target, str) else getattr(called.target, "__name__", "")
    return name in _VALUES


def draws_at_random(called: Operator) -> bool:
    """Whether the result is of torch's generator of random numbers."""
    name = called.target if isinstance(called.target, str) else getattr(called.target, "__name__", "")
    return name.removesuffix("_").removesuffix("_like") in _DRAWING


_DRAWING = {"rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal", "uniform", "exponential"}


def sized_by_values(called: Operator) -> bool:
    """Whether how large the result is depends on the values of data, as of `nonzero`, masks and suppressed boxes."""
    name = called.target if isinstance(called.target, str) else getattr(called.target, "__name__", "")
    if name.partition(".")[0] in _SIZED_BY_VALUES:
        return True
    if called.target is torch.where:
        return len(called.args) + len(called.kwargs) == 1
    return called.target is operator.getitem and any(map(_is_mask, _entries(called.args[1])))


_SIZED_BY_VALUES = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "nms"}


def _entries(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def written_by(called: Operator) -> tuple[Tensor, ...]:
    """Tensors whose values an operator changes."""
    name = called.target if isinstance(called.target, str) else getattr(called.target, "__name__", "")
    written = [called.kwargs.get("out")]
    is_in_place = name.endswith("_") and not name.endswith("__") and name not in _WITHOUT_VALUES
    if called.args and (is_in_place or called.target in _ASSIGNING or called.kwargs.get("inplace")):
        written.append(called.args[0])
    return tuple(tensor for tensor in written if isinstance(tensor, Tensor))


_ASSIGNING = {set_item, operator.iadd, operator.isub, operator.imul, operator.itruediv}
_WITHOUT_VALUES = {"requires_grad_", "detach_", "share_memory_"}
"""Methods with the name of one that changes values, which change none."""


def _assigned(name: str, args: tuple[Any, ...]) -> Operator | None:
    """`tensor.data = value`, as a copy of the values."""
    is_copy = name == "data" and isinstance(args[1], Tensor) and args[0].shape == args[1].shape
    return Operator("call_method", "copy_", args, {}) if is_copy else None


def _attribute(name: str, args: tuple[Any, ...]) -> Operator | None:
    if name == "shape":
        return Operator("call_method", "shape of", args[:1], {})
    value = getattr(args[0], name, None) if name in ("data", "T", "mT", "H", "mH", "real", "imag", "grad") else None
    return Operator("call_function", getattr, (args[0], name), {}) if isinstance(value, Tensor) else None


def is_torchs(target: Any) -> bool:
    """Whether a class or function is of torch, or of Python itself."""
    return getattr(target, "__module__", "").partition(".")[0] in (torch.__name__, "builtins")
