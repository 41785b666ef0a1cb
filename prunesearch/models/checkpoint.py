"""Reading weight files: safetensors, or state dicts that torch loads without running code."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import le
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from prunesearch.errors import CheckpointError
from prunesearch.files import as_path
from prunesearch.models.tensor_file import has_plain_values
from prunesearch.models.wrappers import unwrapped

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_WRAPPED = ("module", "_orig_mod")  # what DataParallel and torch.compile put into names, wherever the wrapped part is
_SHOWN = 4
_LONGEST = 300  # letters of what torch says, which may quote the whole file


@dataclass(frozen=True)
class _Reading:
    """One way to read the names of a file.

    Attributes:
        names: The name that is meant by each name of the file; None where the prefix is not there.
        without: What is left out of the names; empty if nothing is.
    """

    names: Mapping[str, str | None]
    without: str = ""

    def problems(self, expected: Mapping[str, Tensor]) -> list[str]:
        """Which tensors there are in the file or in the model only."""
        meant = set(self.names.values())
        missing = [f"missing {name}" for name in expected if name not in meant and not _is_counter(name)]
        return missing + [f"unexpected {name}" for name, read in self.names.items() if read not in expected]


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a public checkpoint into a model, in place; on any error the model is as it was.

    Understands safetensors, under any name, and torch files read with `weights_only=True`: a bare state dict or one
    wrapped as `{"state_dict": ...}` (also `model`, `net`, `model_state_dict`). Names need not be those of the model if
    they are so without a prefix that all have (`module.` of `DataParallel`, `_orig_mod.` of `torch.compile`, `model.`
    of Lightning, or any other), or without the `module` and `_orig_mod` of parts that were wrapped. If they fit as they
    are, nothing is left out.

    Args:
        model: A network whose parameter names and shapes are those of the file. Of a wrapped one, the network inside
            gets the weights.
        path: The file.

    Raises:
        CheckpointError: No such file, damaged, holding code, or of another network; the message says which names or
            shapes differ, and without which prefix.
        TypeError: Something else than a network or a path was given.
    """
    path, network = as_path(path), unwrapped(model)
    content = _unwrap(_read(path), path)
    expected = network.state_dict()
    reading = min(_readings(list(content)), key=lambda reading: len(reading.problems(expected)))
    problems = reading.problems(expected)
    state = {read: content[name] for name, read in reading.names.items() if read in expected}
    problems += [
        f"{name} is {tuple(state[name].shape)}, the model has {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems += [
        f"{name} is of type {state[name].dtype}, the model has {tensor.dtype}"
        for name, tensor in expected.items()
        if name in state and tensor.is_floating_point() and not state[name].is_floating_point()
    ]
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        even = f", even without {reading.without!r} in its names" if reading.without else ""
        pruned = " If it is of a pruned network, prunesearch.load reads it, and --pruned."
        raise CheckpointError(
            f"{path} is not of {type(network).__name__}{even}: {'; '.join(problems[:_SHOWN])}{more}."
            f"{pruned if _is_narrower(state, expected) else ''}"
        )
    network.load_state_dict({**expected, **_converted(state, expected, path)})


def _is_narrower(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether every tensor of a model is there, none of them larger, and those of several modules smaller."""
    pairs = {name: (state[name].shape, tensor.shape) for name, tensor in expected.items() if name in state}
    smaller = {name.rpartition(".")[0] for name, (own, wanted) in pairs.items() if own != wanted}
    fits = all(len(own) == len(wanted) and all(map(le, own, wanted)) for own, wanted in pairs.values())
    return fits and len(pairs) == len(expected) and len(smaller) > 1


def _readings(names: Sequence[str]) -> Iterator[_Reading]:
    """As they are; without the names of wrappers; each without the prefixes that most names have."""
    bare = {name: ".".join(part for part in name.split(".") if part not in _WRAPPED) for name in names}
    for base, without in ((dict(zip(names, names, strict=True)), ""), (bare, _left_out(bare))):
        if len(set(base.values())) < len(base):
            continue  # two tensors would get one name
        yield _Reading(base, without)
        for prefix in _prefixes(list(base.values())):
            shorter = {
                name: read.removeprefix(prefix) if read.startswith(prefix) else None for name, read in base.items()
            }
            yield _Reading(shorter, without + prefix)


def _left_out(bare: Mapping[str, str]) -> str:
    """The names of wrappers that are in names."""
    return "".join(f"{word}." for word in _WRAPPED if any(word in name.split(".") for name in bare))


def _prefixes(names: Sequence[str]) -> Iterator[str]:
    """The modules, from the outermost, that are the beginning of more than half of all names."""
    prefix = ""
    while True:
        inside = [name[len(prefix) :] for name in names if name.startswith(prefix)]
        ((first, count),) = Counter(name.partition(".")[0] for name in inside if "." in name).most_common(1) or [
            ("", 0)
        ]
        if 2 * count <= len(names):
            return
        prefix += f"{first}."
        yield prefix


def _converted(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """The file's values as tensors like the model's own; whatever may fail fails here, before the model is touched."""
    try:
        return {name: torch.empty_like(expected[name]).copy_(tensor) for name, tensor in state.items()}
    except (RuntimeError, NotImplementedError) as error:
        raise CheckpointError(f"{path} holds tensors without plain values: {error}") from error


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors" or _begins_as_safetensors(path):
            return safetensors.torch.load_file(path)
        _refuse_packed(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # random bytes make torch's unpickler raise nearly anything
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        first = first.partition(". ")[0][:_LONGEST]  # torch goes on with the advice to run the code of the file
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors, which is not loaded because it could run code ({first}). "
            "Save a state_dict, best as safetensors."
        ) from error


def _refuse_packed(path: Path) -> None:
    """Refuse archives whose content is larger than they are: torch packs nothing, so it would fill the memory.

    Raises:
        ValueError: It is one.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > path.stat().st_size:
        raise ValueError(f"it unpacks to {size:,} bytes, more than it has")


def _begins_as_safetensors(path: Path) -> bool:
    """A file is what it holds, whatever its name: after the length of the header, 8 bytes, comes the header's brace."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no state dict: expected names with tensors, got {type(content).__name__}.")
    found = {str(name): tensor for name, tensor in content.items()}
    for name, tensor in found.items():
        plain = has_plain_values(tensor)
        if plain and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{path} is damaged: {name} is larger than its values.")
    return found


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")  # absent from checkpoints of torch before 0.4.1
