"""Slimmed networks leave for other programs with equal outputs, at any batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import prunesearch as ps
from tests.models.test_saving import IMAGES, slimmed
from tests.models_state import state_of

NAMES = ["resnet8", pytest.param("mobilenet_v1", marks=pytest.mark.slow)]
SEVEN = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_program_gives_equal_outputs(name: str) -> None:
    small = slimmed(name).train()
    before = state_of(small)
    program = ps.export_program(small, IMAGES).module()
    assert state_of(small) == before
    with torch.no_grad():
        assert torch.allclose(program(SEVEN), small.eval()(SEVEN), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("resnet8", 2), ("mobilenet_v1", 1)])
def test_an_onnx_file_gives_equal_outputs_in_onnx_runtime(name: str, n: int, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    small, path = slimmed(name), tmp_path / "small.onnx"
    ps.export_onnx(small, path, IMAGES[:n])
    session = runtime.InferenceSession(str(path))
    (output,) = session.run(None, {session.get_inputs()[0].name: SEVEN.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(output), small(SEVEN), atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]


@pytest.mark.parametrize("name", NAMES)
def test_a_single_example_image_will_do_for_any_batch(name: str) -> None:
    small = slimmed(name)
    program = ps.export_program(small, IMAGES[:1]).module()
    with torch.no_grad():
        for images in (SEVEN, SEVEN[:1]):
            assert torch.allclose(program(images), small(images), atol=1e-5)


class Two(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 3), (1, 3), (3, 1)])
def test_single_inputs_beside_others_are_repeated_as_often(n: int, m: int) -> None:
    program = ps.export_program(Two(), (torch.zeros(n, 2), torch.zeros(m, 2))).module()
    assert torch.equal(program(torch.ones(5, 2), torch.ones(5, 2)), torch.full((5, 2), 2.0))


@pytest.mark.parametrize(
    ("inputs", "error", "said"),
    [
        (IMAGES[:0], ValueError, r"with one n >= 1, got n = \[0\]"),
        ((IMAGES, SEVEN), ValueError, r"with one n >= 1, got n = \[2, 7\]"),
        ((IMAGES, IMAGES[:0]), ValueError, r"got n = \[2, 0\]"),
        (torch.tensor(1.0), TypeError, r"each a tensor \(n, \.\.\.\)"),
        ((), TypeError, "Expected example_inputs as a batch"),
        (3, TypeError, "Expected example_inputs as a batch"),
        ([3], TypeError, "Expected example_inputs as a batch"),
    ],
)
def test_inputs_without_one_batch_size_are_refused_in_a_sentence(
    inputs: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ps.export_program(slimmed("mlp"), inputs)


class Deciding(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


class Pairs(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1)


class Airy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(x)


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        (nn.Conv2d(1, 2, 3), IMAGES.to(torch.uint8), "Conv2d cannot run on images of .* The weights are torch.float32"),
        (nn.Linear(4, 2), torch.zeros(2, 3), "Linear cannot run on images of .*shapes cannot be multiplied"),
        (Deciding(), torch.ones(2, 3), "Deciding cannot be exported by torch.export: .* decides by the values of its"),
        (Pairs(), torch.ones(2, 3), "Pairs cannot be exported by torch.export: .* or is for one number of images"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(model: nn.Module, inputs: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        ps.export_program(model, inputs)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_what_onnx_does_not_have_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Airy cannot be exported to ONNX: .*special_airy_ai"):
        ps.export_onnx(Airy(), tmp_path / "a.onnx", torch.zeros(2, 3))
    assert [*tmp_path.iterdir()] == []
