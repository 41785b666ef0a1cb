"""Numbers of images that a forward turned into plain numbers, such as by `len(x)`: found by running two batches."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from prunesearch.models.recorded import Recording


def follow_batch(recording: Recording, other: Recording) -> bool:
    """Let numbers of a recorded forward follow the number of images, where another batch shows that they do.

    Args:
        recording: Of some images; where an argument is a multiple of their number, and in `other` the same multiple of
            another number, it is computed from the inputs from now on.
        other: Of the same forward, on another number of images.

    Returns:
        Whether the two agree in everything else.
    """
    mine, theirs = list(recording.graph.nodes), list(other.graph.nodes)
    if [(node.op, _name(node)) for node in mine] != [(node.op, _name(node)) for node in theirs]:
        return False
    images = _Images(recording, other)
    return all([images.follow(node, twin) for node, twin in zip(mine, theirs, strict=True)])


@dataclass
class _Images:
    """The number of images as a node, and multiples of it."""

    recording: Recording
    other: Recording
    multiples: dict[int, fx.Node] = field(default_factory=dict)

    def follow(self, node: fx.Node, twin: fx.Node) -> bool:
        """Replace what follows the number of images in the arguments of a node; False if something else differs."""
        agrees = True

        def same(mine: Any, theirs: Any) -> Any:
            nonlocal agrees
            if isinstance(mine, (tuple, list)) and isinstance(theirs, (tuple, list)) and len(mine) == len(theirs):
                return type(mine)(map(same, mine, theirs))
            if isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys():
                return {key: same(value, theirs[key]) for key, value in mine.items()}
            if isinstance(mine, slice) and isinstance(theirs, slice):
                return slice(*(same(getattr(mine, end), getattr(theirs, end)) for end in ("start", "stop", "step")))
            if type(mine) is int and type(theirs) is int and mine != theirs:
                factor = mine // self.recording.images
                if (mine, theirs) == (factor * self.recording.images, factor * self.other.images):
                    return self._multiple(factor)
                agrees = False
            return mine

        node.args, node.kwargs = same(node.args, twin.args), same(node.kwargs, twin.kwargs)
        return agrees

    def _multiple(self, factor: int) -> fx.Node:
        if factor not in self.multiples:
            graph = self.recording.graph
            inputs = [node for node in graph.nodes if node.op == "placeholder"]
            one = self._multiple(1) if factor != 1 else inputs[-1]
            with graph.inserting_after(one):
                if factor == 1:
                    made = graph.call_method("size", (inputs[0], 0))
                else:
                    made = graph.call_function(operator.mul, (one, factor))
            made.meta.update(follows_batch=True, number=True, fed=True, value=factor * self.recording.images, scope="")
            self.multiples[factor] = made
        return self.multiples[factor]


def _name(node: fx.Node) -> Any:
    target: Callable[..., Any] | str = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)
