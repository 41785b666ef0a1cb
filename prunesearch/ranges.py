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
        TypeError: Expected epochs as a whole number of at least 1, got 2.5.
    """
    expected = f"Expected {name} as a whole number of at least {at_least}, got {value!r}."
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(expected) from None
    if found < at_least:
        raise ValueError(expected)
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
        ValueError: Expected lr as a number above 0, got 0.0.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    expected = f"Expected {name} as a number {_in_words(interval, low, high)}, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(expected)
    found = float(value)
    above = found > low if interval[0] == "(" else found >= low
    below = found < high if interval[-1] == ")" else found <= high
    if not (above and below and math.isfinite(found)):
        raise ValueError(expected)
    return found


def _in_words(interval: str, low: float, high: float) -> str:
    if math.isfinite(high):
        return f"in {interval}"
    return f"above {low:g}" if interval[0] == "(" else f"of at least {low:g}"
