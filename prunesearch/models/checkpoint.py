"""Reading weight files: safetensors, or state dicts that torch loads without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from prunesearch.errors import CheckpointError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIX = "module."


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a public checkpoint into a model, in place; on any error the model is as it was.

    Understands safetensors, under any name, and torch files read with `weights_only=True`: a bare state dict or one
    wrapped as `{"state_dict": ...}` (also `model`, `net`, `model_state_dict`), with or without `module.` before every
    name.

    Args:
        model: A network whose parameter names and shapes are those of the file.
        path: The file.

    Raises:
        CheckpointError: No such file, damaged, holding code, or of another network; the message says which names or
            shapes differ.
    """
    state = _unwrap(_read(Path(path)), Path(path))
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in state and not _is_counter(name)]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    problems += [
        f"{name} is {tuple(state[name].shape)}, the model has {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        more = f", and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise CheckpointError(f"{path} is not of {type(model).__name__}: {'; '.join(problems[:4])}{more}.")
    model.load_state_dict({**expected, **_converted(state, expected, path)})


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
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # random bytes make torch's unpickler raise nearly anything
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        first = first.partition(". ")[0]  # torch goes on with the advice to run the code of the file
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors, which is not loaded because it could run code ({first}). "
            "Save a state_dict, best as safetensors."
        ) from error


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
    state = {str(name): tensor for name, tensor in content.items()}
    if state and all(name.startswith(_PREFIX) for name in state):
        state = {name[len(_PREFIX) :]: tensor for name, tensor in state.items()}
    return state


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")  # absent from checkpoints of torch before 0.4.1
