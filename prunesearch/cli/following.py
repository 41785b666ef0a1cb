"""The command that usually follows another, ready to copy."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    network, study = words_of(model), ["--study", show(url), "--study-name", result.name]
    tuned = out.with_name(f"{out.stem}-tuned{out.suffix}")
    words = ["prunesearch", "finetune", *network, "--pruned", str(out), *words_of(images), *study, "--out", str(tuned)]
    return shlex.join(words)


def words_of(value: Any) -> list[str]:
    """The options of a command for a value of `values.py`, as far as it differs from its defaults."""
    words: list[str] = []
    for each in fields(value):
        given, option = getattr(value, each.name), f"--{each.name.replace('_', '-')}"
        if given is None or given == each.default:
            continue
        if isinstance(given, bool):
            words.append(option if given else f"--no-{option[2:]}")
            continue
        for one in given if isinstance(given, tuple) else (given,):
            words += [option, str(one)]
    return words
