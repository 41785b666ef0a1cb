"""Handing a network over to other programs: ONNX files and `torch.export` programs, with any batch size."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.files import whole
from prunesearch.models.tensor_file import writable
from prunesearch.models.wrappers import unwrapped


def export_program(model: nn.Module, example_inputs: Tensor | Sequence[Tensor]) -> torch.export.ExportedProgram:
    """Export a network in eval mode with `torch.export`; `torch.export.save` writes it to a file.

    Args:
        model: The network; it is not changed. Of a wrapped or compiled one, the network inside is exported.
        example_inputs: A batch (n, ...), or the tuple of positional inputs. n may be another later; a single image is
            repeated, because `torch.export` would take a batch of 1 for a fixed number.

    Raises:
        TypeError: Something else than a network or tensors was given.
        ValueError: The inputs have no images, or not equally many.
    """
    inputs = _batches(example_inputs)
    network = copy.deepcopy(unwrapped(model)).eval()
    return torch.export.export(network, inputs, dynamic_shapes=_any_batch(inputs))


def export_onnx(model: nn.Module, path: str | Path, example_inputs: Tensor | Sequence[Tensor]) -> None:
    """Write a network in eval mode as one ONNX file; whole or not at all. Needs the extra `prunesearch[onnx]`.

    Args:
        model: The network; it is not changed. Of a wrapped or compiled one, the network inside is exported.
        path: The file. An existing one is replaced.
        example_inputs: A batch (n, ...), or the tuple of positional inputs; n may be another later.

    Raises:
        CheckpointError: The path is a folder, or in none.
        ImportError: The extra is not installed.
        TypeError: Something else than a network, a path or tensors was given.
        ValueError: The inputs have no images, or not equally many.
    """
    try:
        import onnxscript  # noqa: F401 - torch.onnx would fail later, and say less
    except ImportError as error:
        raise ImportError("Exporting to ONNX needs more packages: pip install 'prunesearch[onnx]'.") from error
    path = writable(path)
    exported = torch.onnx.export(export_program(model, example_inputs), dynamo=True, verbose=False)
    assert exported is not None
    with whole(path) as draft:
        exported.save(draft)


def write_program(model: nn.Module, path: str | Path, example_inputs: Tensor | Sequence[Tensor]) -> None:
    """Write what `export_program` gives; whole or not at all. `torch.export.load` reads it."""
    path = writable(path)
    with whole(path) as draft:
        torch.export.save(export_program(model, example_inputs), draft)


def _batches(example_inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The inputs with at least two images each."""
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    if not (
        isinstance(inputs, (tuple, list)) and inputs and all(isinstance(x, Tensor) and x.dim() > 0 for x in inputs)
    ):
        raise TypeError("Expected example_inputs as a batch of inputs, or a tuple of them, each a tensor (n, ...).")
    sizes = [len(x) for x in inputs]
    n = max(2, *sizes)
    if not {1, n} >= set(sizes):
        raise ValueError(f"Expected example_inputs of shape (n, ...) with one n >= 1, got n = {sizes}.")
    return tuple(torch.cat([x] * n) if len(x) == 1 else x for x in inputs)


def _any_batch(inputs: Sequence[Tensor]) -> Any:
    batch = torch.export.Dim("n")
    return tuple({0: batch} for _ in inputs)
