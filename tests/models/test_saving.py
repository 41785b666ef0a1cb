"""A slimmed network goes into a file and comes back into a fresh instance of its class; nothing else does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

import prunesearch as ps
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.saving import remembered_inputs
from tests.models.networks import random_ranking
from tests.models_state import state_of

SMALL = {"in_channels": 1, "image_size": 8}
IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@cache
def traced(name: str, seed: int) -> Network:
    torch.manual_seed(seed)
    return ps.trace(ps.make_model(name, **SMALL), IMAGES)


def slimmed(name: str, seed: int = 0) -> nn.Module:
    import numpy as np

    network = traced(name, seed)
    rng = np.random.default_rng(seed)
    structure = network.space.check(network.space.sample(rng, 1)[0].tolist())
    ranking = NestedRanking.by_importance([rng.random(len(units)) for units in network.units])
    return ps.slim(network, structure, ranking).eval()


@pytest.mark.parametrize(
    "name",
    ["resnet8", "resnet8b", "mobilenet_v2", pytest.param("densenet40", marks=pytest.mark.slow), "mlp", "vgg11"],
)
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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no/small.safetensors", r"no/small\.safetensors cannot be written: there is no folder .*no\. Make it first"),
        (".", r"cannot be written: it is a folder\. Name a file in it"),
        ("a file/small.safetensors", r"there is no folder .*a file\. Make it first"),
    ],
)
def test_where_no_file_can_be_is_said_in_a_sentence_and_nothing_is_written(
    name: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(ps.CheckpointError, match=said):
        ps.save(slimmed("mlp"), tmp_path / name)
    with pytest.raises(ps.CheckpointError, match=said):
        ps.export_onnx(slimmed("mlp"), tmp_path / name, IMAGES)
    assert os.listdir(tmp_path) == ["a file"]


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.PTH", "net.bin", "net.ckpt", "net.pth.tar", "net.onnx"])
def test_a_name_of_another_format_is_refused_naming_the_one_that_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"ends in \.safetensors, .*; got {re.escape(name)}, which other programs"):
        ps.save(slimmed("mlp"), tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["net.safetensors", "net.st", "net", "net.v2"])
def test_any_other_name_will_do(name: str, tmp_path: Path) -> None:
    small = slimmed("mlp")
    ps.save(small, str(tmp_path / name))
    assert state_of(ps.load(str(tmp_path / name), ps.make_model("mlp", **SMALL).eval())) == state_of(small)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda file, net: ps.save(3, file), r"Expected a network \(torch\.nn\.Module\), got int\."),
        (lambda file, net: ps.save(type(net), file), "got the class MLP; make one first"),
        (lambda file, net: ps.save(torch.jit.script(nn.ReLU()), file), "a TorchScript program; give the module that"),
        (lambda file, net: ps.save(net, 3), r"Expected a path as text or pathlib\.Path, got int\."),
        (lambda file, net: ps.save(file, net), "Expected a path as text or pathlib.Path, got MLP"),
        (lambda file, net: ps.save(net, file, example_inputs=3), "Expected example_inputs as a batch of inputs"),
        (lambda file, net: ps.save(net, file, example_inputs=[torch.tensor(3)]), "Expected example_inputs as a batch"),
        (lambda file, net: ps.load(net, file), "Expected a path as text or pathlib.Path, got MLP"),
        (lambda file, net: ps.load(file, type(net)), "got the class MLP; make one first"),
        (lambda file, net: ps.load_weights(file, net), "got MLP"),
        (lambda file, net: ps.load_weights(3, file), "got int"),
        (lambda file, net: ps.save_pruningnet(net, file), "Expected a PruningNet, got MLP; prunesearch.save writes"),
        (lambda file, net: ps.save_pruningnet(net, 3), "Expected a path"),
        (lambda file, net: ps.load_pruningnet(3, net), "Expected a path"),
        (lambda file, net: ps.load_pruningnet(file, net), r"Expected a network that prunesearch\.trace gave, got MLP"),
        (lambda file, net: ps.export_program(3, IMAGES), "Expected a network"),
        (lambda file, net: ps.export_onnx(net, 3, IMAGES), "Expected a path"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_is_no_network_or_no_path_is_said_in_a_sentence(
    call: Callable[[Path, nn.Module], object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=said) as error:
        call(tmp_path / "net.safetensors", ps.make_model("mlp", **SMALL))
    assert len(str(error.value)) < 200
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_weights_of_a_torchscript_child_come_back_too(tmp_path: Path) -> None:
    def made(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        script = torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)))
        return nn.Sequential(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 8, 1), script, nn.Conv2d(8, 4, 1)).eval()

    network, path = ps.trace(made(0), IMAGES), tmp_path / "small.safetensors"
    small = ps.slim(network, network.space.minimum, random_ranking(network)).eval()
    ps.save(small, path)
    with torch.no_grad():
        assert torch.equal(ps.load(path, made(1))(IMAGES), small(IMAGES))


def test_a_network_that_computes_its_weights_comes_back_into_a_fresh_one(tmp_path: Path) -> None:
    def made(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        normed = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 8, 1))
        return nn.Sequential(nn.Conv2d(1, 6, 1), normed, Remembering(), nn.Conv2d(8, 4, 1)).eval()

    network, path = ps.trace(made(0), IMAGES), tmp_path / "small.safetensors"
    small = ps.slim(network, network.space.minimum, random_ranking(network)).eval()
    ps.save(small, path)
    used = made(1)
    used(IMAGES)  # holds a computed tensor from now on
    with torch.no_grad():
        assert torch.equal(ps.load(path, used)(IMAGES), small(IMAGES))


class Remembering(nn.Module):
    """Keeps what it was given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.feature = x
        return x


class Odd(nn.Module):
    """A network with something in its state that no file can hold."""

    def __init__(self, odd: object) -> None:
        super().__init__()
        self.odd = odd
        if isinstance(odd, torch.Tensor):
            self.register_buffer("values", odd)

    def get_extra_state(self) -> object:
        return torch.zeros(0) if isinstance(self.odd, torch.Tensor) else self.odd


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"a": 1}, "_extra_state is a dict; a file can only hold tensors"),
        (torch.zeros(3).to_sparse(), "values has no plain values"),
        (torch.zeros(3, device="meta"), "values has no plain values"),
        (torch.zeros(3, dtype=torch.complex128), "safetensors has no form for torch.complex128"),
    ],
)
def test_what_no_file_can_hold_is_named_and_nothing_is_written(odd: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(ps.CheckpointError, match=said):
        ps.save(Odd(odd), tmp_path / "net.safetensors")
    with pytest.raises(ps.CheckpointError, match=r"weight has no plain values"):
        ps.save(nn.LazyLinear(3), tmp_path / "net.safetensors")
    assert os.listdir(tmp_path) == []


def rewritten(path: Path, change: Callable[[dict[str, str], dict[str, torch.Tensor]], None]) -> None:
    """Change a file as somebody would who knows the format, checksum included."""
    from prunesearch.models.tensor_file import checksum

    with safetensors.safe_open(path, framework="pt") as file:
        stored, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata = json.loads(stored["prunesearch"])
    change(metadata, tensors)
    metadata["sha256"] = checksum(metadata["widths"], tensors)
    safetensors.torch.save_file(tensors, path, {"prunesearch": json.dumps(metadata)})


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


def with_note(**changes: object) -> Callable[[dict[str, str], object], None]:
    def apply(metadata: dict[str, str], _: object) -> None:
        metadata["widths"] = json.dumps({**json.loads(metadata["widths"]), **changes})

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
    "buffers that are no text": with_note(buffers=3),
    "buffers that are no tensors": with_note(buffers="AAAA"),
    "buffers in another alphabet": with_note(buffers="é"),
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
    with pytest.raises(
        ps.CheckpointError,
        match=r"saved from ResNet and does not fit this ResNet: only the network has the layers layer1\.1\.conv1, .* "
        r"and 8 more\. Give the network as it was before pruning\.$",
    ):
        ps.load(path, ps.make_model("resnet14", **SMALL))
    with pytest.raises(ps.CheckpointError, match="There is no file"):
        ps.load(tmp_path / "none.safetensors", ps.make_model("resnet8", **SMALL))
    with pytest.raises(ps.CheckpointError, match="is a folder; expected a file that prunesearch"):
        ps.load(tmp_path, ps.make_model("resnet8", **SMALL))


class Bare(nn.Module):
    def __init__(self, **shapes: int) -> None:
        super().__init__()
        for name, size in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(size)))


@pytest.mark.parametrize(
    ("saved", "fresh", "said"),
    [
        (
            nn.Linear(2, 3),
            nn.Sequential(nn.Linear(2, 3)),
            r"saved from Linear and does not fit this Sequential: only the file has the layers the network itself; "
            r"only the network has the layers 0\. Give",
        ),
        (
            nn.Linear(2, 3),
            nn.Linear(2, 2),
            r"out_features is 3 in the file and 2 in the network; weight has shape \(3, 2",
        ),
        (Bare(a=1, b=1), Bare(b=1, c=1), "only the file has the tensors a; only the network has the tensors c"),
        (Bare(a=3), Bare(a=2), r"a has shape \(3,\) in the file and \(2,\) in the network"),
        (Bare(**{f"p{i}": 2 for i in range(6)}), Bare(), "only the file has the tensors p0, p1, p2, p3 and 2 more"),
    ],
)
def test_what_differs_is_said_in_words(saved: nn.Module, fresh: nn.Module, said: str, tmp_path: Path) -> None:
    ps.save(saved, tmp_path / "a.safetensors")
    with pytest.raises(ps.CheckpointError, match=said):
        ps.load(tmp_path / "a.safetensors", fresh)


def test_a_file_from_before_classes_buffers_and_inputs_were_written_still_loads(tmp_path: Path) -> None:
    small, path = slimmed("resnet8"), tmp_path / "small.safetensors"
    ps.save(small, path)

    def aged(metadata: dict[str, str], _: object) -> None:
        note = json.loads(metadata["widths"])
        metadata["widths"] = json.dumps({key: note[key] for key in ("layers", "literals")})

    rewritten(path, aged)
    assert state_of(ps.load(path, ps.make_model("resnet8", **SMALL).eval())) == state_of(small)
    assert remembered_inputs(path) == ()
    with pytest.raises(ps.CheckpointError, match="saved from another network and does not fit this MLP"):
        ps.load(path, ps.make_model("mlp", **SMALL))


@pytest.mark.parametrize(
    "inputs",
    [
        torch.ones(1, 3, 20, 20),
        (torch.ones(5, 3, 8, dtype=torch.float16),),
        [torch.ones(4, 2, dtype=torch.int64), torch.ones(4, dtype=torch.bool)],
    ],
    ids=["an image", "in half precision", "several"],
)
def test_a_file_remembers_shape_and_type_of_the_inputs_but_not_the_batch(
    inputs: torch.Tensor | Sequence[torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    ps.save(nn.ReLU(), path, example_inputs=inputs)
    expected = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    found = remembered_inputs(path)
    assert [(x.shape, x.dtype) for x in found] == [((2, *x.shape[1:]), x.dtype) for x in expected]
    ps.save(nn.ReLU(), path)
    assert remembered_inputs(path) == ()


@pytest.mark.parametrize(
    "inputs", [3, [3], [{"shape": [1]}], [{"shape": [-1], "dtype": "torch.float32"}], [{"shape": [1], "dtype": "os"}]]
)
def test_inputs_that_somebody_changed_are_refused(inputs: object, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    ps.save(nn.ReLU(), path)
    rewritten(path, with_note(inputs=inputs))
    with pytest.raises(ps.CheckpointError, match="does not say what its inputs are like"):
        remembered_inputs(path)


def test_plain_weights_are_sent_to_load_weights(tmp_path: Path) -> None:
    model = ps.make_model("mlp", **SMALL)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ps.CheckpointError, match="Read plain weights with load_weights"):
        ps.load(tmp_path / "w.safetensors", model)


class Holding(nn.Module):
    """Its layers are never called: functions compute with their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.up, self.norm, self.head = nn.ConvTranspose2d(8, 6, 2, 2), nn.BatchNorm2d(6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.first.weight, self.first.bias).relu()
        x = F.conv2d(x, self.deep.weight, self.deep.bias, groups=self.deep.groups)
        x = F.conv_transpose2d(x, self.up.weight, self.up.bias, stride=2)
        norm = self.norm
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, self.training)
        return F.linear(x.relu().mean((2, 3)), self.head.weight, self.head.bias)


def test_layers_that_only_hold_tensors_have_the_widths_of_these(tmp_path: Path) -> None:
    network = ps.trace(Holding().eval(), IMAGES)
    small = ps.slim(network, (4, 3), random_ranking(network, 0)).eval()
    assert isinstance(small, Holding)
    numbers = [(small.first.in_channels, small.first.out_channels), (small.deep.in_channels, small.deep.groups)]
    numbers += [(small.up.in_channels, small.up.out_channels), (small.norm.num_features, small.head.in_features)]
    assert numbers == [(1, 4), (4, 4), (4, 3), (3, 3)]
    ps.save(small, tmp_path / "small.safetensors")
    again = ps.load(tmp_path / "small.safetensors", Holding().eval())
    assert torch.equal(again(IMAGES), small(IMAGES))
