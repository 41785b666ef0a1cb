"""Write the tables of options in the documentation anew from the code.

    python docs/options.py           # rewrite
    python docs/options.py --check   # only say whether something is out of date (exit status 1)

A table stands between `<!-- options: package.module:Name -->` and `<!-- end -->`: the keyword arguments of a class or
function, or the fields of a settings dataclass, with their defaults and what its docstring says of them.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from prunesearch.docstrings import meanings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
_GIVEN = ("space", "budget", "network", "ranking", "images", "labels", "weights", "data", "examples")


def options(place: str) -> str:
    """The table of one class or function, named as `package.module:Name`."""
    module, _, name = place.partition(":")
    kind = getattr(importlib.import_module(module), name)
    said = meanings(inspect.getdoc(kind) or "")
    lines = ["| option | default | |", "|---|---|---|"]
    for option, default in defaults(kind).items():
        if option in said and option != "settings" and (default or option not in _GIVEN):
            lines.append(f"| `{option}` | {default} | {said[option].replace('|', chr(92) + '|')} |")
    return "\n".join(lines) if len(lines) > 2 else "It has no options."


def defaults(kind: Any) -> dict[str, str]:
    """The named arguments of a class or function, and their defaults as Markdown; required ones have none."""
    found = {}
    factories = {
        field.name: field.default_factory
        for field in (dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ())
        if field.default_factory is not dataclasses.MISSING
    }
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in factories:
            found[name] = f"`{factories[name]()!r}`"
        elif parameter.default is inspect.Parameter.empty:
            found[name] = ""
        else:
            found[name] = f"`{getattr(parameter.default, '__name__', repr(parameter.default))}`"
    return found


def render(text: str) -> str:
    """Return a page with every table between its marks written anew."""

    def replace(match: re.Match[str]) -> str:
        return f"<!-- options: {match[1]} -->\n\n{options(match[1])}\n\n<!-- end -->"

    return re.sub(r"<!-- options: ([\w.]+:\w+) -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main() -> int:
    """Rewrite every page, or check them."""
    stale = [page for page in PAGES if render(page.read_text()) != page.read_text()]
    for page in stale:
        if "--check" in sys.argv:
            sys.stderr.write(f"{page.name} is out of date; run: make readme\n")
        else:
            page.write_text(render(page.read_text()))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
