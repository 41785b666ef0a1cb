"""Weight files: every common form loads, nothing else does, and no failure changes the model."""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from prunesearch.errors import CheckpointError
from prunesearch.models.checkpoint import load_weights
from prunesearch.models.zoo import make_model
from tests.models.networks import image, randomised, snapshot

State = dict[str, Tensor]


@pytest.fixture
def model() -> nn.Module:
    return randomised(make_model("resnet8", image_size=8), seed=1)


@pytest.fixture
def weights() -> State:
    """Of another network of the same kind."""
    return dict(randomised(make_model("resnet8", image_size=8), seed=2).state_dict())


@pytest.fixture
def untouched(model: nn.Module) -> Iterator[None]:
    """The model is bit-identical when the test is over."""
    before = snapshot(model)
    yield
    assert snapshot(model) == before


def assert_loaded(model: nn.Module, weights: State) -> None:
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor.to(state[name].dtype)) for name, tensor in weights.items())


# --- what loads -------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[State], Any]] = {
    "bare": lambda w: w,
    "ordered": OrderedDict,
    "state_dict": lambda w: {"state_dict": w, "epoch": 190, "best_prec1": 91.7, "arch": "resnet8"},
    "model": lambda w: {"model": w, "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}}},
    "net": lambda w: {"net": w, "acc": 95.1},
    "model_state_dict": lambda w: {"model_state_dict": w},
    "module prefix": lambda w: {f"module.{name}": tensor for name, tensor in w.items()},
    "module prefix inside": lambda w: {"state_dict": {f"module.{name}": tensor for name, tensor in w.items()}},
    "compiled": lambda w: {f"_orig_mod.{name}": tensor for name, tensor in w.items()},
    "compiled, then parallel": lambda w: {f"module._orig_mod.{name}": tensor for name, tensor in w.items()},
    "parallel, then compiled": lambda w: {"state_dict": {f"_orig_mod.module.{n}": tensor for n, tensor in w.items()}},
    "lightning": lambda w: {"state_dict": {f"model.{name}": tensor for name, tensor in w.items()}, "epoch": 3},
    "lightning, compiled": lambda w: {"state_dict": {f"model._orig_mod.{n}": tensor for n, tensor in w.items()}},
    "a network in another": lambda w: {f"teacher.net.{name}": tensor for name, tensor in w.items()},
    "parallel parts": lambda w: {name.replace(".conv", ".module.conv"): tensor for name, tensor in w.items()},
    "parallel parts in lightning": lambda w: {f"model.{n.replace('.0.', '.0.module.')}": t for n, t in w.items()},
    "parameters": lambda w: {name: nn.Parameter(tensor, tensor.is_floating_point()) for name, tensor in w.items()},
    "half precision": lambda w: {name: tensor.half().to(tensor.dtype) for name, tensor in w.items()},
    "without counters": lambda w: {name: t for name, t in w.items() if not name.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_state_dicts_of_every_common_form_load(
    model: nn.Module, weights: State, tmp_path: Path, form: str, legacy: bool
) -> None:
    content = FORMS[form](weights)
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=not legacy)
    load_weights(model, tmp_path / "weights.pth")
    loaded = FORMS[form](weights) if form in ("half precision", "without counters") else weights
    assert_loaded(model, loaded)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.st", "weights"])
@pytest.mark.parametrize("form", ["bare", "module prefix", "without counters"])
def test_safetensors_load(model: nn.Module, weights: State, tmp_path: Path, form: str, name: str) -> None:
    path = tmp_path / name
    safetensors.torch.save_file(FORMS[form](weights), path)
    load_weights(model, str(path))
    assert_loaded(model, {name: weights[name.removeprefix("module.")] for name in FORMS["without counters"](weights)})


def test_a_file_in_half_precision_leaves_the_model_in_its_own(model: nn.Module, weights: State, tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    safetensors.torch.save_file(halves, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert_loaded(model, halves)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_counters_that_the_file_lacks_keep_their_value(model: nn.Module, weights: State, tmp_path: Path) -> None:
    model.bn1.num_batches_tracked.fill_(17)
    torch.save(FORMS["without counters"](weights), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert model.bn1.num_batches_tracked == 17


def test_a_loaded_network_gives_the_outputs_of_the_saved_one(model: nn.Module, tmp_path: Path) -> None:
    other = randomised(make_model("resnet8", image_size=8), seed=3).eval()
    torch.save(other.state_dict(), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    with torch.no_grad():
        assert torch.equal(model.eval()(image(2, 3, 8, 8)), other(image(2, 3, 8, 8)))


def test_the_model_keeps_its_tensors_its_mode_and_its_frozen_parameters(
    model: nn.Module, weights: State, tmp_path: Path
) -> None:
    model.eval().conv1.weight.requires_grad_(False)
    before = [(id(parameter), parameter.requires_grad) for parameter in model.parameters()]
    torch.save(weights, tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert [(id(parameter), parameter.requires_grad) for parameter in model.parameters()] == before
    assert not any(module.training for module in model.modules())


class Own(nn.Module):
    """Its own children have names that wrappers use."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.module = nn.Conv2d(3, 8, 3)
        self.model = nn.Sequential(nn.BatchNorm2d(8))
        self._orig_mod = Own(depth - 1) if depth > 1 else nn.Linear(8, 2)


class OnlyModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Conv2d(3, 8, 3)


@pytest.mark.parametrize("make", [Own, OnlyModule, lambda: nn.Sequential(OrderedDict(model=Own()))])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "model.", "module.module.", "module._orig_mod.", "a.b."]
)
def test_children_of_the_models_own_keep_their_names(
    make: Callable[[], nn.Module], prefix: str, tmp_path: Path
) -> None:
    weights, model = dict(randomised(make()).state_dict()), make()
    torch.save({prefix + name: tensor for name, tensor in weights.items()}, tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert_loaded(model, weights)


# --- what does not ----------------------------------------------------------------------------------------------------

leaves_model_untouched = pytest.mark.usefixtures("untouched")


class Hostile:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.evidence),)


def test_the_hostile_object_really_would_do_harm(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Hostile(tmp_path / "evidence")))
    assert (tmp_path / "evidence").exists()


@leaves_model_untouched
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors", ""])
@pytest.mark.parametrize("form", ["pickle", "zip", "legacy", "among tensors"])
def test_a_hostile_file_is_refused_and_does_not_run(
    model: nn.Module, weights: State, tmp_path: Path, suffix: str, form: str
) -> None:
    hostile, path = Hostile(tmp_path / "evidence"), tmp_path / f"weights{suffix}"
    if form == "pickle":
        path.write_bytes(pickle.dumps(hostile))
    elif form == "among tensors":
        torch.save({"state_dict": weights, "optimizer": hostile}, path)
    else:
        torch.save(hostile, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match=f"weights{suffix} is damaged, or holds more than tensors"):
        load_weights(model, path)
    assert not (tmp_path / "evidence").exists()


@leaves_model_untouched
def test_a_whole_pickled_model_is_refused(model: nn.Module, tmp_path: Path) -> None:
    torch.save(model, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        load_weights(model, tmp_path / "model.pth")


@leaves_model_untouched
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(model: nn.Module, weights: State, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    save(weights, path)
    whole = path.read_bytes()
    for length in (0, 1, 2, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=f"w{suffix} is damaged"):
            load_weights(model, path)


def save(weights: State, path: Path) -> None:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path)


@leaves_model_untouched
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_random_bytes_are_refused(model: nn.Module, tmp_path: Path, suffix: str) -> None:
    rng = random.Random(0)
    path = tmp_path / f"w{suffix}"
    for n in range(300):
        head = rng.choice([b"", b"\x80\x02", b"\x80\x04}", b"PK\x03\x04", b"(", b"{", b"]", b"\x10" + bytes(7) + b"{"])
        path.write_bytes(head + rng.randbytes(n))
        with pytest.raises(CheckpointError, match=f"w{suffix} (is damaged|holds no state dict)"):
            load_weights(model, path)


def test_a_torch_file_with_one_byte_changed_loads_or_is_refused(weights: State, tmp_path: Path) -> None:
    rng = random.Random(1)
    stream = io.BytesIO()
    torch.save(weights, stream, _use_new_zipfile_serialization=False)
    whole = stream.getvalue()
    path = tmp_path / "w.pth"
    other = make_model("resnet8", image_size=8)
    refused = 0
    for _ in range(60):
        position = rng.randrange(min(len(whole), 6000))  # the pickled part comes first
        path.write_bytes(whole[:position] + rng.randbytes(1) + whole[position + 1 :])
        before = snapshot(other)
        try:
            load_weights(other, path)
        except CheckpointError:
            refused += 1
            assert snapshot(other) == before
    assert 0 < refused < 60


@leaves_model_untouched
@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2, 3], "list"),
        ({"state_dict": [1]}, "dict"),
        ({"state_dict": {"conv1.weight": "a string"}}, "dict"),
        (torch.zeros(3), "Tensor"),
        ({"epoch": 3}, "dict"),
    ],
)
def test_files_without_a_state_dict_are_refused(model: nn.Module, tmp_path: Path, content: Any, found: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=rf"w\.pt holds no state dict: .* got {found}"):
        load_weights(model, tmp_path / "w.pt")


@leaves_model_untouched
def test_a_zip_that_is_no_torch_file_is_refused(model: nn.Module, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("hello.txt", "not weights")
    with pytest.raises(CheckpointError, match=r"w\.pt is damaged"):
        load_weights(model, tmp_path / "w.pt")


@leaves_model_untouched
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_another_network_are_refused_naming_what_differs(
    model: nn.Module, tmp_path: Path, suffix: str
) -> None:
    save(dict(make_model("resnet14", image_size=8).state_dict()), tmp_path / f"w{suffix}")
    with pytest.raises(CheckpointError, match=r"is not of ResNet: unexpected layer\d\.1\.\S+; .*, and 32 more\."):
        load_weights(model, tmp_path / f"w{suffix}")


@leaves_model_untouched
def test_weights_with_a_missing_tensor_are_refused_naming_it(model: nn.Module, weights: State, tmp_path: Path) -> None:
    del weights["layer2.0.bn1.running_var"]
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"is not of ResNet: missing layer2\.0\.bn1\.running_var\.$"):
        load_weights(model, tmp_path / "w.pt")


PREFIXES = {
    "module": ("module.", lambda w: {f"module.{name}": tensor for name, tensor in w.items()}),
    "compiled": ("_orig_mod.", lambda w: {f"_orig_mod.{name}": tensor for name, tensor in w.items()}),
    "both": ("module._orig_mod.", lambda w: {f"module._orig_mod.{name}": tensor for name, tensor in w.items()}),
    "lightning": ("model.", lambda w: {"state_dict": {f"model.{name}": tensor for name, tensor in w.items()}}),
}


@leaves_model_untouched
@pytest.mark.parametrize(("prefix", "form"), PREFIXES.values(), ids=PREFIXES)
def test_what_does_not_fit_without_a_prefix_either_is_said_with_the_prefix(
    model: nn.Module, weights: State, tmp_path: Path, prefix: str, form: Callable[[State], Any]
) -> None:
    even = rf"is not of ResNet, even without '{re.escape(prefix)}' in its names: "
    lacking = {name: tensor for name, tensor in weights.items() if name != "linear.bias"}
    for wrong, said in (
        (lacking, r"missing linear\.bias\.$"),
        ({**weights, "more": torch.zeros(1)}, rf"unexpected {re.escape(prefix)}more\.$"),
        ({**weights, "linear.bias": torch.zeros(3)}, r"linear\.bias is \(3,\), the model has \(10,\)\.$"),
    ):
        torch.save(form(wrong), tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match=even + said):
            load_weights(model, tmp_path / "w.pt")


@leaves_model_untouched
def test_a_prefix_that_not_all_names_have_is_named_with_those_that_do_not(
    model: nn.Module, weights: State, tmp_path: Path
) -> None:
    state = {f"model.{name}": tensor for name, tensor in weights.items()} | {"criterion.weight": torch.ones(10)}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    with pytest.raises(
        CheckpointError, match=r"not of ResNet, even without 'model\.' in its names: unexpected criterion"
    ):
        load_weights(model, tmp_path / "w.ckpt")
    torch.save({**weights, "module.linear.bias": torch.ones(10)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"is not of ResNet: unexpected module\.linear\.bias\.$"):
        load_weights(model, tmp_path / "w.pt")


@leaves_model_untouched
def test_an_empty_state_dict_is_refused(model: nn.Module, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"missing conv1\.weight; .*, and \d+ more"):
        load_weights(model, tmp_path / "w.pt")


@leaves_model_untouched
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("shape", [(10, 63), (10,), (1, 64), ()])
def test_a_tensor_of_another_shape_is_refused_with_both_shapes(
    model: nn.Module, weights: State, tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    weights["linear.weight"] = torch.zeros(shape)
    save(weights, tmp_path / f"w{suffix}")
    came = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(CheckpointError, match=rf"linear\.weight is {came}, the model has \(10, 64\)\.$"):
        load_weights(model, tmp_path / f"w{suffix}")


@leaves_model_untouched
@pytest.mark.parametrize("last", [torch.zeros(10).to_sparse(), torch.zeros(10, device="meta")], ids=["sparse", "meta"])
def test_tensors_without_plain_values_are_refused_before_any_other_is_loaded(
    model: nn.Module, weights: State, tmp_path: Path, last: Tensor
) -> None:
    weights["linear.bias"] = last
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"w\.pt (holds tensors without plain values|is damaged)"):
        load_weights(model, tmp_path / "w.pt")


@leaves_model_untouched
@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "folder"])
def test_a_file_that_is_not_there_is_refused(model: nn.Module, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"There is no weights file .*w\.pt"):
        load_weights(model, tmp_path / "w.pt")
