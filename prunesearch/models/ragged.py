"""Sizes of tensors that depend on the values of data: how many boxes are found, how many entries a mask lets through.

So do numbers that something returns which is kept whole.

A forward that only computes with such tensors is followed like any other. One that turns such a size into a plain
number, compares it or goes through the rows one by one does something else for every image; what does so is kept whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from prunesearch.models.normalised import Operator
from prunesearch.models.numbers import Origin, Size


class SizesByData:
    """Which sizes of the tensors of a graph depend on the values of data.

    Of what is computed from such a tensor, the first dimension counts as one of them, and so does every dimension that
    is as large. That may be too many: it can only keep more whole than need be.
    """

    def __init__(self) -> None:
        self._dims: dict[fx.Node, frozenset[int]] = {}
        self._numbers: set[fx.Node] = set()

    def begin(self, node: fx.Node) -> None:
        """How large the value of a node is depends on data."""
        self._dims[node] = frozenset([0])

    def begin_number(self, node: fx.Node) -> None:
        """Data decide the number that a node gives."""
        self._numbers.add(node)

    def inherit(self, node: fx.Node) -> None:
        """A node was computed from others."""
        sources = [source for source in node.all_input_nodes if source in self._dims]
        if node.meta.get("number"):
            if sources or not self._numbers.isdisjoint(node.all_input_nodes):
                self._numbers.add(node)
        elif sources:
            sizes = {size for source in sources for size in self._sizes(source)}
            shape = node.meta.get("shape", ())
            self._dims[node] = frozenset([0, *(dim for dim, size in enumerate(shape) if size in sizes)])

    def _sizes(self, node: fx.Node) -> Iterator[int]:
        for shape in [node.meta["shape"]] if "shape" in node.meta else node.meta.get("shapes", []):
            yield from (shape[dim] for dim in self._dims[node] if dim < len(shape))

    def hold(self, origin: Origin | float) -> bool:
        """Whether a number is one of them, or computed of some."""
        if isinstance(origin, Size):
            return origin.dim in self._dims.get(origin.tensor, ())
        return isinstance(origin, fx.Node) and origin in self._numbers

    def are_counted(self, called: Operator, node: fx.Node) -> bool:
        """Whether an operator tells Python how many rows there are, such as by giving them one by one."""
        dims = self._dims.get(node, frozenset())
        if called.target == "__len__":
            return 0 in dims
        name = called.target if isinstance(called.target, str) else getattr(called.target, "__name__", "")
        given = called.kwargs.get("dim", called.args[1] if len(called.args) > 1 else 0)
        return name == "unbind" and given in dims
