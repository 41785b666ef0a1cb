"""Options of a command from the fields of dataclasses, so that Python, flags and config files have the same words.

A command is a function of a few values, each a frozen dataclass: a public one such as `Scoring`, or one of
`values.py`. `command` makes of it what typer runs: an option for each field. The field gives its name (`n_trials` is
`--n-trials`), its type and its default, and the docstring of the dataclass says what it means. What is particular to a
shell stands in a `Flag`: what the value is called, what None means, and to what a shell completes.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from prunesearch.cli.arguments import named_options, number_of
from prunesearch.cli.completion import one_of
from prunesearch.contracts import Contract
from prunesearch.docstrings import field_meanings, first_sentence

_PLAIN = {"bool": bool, "int": int, "float": float, "str": str, "Path": Path}
_REPEATED = ("tuple", "list", "Sequence", "Mapping")


@dataclass(frozen=True, kw_only=True)
class Flag:
    """What the help and the completion of an option say beside its field.

    Attributes:
        metavar: What the value is called.
        unset: What it means if the option is not given and its default is None.
        complete: Completes the value in a shell.
        role: The role whose names are taken; they are listed in the help, and completed.
        shown: By name of the role what the help lists instead.
        minimum: The smallest number.
        check: Given the option with its dashes and the value, raises ValueError where that is wrong; before the
            dataclass is made.
        parse: Makes a value of the text, or of the list of texts, that was given.
        callback: Called with the value before the command runs.
        needs_no: Whether there is a `--no-...`; without one the option can only be given.
    """

    metavar: str | None = None
    unset: str = ""
    complete: Callable[..., list[str]] | None = None
    role: Contract | None = None
    shown: Mapping[str, str] = field(default_factory=dict)
    minimum: int | None = None
    check: Callable[[str, Any], None] | None = None
    parse: Callable[[Any], Any] | None = None
    callback: Callable[..., Any] | None = None
    needs_no: bool = True


@dataclass(frozen=True)
class Group:
    """How the fields of a dataclass are options of a command; an annotation of a parameter.

    Attributes:
        panel: The panel of the help that they are in.
        without: Fields that are no options, with the reason.
        named: Fields whose options have another name, with that name.
        unset: What None means in this command, by field.
        metavars: What the value is called in this command, by field.
    """

    panel: str
    without: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    unset: Mapping[str, str] = field(default_factory=dict)
    metavars: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """A field as an option of a command.

    Attributes:
        field: The field.
        name: Of the option, with underscores.
        parameter: What typer makes an option of.
        read: Makes a value of the field of what typer has read.
    """

    field: str
    name: str
    parameter: inspect.Parameter
    read: Callable[[Any], Any]


def command(
    function: Callable[..., None],
    flags: Mapping[str, Flag],
    always: tuple[inspect.Parameter, ...] = (),
    check: Callable[[Mapping[str, Any]], None] = lambda given: None,
) -> Callable[..., None]:
    """What typer runs for a function of dataclasses.

    Args:
        function: Its parameters are annotated as `Annotated[a dataclass, Group(...)]`; its docstring is the help.
        flags: By the name of an option what its help says beside the field.
        always: Further options, which are not for the function.
        check: Given all values by the names of their options, raises ValueError where they do not go together.

    Raises:
        ValueError: Two fields would be the same option.
    """
    groups = groups_of(function)
    options = {name: options_of(kind, group, flags) for name, (kind, group) in groups.items()}

    def run(**given: Any) -> None:
        values = {name: _value(kind, options[name], given) for name, (kind, _) in groups.items()}
        check(given)
        function(**values)

    parameters = [option.parameter for group in options.values() for option in group]
    signature = inspect.Signature([*parameters, *always])  # refuses a name that is there twice
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__doc__, run.__name__, run.__annotations__ = function.__doc__, function.__name__, {}
    return run


def groups_of(function: Callable[..., None]) -> dict[str, tuple[type[Any], Group]]:
    """The dataclass and the group of each parameter of a command."""
    hints = get_type_hints(function, include_extras=True)
    annotated = {name: get_args(hint) for name, hint in hints.items() if name != "return"}
    return {name: (kind, group) for name, (kind, group) in annotated.items()}


def options_of(kind: type[Any], group: Group, flags: Mapping[str, Flag]) -> list[Option]:
    """The options of a dataclass, in the order of its fields, those that must be given first."""
    said = field_meanings(kind)
    fields = [each for each in dataclasses.fields(kind) if each.name not in group.without]
    found = []
    for each in sorted(fields, key=lambda each: not _is_required(each)):
        name = group.named.get(each.name, each.name)
        usual = flags.get(name, Flag())
        unset, metavar = group.unset.get(each.name, usual.unset), group.metavars.get(each.name, usual.metavar)
        flag = dataclasses.replace(usual, unset=unset, metavar=metavar)
        found.append(_option(kind, each, name, flag, group.panel, first_sentence(said.get(each.name, ""))))
    return found


def _option(kind: type[Any], own: dataclasses.Field[Any], name: str, flag: Flag, panel: str, meaning: str) -> Option:
    value, is_repeated = _type_of(str(own.type))
    default = inspect.Parameter.empty if _is_required(own) else _default(own, is_repeated)
    dashed = name.replace("_", "-")
    is_number = value in (int, float)
    if is_number:  # read by `number_of`: typer does not say what was given instead of a number
        value, default = str, str(default) if isinstance(default, (int, float)) else default
    is_switch = value is bool and flag.needs_no
    info = typer.Option(
        f"--{dashed}/--no-{dashed}" if is_switch else f"--{dashed}",
        help=_help(meaning, flag, is_repeated),
        rich_help_panel=panel,
        metavar=_metavar(flag, is_number),
        autocompletion=flag.complete or _completion(kind, own, flag),
        show_default=_shown_default(default, flag),
        callback=flag.callback,
    )
    annotation: Any = Annotated[_annotation(value, is_repeated, default), info]
    parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    return Option(own.name, name, parameter, partial(_read, own, f"--{dashed}", flag))


def _metavar(flag: Flag, is_number: bool) -> str | None:
    """What a value is called, with the smallest one."""
    called = flag.metavar or ("N" if is_number else None)
    return called if flag.minimum is None else f"{called} [x>={flag.minimum}]"


def _annotation(value: type[Any], is_repeated: bool, default: Any) -> Any:
    if is_repeated:
        return list[value] | None  # type: ignore[valid-type]
    return value | None if default is None else value


def _is_required(own: dataclasses.Field[Any]) -> bool:
    return own.default is dataclasses.MISSING and own.default_factory is dataclasses.MISSING


def _type_of(annotation: str) -> tuple[type[Any], bool]:
    """What typer reads for a field, by the first kind of value that it takes, and whether the option is repeatable."""
    first = annotation.partition(" | ")[0]
    outer, _, inner = first.partition("[")
    if outer in _REPEATED:
        return _PLAIN.get(inner.rstrip("]").partition(",")[0], str) if outer != "Mapping" else str, True
    return _PLAIN.get(first, str), False


def _default(own: dataclasses.Field[Any], is_repeated: bool) -> Any:
    """The default of the option; None where a shell cannot have it, which leaves the field to the dataclass."""
    return None if is_repeated or own.default is dataclasses.MISSING else own.default


def _shown_default(default: Any, flag: Flag) -> bool | str:
    """Whether the help shows a default, or what in its place; it does where that says something."""
    if default is None:
        return flag.unset or False
    return default is not False and default is not inspect.Parameter.empty


def _completion(kind: type[Any], own: dataclasses.Field[Any], flag: Flag) -> Callable[[str], list[str]] | None:
    """Completes the names of a role, or the words of a `Literal`."""
    if flag.role is not None:
        return one_of(flag.role.names.names())
    named = getattr(sys.modules[kind.__module__], str(own.type).partition(" | ")[0], None)
    return one_of(get_args(named)) if get_origin(named) is Literal else None


def _help(meaning: str, flag: Flag, is_repeated: bool) -> str:
    text = meaning.removesuffix(".")
    if flag.role is not None:
        names = [flag.shown.get(name, name) for name in flag.role.names.names()]
        text += f": {', '.join(names)}, package.module:attribute or path/to/file.py:attribute"
    return f"{text}{'; repeatable' if is_repeated and not text.endswith('repeatable') else ''}."


def _value(kind: type[Any], options: list[Option], given: Mapping[str, Any]) -> Any:
    """The dataclass of what was given; what was not is left to its defaults."""
    values = {option.field: given[option.name] for option in options}
    read = {option.field: option.read for option in options}
    return kind(**{name: read[name](value) for name, value in values.items() if value not in (None, [])})


def _read(own: dataclasses.Field[Any], dashed: str, flag: Flag, value: Any) -> Any:
    kind, _ = _type_of(str(own.type))
    if kind in (int, float):
        each = partial(number_of, dashed, whole=kind is int, at_least=flag.minimum)
        value = [each(text) for text in value] if isinstance(value, list) else each(value)
    if flag.check is not None:
        flag.check(dashed, value)
    if flag.parse is not None:
        return flag.parse(value)
    if str(own.type).startswith("Mapping"):
        return named_options(dashed, value)
    return tuple(value) if isinstance(value, list) else value
