"""Handing a network over to other programs: ONNX files and `torch.export` programs, with any batch size."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.errors import CheckpointError
from prunesearch.files import whole
from prunesearch.models.copying import copied
from prunesearch.models.devices import device_of_module
from prunesearch.models.misfit import outputs_of, told_as
from prunesearch.models.nested import Batch, arguments, mapped, moved, parts_of, tensors_in, without_arrays
from prunesearch.models.tensor_file import writable
from prunesearch.models.wrappers import unwrapped
from prunesearch.plain_text import shortened


def export_program(model: nn.Module, example_inputs: Batch) -> torch.export.ExportedProgram:
    """Export a network in eval mode with `torch.export`; `torch.export.save` writes it to a file.

    Args:
        model: The network; it is not changed. Of a wrapped or compiled one, the network inside is exported.
        example_inputs: A batch (n, ...), the tuple of positional inputs, or the dictionary of inputs by name. n may be
            another later; a single image is repeated, because `torch.export` would take a batch of 1 for a fixed
            number.

    Raises:
        TypeError: Something else than a network or tensors was given.
        ValueError: The inputs have no images, or not equally many; or the network does not run on them, or cannot be
            exported.
    """
    network = copied(unwrapped(model)).eval()
    inputs = moved(_batches(example_inputs), device_of_module(network))
    outputs_of(network, inputs)  # says what does not fit, which torch.export would hide in its own
    positional, by_name = arguments(inputs)
    any_n = _any_batch((positional, by_name))
    shapes = (*any_n[0], *any_n[1].values()) if by_name else any_n[0]
    with _told(network, "by torch.export"):
        return torch.export.export(network, positional, by_name, dynamic_shapes=shapes)


def export_onnx(model: nn.Module, path: str | Path, example_inputs: Batch) -> None:
    """Write a network in eval mode as one ONNX file; whole or not at all. Needs the extra `prunesearch[onnx]`.

    Args:
        model: The network; it is not changed. Of a wrapped or compiled one, the network inside is exported.
        path: The file. An existing one is replaced.
        example_inputs: A batch (n, ...), the tuple of positional inputs, or the dictionary of inputs by name; n may be
            another later.

    Raises:
        CheckpointError: The path is a folder, or in none, or the file cannot be written.
        ImportError: The extra is not installed.
        TypeError: Something else than a network, a path or tensors was given.
        ValueError: The inputs have no images, or not equally many; or the network does not run on them, or cannot be
            exported.
    """
    try:
        import onnxscript  # noqa: F401 - torch.onnx would fail later, and say less
    except ImportError as error:
        raise ImportError("Exporting to ONNX needs more packages: pip install 'prunesearch[onnx]'.") from error
    path = writable(path)
    program = export_program(model, example_inputs)
    with _told(unwrapped(model), "to ONNX"):
        exported = torch.onnx.export(program, dynamo=True, verbose=False)
    assert exported is not None
    _write(path, exported.save)


def write_program(model: nn.Module, path: str | Path, example_inputs: Batch) -> None:
    """Write what `export_program` gives; whole or not at all. `torch.export.load` reads it.

    Raises:
        CheckpointError: The path is a folder, or in none, or the file cannot be written.
        TypeError, ValueError: As `export_program`.
    """
    path, content = writable(path), io.BytesIO()
    torch.export.save(export_program(model, example_inputs), content)  # to a file it would abort on a full disk
    _write(path, lambda draft: draft.write_bytes(content.getbuffer()))


def _told(network: nn.Module, how: str) -> AbstractContextManager[None]:
    """Meanwhile what an exporter raises, which may have many lines and none of the network, becomes a sentence.

    Raises:
        ValueError: It raised something else than that memory is full.
    """

    def say(error: Exception) -> str:
        reason = str(error.__cause__ or error).partition("\n\n")[0]
        return (
            f"{type(network).__name__} cannot be exported {how}: {shortened(reason).rstrip('.')}. Code that decides by "
            "the values of its data, or is for one number of images, cannot be."
        )

    return told_as(say)


def _write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file by the code of another library.

    Raises:
        CheckpointError: It cannot be written.
    """
    try:
        with whole(path) as draft:
            save(draft)
    except OSError as error:
        said = error.strerror or error
        raise CheckpointError(
            f"{path} cannot be written: {said}. Is there room in its folder, and may you write there?"
        ) from error


def _batches(example_inputs: Batch) -> Batch:
    """The inputs with at least two images each."""
    example_inputs = without_arrays(example_inputs)
    tensors = [*tensors_in(example_inputs)]
    others = [part for part in parts_of(example_inputs).values() if not (part is None or isinstance(part, Tensor))]
    if others or not tensors or not all(x.dim() > 0 for x in tensors):
        raise TypeError(
            "Expected example_inputs as a batch of inputs, or a tuple or dictionary of them, each a tensor (n, ...)."
        )
    sizes = [len(x) for x in tensors]
    n = max(2, *sizes)
    if not {1, n} >= set(sizes):
        raise ValueError(f"Expected example_inputs of shape (n, ...) with one n >= 1, got n = {sizes}.")
    return mapped(example_inputs, lambda x: torch.cat([x] * n) if len(x) == 1 else x)


def _any_batch(inputs: Any) -> Any:
    """What `torch.export` wants to be told for each tensor: that its first dimension may be any."""
    if isinstance(inputs, Mapping):
        return {name: _any_batch(item) for name, item in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(_any_batch(item) for item in inputs)
    return {0: torch.export.Dim("n")} if isinstance(inputs, Tensor) else None
