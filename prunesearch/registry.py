"""Names to objects: tables of `"package.module:attribute"` strings, resolved when used.

A literal table is greppable, imports nothing until asked, and needs no registration by side effect. Installed packages
add names by entry points, which are such strings, too.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from prunesearch.user_files import file_of

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


@dataclass(frozen=True)
class Registry:
    """The names of one kind of thing: the package's own, then those that installed packages add by entry points.

    What is installed while a notebook runs is found. None of the packages is imported for that.

    Attributes:
        kind: What they are, in sentences.
        group: The group of entry points that adds names.
        own: The package's own names.
    """

    kind: str
    group: str
    own: Mapping[str, str]

    def names(self) -> list[str]:
        """Every name, the package's own first. Nothing of what they stand for is imported."""
        added = {entry.name for entry in _entry_points(self.group)}
        return [*self.own, *sorted(added - self.own.keys())]

    def find(self, name: str) -> Any:
        """What a name stands for, or what `"package.module:attribute"` or `"path/to/file.py:attribute"` is.

        Raises:
            ValueError: There is no such name, and the message has the list and the nearest one; two packages have the
                same name; or it cannot be imported.
        """
        entry = self._added(name)
        if entry is not None:
            return _loaded(entry, self.kind)
        if name in self.own:
            return resolve(self.own, name, self.kind)
        if ":" in name:
            return _attribute(name, self.kind)
        known = self.names()
        raise ValueError(
            f"Unknown {self.kind} {name!r}; there are {', '.join(known)}, or package.module:attribute."
            f"{did_you_mean(name, known)}"
        )

    def check(self, name: str) -> None:
        """Make sure that a name stands for something; the package's own are not imported for that.

        Raises:
            ValueError: As `find` does.
        """
        if self._added(name) is not None or name not in self.own:
            self.find(name)

    def has(self, name: str) -> bool:
        """Whether it is a name, the package's own or an added one."""
        return name in self.names()

    def _added(self, name: str) -> EntryPoint | None:
        """The entry point of a name, if there is one; a name that means two things is refused."""
        found = [entry for entry in _entry_points(self.group) if entry.name == name]
        if name in self.own and found:
            raise ValueError(
                f"The {self.kind} {name!r} of the distribution {_distribution(found[0])} has the name of one of "
                "prunesearch's own. Uninstall that package, or ask its authors for another name."
            )
        if len(found) > 1:
            places = " or ".join(repr(entry.value) for entry in found)
            raise ValueError(
                f"The {self.kind} {name!r} comes from the distributions {' and '.join(map(_distribution, found))}. Say "
                f"which is meant: {places}."
            )
        return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """A question with the names that a typing error may have made of another, or nothing if none is near.

    Example:
        >>> did_you_mean("populatoin", ["population", "parents"]), did_you_mean("population", ["exploration"])
        (" Did you mean 'population'?", '')
    """
    cutoff = _NEAR if len(name) > _SHORT else _NEAR_IF_SHORT
    lowered: dict[str, str] = {}
    for each in known:
        lowered.setdefault(each.lower(), each)
    near = [lowered[each] for each in difflib.get_close_matches(name.lower(), list(lowered), n=most, cutoff=cutoff)]
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


def parameters_of(maker: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of what makes an object; none are known of what is not written in Python."""
    try:
        return inspect.signature(maker).parameters
    except (TypeError, ValueError):
        return {}


def cached(kind: Callable[..., Any], cache: str | Path | None) -> dict[str, Any]:
    """`cache` as an argument for what takes one; nothing for what does not, or without a cache."""
    takes_one = cache is not None and "cache" in parameters_of(kind)
    return {"cache": cache} if takes_one else {}


def _entry_points(group: str) -> Iterable[EntryPoint]:
    """The entry points of a group."""
    return _of_group(_places(), group)


@lru_cache(maxsize=32)
def _of_group(places: tuple[tuple[str, int], ...], group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, sorted, as file systems list packages in any order.

    To look through those of all packages takes milliseconds.
    """
    return tuple(sorted(_of_all_packages(places).select(group=group), key=lambda entry: (entry.name, entry.value)))


@lru_cache(maxsize=1)
def _of_all_packages(places: tuple[tuple[str, int], ...]) -> Any:
    """The entry points of all packages. To read them takes tens of milliseconds, and a search asks often.

    Args:
        places: Where packages are, and when something was installed there last; after that they are read again.
    """
    del places
    return entry_points()


def _places() -> tuple[tuple[str, int], ...]:
    return tuple((entry, os.stat(entry or ".").st_mtime_ns) for entry in sys.path if os.path.exists(entry or "."))


def _loaded(entry: EntryPoint, kind: str) -> Any:
    """What an entry point stands for."""
    try:
        return entry.load()
    except Exception as error:  # the code of another package may raise anything
        raise ValueError(
            f"The {kind} {entry.name!r} of the distribution {_distribution(entry)} cannot be imported from "
            f"{entry.value}: {_said(error)}. Repair or uninstall that package."
        ) from error


def _distribution(entry: EntryPoint) -> str:
    return "of unknown name" if entry.dist is None else entry.dist.name


def _attribute(place: str, kind: str) -> Any:
    """What stands at `package.module:attribute` or `path/to/file.py:attribute`."""
    where, _, name = place.rpartition(":")
    if not where or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"Expected the {kind} as a name or as package.module:attribute, got {place!r}.")
    module = _module(where, place, kind)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{where} has no {name!r} to take as the {kind}.{did_you_mean(name, vars(module))}")
        found = getattr(found, part)
    return found


def _module(where: str, place: str, kind: str) -> ModuleType:
    if where.endswith(".py"):
        if not Path(where).is_file():
            raise ValueError(f"There is no file {where!r} to take the {kind} {place!r} from.")
        return file_of(Path(where), place)
    try:
        return importlib.import_module(where)
    except Exception as error:  # the caller's own code may raise anything
        missing = isinstance(error, ModuleNotFoundError) and f"{where}.".startswith(f"{error.name}.")
        if missing or not all(part.isidentifier() for part in where.split(".")):
            raise ValueError(
                f"There is no module {where!r} to take the {kind} {place!r} from. Install its package, or be in the "
                "folder that has it."
            ) from error
        raise ValueError(f"The {kind} {place!r} cannot be imported: {_said(error)}.") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".")
