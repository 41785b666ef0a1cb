"""Slimmed networks leave for other programs with equal outputs, at any batch size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import prunesearch as ps
from tests.models.test_saving import IMAGES, slimmed
from tests.models_state import state_of

SEVEN = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v1"])
def test_an_exported_program_gives_equal_outputs(name: str) -> None:
    small = slimmed(name).train()
    before = state_of(small)
    program = ps.export_program(small, IMAGES).module()
    assert state_of(small) == before
    with torch.no_grad():
        assert torch.allclose(program(SEVEN), small.eval()(SEVEN), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v1"])
def test_an_onnx_file_gives_equal_outputs_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    small, path = slimmed(name), tmp_path / "small.onnx"
    ps.export_onnx(small, path, IMAGES)
    session = runtime.InferenceSession(str(path))
    (output,) = session.run(None, {session.get_inputs()[0].name: SEVEN.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(output), small(SEVEN), atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]


def test_a_single_example_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 2 images, got \[1\]"):
        ps.export_program(slimmed("mlp"), IMAGES[:1])
