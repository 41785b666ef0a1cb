"""What is known of each kind of layer and operator: what it ties, what it mixes, what it costs, how it is masked.

A `Kind` (`kind.py`) holds all of it. Its rule gets the walk and a node of the recorded forward, and returns the
channels of what that gives, or None if nothing is known of it. **An operator without a rule freezes the channels that
reach it**: it can cost opportunity, never correctness.

Only operators that treat channels independently keep labels. Those that mix them (convolutions, linear layers) read
the old labels and write new ones. A family of kinds is a file, with a table of them, `KINDS`: by class of modules, by
function, by the name of a method, and by the qualified name of what belongs to libraries that we do not import.

- `convolutions.py`, `matrices.py`, `normalisation.py`, `single.py`: layers with weights, as modules and as functions
  (on `layers.py`, and `norm.py`, normalisation by its definition),
- `elementwise.py`: what treats every element alike, or mixes along one dimension,
- `spatial.py`: what works on positions,
- `shapes.py`: what gives another shape,
- `joining.py`: what joins, takes apart, slices, pads and reduces,
- `products.py`: products of tensors, attention,
- `recurrent.py`: layers that keep a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import fx, nn
from torch._ops import OpOverload, OpOverloadPacket

from prunesearch.models.nested import Nest
from prunesearch.models.operators import (
    convolutions,
    elementwise,
    fourier,
    joining,
    matrices,
    normalisation,
    products,
    recurrent,
    shapes,
    single,
    spatial,
)
from prunesearch.models.operators.kind import Kind, Known, as_kind

_FAMILIES = (
    *(convolutions, matrices, normalisation, single),
    *(elementwise, spatial, shapes, joining, products, recurrent, fourier),
)

KINDS: Mapping[Any, Kind] = MappingProxyType(
    {target: kind for family in _FAMILIES for target, kind in family.KINDS.items()}
)
OPERATOR_NAMES = frozenset(
    target if isinstance(target, str) else getattr(target, "__name__", "")
    for target in KINDS
    if not isinstance(target, type)
)
"""What functions and methods with a rule are called."""


@dataclass(frozen=True)
class Kinds:
    """Ours, and those that a caller brings along, which come first.

    Attributes:
        own: The caller's, by class of modules, function, name of a method, or qualified name of a class or an operator.
    """

    own: Mapping[Any, Kind] = field(default_factory=dict)

    @staticmethod
    def with_own(rules: Mapping[Any, Known] | None) -> Kinds:
        """What `trace(rules=...)` was given; operators by their names, as they can be copied to no other process."""
        return Kinds({_operator_name(target) or target: as_kind(known) for target, known in (rules or {}).items()})

    def of(self, target: Any) -> Kind | None:
        """The kind of a class of modules, a function, an operator, or the name of a method; None if there is none."""
        if isinstance(target, type):
            parent = self._unchanged(target)
            return None if parent is None else self._at(parent)
        if isinstance(target, Nest):
            return recurrent.NESTED
        try:
            return self._by_key(_operator_name(target) or target)
        except TypeError:  # cannot be looked up
            return None

    def knows(self, module: nn.Module) -> bool:
        """Whether a module is known by its class, so that its forward need not be entered.

        One whose weight somebody took away computes it anew each time, of what stays.
        """
        kind = self.of(type(module))
        return kind is not None and all(name in module._parameters for name in kind.roles if "*" not in name)

    def of_node(self, node: fx.Node, model: nn.Module) -> Kind | None:
        """The kind of what a node of a recorded forward calls."""
        if node.op == "call_module":
            return self.of(type(model.get_submodule(str(node.target))))
        return self.of(node.target) if node.op in ("call_function", "call_method") else None

    def alike(self, module: nn.Module) -> Kind | None:
        """The kind that a layer's attributes and tensors are of, even if its forward is one of its own."""
        return next((kind for parent in type(module).__mro__ if (kind := self._at(parent)) is not None), None)

    def is_norm(self, module: nn.Module) -> bool:
        """Whether a layer normalises, with whatever mean and variance."""
        kind = self.alike(module)
        return kind is not None and kind.statistics is not None

    def _unchanged(self, kind: type) -> type | None:
        """The class of a kind that a class of modules behaves as: itself, or one that it changes nothing of."""
        for index, parent in enumerate(kind.__mro__):
            if self._at(parent) is not None:
                return None if any(_changes(child, parent) for child in kind.__mro__[:index]) else parent
        return None

    def _at(self, kind: type) -> Kind | None:
        return self._by_key(kind) or self._by_key(f"{kind.__module__}.{kind.__qualname__}")

    def _by_key(self, key: Any) -> Kind | None:
        return self.own.get(key) or KINDS.get(key)


BUILT_IN = Kinds()
"""Those that every network has."""


def _operator_name(target: Any) -> str | None:
    """The qualified name of an operator of `torch.ops`, such as `torchvision::deform_conv2d`; None of anything else."""
    if isinstance(target, OpOverload):
        target = target.overloadpacket
    return target._qualified_op_name if isinstance(target, OpOverloadPacket) else None


def _changes(child: type, parent: type) -> bool:
    """Whether a class overrides what its parent does, or turns one of its tensors into something computed."""
    own = {name for name in vars(child) if name not in _HARMLESS}
    return any(hasattr(parent, name) or isinstance(vars(child)[name], property) for name in own)


_HARMLESS = {
    "__init__", "__module__", "__qualname__", "__doc__", "__annotations__", "__annotate_func__", "__annotate__",
    "__parameters__", "__constants__", "__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl",
    "__orig_bases__", "__repr__", "__str__", "extra_repr", "reset_parameters", "_version", "__annotations_cache__",
}  # fmt: skip
"""What a class may define and still do in its forward what the class that it derives from does."""
