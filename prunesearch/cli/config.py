"""The option `--config`: a TOML file whose keys are the flags.

Keys before the first table are for every command that knows them; those of a table, `[search]`, for that command.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import typer

from prunesearch.errors import InvalidInput
from prunesearch.registry import did_you_mean
from prunesearch.urls import described, redacted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NOT_OF_A_FILE = {"config", "help"}

RENAMED: Mapping[str, str] = {
    "--as-finished": "--asynchronous",
    "--augment": "--augmentation",
    "--elsewhere": "--remote",
    "--ignore": "--ignored-layers",
    "--latency-table": "--table",
    "--option": "--options; a setting of paam or manidp is a flag of its own, such as --share 0.5",
    "--save": "--out",
    "--tracker": "--trackers",
}
"""Options of earlier releases, and what they are called now."""

MEANT: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("--algorithm", "--method", "--strategy"), ("--searcher",)),
    **dict.fromkeys(("--architecture", "--arch", "--net", "--network"), ("--model",)),
    **dict.fromkeys(("--cuda", "--gpu"), ("--device",)),
    **dict.fromkeys(("--database", "--db", "--storage"), ("--study", "--folder")),
    **dict.fromkeys(("--dataset", "--data-set"), ("--data",)),
    **dict.fromkeys(("--flops", "--macs", "--params", "--target"), ("--budget",)),
    **dict.fromkeys(("--importance", "--ranking"), ("--criterion",)),
    **dict.fromkeys(("--jobs", "--n-jobs", "--processes"), ("--workers",)),
    "--learning-rate": ("--lr",),
    **dict.fromkeys(("--output", "--save-to"), ("--out", "--folder")),
    **dict.fromkeys(("--out", "--study", "--checkpoint"), ("--folder",)),
    "--data": ("--input",),  # all that `explain` and `latency` want to know of data
    **dict.fromkeys(("--pretrained", "--state-dict"), ("--weights",)),
    **dict.fromkeys(("--shape", "--input-shape"), ("--input",)),
}
"""Words that a command does not have as options, and what they may stand for; the first that it has counts."""


def use_config(context: typer.Context, file: Path | None) -> Path | None:
    """Let the values of a file stand where no flag is given.

    Raises:
        InvalidInput: The file is missing or no TOML, has a key that is no flag, or a value that no flag could have.
    """
    if file is not None and not context.resilient_parsing:  # a shell that completes has no place for sentences
        assert context.parent is not None  # commands are all below `prunesearch`
        commands = {name: _flags(command) for name, command in context.parent.command.commands.items()}  # type: ignore[attr-defined]
        context.default_map = _values(file, str(context.info_name), commands)
    return file


def _flags(command: Any) -> dict[str, Any]:
    """The options of a command by their names without dashes."""
    named = {name[2:]: option for option in command.params for name in option.opts if name.startswith("--")}
    return {name: option for name, option in named.items() if name not in _NOT_OF_A_FILE}


def _values(file: Path, command: str, commands: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a file says for one command, as its flags would have come: parameter names with text, lists of text or bool.

    All of the file is checked, also what is for others.
    """
    content = _parsed(file)
    tables = {key: value for key, value in content.items() if key in commands}
    shared = {_dashed(key): value for key, value in content.items() if key not in commands}
    everybody = {flag for flags in commands.values() for flag in flags}
    for key, value in shared.items():
        if key not in everybody:
            _refuse(file, key, isinstance(value, dict), [*everybody, *commands])
    found = {
        flag.name: _as_given(file, key, flag, shared[key]) for key, flag in commands[command].items() if key in shared
    }
    for table, entries in tables.items():
        if not isinstance(entries, dict):
            raise InvalidInput(
                f"{file}: {table} is a command; expected its flags below [{table}], got {_kind(entries)}."
            )
        for key, value in entries.items():
            flag = commands[table].get(_dashed(key))
            if flag is None:
                _refuse(file, key, False, commands[table], f" of {table}")
            given = _as_given(file, key, flag, value)
            if table == command:
                found[flag.name] = given
    return found


def _parsed(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InvalidInput(
            f"There is no config file {file}." if not file.exists() else f"{file} is a folder; expected a TOML file."
        )
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of too many digits, nested too deep
        raise InvalidInput(f'{file} is not valid TOML: {error}. Write it as: data = "digits".') from error


def _refuse(file: Path, key: str, is_table: bool, known: Any, whose: str = "") -> NoReturn:
    now = RENAMED.get(f"--{_dashed(key)}")
    meant = [option[2:] for option in MEANT.get(f"--{_dashed(key)}", ()) if option[2:] in known]
    if now is not None:
        hint = f" It is now {now.removeprefix('--')}."
    elif meant:
        hint = f" Did you mean {meant[0]!r}?"
    else:
        hint = did_you_mean(_dashed(key), known)
    key = redacted(key)
    what = f"[{key}] is no command" if is_table else f"{key} is no flag{whose}"
    raise InvalidInput(f"{file}: {what}.{hint}")


def _as_given(file: Path, key: str, flag: Any, value: Any) -> Any:
    """A value of TOML as the command line would have had it."""
    if flag.is_flag:
        if not isinstance(value, bool):
            raise InvalidInput(f"{file}: expected {key} = true or false, got {_kind(value)}.")
        return value
    if flag.multiple:
        entries = value if isinstance(value, (list, dict)) else [value]
        if not entries:
            raise InvalidInput(f"{file}: expected {key} with at least one entry, got none. Leave it out.")
        if isinstance(entries, dict):
            return [f"{name}={_text(file, key, entry, nested=True)}" for name, entry in entries.items()]
        return [_text(file, key, entry) for entry in entries]
    return _text(file, key, value)


def _text(file: Path, key: str, value: Any, *, nested: bool = False) -> str:
    if isinstance(value, str):
        return value
    if nested and isinstance(value, (bool, list)):
        try:
            return json.dumps(value)
        except (TypeError, ValueError, RecursionError):  # a date, say
            raise InvalidInput(f"{file}: expected {key} with text and numbers only.") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(f"{file}: expected {key} as text or a number, as the flag has it; got {_kind(value)}.")
    return str(value)


def _kind(value: object) -> str:
    """What TOML calls it; the value itself may be a URL with a password, with the brackets of a list around it."""
    return "a table" if isinstance(value, dict) else described(value)


def _dashed(key: str) -> str:
    return key.replace("_", "-")
