"""Handing a network over to other programs: ONNX files and `torch.export` programs, with any batch size."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.files import whole


def export_program(model: nn.Module, example_inputs: Tensor | Sequence[Tensor]) -> torch.export.ExportedProgram:
    """Export a network in eval mode with `torch.export`; `torch.export.save` writes it to a file.

    Args:
        model: The network; it is not changed.
        example_inputs: A batch (n, ...) with n of at least 2, or the tuple of positional inputs; n may differ later.

    Raises:
        ValueError: The example inputs have fewer than 2 images, which `torch.export` would take for a fixed number.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    if any(len(x) < 2 for x in inputs):
        raise ValueError(f"Expected example_inputs of at least 2 images, got {[len(x) for x in inputs]}.")
    return torch.export.export(copy.deepcopy(model).eval(), inputs, dynamic_shapes=_any_batch(inputs))


def export_onnx(model: nn.Module, path: str | Path, example_inputs: Tensor | Sequence[Tensor]) -> None:
    """Write a network in eval mode as one ONNX file; whole or not at all. Needs the extra `prunesearch[onnx]`.

    Args:
        model: The network; it is not changed.
        path: The file. An existing one is replaced.
        example_inputs: A batch (n, ...) with n of at least 2, or the tuple of positional inputs; n may differ later.

    Raises:
        ImportError: The extra is not installed.
        ValueError: The example inputs have fewer than 2 images.
    """
    try:
        import onnxscript  # noqa: F401 - torch.onnx would fail later, and say less
    except ImportError as error:
        raise ImportError("Exporting to ONNX needs more packages: pip install 'prunesearch[onnx]'.") from error
    exported = torch.onnx.export(export_program(model, example_inputs), dynamo=True, verbose=False)
    assert exported is not None
    with whole(Path(path)) as draft:
        exported.save(draft)


def write_program(model: nn.Module, path: str | Path, example_inputs: Tensor | Sequence[Tensor]) -> None:
    """Write what `export_program` gives; whole or not at all. `torch.export.load` reads it."""
    with whole(Path(path)) as draft:
        torch.export.save(export_program(model, example_inputs), draft)


def _any_batch(inputs: Sequence[Tensor]) -> Any:
    batch = torch.export.Dim("n")
    return tuple({0: batch} for _ in inputs)
