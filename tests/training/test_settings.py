"""What each setting of a recipe, of the data and of a session does."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from prunesearch.errors import TrainingDiverged
from prunesearch.evaluators.accuracy import top1
from prunesearch.training.accelerating import Accelerator, Log
from prunesearch.training.averaging import Average
from prunesearch.training.data import Data
from prunesearch.training.finetune import finetune, train
from prunesearch.training.optimization import parameter_groups
from prunesearch.training.recipe import Recipe
from prunesearch.training.reports import Session
from prunesearch.training.scratch import drawn_anew
from prunesearch.training.settings import AttentionSettings, ManifoldSettings, PruningNetRecipe
from tests.models_state import generators, state_of
from tests.training.test_finetune import blobs, small
from tests.training.test_resume import convolutional, pictures

SHORT = Recipe(epochs=3, batch_size=32)


def test_biases_and_batchnorm_do_not_decay() -> None:
    decayed, others = parameter_groups(small().parameters(), 0.1)
    assert [tuple(p.shape) for p in decayed["params"]] == [(8, 4), (2, 8)]
    assert [tuple(p.shape) for p in others["params"]] == [(8,), (8,), (8,), (2,)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_the_average_follows_its_recurrence_and_starts_fast() -> None:
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0.0)
    average, expected = Average(network, 0.5), 0.0
    for step, value in enumerate([1.0, 2.0, -4.0, 8.0, 8.0, 8.0, 8.0, 8.0], 1):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(network, step)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * value
        assert float(average.network.weight) == pytest.approx(expected)  # type: ignore[arg-type]


def test_the_averaged_network_is_what_comes_back() -> None:
    plain, averaged = (train(small(), blobs(), recipe=replace(SHORT, ema=ema)).last for ema in (0.0, 0.99))
    assert not torch.equal(plain[0].weight, averaged[0].weight)  # type: ignore[index]


def test_weights_are_drawn_anew_from_the_seed_alone() -> None:
    network = convolutional()
    before = generators()
    one, two, other = (drawn_anew(network, seed) for seed in (0, 0, 1))
    assert state_of(one) == state_of(two) != state_of(other)
    assert generators() == before
    trained = convolutional()
    trained[1].running_mean.fill_(7.0)
    assert float(drawn_anew(trained, 0)[1].running_mean.abs().max()) == 0.0  # type: ignore[index, operator]


def test_from_scratch_forgets_the_weights() -> None:
    other = convolutional()
    with torch.no_grad():
        other[0].weight.mul_(3.0)
    recipe = replace(SHORT, from_scratch=True)
    one, two = (finetune(network, pictures(), recipe=recipe) for network in (convolutional(), other))
    assert state_of(one)[0] == state_of(two)[0]


def test_a_parameter_that_nobody_can_draw_is_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(ValueError, match=r"0 \(Scaled\) has tensors of its own and no reset_parameters"):
        drawn_anew(nn.Sequential(Scaled()), 0)


def test_a_frozen_layer_keeps_its_weights_as_no_training_would_change_them() -> None:
    network = convolutional()
    network[0].requires_grad_(False)
    assert torch.equal(drawn_anew(network, 0)[0].weight, network[0].weight)  # type: ignore[index, arg-type]
    network[0].requires_grad_(True)
    assert not torch.equal(drawn_anew(network, 0)[0].weight, network[0].weight)  # type: ignore[index, arg-type]


def test_a_detection_head_begins_with_the_biases_that_it_wants() -> None:
    class Head(nn.Conv2d):
        def bias_init(self) -> None:
            assert self.bias is not None
            nn.init.constant_(self.bias, -4.0)

    fresh = drawn_anew(nn.Sequential(nn.Conv2d(3, 4, 1), Head(4, 2, 1)), 0)
    assert fresh[1].bias.tolist() == [-4.0, -4.0]  # type: ignore[index, union-attr]
    assert not bool((fresh[0].bias == -4.0).any())  # type: ignore[index, union-attr]


def test_a_share_held_out_is_never_trained_on_and_balanced() -> None:
    images = torch.arange(90.0).view(90, 1)
    labels = torch.arange(90) % 3
    data = Data(train=(images, labels), validation=0.2)
    held_out, classes = data.validation_set() or (torch.empty(0), torch.empty(0))
    assert torch.bincount(classes).tolist() == [6, 6, 6]
    seen = torch.cat([x.flatten() for x, _ in data.train_batches(8, np.random.default_rng(0))])
    assert not set(seen.tolist()) & set(held_out.flatten().tolist())
    assert data.steps_per_epoch(8) == 72 // 8
    assert not set(data.calibration_set()[0].flatten().tolist()) & set(held_out.flatten().tolist())


@pytest.mark.parametrize("share", [0, 0.0, 1.0, -0.1, 0.001, 0.999])
def test_a_share_that_leaves_a_side_empty_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="Expected validation as a share"):
        Data(train=(torch.zeros(60, 1), torch.zeros(60, dtype=torch.long)), validation=share)


def test_the_best_epoch_is_the_one_with_the_best_validation_accuracy_and_patience_ends_it() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(96, 4, generator=generator), torch.randint(0, 2, (96,), generator=generator)
    data = replace(blobs(), train=noise, validation=blobs().test)  # what is learnt does not help there
    result = train(small(), data, recipe=Recipe(epochs=30, batch_size=32, patience=3))
    accuracies = [report.metric for report in result.reports]
    best = result.reports[-1].best_epoch
    losses = [report.validation_loss for report in result.reports]
    order = [(accuracy, -loss) for accuracy, loss in zip(accuracies, losses, strict=True)]  # type: ignore[operator]
    assert best == order.index(max(order)) + 1  # type: ignore[type-var]
    assert len(result.reports) in (best + 3, 30)
    images, labels = data.validation_set() or (torch.empty(0), torch.empty(0))
    with torch.no_grad():
        assert (result.best(images).argmax(1) == labels).float().mean() == pytest.approx(accuracies[best - 1])
        assert (result.last(images).argmax(1) == labels).float().mean() == pytest.approx(accuracies[-1])


@pytest.mark.parametrize("from_scratch", [False, True])
def test_what_the_given_network_had_is_told_beside_what_the_returned_one_has(from_scratch: bool) -> None:
    good = train(small(), blobs(), recipe=SHORT).last
    data = replace(blobs(), validation=blobs().test)
    images, labels = blobs().test_set()
    result = train(good, data, recipe=replace(SHORT, epochs=1, lr=5.0, momentum=0.0, from_scratch=from_scratch))
    assert result.validation_before == pytest.approx(top1(good, images, labels))
    assert result.validation_after == pytest.approx(top1(result.best, images, labels))
    assert train(good, blobs(), recipe=SHORT).validation_before is None


def test_a_training_that_goes_on_knows_what_it_began_with(tmp_path: Path) -> None:
    def stop(report: Any) -> None:
        if report.step == 5:
            raise KeyboardInterrupt

    session = Session(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(convolutional(), pictures(), recipe=SHORT, session=replace(session, on_step=stop))
    first, again = (train(convolutional(), pictures(), recipe=SHORT, session=session) for _ in range(2))
    images, labels = pictures().validation_set() or (torch.empty(0), torch.empty(0))
    assert first.validation_before == again.validation_before == pytest.approx(top1(convolutional(), images, labels))
    assert (first.resumed_at, again.resumed_at) == (1, 3)
    assert again.reports == first.reports


def test_patience_without_validation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Data\(validation=...\) to stop early"):
        finetune(small(), blobs(), recipe=Recipe(patience=2))


def test_labels_beyond_the_outputs_are_refused_with_both_numbers() -> None:
    images, labels = blobs().train  # type: ignore[misc]
    with pytest.raises(ValueError, match="labels from 0 to 1, as the network has 2 outputs; got 1 to 5"):
        finetune(small(), Data(train=(images, torch.where(labels == 0, 5, 1))), recipe=SHORT)


def test_a_teacher_with_other_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"comparable with those of Sequential, \(2, 2\); got \(2, 3\)"):
        finetune(small(), blobs(), teacher=nn.Linear(4, 3), recipe=SHORT)


def test_images_that_do_not_fit_are_refused() -> None:
    data = Data(train=(torch.zeros(64, 9), torch.zeros(64, dtype=torch.long)))
    with pytest.raises(ValueError, match=r"Sequential cannot run on images of shape \(2, 9\)"):
        finetune(small(), data, recipe=SHORT)


def test_the_last_good_network_comes_with_the_error(tmp_path: Path) -> None:
    class Trap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            good["steps"] -= self.training and torch.is_grad_enabled()
            return self.layer(x) * (math.nan if good["steps"] < 0 else 1.0)

    good = {"steps": 20}
    torch.manual_seed(0)
    model = Trap()
    path, recipe = tmp_path / "run", Recipe(epochs=5, batch_size=32)
    with pytest.raises(TrainingDiverged, match=r"nan at step 20 of 40.*last good state is kept in") as caught:
        train(model, blobs(), recipe=recipe, session=Session(path))
    kept = caught.value.last_good
    assert all(torch.isfinite(parameter).all() for parameter in kept.parameters())
    assert not torch.equal(kept.layer.weight, model.layer.weight)
    good["steps"] = 1000  # the trap is gone; what was kept are the two epochs before it
    seen: list[int] = []
    train(model, blobs(), recipe=recipe, session=Session(path, on_epoch=lambda report: seen.append(report.epoch)))
    assert seen == [3, 4, 5]


def test_a_row_per_epoch_is_logged_also_across_a_stop(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", trackers=("csv",))

    def stop(report: Any) -> None:
        if report.step == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), blobs(), recipe=SHORT, session=Session(tmp_path / "run", log, on_step=stop))
    result = train(small(), blobs(), recipe=SHORT, session=Session(tmp_path / "run", log))
    with (tmp_path / "log" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["loss"]) for row in rows] == [report.loss for report in result.reports]


def test_tensorboard_gets_the_same(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(small(), blobs(), recipe=SHORT, session=Session(log=Log(tmp_path, trackers=("tensorboard",))))
    events = EventAccumulator(str(tmp_path / "finetune")).Reload()
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([r.loss for r in result.reports], rel=1e-6)


def test_sixteen_bits_train_too_and_a_callers_own_accelerator_is_left_alone() -> None:
    own = Accelerator(cpu=True)
    tuned = finetune(small(), blobs(), recipe=replace(SHORT, epochs=5, precision="bf16"))
    images, labels = blobs().test_set()
    with torch.no_grad():
        assert (tuned(images).argmax(1) == labels).float().mean() > 0.9
    assert {parameter.dtype for parameter in tuned.parameters()} == {torch.float32}
    assert own.mixed_precision == "no"
    assert own.prepare(small()) is not None
    Accelerator(cpu=True)


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match='"fp32" or "bf16" on a CPU'):
        finetune(small(), blobs(), recipe=replace(SHORT, precision="fp16"))


class Jittered(Dataset[Any]):
    """Augments each image as it is read, from torch's generator, as torchvision's transforms do."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((4,), float(index)) + torch.rand(4), index % 2


def test_what_a_dataset_draws_at_random_is_the_same_wherever_an_epoch_is_entered_and_in_any_worker() -> None:
    epochs = [
        [x for x, _ in Data(train=source).train_batches(16, np.random.default_rng(0), first=start)]
        for source in (Jittered(), DataLoader(Jittered(), num_workers=1))
        for start in (0, 2)
    ]
    assert [len(epoch) for epoch in epochs] == [4, 2, 4, 2]
    for epoch in epochs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(epochs[0][-len(epoch) :], epoch, strict=True))
    other = next(iter(Data(train=Jittered()).train_batches(16, np.random.default_rng(1))))[0]
    assert not torch.equal(epochs[0][0] % 1, other % 1)


def test_batches_for_a_gpu_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: [pinned.append(len(x)), x][1])
    data = Data(train=TensorDataset(torch.arange(64.0), torch.zeros(64, dtype=torch.long)))
    batches = [list(data.train_batches(16, np.random.default_rng(0), pinned=wanted)) for wanted in (False, True)]
    assert pinned == [16] * 8  # images and labels of four batches
    assert all(torch.equal(one[0], other[0]) for one, other in zip(*batches, strict=True))


def test_the_shares_of_processes_make_up_the_batch() -> None:
    data = Data(train=TensorDataset(torch.arange(64.0), torch.zeros(64, dtype=torch.long)))
    whole = [x for x, _ in data.train_batches(16, np.random.default_rng(0))]
    shares = [[x for x, _ in data.train_batches(16, np.random.default_rng(0), share=(i, 2))] for i in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(batch, torch.stack([first, second], 1).flatten())


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        *((Recipe, name) for name in ("epochs", "batch_size", "patience")),
        *((PruningNetRecipe, name) for name in ("epochs", "batch_size")),
        *((AttentionSettings, name) for name in ("every", "hidden")),
    ],
)
def test_every_count_is_a_whole_number(kind: type[Any], setting: str) -> None:
    with pytest.raises(TypeError, match=rf"Expected {setting} as a whole number, got 2\.5\."):
        kind(**{setting: 2.5})
    with pytest.raises(ValueError, match=rf"Expected {setting} >= \d, got 0\."):
        kind(**{setting: 0})


@pytest.mark.parametrize(
    ("kind", "setting"),
    [(Recipe, "lr"), (PruningNetRecipe, "lr"), (AttentionSettings, "reach"), (ManifoldSettings, "simple")],
)
def test_every_measure_is_a_finite_number(kind: type[Any], setting: str) -> None:
    for wrong in (math.nan, math.inf, 0.0):
        with pytest.raises(ValueError, match=rf"Expected {setting} > 0, got"):
            kind(**{setting: wrong})
