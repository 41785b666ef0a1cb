"""Training PruningNets: it learns, goes on after a kill to the last bit, and stops in time when something is wrong."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

import prunesearch as ps
from prunesearch.errors import CheckpointError, NotEnoughMemory, TrainingDiverged
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.models import memory
from prunesearch.models.generated import GeneratedWeights
from prunesearch.models.hypernet import PruningNet
from prunesearch.models.hypernet_file import load_pruningnet
from prunesearch.models.network import Network
from prunesearch.models.weights import InheritedWeights
from prunesearch.tasks.classify import labelled
from prunesearch.training import pruningnet
from prunesearch.training.data import Data
from prunesearch.training.pruningnet import _loss, _question, train_pruningnet
from prunesearch.training.reports import StepReport
from prunesearch.training.settings import PruningNetRecipe
from tests.models_state import generators, state_of

RECIPE = PruningNetRecipe(epochs=3, batch_size=16, lr=0.05)
ONE_EPOCH = PruningNetRecipe(epochs=1, batch_size=16)
STEPS = 12  # of RECIPE on `small_data`


def small_data(images: int = 80) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 2, 6, 6, generator=generator)
    return Data(train=(x, (x.mean((1, 2, 3)) > 0).long()), calibration=16)


def small_network(seed: int = 0, norm: bool = True) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [
            nn.Conv2d(2, 6, 3),
            *([nn.BatchNorm2d(6)] if norm else []),
            nn.ReLU(),
            nn.Dropout(0.2 if norm else 0.0),
        ]
        model = nn.Sequential(*layers, nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return ps.trace(model, torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0)))


def trained(file: Path | None = None, **options: Any) -> dict[str, Tensor]:
    net = PruningNet(small_network())
    train_pruningnet(net, small_data(), **{"recipe": RECIPE, "file": file, "save_every": 0.0, **options})
    return net.state_dict()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- what it learns ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("form", ["compact", "published"])
def test_narrow_structures_get_much_better_weights_than_slices(network: Network, digits_data: Data, form: Any) -> None:
    """At half of every width slices classify about half of the images correctly; deterministic, no margin needed."""
    ranking = L1Criterion().rank(network)
    net = PruningNet(network, form=form, ranking=ranking)
    before = state_of(network.model), generators()
    train_pruningnet(net, digits_data, recipe=PruningNetRecipe(epochs=5))
    assert (state_of(network.model), generators()) == before
    images, labels = digits_data.calibration_set()
    half = tuple(group.width // 2 for group in network.space.groups)
    sliced, generated = (
        AccuracyEvaluator(weights, labelled(images, labels), metric="accuracy").score([half])[0]
        for weights in (InheritedWeights(network, ranking), GeneratedWeights(net))
    )
    assert sliced < 0.7
    assert generated > 0.85


def test_all_but_the_full_structure_learn_from_its_outputs() -> None:
    """Closed form: the cross-entropy with smoothed labels, and the divergence from the first's probabilities."""
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    examples = labelled(torch.zeros(1), torch.tensor([0]))
    loss = _loss(lambda structures, images: [first, second], [(1,), (2,)], examples, 0.2)
    p = math.exp(2) / (math.exp(2) + 1)
    labels = -(0.9 * math.log(p) + 0.1 * math.log(1 - p))
    q = math.e / (math.e + 1)
    outputs = p * math.log(p / (1 - q)) + (1 - p) * math.log((1 - p) / q)
    assert float(loss) == pytest.approx((labels + outputs) / 2, rel=1e-5)


def test_the_sandwich_runs_the_full_the_narrowest_and_two_random_structures_and_random_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[tuple[int, ...]]] = []
    forward = PruningNet.forward

    def noting(self: PruningNet, structures: Any, *inputs: Tensor) -> list[Any]:
        seen.append(list(structures))
        return forward(self, structures, *inputs)

    monkeypatch.setattr(PruningNet, "forward", noting)
    trained(recipe=PruningNetRecipe(epochs=3, batch_size=16, sampling="sandwich"))
    space = small_network().space
    assert len(seen) == STEPS
    assert all(len(structures) == 4 and structures[:2] == [space.full, space.minimum] for structures in seen)
    assert len({structure for structures in seen for structure in structures[2:]}) > STEPS
    seen.clear()
    trained()
    assert {len(structures) for structures in seen} == {1}


def test_random_structures_have_the_share_of_the_macs_that_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    forward = PruningNet.forward

    def noting(self: PruningNet, structures: Any, *inputs: Tensor) -> list[Any]:
        seen.extend(structures[2:])
        return forward(self, structures, *inputs)

    monkeypatch.setattr(PruningNet, "forward", noting)
    trained(recipe=PruningNetRecipe(epochs=3, batch_size=16, sampling="sandwich", macs_from=0.4, macs_to=0.6))
    space = small_network().space
    shares = space.macs(seen) / space.cost(space.full).macs
    step = 1 / space.full[1]  # of one channel more: what fits may stay that far below
    assert len(set(seen)) > 5
    assert 0.4 - step < shares.min() < shares.max() <= 0.6


def test_a_file_from_before_random_structures_were_scaled_is_of_the_same_training() -> None:
    net, data = PruningNet(small_network()), small_data()
    before = _question(net, data, PruningNetRecipe(), 0)
    assert not any("macs" in field for field in before)
    assert _question(net, data, PruningNetRecipe(macs_to=0.5), 0) == {
        **before, "recipe's macs_from": 0.0, "recipe's macs_to": 0.5
    }  # fmt: skip


def test_images_that_score_structures_are_not_trained_on() -> None:
    data = small_data()
    scored, rest = data.calibration_set()[0], data.sub_training().train[0]  # type: ignore[index]
    both = torch.cat([scored, rest]).flatten(1)
    assert len(rest) == 64
    assert torch.equal(both.unique(dim=0), data.train[0].flatten(1).unique(dim=0))  # type: ignore[index]
    assert torch.equal(data.sub_training().calibration_set()[0], scored)


def test_a_dataset_is_split_without_reading_its_images_and_other_scoring_images_split_nothing() -> None:
    images, labels = small_data().train  # type: ignore[misc]
    read: list[int] = []

    class Images(Dataset[Any]):
        targets = labels.tolist()

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            read.append(i)
            return images[i], int(labels[i])

    data = Data(train=Images(), calibration=16)
    read.clear()
    rest = data.sub_training()
    assert len(read) <= 2  # the first items, to see what they are
    assert rest.steps_per_epoch(1) == 64
    assert torch.equal(rest.calibration_set()[0], data.calibration_set()[0])
    own = Data(train=(images, labels), calibrate_on=(images[:20], labels[:20]), calibration=16)
    assert own.sub_training() is own


def test_batches_can_begin_later_and_be_shared() -> None:
    data = small_data()
    batches = list(data.train_batches(16, np.random.default_rng(3)))
    later = list(data.train_batches(16, np.random.default_rng(3), first=2))
    assert all(torch.equal(one, other) for (one, _), (other, _) in zip(batches[2:], later, strict=True))
    parts = [list(data.train_batches(16, np.random.default_rng(3), share=(i, 3))) for i in range(3)]
    for whole, *shares in zip(batches, *parts, strict=True):
        together = torch.cat([images for images, _ in shares]).flatten(1)
        assert torch.equal(together.unique(dim=0), whole[0].flatten(1).unique(dim=0))


# --- going on ---------------------------------------------------------------------------------------------------------


class Enough(Exception):
    """Raised by a callback."""


def stopping_at(step: int) -> Callable[[StepReport], None]:
    def on_step(report: StepReport) -> None:
        if report.step == step:
            raise Enough

    return on_step


@pytest.mark.parametrize("save_every", [0.0, 1e9])
def test_a_training_stopped_at_any_step_ends_with_the_values_of_an_uninterrupted_one(
    tmp_path: Path, save_every: float
) -> None:
    expected, file = trained(), tmp_path / "net.safetensors"
    for step in (1, 4, 7, STEPS):  # within an epoch, at its end, and after the last step
        with pytest.raises(Enough):
            trained(file, save_every=save_every, on_step=stopping_at(step))
        assert not file.exists()
    reports: list[StepReport] = []
    assert equal(trained(file, on_step=reports.append), expected)
    assert {path.name for path in tmp_path.iterdir()} == {"net.safetensors", "net.safetensors.training.lock"}
    assert reports == []  # all steps had been done


PROGRAM = """
import sys, time, torch
from pathlib import Path
from tests.training.test_pruningnet import trained
torch.set_num_threads(int(sys.argv[2]))
trained(Path(sys.argv[1]), on_step=lambda report: time.sleep(0.05))
"""


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_and_ends_with_the_values_of_an_uninterrupted_one(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    state = Path(f"{file}.training")
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(file), str(torch.get_num_threads())])
    while process.poll() is None and not state.exists():
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists()
    assert not file.exists()
    reports: list[StepReport] = []
    assert equal(trained(file, on_step=reports.append), trained())
    assert 0 < len(reports) < STEPS + 1
    assert reports[-1] == StepReport(STEPS, STEPS, reports[-1].loss, 0.0)
    assert not state.exists()


def test_a_finished_training_is_read_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    first = trained(file)
    assert equal(trained(file, on_step=stopping_at(1)), first)
    assert equal(load_pruningnet(file, small_network()).state_dict(), first)


OTHERS: dict[str, Callable[[Path], None]] = {
    "network": lambda file: train_pruningnet(PruningNet(small_network(1)), small_data(), recipe=RECIPE, file=file),
    "data": lambda file: train_pruningnet(PruningNet(small_network()), small_data(96), recipe=RECIPE, file=file),
    "seed": lambda file: train_pruningnet(PruningNet(small_network()), small_data(), recipe=RECIPE, file=file, seed=1),
    "PruningNet's rank": lambda file: train_pruningnet(
        PruningNet(small_network(), rank=4), small_data(), recipe=RECIPE, file=file
    ),
    "recipe's epochs": lambda file: train_pruningnet(
        PruningNet(small_network()), small_data(), recipe=PruningNetRecipe(epochs=4), file=file
    ),
}


@pytest.mark.parametrize("finished", [False, True])
def test_going_on_with_something_else_is_refused_with_the_name_of_what_differs(tmp_path: Path, finished: bool) -> None:
    file = tmp_path / "net.safetensors"
    if finished:
        trained(file)
    else:
        with pytest.raises(Enough):
            trained(file, on_step=stopping_at(2))
    for what, again in OTHERS.items():
        with pytest.raises(CheckpointError, match=f"of another training: the {what} was"):
            again(file)


def test_going_on_with_another_task_is_refused_and_that_of_earlier_files_is_classification(tmp_path: Path) -> None:
    file, data = tmp_path / "net.safetensors", small_data()
    trained(file)
    assert "task" not in _question(PruningNet(small_network()), data, RECIPE, 0)
    doubled = replace(data.goal, loss=lambda outputs, batch: 2 * F.cross_entropy(outputs, batch[1], reduction="none"))
    with pytest.raises(CheckpointError, match="of another training: the task was None"):
        train_pruningnet(PruningNet(small_network()), replace(data, task=doubled), recipe=RECIPE, file=file)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_state_before_it_is_kept(tmp_path: Path) -> None:
    data, file = small_data(), tmp_path / "net.safetensors"
    images, labels = data.train  # type: ignore[misc]
    last = data.sub_training().train[0][-1]  # type: ignore[index]
    (place,) = (images == last).flatten(1).all(1).nonzero().flatten().tolist()
    images = images.clone()
    images[place] = math.nan
    net = PruningNet(small_network())
    steps: list[int] = []
    with pytest.raises(TrainingDiverged, match="Lower the learning rate") as caught:
        train_pruningnet(
            net,
            Data(train=(images, labels), calibration=16),
            recipe=RECIPE,
            file=file,
            on_step=lambda report: steps.append(report.step),
        )
    assert caught.value.step == len(steps) < 4  # each epoch has four steps, and all images
    kept = load_pruningnet(f"{file}.training", small_network()).state_dict()
    assert equal(kept, net.state_dict())
    assert all(bool(tensor.isfinite().all()) for tensor in kept.values())
    if steps:
        assert not equal(kept, PruningNet(small_network()).state_dict())


def test_gradients_that_overflow_stop_it_before_they_reach_the_parameters() -> None:
    net = PruningNet(small_network())
    next(net.parameters()).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingDiverged, match=r"norm of the gradients became .* at step 0"):
        train_pruningnet(net, small_data(), recipe=RECIPE)
    assert equal(net.state_dict(), PruningNet(small_network()).state_dict())


def test_a_file_that_cannot_be_written_is_said_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        trained(tmp_path / "nowhere" / "net.safetensors", on_step=stopping_at(1))


def test_gradients_that_would_not_fit_are_refused_before_they_are_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    net = PruningNet(small_network())
    monkeypatch.setattr(memory, "free_bytes", lambda device: 16 * net.size - 1)
    with pytest.raises(NotEnoughMemory, match=r'Training .* Use form="compact"'):
        train_pruningnet(net, small_data())
    monkeypatch.setattr(memory, "free_bytes", lambda device: 16 * net.size)
    train_pruningnet(net, small_data(), recipe=PruningNetRecipe(epochs=1, batch_size=32))


@pytest.mark.parametrize("has_it", [True, False])
def test_it_trains_in_bfloat16_where_the_device_computes_in_it_itself(
    has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.cuda.is_bf16_supported` is also true where it is only imitated."""
    precisions: list[str] = []
    begun = pruningnet.accelerated
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(pruningnet, "has_bfloat16", lambda device: has_it)
    monkeypatch.setattr(pruningnet, "accelerated", lambda kind, *rest: precisions.append(kind) or begun(kind, *rest))
    trained(recipe=ONE_EPOCH)
    assert precisions == ["bf16" if has_it else "fp32"]


def test_data_without_a_training_image_left_are_refused() -> None:
    data = Data(train=small_data().train, calibration=80)
    with pytest.raises(ValueError, match="All 80 training images are calibration images"):
        train_pruningnet(PruningNet(small_network()), data)


def test_a_network_that_is_no_classifier_is_refused() -> None:
    network = ps.trace(nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 3)), torch.randn(2, 2, 6, 6))
    with pytest.raises(ValueError, match="Expected a classifier"):
        train_pruningnet(PruningNet(network), small_data())


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": 0.0},
        {"momentum": 1.0},
        {"label_smoothing": -0.1},
        {"sampling": "all"},
        {"macs_from": 0.3, "macs_to": 0.2},
    ],
)
def test_recipes_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Expected|Unknown"):
        PruningNetRecipe(**options)


# --- several processes ------------------------------------------------------------------------------------------------

SHARED = """
import sys, torch
from pathlib import Path
from prunesearch.models.hypernet import PruningNet
from prunesearch.training.pruningnet import train_pruningnet
from tests.training.test_pruningnet import ONE_EPOCH, small_data, small_network
torch.set_num_threads(1)
net = PruningNet(small_network(norm=False))
train_pruningnet(net, small_data(), recipe=ONE_EPOCH, file=Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_two_processes_that_share_each_batch_train_what_one_does(tmp_path: Path) -> None:
    """Without BatchNorm and dropout, whose draws are each process's own, the mean gradient is that of the batch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tmp_path / "net.safetensors"
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED, str(file)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    alone = PruningNet(small_network(norm=False))
    train_pruningnet(alone, small_data(), recipe=ONE_EPOCH)
    together = load_pruningnet(file, small_network(norm=False)).state_dict()
    for name, values in alone.state_dict().items():
        torch.testing.assert_close(together[name], values, rtol=1e-4, atol=1e-5)
