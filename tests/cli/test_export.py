"""`export` writes networks for images of the shape that they were pruned for, and never for another one unasked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import prunesearch as ps
from tests.cli.calls import SEARCH, Call


@pytest.mark.slow
def test_a_searched_network_is_exported(call: Call, folder: Path) -> None:
    searched = call(*SEARCH, "--n-trials", "2", "--study", "sqlite://", "--out", "e.safetensors")
    assert searched.returncode == 0, searched.stderr
    small = ps.load(folder / "e.safetensors", ps.make_model("resnet8", in_channels=1, image_size=8)).eval()
    for shape in ((), ("--input", "2x1x12x12")):
        run = call("export", "--model", "zoo:resnet8", "--pruned", "e.safetensors", *shape, "--out", "e.pt2")
        assert run.returncode == 0, run.stderr
        images = torch.randn(3, 1, 12, 12) if "2x1x12x12" in shape else torch.randn(3, 1, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(torch.export.load(folder / "e.pt2").module()(images), small(images))


FLAT = "models.py:flat"


@pytest.fixture
def files(folder: Path) -> Path:
    """Networks for images of any size, in half precision and of two inputs, and files of them."""
    (folder / "models.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def flat():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))\n"
        "def half():\n    return flat().half()\n"
        "class Two(nn.Module):\n"
        "    def forward(self, x, which):\n        return x[:, 0] * which\n"
        "def two():\n    return Two()\n"
        "class Named(nn.Module):\n"
        "    def forward(self, image, parts):\n        return image * parts['scale'][:, None]\n"
        "class Deciding(nn.Module):\n"
        "    def forward(self, x):\n        return x * 2 if x.sum() > 0 else x\n"
        "def deciding():\n    return Deciding()\n"
        "def named():\n    return Named()\n"
    )
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    ps.save(flat, folder / "flat.safetensors", example_inputs=torch.zeros(1, 3, 20, 20))
    ps.save(flat, folder / "silent.safetensors")
    ps.save(flat.half(), folder / "half.safetensors", example_inputs=torch.zeros(1, 3, 20, 20, dtype=torch.float16))
    ps.save(
        nn.ReLU(), folder / "two.safetensors", example_inputs=(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))
    )
    named = {"image": torch.zeros(1, 3), "parts": {"scale": torch.zeros(1)}}
    ps.save(nn.ReLU(), folder / "named.safetensors", example_inputs=named)
    ps.save(nn.ReLU(), folder / "nested.safetensors", example_inputs=(torch.zeros(1, 3), named["parts"]))
    return folder


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        (("--model", FLAT, "--pruned", "flat.safetensors"), [("float32", (3, 20, 20))]),
        (("--model", FLAT, "--weights", "flat.safetensors"), [("float32", (3, 20, 20))]),
        (("--model", FLAT, "--pruned", "silent.safetensors", "--input", "1x3x7x9"), [("float32", (3, 7, 9))]),
        (("--model", FLAT, "--weights", "flat.safetensors", "--input", "4x3x7x9"), [("float32", (3, 7, 9))]),
        (("--model", "models.py:half", "--pruned", "half.safetensors"), [("float16", (3, 20, 20))]),
        (("--model", FLAT, "--weights", "half.safetensors"), [("float32", (3, 20, 20))]),
        (("--model", "models.py:half", "--weights", "flat.safetensors"), [("float16", (3, 20, 20))]),
        (("--model", "models.py:half", "--input", "1x3x7x9"), [("float16", (3, 7, 9))]),
        (("--model", FLAT, "--pruned", "half.safetensors", "--input", "1x3x7x9"), [("float16", (3, 7, 9))]),
        (("--model", "models.py:two", "--pruned", "two.safetensors"), [("float32", (3,)), ("int64", ())]),
        (("--model", "models.py:named", "--pruned", "named.safetensors"), [("float32", (3,)), ("float32", ())]),
        (("--model", "models.py:named", "--weights", "named.safetensors"), [("float32", (3,)), ("float32", ())]),
        (("--model", "models.py:named", "--pruned", "nested.safetensors"), [("float32", (3,)), ("float32", ())]),
    ],
)
def test_a_network_is_exported_for_images_such_as_its_file_remembers_unless_told(
    call: Call, files: Path, options: tuple[str, ...], shapes: list[tuple[str, tuple[int, ...]]]
) -> None:
    run = call("export", *options, "--out", "out.pt2")
    assert run.returncode == 0, run.stderr
    program = torch.export.load(files / "out.pt2")
    wanted = program.graph_signature.user_inputs
    found = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]
    assert [(str(x.dtype).removeprefix("torch."), tuple(x.shape[1:])) for x in found] == shapes
    assert not any(isinstance(x.shape[0], int) for x in found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), ""),
        (("--pruned", "silent.safetensors"), "; silent.safetensors does not say it."),
        (("--weights", "silent.safetensors"), "silent.safetensors does not say it."),
        (("--weights", "plain.pt"), "plain.pt does not say it."),
    ],
)
def test_without_a_shape_nothing_is_exported_and_input_is_asked_for(
    call: Call, files: Path, options: tuple[str, ...], said: str
) -> None:
    torch.save({"a": torch.zeros(1)}, files / "plain.pt")
    run = call("export", "--model", FLAT, *options, "--out", "none.pt2")
    assert run.returncode == 2
    assert run.stderr.startswith("error: Expected --input, the shape of a batch of images such as 1x3x224x224")
    assert said in " ".join(run.stderr.split())
    assert not (files / "none.pt2").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", FLAT, "--input", "1x1x20x20"), "error: Sequential cannot run on images of shape (2, 1, 20, 20)"),
        (("--model", "models.py:deciding", "--input", "1x3"), "error: Deciding cannot be exported by torch.export: "),
    ],
)
def test_a_network_that_cannot_be_exported_is_refused_in_a_sentence(
    call: Call, files: Path, options: tuple[str, ...], said: str
) -> None:
    run = call("export", *options, "--out", "none.pt2")
    assert run.returncode == 2
    assert said in " ".join(run.stderr.split())
    assert not (files / "none.pt2").exists()
