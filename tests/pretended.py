"""A card that is only pretended: tensors on the device "card" hold numbers, and the CPU computes.

torch's `FakeTensorMode` knows shapes but no values, so nothing that decides by values runs under it, and its backward
passes need a driver. Here everything runs, results can be compared with the CPU's, and a tensor on the CPU among those
of the card is refused as CUDA refuses it. What makes the program wait for a real card is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

DEVICE = "card"
_aten = torch.ops.aten
_COPIES = (_aten._to_copy.default, _aten.copy_.default)
_MOVES = (*_COPIES, _aten.set_.source_Tensor)
_WAITS = (
    *(_aten._local_scalar_dense.default, _aten.equal.default, _aten.is_nonzero.default, _aten.nonzero.default),
    *(_aten.masked_select.default, _aten._unique2.default, _aten.unique_dim.default),
)
_VIEWS = ("view", "reshape", "expand", "permute", "transpose", "t", "slice", "select", "unsqueeze", "squeeze", "detach")
_VIEWS += ("alias", "split", "chunk", "unbind", "as_strided", "lift_fresh", "_unsafe_view", "split_with_sizes")


@dataclass
class Seen:
    """What happened on the card.

    Attributes:
        launches: Operators that compute there, by name.
        waits: Operators whose result the program waits for, by name.
        down: Copies from the card to the CPU, which wait, too.
        up: Copies from the CPU to the card; those that are not `non_blocking` are among the waits.
    """

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    down: int = 0
    up: int = 0

    @property
    def stops(self) -> int:
        """How often the program waited for the card."""
        return self.waits.total() + self.down


class Card(Tensor):
    """A tensor that says that it is on the card."""

    held: Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Card:
        with torch.inference_mode(False):  # tensors of that mode have no views of this kind
            made: Card = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                layout=held.layout,
                device=torch.device(DEVICE, 0),
            )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Card({self.held!r})"

    def untyped_storage(self) -> torch.UntypedStorage:
        """That of the numbers, as whoever asks compares addresses."""
        return self.held.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # whoever records calls of torch is not to see these
            return _run(func, args, kwargs or {}, None)


class _Watch(TorchDispatchMode):
    """Makes tensors on the card where they are asked for, and counts."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            if func._schema.name == "aten::to":  # arrives whole in inference mode, with the device among its arguments
                with self:
                    return func.decompose(*args, **(kwargs or {}))
            return _run(func, args, kwargs or {}, self._seen)


@contextmanager
def card() -> Iterator[Seen]:
    """There is a card meanwhile, called `DEVICE`."""
    _register()
    seen = Seen()
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    lifts = torch._C._only_lift_cpu_tensors()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # so that `new_tensor` makes its tensor where it can be made
    try:
        with _Watch(seen):
            yield seen
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
        torch._C._set_only_lift_cpu_tensors(lifts)


@cache
def _register() -> None:
    _setup_privateuseone_for_python_backend(DEVICE)


def _run(func: Any, args: Any, kwargs: Any, seen: Seen | None) -> Any:
    leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    cards = [x for x in leaves if isinstance(x, Card)]
    is_there = bool(cards)
    asked = kwargs.get("device")
    if asked is not None:
        is_there = torch.device(asked).type == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu") if is_there else asked, "pin_memory": None}
        kwargs = kwargs if "pin_memory" in [a.name for a in func._schema.arguments] else _without_pin(kwargs)
    if func is _aten.copy_.default:
        is_there = isinstance(args[0], Card)
    if cards and func not in _MOVES:
        _check(func, leaves)
    if seen is not None:
        _count(seen, func, leaves, cards, is_there, blocks=not _is_non_blocking(func, args, kwargs))
    out = func(*_held(args), **_held(kwargs))
    if not is_there and func not in _MOVES:
        return out
    by_id = {id(x.held): x for x in cards}  # what changes its argument returns that very argument

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return by_id[id(x)] if id(x) in by_id else Card(x) if is_there else x

    return tree_map(placed, out)


def _without_pin(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "pin_memory"}


def _held(tree: Any) -> Any:
    return tree_map(lambda x: x.held if isinstance(x, Card) else x, tree)


def _check(func: Any, leaves: Sequence[Tensor]) -> None:
    """CUDA takes numbers of the CPU as arguments, and no more of it."""
    name = func._schema.name.removeprefix("aten::")
    strangers = [x for x in leaves if not isinstance(x, Card) and x.dim()]
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):  # indices may be on the CPU, and are copied
        strangers = [x for x in strangers if x.dtype not in (torch.int64, torch.bool)]
    if strangers:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found card:0 and cpu in {name}.")


def _is_non_blocking(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    place = [argument.name for argument in func._schema.arguments].index("non_blocking") if func in _COPIES else -1
    return bool(kwargs.get("non_blocking", args[place] if 0 <= place < len(args) else False))


def _count(
    seen: Seen, func: Any, leaves: Sequence[Tensor], cards: Sequence[Tensor], is_there: bool, *, blocks: bool
) -> None:
    name = func._schema.name.removeprefix("aten::")
    strangers = any(not isinstance(x, Card) and x.dim() for x in leaves)
    if not cards and not is_there:
        return
    if func in _WAITS:
        seen.waits[name] += 1
    elif cards and not is_there:
        seen.down += 1
    elif strangers:
        seen.up += 1
        seen.waits["upload"] += blocks
    elif name.removeprefix("_") not in _VIEWS and cards:
        seen.launches[name] += 1
