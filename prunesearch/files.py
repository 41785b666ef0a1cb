"""Files that appear whole or not at all: written beside their place, then renamed, which is atomic within a folder.

And what their names must be like.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OTHER_FORMATS = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl", ".pt2", ".onnx", ".h5")


def as_path(path: object) -> Path:
    """A path as the caller gave it.

    Raises:
        TypeError: It is neither text nor a `Path`.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"Expected a path as text or pathlib.Path, got {type(path).__name__}.")
    return Path(path)


def safetensors_path(path: object) -> Path:
    """The path of a safetensors file that will be written.

    Names by which programs know another format are refused: `torch.load("net.pt")` of a safetensors file says that the
    file is damaged, and advises to let it run code.

    Raises:
        TypeError: It is no path.
        ValueError: Its name ends like that of another format.
    """
    path = as_path(path)
    if path.suffix.lower() in _OTHER_FORMATS:
        raise ValueError(
            f"Expected a name that ends in .safetensors, the format of the file, such as {path.stem}.safetensors; got "
            f"{path.name}, which other programs would read as another format."
        )
    return path


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
