"""Files of tensors and a note about them: safetensors, with a checksum that notices any change. No pickle anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from prunesearch.errors import CheckpointError, PruneSearchError
from prunesearch.files import as_path, check_is_writable_file, whole
from prunesearch.models.fingerprint import bytes_in
from prunesearch.plain_json import parse

_MOST_BYTES = (
    1 << 30
)  # that a note may hold as text, and how long the text may be: safetensors takes 100 MB of metadata
_MOST_TEXT = 90_000_000
_HEADER = 10_000_000  # bytes of names and shapes
_KEY = "prunesearch"
"""Of the metadata; files of earlier versions have what is in it as keys of their own."""


@dataclass(frozen=True)
class FileKind:
    """One kind of safetensors file: tensors, a note in JSON, and a checksum of both.

    Attributes:
        format: Its name and version, in the metadata.
        note: Under which key of the metadata the note is.
        foreign: What is said of a file of another kind.
        foreign_advice: What to do then.
        damaged_advice: What to do with a damaged one.
    """

    format: str
    note: str
    foreign: str
    foreign_advice: str = ""
    damaged_advice: str = ""

    def write(self, tensors: Mapping[str, Tensor], note: str, path: Path) -> None:
        """Write tensors of the CPU and a note, whole or not at all.

        Raises:
            CheckpointError: There is no such folder, the path is one, the file cannot be written, or safetensors has no
                form for a tensor.
        """
        path = writable(path)
        about = {"format": self.format, self.note: note, "sha256": checksum(note, tensors)}
        metadata = {_KEY: json.dumps(about)}  # one key, as safetensors writes several in any order
        try:
            with whole(path) as draft:
                safetensors.torch.save_file(dict(tensors), draft, metadata)
        except KeyError as error:
            raise CheckpointError(f"{path} cannot be written: safetensors has no form for {error}.") from error
        except (OSError, safetensors.SafetensorError) as error:
            said = getattr(error, "strerror", None) or error
            raise CheckpointError(
                f"{path} cannot be written: {said}. Is there room in its folder, and may you write there?"
            ) from error

    def read(self, path: Path) -> tuple[Any, dict[str, Tensor]]:
        """The note, parsed, and the tensors.

        Raises:
            CheckpointError: The file is of another kind, or not what was written.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            if _KEY in metadata:
                metadata = dict(parse(metadata[_KEY]))
            if metadata.get("format") != self.format:
                raise CheckpointError(
                    f"{path} {self.foreign} (format {metadata.get('format')!r}, expected {self.format!r})."
                    f"{self.foreign_advice}"
                )
            if checksum(metadata[self.note], tensors) != metadata["sha256"]:
                raise CheckpointError(f"{path} is damaged: its contents are not what was written.{self.damaged_advice}")
            return parse(metadata[self.note]), tensors
        except CheckpointError:
            raise
        except Exception as error:  # of a file that somebody made there is no end of what can be wrong
            raise CheckpointError(
                f"{path} is damaged, or no safetensors file: {error}.{self.damaged_advice}"
            ) from error


@contextmanager
def content_of(path: Path) -> Iterator[None]:
    """While something is made of a file's content: whatever goes wrong is the file's fault, and the error names it.

    Raises:
        CheckpointError: Something did.
    """
    try:
        yield
    except (PruneSearchError, MemoryError):
        raise
    except Exception as error:
        said = f"{type(error).__name__} {error}".strip()
        raise CheckpointError(f"{path} is damaged: nothing can be made of what it holds ({said}).") from error


def writable(path: object) -> Path:
    """A path at which a file can be, whatever is there now.

    Raises:
        CheckpointError: It is a folder, or in none.
        TypeError: It is no path.
    """
    path = as_path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} cannot be written: it is a folder. Name a file in it.")
    try:
        check_is_writable_file(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    if not path.parent.is_dir():
        raise CheckpointError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    return path


def checksum(about: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash of everything in a file; safetensors itself would not notice a flipped bit."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(bytes_in(tensor))
    return digest.hexdigest()


def has_plain_values(tensor: Tensor) -> bool:
    """Whether its memory is its values, one after another or strided, as a file can hold them."""
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta or is_lazy(tensor))


def plain(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies on the CPU, laid out one value after another.

    Raises:
        CheckpointError: One is no tensor, or is one without plain values, as sparse, quantised and empty ones are.
    """
    check_plain(tensors)
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def check_plain(tensors: Mapping[str, Any]) -> None:
    """Make sure that a file can hold tensors.

    Raises:
        CheckpointError: It cannot; see `plain`.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{name} is a {type(tensor).__name__}; a file can only hold tensors.")
        if not has_plain_values(tensor):
            raise CheckpointError(f"{name} has no plain values, which is all that a file can hold.")


def as_text(tensors: Mapping[str, Tensor]) -> str:
    """Tensors as a part of a note, because as tensors of the file other readers would take them for its state.

    Raises:
        CheckpointError: They are too many for a note, or safetensors has no form for one.
    """
    if not tensors:
        return ""
    try:
        packed = zlib.compress(safetensors.torch.save(dict(tensors)), level=1)
    except KeyError as error:
        raise CheckpointError(f"Of {', '.join(tensors)}, one is of a type that no file can hold: {error}.") from error
    text = base64.b64encode(packed).decode()
    size = sum(tensor.nbytes for tensor in tensors.values())
    if len(text) > _MOST_TEXT or size > _MOST_BYTES:
        largest = max(tensors, key=lambda name: tensors[name].nbytes)
        raise CheckpointError(
            f"The buffers that are not persistent take {size / 1e6:,.0f} MB, more than a file has room for beside the "
            f"weights. Make {largest} persistent."
        )
    return text


def from_text(text: str, most: int) -> dict[str, Tensor]:
    """The inverse of `as_text`.

    Args:
        text: What it gave.
        most: How many bytes the tensors may have; a few letters can stand for gigabytes.

    Raises:
        ValueError: It is not what `as_text` gave, or more.
    """
    if not text:
        return {}
    try:
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(base64.b64decode(text, validate=True), most + _HEADER)
        if not unpacking.eof:
            raise ValueError("more tensors as text than the network has")
        return safetensors.torch.load(content)
    except (zlib.error, safetensors.SafetensorError) as error:
        raise ValueError(f"no tensors as text: {error}") from error
