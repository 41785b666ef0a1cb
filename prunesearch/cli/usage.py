"""What is said of a call that cannot be read: what was expected, what came, what to do.

What typer says itself leaves out what came, or names no command to ask for help.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import typer

from prunesearch.cli.commands import PANELS, made
from prunesearch.cli.config import MEANT, RENAMED
from prunesearch.registry import did_you_mean
from prunesearch.urls import redacted

_DASHES = "\u2013\u2014"
UsageError: Any = typer.BadParameter.__base__  # of click, or of what newer releases of typer have instead of it


def told(error: Any, given: Sequence[str]) -> str:
    """A sentence about a call that typer refused, and where to read more. It shows no password.

    Args:
        error: A `UsageError` of typer.
        given: All that was given, the name of the command first.
    """
    name = given[0] if given and given[0] in PANELS else None
    command = None if name is None else made(name)
    said = _said(error, command, given)
    where = "prunesearch" if name is None else f"prunesearch {name}"
    return f"{said}{'' if said.endswith(('?', '.')) else '.'} See: {where} --help"


def _said(error: Any, command: Any, given: Sequence[str]) -> str:
    option, message = getattr(error, "option_name", None), error.format_message().rstrip(".")
    if option is not None and option in RENAMED:
        return f"{option} is now {RENAMED[option]}"
    if option is not None and hasattr(error, "possibilities"):
        return redacted(_unknown(option, command), given)
    if command is not None and option is not None and "requires an argument" in message:
        called = next((each.metavar for each in command.params if option in each.opts), None) or "VALUE"
        return f"Expected a value after {option}, as in {option} {called}; got none"
    if command is not None and type(error).__name__ == "MissingParameter":
        missing = error.param.opts[0]
        meant = _of_a_dash(given) or _meant(missing, command, given)
        return f"Missing option '{missing}': {error.param.help}{redacted(meant, given)}"
    if command is not None and message.startswith("Got unexpected extra"):
        said = f"Expected each value after its option, got {_stray(command, given)!r} without one"
        return redacted(f"{said}{_of_a_dash(given, '.')}", given)
    return redacted(message, given)


def _unknown(option: str, command: Any) -> str:
    """An option that there is not, and the one that is meant."""
    if command is None:
        return f"No such option: {option}. Options follow a command, as in prunesearch explain --model zoo:resnet20"
    known = {name for each in command.params for name in each.opts}
    meant = [each for each in MEANT.get(option, ()) if each in known]
    hint = f" Did you mean {meant[0]}?" if meant else did_you_mean(option, known).replace("'", "")
    return f"No such option: {option}.{hint}"


def _of_a_dash(given: Sequence[str], before: str = "") -> str:
    """A question, if an option begins with a dash, into which word processors turn two hyphens."""
    word = next((word for word in given if word[:1] in _DASHES), None)
    return "" if word is None else f"{before} Did you mean --{word.lstrip(_DASHES + '-')}, with two hyphens?"


def _meant(missing: str, command: Any, given: Sequence[str]) -> str:
    """A question, if a value was given that may be the missing one's."""
    stray = _stray(command, given)
    return "" if stray is None else f" Did you mean {missing} {stray}?"


def _stray(command: Any, given: Sequence[str]) -> str | None:
    """The first word after the command that is neither an option nor the value of one."""
    taking = {name for each in command.params if not getattr(each, "is_flag", False) for name in each.opts}
    return next((word for before, word in pairwise(given) if not word.startswith("-") and before not in taking), None)
