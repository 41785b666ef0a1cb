"""The command that usually follows another, ready to copy."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesearch.cli.arguments import NOBODY, entry_of

if TYPE_CHECKING:
    from prunesearch.cli.values import Images, Model
    from prunesearch.result import SearchResult


def next_command(result: SearchResult, model: Model, images: Images, url: str, out: Path | None) -> str:
    """After a search: finetune what it wrote; if it wrote nothing, write it, for which nothing is scored again.

    Args:
        result: What was found.
        model: The network that was named.
        images: The data.
        url: Of the database.
        out: What was written.
    """
    from prunesearch.study.database import show

    if out is None:
        return "the same command again with --out small.safetensors, to write the network; nothing is scored again."
    network, study = words_of(model, whole_paths=True), ["--study", show(url), "--study-name", result.name]
    tuned = out.with_name(f"{out.stem}-tuned{out.suffix}")
    data = words_of(images, whole_paths=True)
    return shlex.join(["prunesearch", "finetune", *network, "--pruned", str(out), *data, *study, "--out", str(tuned)])


def words_of(*values: Any, whole_paths: bool = False) -> list[str]:
    """The options of a command for dataclasses of options, as far as they differ from their defaults.

    Args:
        values: The dataclasses.
        whole_paths: Whether to say where files are. What others may read has only their names, if the folder would say
            where somebody keeps things.
    """
    words: list[str] = []
    for value in values:
        for each in fields(value):
            given, option = getattr(value, each.name), f"--{each.name.replace('_', '-')}"
            usual = each.default_factory() if each.default_factory is not MISSING else each.default
            if given is None or given == usual:
                continue
            if isinstance(given, bool):
                words.append(option if given else f"--no-{option[2:]}")
            elif isinstance(given, Mapping):
                words += [word for name, one in given.items() for word in (option, entry_of(name, one))]
            elif given == ():
                words += [option, NOBODY]
            else:
                words += [word for one in _several(given) for word in (option, _text(one, whole_paths))]
    return words


def _several(given: Any) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else (given,)


def _text(given: Any, whole_paths: bool) -> str:
    """A value as it is typed."""
    return given.name if isinstance(given, Path) and given.is_absolute() and not whole_paths else str(given)
