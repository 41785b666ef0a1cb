"""PruningNets: what they generate is what the definition says, from which widths, and how large they are."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import prunesearch as ps
from prunesearch.errors import CheckpointError, NotEnoughMemory, TraceError
from prunesearch.evaluators.compensation import CompensatedWeights
from prunesearch.models import hypernet_file, memory
from prunesearch.models.generated import GeneratedWeights
from prunesearch.models.hypernet import Form, PruningNet, encodings
from prunesearch.models.hypernet_file import load_pruningnet, save_pruningnet
from prunesearch.models.network import Network
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.slim import slim
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.models.zoo.metapruning import GeneNetwork, metapruning
from tests.models.networks import BLOCKS, chain, image, random_ranking, randomised, some_structures
from tests.models.test_literals import OptionA
from tests.models.test_many_forwards import one_by_one
from tests.models.test_strangers import SEQUENCES, Positioned
from tests.models_state import generators, state_of

FORMS: tuple[Form, ...] = ("published", "compact", "supernet")
IMAGES = image(6, 3, 8, 8)


def block(network: nn.Module | None = None, **rules: Any) -> Network:
    return ps.trace(randomised(network or ps.make_model("resnet8b")), IMAGES[:2], **rules)


def disturbed(net: PruningNet, seed: int = 1) -> PruningNet:
    """As if it had been trained: every structure has weights of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net


# --- what is generated ------------------------------------------------------------------------------------------------


def test_the_published_form_is_two_linear_layers_over_width_ratios_cropped_to_the_first_channels() -> None:
    network = ps.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1)), IMAGES[:2])
    net = disturbed(PruningNet(network, form="published", hidden=5))
    generator: Any = net._generators["/1/weight"]
    first, second = generator.first, generator.second
    hidden = F.relu(first.weight @ torch.tensor([3 / 8, 2 / 4]) + first.bias)
    expected = (second.weight @ hidden + second.bias).view(4, 8, 1, 1)[:2, :3]
    torch.testing.assert_close(net.tensors((3, 2))["1.weight"], expected)


def test_the_compact_form_scales_input_channels_and_adds_a_matrix_of_low_rank() -> None:
    network = ps.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1)), IMAGES[:2])
    net = disturbed(PruningNet(network, form="compact", hidden=5, rank=2))
    generator: Any = net._generators["/1/weight"]
    hidden = F.relu(generator.first.weight @ torch.tensor([3 / 8, 2 / 4]) + generator.first.bias)
    code = generator.second.weight @ hidden + generator.second.bias
    expected = generator.base[..., 0, 0] * (1 + code[:8]) + generator.left @ torch.diag(code[8:]) @ generator.right
    torch.testing.assert_close(net.tensors((3, 2))["1.weight"][..., 0, 0], expected[:2, :3])


@pytest.mark.parametrize("form", FORMS)
def test_from_trained_weights_every_structure_begins_with_its_slices(form: Form) -> None:
    network = block()
    ranking = random_ranking(network)
    net = PruningNet(network, form=form, ranking=ranking)
    for structure in some_structures(network):
        sliced = dict(slim(network, structure, ranking).named_parameters())
        mine = net.tensors(structure)
        assert mine.keys() == sliced.keys()
        assert all(torch.equal(mine[name], sliced[name]) for name in sliced)


@pytest.mark.parametrize("form", FORMS)
def test_from_scratch_nothing_is_left_of_the_trained_weights(form: Form) -> None:
    network, other = block(), block(randomised(ps.make_model("resnet8b"), seed=5))
    one, two = (PruningNet(each, form=form, start="scratch").tensors(network.space.full) for each in (network, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    third = PruningNet(network, form=form, start="scratch", seed=1).tensors(network.space.full)
    assert not torch.equal(one["conv1.weight"], third["conv1.weight"])


@cache
def resnet50() -> GeneNetwork:
    return metapruning("resnet50", image_size=32)


def test_convolutions_see_the_widths_of_their_block_and_classifiers_are_ordinary() -> None:
    found = resnet50()
    seen = encodings(found.network)
    groups = {name: tuple(found.network.space.groups[g].name for g in seen[name]) for name in seen}
    assert groups["conv1.weight"] == ("conv1",)
    first = {"conv1", "layer1.0.conv1", "layer1.0.conv3"}
    for layer in ("conv1", "conv2", "conv3", "downsample.0"):
        assert set(groups[f"layer1.0.{layer}.weight"]) == first
    assert len(groups["layer1.1.conv1.weight"]) == 2  # its block's input is also its output
    assert len(seen) == 53
    assert "fc.weight" not in seen
    separable = encodings(metapruning("mobilenet_v1", image_size=32).network)
    assert separable["features.3.conv.0.weight"] == separable["features.3.conv.3.weight"] == (0, 1)


def test_hidden_linear_layers_are_generated_and_the_last_one_is_not() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    assert encodings(ps.trace(model, IMAGES[:2])) == {"1.weight": (0,), "3.weight": (0, 1)}


# --- the forward ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_its_forward_is_that_of_the_built_networks_and_gradients_reach_everything_that_trains(form: Form) -> None:
    network = block()
    net = disturbed(PruningNet(network, form=form, hidden=4)).train()
    structures = some_structures(network)
    outputs = net(structures, IMAGES)
    for ours, theirs in zip(outputs, one_by_one(GeneratedWeights(net), structures, IMAGES), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    sum(output.square().sum() for output in outputs).backward()
    moved = {
        name: parameter.grad is not None and bool(parameter.grad.any()) for name, parameter in net.named_parameters()
    }
    still = {name for name, any_gradient in moved.items() if not any_gradient}
    fixed = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert still == fixed
    assert bool(fixed) == (form == "published")  # the published one has BatchNorms without trained parameters


class BesideItsLayers(nn.Module):
    """Calls functions with tensors of layers that it does not call, and asks one of them for its number of groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.drop, self.head = nn.BatchNorm2d(6), nn.Dropout(0.2), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.stem.weight, self.stem.bias, padding=1)
        x = F.conv2d(x, self.depthwise.weight, self.depthwise.bias, padding=1, groups=self.depthwise.groups)
        return self.head(self.drop(F.relu(self.norm(x)))).mean((2, 3))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("make", "images"),
    [
        (OptionA, image(4, 3, 16, 16)),
        (lambda: chain(list(BLOCKS)), image(4, 3, 16, 16)),
        (BesideItsLayers, image(4, 3, 16, 16)),
        (Positioned, SEQUENCES),
    ],
)
def test_its_forward_is_to_the_last_bit_that_of_a_slimmed_copy_for_each_structure(
    make: Callable[[], nn.Module], images: Tensor, training: bool
) -> None:
    torch.manual_seed(0)
    network = ps.trace(make(), images[:2])
    net = disturbed(PruningNet(network, hidden=4, ranking=random_ranking(network))).train(training)
    structures = [network.space.minimum, *some_structures(network), network.space.full, network.space.minimum]
    before, found = state_of(network.model), []
    for copies in (False, True):
        torch.manual_seed(1)
        if copies:
            slims = [slim(network, structure, net.ranking).train(training) for structure in structures]
            pairs = zip(slims, structures, strict=True)
            outputs = [functional_call(copy, net.tensors(structure), (images,)) for copy, structure in pairs]
        else:
            outputs = net(structures, images)
        net.zero_grad()
        sum(output.square().sum() for output in outputs).backward()
        found.append([*outputs, *(p.grad for p in net.parameters() if p.grad is not None)])
    assert all(torch.equal(mine, other) for mine, other in zip(*found, strict=True))
    assert state_of(network.model) == before
    held = net._skeleton._module.parameters()  # nothing of a structure is kept, above all no graph of its gradients
    assert all(mine is other for mine, other in zip(held, network.model.parameters(), strict=True))


def test_the_model_and_all_random_generators_stay_as_they_were() -> None:
    network = block()
    before = state_of(network.model), generators()
    for form in FORMS:
        for start in ("trained", "scratch"):
            net = PruningNet(network, form=form, start=start)  # type: ignore[arg-type]
            net([network.space.minimum], IMAGES)
    assert (state_of(network.model), generators()) == before


# --- as a source of weights -------------------------------------------------------------------------------------------


@pytest.fixture(params=FORMS, scope="module")
def form(request: pytest.FixtureRequest) -> Form:
    made: Form = request.param
    return made


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet8": lambda: ps.make_model("resnet8"),
    "literals": OptionA,
    "every kind of block": lambda: chain(list(BLOCKS)),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name == "every kind of block" else []) for name in NETWORKS],
)
def test_sliced_and_stacked_forwards_are_those_of_the_built_networks(name: str, form: Form) -> None:
    torch.manual_seed(0)
    network, images = ps.trace(NETWORKS[name](), image(2, 3, 16, 16)), image(6, 3, 16, 16)
    net = disturbed(PruningNet(network, form=form, hidden=4, start="scratch", ranking=random_ranking(network)))
    check_forwards(GeneratedWeights(net), images)


def test_compensated_weights_can_be_stacked_too() -> None:
    network = block()
    check_forwards(CompensatedWeights(network, random_ranking(network), image(64, 3, 8, 8)), IMAGES)


def check_forwards(weights: WeightSource, images: Tensor) -> None:
    structures = [*some_structures(weights.network), weights.network.space.full]
    before = state_of(weights.network.model)
    expected = one_by_one(weights, structures, images)  # type: ignore[arg-type]
    for run in (SharedForward(weights).run, StackedForward(weights).run):
        for ours, theirs in zip(run(structures, images), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4 * float(theirs.abs().max()))
    assert state_of(weights.network.model) == before


def test_a_tensor_depends_on_the_groups_that_influence_it_and_on_no_other(form: Form) -> None:
    network = block()
    weights = GeneratedWeights(disturbed(PruningNet(network, form=form)))
    middle = tuple(group.width // 2 for group in network.space.groups)
    for name, _ in network.model.named_parameters():
        for group, width in enumerate(middle):
            changed = (*middle[:group], width - 1, *middle[group + 1 :])
            one, other = weights.values(name, middle), weights.values(name, changed)
            same = one.shape == other.shape and torch.equal(one, other)
            assert same == (group not in weights.influences(name)), (name, group)


def test_its_description_tells_values_apart() -> None:
    network = block()
    net = PruningNet(network)
    one = GeneratedWeights(net).description
    assert GeneratedWeights(PruningNet(network)).description == one
    assert GeneratedWeights(disturbed(net)).description != one


def test_a_built_network_shares_nothing_and_has_the_channels_of_the_ranking() -> None:
    network = block()
    ranking = random_ranking(network)
    net = disturbed(PruningNet(network, ranking=ranking))
    weights, structure = GeneratedWeights(net), network.space.minimum
    assert np.array_equal(weights.kept(structure), InheritedWeights(network, ranking).kept(structure))
    built = weights.build(structure)
    before = copy.deepcopy(built.state_dict())
    disturbed(net, seed=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())


# --- size -------------------------------------------------------------------------------------------------------------


def test_a_form_that_would_not_fit_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """774 M parameters of generators, (32 + 1) per weight of a convolution, of which MetaPruning's issues complain."""
    network = resnet50().network
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**31)
    with pytest.raises(
        NotEnoughMemory, match=r"published form.*776\.1 M parameters.*2\.9 GiB.*2\.0 GiB.*compact"
    ) as caught:
        PruningNet(network, form="published")
    convolutions = {name: p.numel() for name, p in network.model.named_parameters() if p.dim() == 4}
    generators = sum(33 * size + 32 * (len(encodings(network)[name]) + 1) for name, size in convolutions.items())
    assert generators == 774_017_344
    others = sum(p.numel() for p in network.model.parameters()) - sum(convolutions.values())
    assert caught.value.needed == 4 * (generators + others)
    compact = PruningNet(network, form="compact")
    assert compact.size < 1.1 * sum(p.numel() for p in network.model.parameters())


def test_free_memory_is_known_here_and_nothing_is_refused_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    free = memory.free_bytes(device)
    assert free is None or 0 < free < 2**50
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    memory.require(2**60, device, "This", "Nothing.")


def test_the_limit_of_a_container_counts_less_what_it_uses_and_cannot_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("memory.max", "1000\n"),
        ("memory.current", "700\n"),
        ("memory.stat", "anon 5\ninactive_file 200\n"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_bytes(torch.device("cpu")) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(torch.device("cpu")) != 500


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_gives_back_the_same_pruningnet_also_for_other_allowed_widths(tmp_path: Path, form: Form) -> None:
    network = block()
    net = disturbed(PruningNet(network, form=form, hidden=4, rank=2, ranking=random_ranking(network)))
    save_pruningnet(net, tmp_path / "net.safetensors")
    coarse = block(round_to=4)
    read = load_pruningnet(tmp_path / "net.safetensors", coarse)
    assert read.settings == net.settings
    structure = coarse.space.minimum
    mine, theirs = read.tensors(structure), net.tensors(structure)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert GeneratedWeights(read).description == GeneratedWeights(net).description


def test_files_that_are_damaged_missing_or_of_something_else_are_refused(tmp_path: Path) -> None:
    network, file = block(), tmp_path / "net.safetensors"
    save_pruningnet(PruningNet(network), file)
    with pytest.raises(CheckpointError, match=r"no file .*other\.safetensors"):
        load_pruningnet(tmp_path / "other.safetensors", network)
    with pytest.raises(CheckpointError, match=r"group 'layer2\.0\.conv1' with 32 .* has 'layer1\.1\.conv1' with 16"):
        load_pruningnet(file, block(ps.make_model("resnet14b")))
    with pytest.raises(CheckpointError, match=r"another network: .* has shape"):
        load_pruningnet(file, ps.trace(ps.make_model("resnet8b", num_classes=3), IMAGES[:2]))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_pruningnet(file, network)
    ps.save(network.model, file)
    with pytest.raises(CheckpointError, match="is no PruningNet"):
        load_pruningnet(file, network)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("settings"),
        lambda about: about.update(groups=3),
        lambda about: about.update(orders=[3]),
        lambda about: about["settings"].update(form="large"),
        lambda about: about["settings"].update(evil=1),
        lambda about: about.update(settings=[]),
    ],
)
def test_a_note_that_somebody_changed_is_refused(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    network, file = block(), tmp_path / "net.safetensors"
    save_pruningnet(PruningNet(network), file)
    about, tensors = hypernet_file._KIND.read(file)
    change(about)
    hypernet_file._KIND.write(tensors, json.dumps(about), file)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_pruningnet(file, network)


def test_sizes_in_a_note_that_its_tensors_do_not_have_take_no_memory(tmp_path: Path) -> None:
    """An empty tensor may have any side; a product of 10 million by 10 million would take 400 TB."""
    network, file = block(), tmp_path / "net.safetensors"
    save_pruningnet(PruningNet(network), file)
    about, tensors = hypernet_file._KIND.read(file)
    about["settings"].update(hidden=10**7, rank=10**7)
    hypernet_file._KIND.write({**tensors, "net.wide": torch.empty(10**7, 0)}, json.dumps(about), file)
    with pytest.raises(CheckpointError, match=r"_generators\..* has shape .*, expected .*10000000"):
        load_pruningnet(file, network)


# --- what cannot be ---------------------------------------------------------------------------------------------------


class Moody:
    """A ranking that chooses again for each width."""

    def keep(self, group: int, units: int) -> Any:
        return np.arange(units)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "large"}, "Unknown form 'large'; there are published, compact, supernet"),
        ({"start": "cold"}, "Unknown start 'cold'; there are trained, scratch"),
        ({"hidden": 0}, "at least 1, got 0 and 8"),
        ({"rank": 0}, "at least 1, got 32 and 0"),
        ({"ranking": Moody()}, "got Moody, which chooses again"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PruningNet(block(), **options)


def test_a_network_without_anything_to_generate_says_so() -> None:
    with pytest.raises(TraceError, match="no layer whose weights could be generated"):
        PruningNet(dataclasses.replace(block(), cuts=()))
