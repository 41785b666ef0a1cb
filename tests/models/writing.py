"""A class of modules while it is written as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SIZE = 6
"""Height and width of the images, which no piece changes."""


@dataclass
class Code:
    """A class of modules while it is written; its forward turns `h` of (n, channels, SIZE, SIZE) into another.

    Attributes:
        choose: One of several options.
        channels: Of `h` so far.
        init: Lines of the constructor.
        lines: Lines of the forward.
        flags: Attributes that are False, and may be set at any time.
        methods: Lines of further methods.
        traits: What is special about the network: "bfloat16", "functional norm", "draws", and "no gradients", with
            which torch refuses its training mode.
        used: How many names were given.
    """

    choose: Callable[..., Any]
    channels: int
    init: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    traits: set[str] = field(default_factory=set)
    used: int = 0

    def name(self, kind: str) -> str:
        """A name that is not taken."""
        self.used += 1
        return f"{kind}{self.used}"

    def layer(self, kind: str, made: str) -> str:
        """Give the module a submodule; its name."""
        name = self.name(kind)
        self.init.append(f"self.{name} = {made}")
        return f"self.{name}"

    def write(self, *lines: str) -> None:
        """Append to the forward."""
        self.lines.extend(lines)

    def conv(self, outputs: int, inputs: int | None = None) -> str:
        """A new convolution."""
        return self.layer("conv", f"nn.Conv2d({inputs or self.channels}, {outputs}, 3, padding=1)")

    def number(self, value: int) -> str:
        """A number in some notation: a literal, an expression of literals, a name, or an attribute."""
        how = self.choose("literal", "product", "name", "attribute", "item")
        if how == "product" and value % 2 == 0:
            return f"2 * {value // 2}"
        if how in ("name", "attribute", "item"):
            name = self.name("k")
            if how == "name":
                self.write(f"{name} = {value}")
                return name
            self.init.append(f"self.{name} = {value}" if how == "attribute" else f"self.{name} = (1, {value})")
            return f"self.{name}" + "[1]" * (how == "item")
        return str(value)

    def method(self, kind: str, parameters: str, *lines: str, decorator: str = "") -> str:
        """Give the class a method; its name."""
        name = self.name(kind)
        self.methods += [
            *([decorator] if decorator else []),
            f"def {name}({parameters}):",
            *(f"    {x}" for x in lines),
            "",
        ]
        return f"self.{name}"
