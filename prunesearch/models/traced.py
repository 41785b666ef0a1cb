"""What tracing finds out of a model: its space, and where each unit lives in its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from prunesearch.models.coupling import Count, Cut, Followed, Literal, Read
from prunesearch.models.fingerprint import model_fingerprint
from prunesearch.models.following import Way
from prunesearch.models.linear_map import LinearMap
from prunesearch.models.operators import Kinds
from prunesearch.models.operators.kind import Role
from prunesearch.models.recorded import Inputs
from prunesearch.structure import IntArray, Space


def check_traced(given: object) -> None:
    """Make sure that a network was traced.

    Raises:
        TypeError: It was not.
    """
    if not isinstance(given, TracedModel):
        raise TypeError(f"Expected network as trace(model, example_inputs) gives it, got {type(given).__name__}.")


@dataclass(frozen=True)
class TracedModel:
    """What is known of a traced model. The model itself is the caller's, never changed; its weights are read when used.

    Attributes:
        model: The traced model.
        example_inputs: Positional inputs that it was traced with.
        space: Every structure it can take, and their costs.
        cuts: Tensors that get narrower, and by which units.
        counts: Module attributes that hold a number of channels.
        literals: Numbers of channels in the code of forwards.
        numbers: Numbers of channels among the arguments of operators, in the recorded forward.
        reads: Operators that mix channels.
        units: Per group, the ids of its units.
        unit_count: How many units there are, those of no group included.
        frozen: Layers, or parts of them, that keep their width, and why.
        notes: What the caller should know.
        outputs: Size of the last dimension of what the network returns (a classifier's classes); None if that is not
            one tensor of shape (n, outputs).
        leaves: Modules that are kept whole, and why; a method of one has parentheses, as in `neck.scale()`.
        way: How its forward was recorded.
        example_keywords: Inputs by name that it was traced with.
        linear_maps: The linear layers and convolutions among what mixes channels, with their tensors and geometry.
        wishes: What `trace` was told of layers, by its arguments, for whoever traces a narrower network alike.
        weight_roles: What parameters do with the channels of each of their dimensions, by name, where the forward tells
            it and no layer (`linear_maps.roles_in_weights`).
    """

    model: nn.Module
    example_inputs: tuple[Any, ...]
    space: Space
    cuts: tuple[Cut, ...]
    counts: tuple[Count, ...]
    literals: tuple[Literal, ...]
    numbers: tuple[Followed, ...]
    reads: tuple[Read, ...]
    units: tuple[IntArray, ...]
    unit_count: int
    frozen: Mapping[str, str]
    notes: tuple[str, ...]
    outputs: int | None
    leaves: Mapping[str, str] = field(default_factory=dict)
    way: Way = field(default_factory=Way)
    example_keywords: Mapping[str, Any] = field(default_factory=dict)
    linear_maps: tuple[LinearMap, ...] = ()
    wishes: Mapping[str, Any] = field(default_factory=dict)
    weight_roles: Mapping[str, tuple[Role, ...]] = field(default_factory=dict)

    @property
    def kinds(self) -> Kinds:
        """What is known of layers and operators, the caller's own among them."""
        return self.way.kinds

    @property
    def inputs(self) -> Inputs:
        """What the forward is called with in examples."""
        return Inputs(self.example_inputs, self.example_keywords)

    def layer_reads(self, asker: str) -> tuple[Read, ...]:
        """Modules that mix channels, for what sees channels only where modules read them.

        Args:
            asker: What that is, for the message.

        Raises:
            ValueError: Something else mixes channels, too.
        """
        others = [read.place for read in self.reads if not read.is_layer and not read.place.endswith("(training)")]
        if others:
            raise ValueError(
                f"{asker} drops channels where modules read them, but {type(self.model).__name__} mixes some in the "
                f"code of a forward: {others[0].replace('%', ': ').removeprefix(': ')}. Use another one."
            )
        return tuple(read for read in self.reads if read.is_layer)

    @cached_property
    def group_of(self) -> IntArray:
        """(units,) index of the group of each unit, or -1 if it always stays."""
        groups = np.full(self.unit_count, -1)
        for index, units in enumerate(self.units):
            groups[units] = index
        return groups

    @cached_property
    def cuts_of(self) -> Mapping[str, tuple[Cut, ...]]:
        """How each tensor gets narrower, by its name; the others stay."""
        found: dict[str, tuple[Cut, ...]] = {}
        for cut in self.cuts:
            found[cut.tensor] = (*found.get(cut.tensor, ()), cut)
        return found

    def fingerprint(self) -> str:
        """Hash of the model's class, its printed form and every tensor of it."""
        return model_fingerprint(self.model)
