"""The record of a kind of layer or operator: all that the package has to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias

from torch import fx

from prunesearch.models.operators.norm import Norm
from prunesearch.models.operators.values import Rule, argument

Role = Literal["produces", "reads", "scales", "other"]
Masking = Literal["zeros", "without", "in place", "state"]
Statistics = Literal["batch", "image", "position"]


@dataclass(frozen=True)
class Call:
    """A call of a layer or an operator in a recorded forward.

    Attributes:
        node: Its node.
        module: The layer; None of a function or a method.
        values: What other nodes gave; empty where nothing is computed.
    """

    node: fx.Node
    module: Any
    values: Mapping[fx.Node, Any] = field(default_factory=dict)

    @property
    def source(self) -> Any:
        """What it works on: the first argument, or the one named `input`."""
        found = argument(self.node, 0, "input")
        return self.values.get(found, found)

    def given(self, index: int, name: str, default: Any = None) -> Any:
        """The attribute `name` of the layer, or the argument of that name or place of the operator."""
        if self.module is not None:
            return getattr(self.module, name, default)
        found = argument(self.node, index, name, default=default)
        return self.values.get(found, found) if isinstance(found, fx.Node) else found


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over positions, as torch takes it; all empty for a linear layer.

    Attributes:
        stride: For all dimensions of positions, or for each.
        padding: Likewise, or before and after, or `"same"` or `"valid"`.
        dilation: Likewise.
        groups: How many it works in.
        padding_mode: What the padding holds, as in `nn.Conv2d`.
    """

    stride: Any = ()
    padding: Any = ()
    dilation: Any = ()
    groups: Any = 1
    padding_mode: str = "zeros"
    output_padding: Any = None


def _always(module: Any) -> bool:
    return True


@dataclass(frozen=True, eq=False)
class Kind:
    """All that is known of a kind of layer, or of an operator. Only `rule` has to be given.

    Attributes:
        rule: What it ties, mixes and costs (`values.Rule`).
        masking: How it is computed at full width as if some channels that it mixes were not there. `"zeros"`: they are
            zeros, as convolutions and products of matrices want it. `"without"`: of the others alone, which gives one
            value of all, as a mean does. `"in place"`: of the others alone, and what comes out goes to their places, as
            of a softmax. `"state"`: its own weights for them are zero, as it mixes a state that nobody sees.
        norm: What it computes, if it normalises over channels; it is then computed by this definition.
        statistics: Of what it takes the mean and variance, if it is a normalisation: with `"batch"`, each structure has
            those of its own images.
        widths: Attributes of the layer that are numbers of channels.
        roles: What a parameter does with the channels of each of its dimensions, by its name or a glob of names.
        agrees: Whether the layer's `widths` are those of its tensors.
        adopt: Sets the `widths` by the tensors, in a layer that nobody calls.
        geometry: Where each of its positions reads, if it is a linear map of what it reads, with a weight of the shape
            (outputs, inputs of a group, kernel).
        multiplies: Whether it multiplies matrices, or costs as much: a block whose time is measured begins with it.
    """

    rule: Rule
    masking: Masking = "zeros"
    norm: Callable[[Call], Norm] | None = None
    statistics: Statistics | None = None
    widths: tuple[str, ...] = ()
    roles: Mapping[str, tuple[Role, ...]] = field(default_factory=dict)
    agrees: Callable[[Any], bool] = _always
    adopt: Callable[[Any], None] | None = None
    geometry: Callable[[Call], Geometry | None] | None = None
    multiplies: bool = False

    def role(self, parameter: str, dim: int) -> Role:
        """What a parameter of the layer does with the channels of one of its dimensions."""
        for name, roles in self.roles.items():
            if fnmatchcase(parameter, name):
                return roles[dim] if dim < len(roles) else "other"
        return "other"


def last_agrees(attribute: str) -> Callable[[Any], bool]:
    """For `Kind.agrees`: whether an attribute is the last size of the layer's weight, if it has one."""

    def agrees(module: Any) -> bool:
        weight = module._parameters["weight"]
        return weight is None or bool(weight.shape[-1] == getattr(module, attribute))

    return agrees


def adopts_last(attribute: str) -> Callable[[Any], None]:
    """For `Kind.adopt`: sets an attribute to the last size of the layer's weight."""
    return lambda module: setattr(module, attribute, module._parameters["weight"].shape[-1])


Known: TypeAlias = "Kind | Rule"
"""What `trace(rules=...)` takes: a whole record, or its rule alone."""


def as_kind(known: Known) -> Kind:
    """A rule alone as a record that says nothing else."""
    return known if isinstance(known, Kind) else Kind(known)


def kind_of(node: fx.Node) -> Kind | None:
    """What a node of a recorded forward is; None of an operator without a rule, and of what is kept whole."""
    found: Kind | None = node.meta.get("kind")
    return found
