"""Names to objects: tables of `"package.module:attribute"` strings, resolved when used.

A literal table is greppable, imports nothing until asked, and needs no registration by side effect.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def resolve(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Return the object that `table` lists under `name`.

    Raises:
        ValueError: There is no such name; the message has the list and the nearest one.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown {kind} {name!r}; there are {', '.join(table)}.{hint}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


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
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"The {whose} has no option {name!r}; it has {', '.join(known) or 'none'}.{hint}")
        default = known[name]
        if isinstance(default, (int, float)) and isinstance(value, str):
            raise TypeError(f"Expected the option {name} of the {whose} as a number such as {default}, got {value!r}.")


def cached(kind: Callable[..., Any], cache: str | Path | None) -> dict[str, Any]:
    """`cache` as an argument for what takes one; nothing for what does not, or without a cache."""
    takes_one = cache is not None and "cache" in inspect.signature(kind).parameters
    return {"cache": cache} if takes_one else {}
