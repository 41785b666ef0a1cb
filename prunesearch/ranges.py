"""Numbers that a caller gives, checked one by one: the sentence names the one that is wrong."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any


def whole_number(name: str, value: Any, *, at_least: int) -> int:
    """A whole number of any type, numpy's included, as an int.

    Args:
        name: What the caller calls it.
        value: What came.
        at_least: The smallest that there may be.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is smaller.

    Example:
        >>> whole_number("epochs", 2.5, at_least=1)
        Traceback (most recent call last):
        ...
        TypeError: Expected epochs as a whole number, got 2.5.
    """
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"Expected {name} as a whole number, got {value!r}.") from None
    if found < at_least:
        raise ValueError(f"Expected {name} >= {at_least}, got {value!r}.")
    return found


def number(name: str, value: Any, interval: str) -> float:
    """A finite number in an interval, written as mathematicians do: `"(0, 1]"`, or `"[0, inf)"`.

    Raises:
        TypeError: It is no number.
        ValueError: It is outside.

    Example:
        >>> number("lr", 0.0, "(0, inf)")
        Traceback (most recent call last):
        ...
        ValueError: Expected lr > 0, got 0.0.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"Expected {name} as a number, got {value!r}.")
    found = float(value)
    above = found > low if interval[0] == "(" else found >= low
    below = found < high if interval[-1] == ")" else found <= high
    if not (above and below and math.isfinite(found)):
        inside = f"in {interval}" if math.isfinite(high) else f"{'>' if interval[0] == '(' else '>='} {low:g}"
        raise ValueError(f"Expected {name} {inside}, got {value!r}.")
    return found
