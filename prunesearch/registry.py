"""Names to objects: tables of `"package.module:attribute"` strings, resolved when used.

A literal table is greppable, imports nothing until asked, and needs no registration by side effect.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

_SHORT = 4
_NEAR, _NEAR_IF_SHORT = 0.75, 0.6
"""Least similarity of a name to one that was mistyped: `modle` has 0.8 to `model`, and `tbe` 0.67 to `tpe`."""


def resolve(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Return the object that `table` lists under `name`.

    Raises:
        ValueError: There is no such name; the message has the list and the nearest one.
    """
    check_name(table, name, kind)
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_name(table: Iterable[str], name: str, kind: str) -> None:
    """Make sure that a table has a name; imports nothing.

    Raises:
        ValueError: It has not; the message has the list and the nearest one.
    """
    known = list(table)
    if name not in known:
        raise ValueError(f"Unknown {kind} {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}")


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """A question with the names that a typing error may have made of another, or nothing if none is near.

    Example:
        >>> did_you_mean("populatoin", ["population", "parents"]), did_you_mean("population", ["exploration"])
        (" Did you mean 'population'?", '')
    """
    cutoff = _NEAR if len(name) > _SHORT else _NEAR_IF_SHORT
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def check_options(given: Mapping[str, Any], known: Mapping[str, Any], whose: str) -> None:
    """Make sure that options exist, and that numbers are given where their defaults are numbers.

    Args:
        given: Values by name.
        known: Defaults by name.
        whose: What they are options of.

    Raises:
        TypeError: One does not exist, or is text instead of a number; the message has the nearest name.
    """
    for name, value in given.items():
        if name not in known:
            raise TypeError(
                f"The {whose} has no option {name!r}; it has {', '.join(known) or 'none'}.{did_you_mean(name, known)}"
            )
        default = known[name]
        if isinstance(default, (int, float)) and isinstance(value, str):
            raise TypeError(f"Expected the option {name} of the {whose} as a number such as {default}, got {value!r}.")


def cached(kind: Callable[..., Any], cache: str | Path | None) -> dict[str, Any]:
    """`cache` as an argument for what takes one; nothing for what does not, or without a cache."""
    takes_one = cache is not None and "cache" in inspect.signature(kind).parameters
    return {"cache": cache} if takes_one else {}
