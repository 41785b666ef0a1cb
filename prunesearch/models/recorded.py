"""What is known of a forward that was followed, and what it was called with.

`recording.py` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, TypeAlias

from torch import Tensor, fx, nn

from prunesearch.models.nested import mapped, tensors_in
from prunesearch.models.numbers import Origin, Size

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
            of what it calls; `autocast`, if it ran under another state of it than the forward began with;
            `untracked`, whether it ran in training mode with gradients off; `drawn`, whether it is of torch's random
            numbers; `parameter`, whether a tensor of the model is one.
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
        stores: Whether it left something in the attributes of modules, such as a count of its runs.
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
    stores: bool = False

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
