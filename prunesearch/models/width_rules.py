"""Which widths a group may take: multiples, minima, and exceptions by the names of layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any, TypeVar

from torch import nn

from prunesearch.registry import did_you_mean

Number = TypeVar("Number", int, float)
_SOME = 5
"""How many modules a message names."""


@dataclass(frozen=True)
class WidthRules:
    """What hardware wants of kept widths; see `models.trace.trace`.

    Attributes:
        round_to: Glob of layers to the number that widths are multiples of; the first that matches counts.
        min_channels: Glob of layers to the narrowest width, as a count or as a fraction.
    """

    round_to: Mapping[str, int]
    min_channels: Mapping[str, int | float]

    def widths(self, width: int, unit: int, layers: Iterable[tuple[str, int]]) -> tuple[int, ...]:
        """Allowed widths of a group; if the layers that produce its channels want different things, all of it.

        Args:
            width: Of the whole group.
            unit: How much each unit of the group counts in it.
            layers: (name, channels that it makes of each unit) of the layers: they may make more or fewer than `unit`.
        """
        units, made = width // unit, list(layers)
        steps = [(_first_match(self.round_to, name, 1), channels) for name, channels in made]
        step = math.lcm(*(multiple // math.gcd(multiple, channels) for multiple, channels in steps))
        minima = [(_first_match(self.min_channels, name, 1), channels) for name, channels in made]
        least = max((math.ceil(_least(rule, units * channels) / channels) for rule, channels in minima), default=1)
        kept = (*range(step * max(1, math.ceil(least / step)), units, step), units)
        return tuple(unit * number for number in kept)


def width_rules(model: nn.Module, round_to: Any, min_channels: Any) -> WidthRules:
    """Check what the caller said.

    Raises:
        ValueError: A number is out of range, or a glob matches no module.
    """
    steps = round_to if isinstance(round_to, Mapping) else {"*": round_to}
    minima = min_channels if isinstance(min_channels, Mapping) else {"*": min_channels}
    for step in steps.values():
        if not isinstance(step, int) or isinstance(step, bool) or step < 1:
            raise ValueError(f"Expected round_to as an integer >= 1, got {step!r}.")
    for least in minima.values():
        upper = 1 if isinstance(least, float) else math.inf
        if not isinstance(least, (int, float)) or not 0 < least <= upper:
            raise ValueError(f"Expected min_channels as a count >= 1 or a fraction in (0, 1], got {least!r}.")
    check_globs(model, "round_to", steps)
    check_globs(model, "min_channels", minima)
    return WidthRules(steps, minima)


def check_globs(model: nn.Module, option: str, patterns: Iterable[str]) -> None:
    """Refuse a glob that matches no module: it is more likely misspelt than meant.

    Raises:
        ValueError: There is one.
    """
    names = [name for name, _ in model.named_modules() if name]
    for pattern in patterns:
        if pattern != "*" and not any(fnmatchcase(name, pattern) for name in names):
            hint = (
                did_you_mean(pattern, names) or f" It has {', '.join(names[:_SOME])}{', ...' * (len(names) > _SOME)}."
            )
            raise ValueError(f"{option}: no module of {type(model).__name__} matches {pattern!r}.{hint}")


def is_inside(name: str, pattern: str) -> bool:
    """Whether a module, or one that it is in, has a name that the glob matches."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))


def _first_match(rules: Mapping[str, Number], name: str, default: Number) -> Number:
    return next((value for pattern, value in rules.items() if is_inside(name, pattern)), default)


def _least(rule: int | float, width: int) -> int:
    if isinstance(rule, int):
        return rule
    return math.ceil(Fraction(str(float(rule))) * width)  # 7% of 100 is 7; in floats it is more
