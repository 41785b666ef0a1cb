"""Files that appear whole or not at all: written beside their place, then renamed, which is atomic within a folder."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a draft to write to, of the same suffix; it replaces the file at the end, and is gone after an error."""
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a text in UTF-8, whole or not at all.

    Args:
        path: The file; an existing one is replaced.
        text: What it will hold.
        errors: What becomes of characters that UTF-8 does not have, as in `str.encode`.
    """
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8", errors=errors)


def remove_drafts(path: Path) -> None:
    """Remove what kills in the middle of writes left beside a file; only for who alone writes it."""
    for left in path.parent.glob(f".*.{glob.escape(path.name)}"):
        if left.name.removesuffix(path.name).strip(".").isdigit():
            left.unlink(missing_ok=True)
