"""The coupling rule of each operator: what it ties, what it mixes, what it costs.

A rule gets the walk and a node of the recorded forward, and returns the channels of what that gives, or None if
nothing is known of it. **An operator without a rule freezes the channels that reach it**: it can cost opportunity,
never correctness.

Only operators that treat channels independently keep labels. Those that mix them (convolutions, linear layers) read
the old labels and write new ones. A family of operators is a file, with tables of what it has rules for:

- `layers.py`: layers with weights, as modules and as functions,
- `elementwise.py`: what treats every element alike, or mixes along one dimension,
- `spatial.py`: what works on positions,
- `shapes.py`: what gives another shape,
- `joining.py`: what joins, takes apart, slices, pads and reduces,
- `products.py`: products of tensors, attention,
- `recurrent.py`: layers that keep a state.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import nn
from torch._ops import OpOverloadPacket

from prunesearch.models.nested import Nest
from prunesearch.models.operators import elementwise, joining, layers, products, recurrent, shapes, spatial
from prunesearch.models.operators.values import Rule

_FAMILIES = (layers, elementwise, spatial, shapes, joining, products, recurrent)

MODULES: dict[type[nn.Module], Rule] = {
    kind: rule for family in _FAMILIES for kind, rule in getattr(family, "MODULES", {}).items()
}
FUNCTIONS: dict[Any, Rule] = {
    target: rule for family in _FAMILIES for target, rule in getattr(family, "FUNCTIONS", {}).items()
}
METHODS: dict[str, Rule] = {name: rule for family in _FAMILIES for name, rule in getattr(family, "METHODS", {}).items()}
OPERATOR_NAMES = frozenset([*METHODS, *(getattr(target, "__name__", "") for target in FUNCTIONS)])
"""What functions and methods with a rule are called."""
NAMED: dict[str, Rule] = {**layers.NAMED}
"""Classes of libraries that we do not import, by qualified name."""


def rule_of(target: Any) -> Rule | None:
    """The rule of a class of modules, a function, or the name of a method; None if there is none."""
    if isinstance(target, str):
        return METHODS.get(target)
    if isinstance(target, type):
        kind = known_kind(target)
        return None if kind is None else _of_class(kind)
    if isinstance(target, Nest):
        return recurrent.nested
    if isinstance(target, OpOverloadPacket):
        return layers.OPERATORS.get(target._qualified_op_name)
    try:
        return FUNCTIONS.get(target)
    except TypeError:  # cannot be looked up
        return None


def is_reduction(target: Any) -> bool:
    """Whether an operator leaves one value of all channels, which zeros in the place of removed ones would change."""
    return rule_of(target) is joining.reduce


def is_relative(target: Any) -> bool:
    """Whether it leaves as many channels, each of a value that depends on all, as `softmax` does.

    What `F.batch_norm` mixes are the channels that a standardised weight reads.
    """
    return target is F.batch_norm or rule_of(target) is elementwise.along


def known_kind(kind: type) -> type | None:
    """The class with a rule that a class of modules behaves as: itself, or one that it changes nothing of."""
    for parent in kind.__mro__:
        if _of_class(parent) is not None:
            return (
                parent
                if not any(_changes(child, parent) for child in kind.__mro__[: kind.__mro__.index(parent)])
                else None
            )
    return None


def _of_class(kind: type) -> Rule | None:
    return MODULES.get(kind) or NAMED.get(f"{kind.__module__}.{kind.__qualname__}")


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
