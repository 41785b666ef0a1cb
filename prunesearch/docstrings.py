"""What docstrings say of arguments and fields: the one place from which help and documentation take it."""

from __future__ import annotations

import inspect
import re
from typing import Any

_SECTIONS = ("Args", "Attributes")


def meanings(docstring: str) -> dict[str, str]:
    """What the `Args:` or `Attributes:` of a Google docstring say, by name."""
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in docstring.splitlines():
        if re.fullmatch(r"[A-Z]\w+:", line):
            inside = line[:-1] in _SECTIONS
        elif inside and (match := re.match(r"    (\w+): (.*)", line)):
            name = match[1]
            found[name] = match[2]
        elif inside and name and line.startswith("        "):
            found[name] += f" {line.strip()}"
    return found


def field_meanings(kind: type[Any]) -> dict[str, str]:
    """What the docstrings of a dataclass and of those that it extends say of its fields."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        found |= meanings(inspect.cleandoc(each.__doc__ or ""))
    return found


def first_sentence(text: str) -> str:
    """The first sentence, without the quotes of code.

    Example:
        >>> first_sentence('Peak rate, as `"cosine"`. It falls.')
        'Peak rate, as `cosine`.'
    """
    return re.split(r"(?<=[.])\s+(?=[A-Z`])", text, maxsplit=1)[0].replace('"', "")
