"""A slimmed network goes into a file and comes back into a fresh instance of its class; nothing else does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import prunesearch as ps
from prunesearch.models.ranking import NestedRanking
from tests.models_state import state_of

SMALL = {"in_channels": 1, "image_size": 8}
IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def slimmed(name: str, seed: int = 0) -> nn.Module:
    import numpy as np

    torch.manual_seed(seed)
    network = ps.trace(ps.make_model(name, **SMALL), IMAGES)
    rng = np.random.default_rng(seed)
    structure = network.space.check(network.space.sample(rng, 1)[0].tolist())
    ranking = NestedRanking.by_importance([rng.random(len(units)) for units in network.units])
    return ps.slim(network, structure, ranking).eval()


@pytest.mark.parametrize("name", ["resnet8", "resnet8b", "mobilenet_v2", "densenet40", "mlp", "vgg11"])
def test_a_slimmed_network_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    small, path = slimmed(name), tmp_path / "small.safetensors"
    ps.save(small, path)
    fresh = ps.make_model(name, **SMALL).eval()
    before = state_of(fresh)
    loaded = ps.load(path, fresh)
    assert state_of(fresh) == before
    assert type(loaded) is type(small)
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), small(IMAGES))
    assert str(loaded) == str(small)
    loaded.train()(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_saving_replaces_a_file_whole_and_leaves_the_network_alone(tmp_path: Path) -> None:
    small, path = slimmed("resnet8"), tmp_path / "small.safetensors"
    path.write_text("something older")
    before = state_of(small)
    ps.save(small, path)
    assert state_of(small) == before
    assert os.listdir(tmp_path) == ["small.safetensors"]


def test_a_file_is_readable_by_whom_any_new_file_is(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    ps.save(slimmed("resnet8"), tmp_path / "small.safetensors")
    assert (tmp_path / "small.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_folder_that_does_not_exist_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ps.CheckpointError, match="cannot be written"):
        ps.save(slimmed("mlp"), tmp_path / "no" / "small.safetensors")
    assert os.listdir(tmp_path) == []


def rewritten(path: Path, change: Callable[[dict[str, str], dict[str, torch.Tensor]], None]) -> None:
    """Change a file as somebody would who knows the format, checksum included."""
    from prunesearch.models.tensor_file import checksum

    with safetensors.safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    metadata["sha256"] = checksum(metadata["widths"], tensors)
    safetensors.torch.save_file(tensors, path, metadata)


def with_widths(change: Callable[[dict[str, dict[str, object]]], None]) -> Callable[[dict[str, str], object], None]:
    def apply(metadata: dict[str, str], _: object) -> None:
        widths = json.loads(metadata["widths"])
        change(widths["layers"])
        metadata["widths"] = json.dumps(widths)

    return apply


def with_literal(*literal: object) -> Callable[[dict[str, str], object], None]:
    def apply(metadata: dict[str, str], _: object) -> None:
        widths = json.loads(metadata["widths"])
        metadata["widths"] = json.dumps({**widths, "literals": {literal[0]: [literal[1:]]}})

    return apply


HOSTILE = {
    "a literal that is not there": with_literal("", 0, [1], 5),
    "a literal that is no number": with_literal("", 0, [2], "__import__('os')"),
    "a literal of a module that is not there": with_literal("evil", 0, [2], 1),
    "literals that are no table": lambda metadata, _: metadata.update(widths='{"layers": {}, "literals": [1]}'),
    "a width that is too large": with_widths(lambda w: w["conv1"].update(out_channels=10**9)),
    "a width that is no number": with_widths(lambda w: w["conv1"].update(out_channels="__import__('os')")),
    "an attribute that is no width": with_widths(lambda w: w["conv1"].update(forward=1)),
    "a layer that is not there": with_widths(lambda w: w.update(evil={"in_channels": 1})),
    "a missing layer": with_widths(lambda w: w.pop("conv1")),
    "widths that are a list": lambda metadata, _: metadata.update(widths="[]"),
    "widths that are no JSON": lambda metadata, _: metadata.update(widths="{"),
    "another format": lambda metadata, _: metadata.update(format="other"),
    "a tensor that is too large": lambda _, tensors: tensors.update({"linear.bias": torch.zeros(11)}),
    "a tensor of other dimensions": lambda _, tensors: tensors.update({"linear.bias": torch.zeros(1, 10)}),
    "an extra tensor": lambda _, tensors: tensors.update({"evil": torch.zeros(1)}),
    "a missing tensor": lambda _, tensors: tensors.pop("linear.bias"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_somebody_changed_is_refused(change: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    ps.save(slimmed("resnet8"), path)
    rewritten(path, change)
    with pytest.raises(ps.CheckpointError):
        ps.load(path, ps.make_model("resnet8", **SMALL))


def test_every_flipped_byte_and_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    ps.save(slimmed("mlp"), path)
    whole, fresh = path.read_bytes(), ps.make_model("mlp", **SMALL)
    for position in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:position])
        with pytest.raises(ps.CheckpointError):
            ps.load(path, fresh)
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        with pytest.raises(ps.CheckpointError):
            ps.load(path, fresh)


def test_a_file_of_another_network_names_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    ps.save(slimmed("resnet8"), path)
    with pytest.raises(ps.CheckpointError, match=r"is not of ResNet: missing layer layer1\.1\.conv1"):
        ps.load(path, ps.make_model("resnet14", **SMALL))
    with pytest.raises(ps.CheckpointError, match="There is no file"):
        ps.load(tmp_path / "none.safetensors", ps.make_model("resnet8", **SMALL))


def test_plain_weights_are_sent_to_load_weights(tmp_path: Path) -> None:
    model = ps.make_model("mlp", **SMALL)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ps.CheckpointError, match="Read plain weights with load_weights"):
        ps.load(tmp_path / "w.safetensors", model)
