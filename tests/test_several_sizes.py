"""Images of several sizes, of which a network takes one at a time: searched, trained, judged and kept as others."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator, measured_on
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.channels.lfe import LFECriterion
from prunesearch.evaluators.channels.taylor import TaylorCriterion
from prunesearch.evaluators.diagnosis import check_finite
from prunesearch.evaluators.layer_inputs import layer_inputs
from prunesearch.evaluators.recalibration import adaptive_bn, precise_bn
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.nested import Ragged, called, joined, stacked, taken
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.sizes import batches_by_size, by_size, sizes_of, some_of_one_size
from prunesearch.models.weights import InheritedWeights
from prunesearch.study.events import Event
from prunesearch.tasks.examples import Examples, following
from prunesearch.tasks.regress import R2
from prunesearch.training.finetune import Student
from tests.asking import asking

N = 48
HEIGHTS = (12, 8, 10)


def image(index: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(index)
    coarse = torch.rand(1, channels, 4, 4, generator=generator)
    size = (HEIGHTS[index * index % 7 % 3], 12)
    return F.interpolate(coarse, size=size, mode="bilinear")[0] + 0.05 * torch.rand(
        channels, *size, generator=generator
    )


class Pictures(Dataset[Any]):
    """Pairs of a noisy image and the image, of three heights."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        clean = image(index)
        return clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1000 + index)), clean


class Denoiser(nn.Module):
    """Has a path at half the size, which is brought back to whatever the image's is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.down, self.second = nn.Conv2d(12, 12, 3, 2, padding=1), nn.BatchNorm2d(12)
        self.out = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu(self.norm(self.stem(x)))
        coarse = F.interpolate(F.relu(self.second(self.down(wide))), size=wide.shape[-2:])
        return x - 0.1 * self.out(wide + coarse)


def per_image(outputs: Tensor, batch: Any) -> Tensor:
    return (outputs - batch[1]).square().mean((1, 2, 3))


TASK = ps.Task(loss=per_image, name="denoising")
REGRESSION = ps.tasks.regression()
MASKS = [(x, (x.mean(0) > 0.5).long()) for x in map(image, range(N))]
FORMS: dict[str, tuple[Any, Any]] = {
    "a dataset": (Pictures(), TASK),
    "a loader": (DataLoader(Pictures(), batch_size=1), TASK),
    "a list": ([Pictures()[i] for i in range(N)], TASK),
    "dictionaries": (
        [dict(zip(("noisy", "clean"), Pictures()[i], strict=True)) for i in range(N)],
        ps.Task(inputs=lambda b: b["noisy"], loss=lambda o, b: per_image(o, (None, b["clean"])), name="denoising"),
    ),
}


def data(source: Any = None, task: Any = TASK, **settings: Any) -> ps.Data:
    return ps.Data(Pictures() if source is None else source, task=task, **{"calibration": 32, **settings})


def search(given: ps.Data, model: nn.Module | None = None, **settings: Any) -> ps.SearchResult:
    usual = {"budget": "macs=60%", "n_trials": 5, "searcher": "random", "progress": False}
    return ps.search(model or Denoiser().eval(), given, **asking(**{**usual, **settings}))


def history(result: ps.SearchResult) -> tuple[list[Any], list[Any]]:
    return [t.structure for t in result.trials], [t.score for t in result.trials]


def examples_of(given: ps.Data) -> Examples:
    return given.examples_of(given.calibration_set())


def with_joint_statistics(model: nn.Module, inputs: Iterable[Tensor]) -> nn.Module:
    """A copy whose BatchNorms have the statistics of all positions of all images, one layer after the other."""
    network = copy.deepcopy(model).eval()
    batches = list(inputs)
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        seen: list[Tensor] = []
        handle = norm.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        with torch.no_grad():
            for x in batches:
                network(x)
        handle.remove()
        rows = torch.cat([x.movedim(1, -1).flatten(0, -2) for x in seen]).double()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(rows.mean(0))
        norm.running_var.copy_(rows.var(0, correction=0))
    return network


# --- batches ----------------------------------------------------------------------------------------------------------


def test_examples_are_taken_apart_by_size_and_put_together_again() -> None:
    items = [torch.zeros(1, 2, 3), torch.ones(1, 4, 3), torch.full((1, 2, 3), 2.0)]
    batch = (Ragged(items), torch.arange(3), Ragged([torch.zeros(k, 4) for k in (1, 1, 2)]))
    index = by_size(batch[0])
    assert index is not None
    assert [each.tolist() for each in index] == [[0, 2], [1]]
    images, numbers, boxes = some_of_one_size(batch, index[0])
    assert images.shape == (2, 1, 2, 3)
    assert numbers.tolist() == [0, 2]
    assert isinstance(boxes, Ragged)
    assert [len(each) for each in boxes] == [1, 2]
    assert by_size(torch.zeros(3, 2)) is None
    assert by_size({"a": torch.zeros(3, 2), "b": torch.zeros(3)}) is None
    assert sizes_of({"a": batch[0], "b": torch.zeros(3, 5)})[1] == ((1, 4, 3), (5,))
    again = joined([x for x in batches_by_size(batch[0])])
    assert [tuple(x.shape) for x in again] == [(1, 2, 3), (1, 2, 3), (1, 4, 3)]
    assert stacked([None, None]) is None
    assert torch.equal(joined([torch.zeros(1, 2), torch.ones(2, 2)]), torch.tensor([[0.0, 0], [1, 1], [1, 1]]))


def test_images_alone_in_a_list_are_one_input_and_not_as_many() -> None:
    task = ps.tasks.fidelity()
    images = Ragged([image(i) for i in range(4)])
    assert task.inputs(images) is images
    assert len(Examples(images, task)) == 4
    with pytest.raises(ValueError, match="Expected inputs of one size, got 4 of several"):
        called(Denoiser(), images)


def test_answers_of_the_unpruned_network_belong_to_their_own_examples() -> None:
    examples, model = examples_of(data()), Denoiser().eval()
    found = following(examples, model, batch_size=5)
    with torch.no_grad():
        for noisy, answer in zip(examples.inputs, found.batch[1], strict=True):
            torch.testing.assert_close(answer, model(noisy[None])[0], atol=1e-5, rtol=1e-5)
    assert measured_on(model, replace(found, task=replace(found.task, metric=None))) == pytest.approx(0.0, abs=1e-9)


def test_other_images_have_another_fingerprint() -> None:
    batch = data().calibration_set()
    assert fingerprint(batch) == fingerprint(data().calibration_set())
    other = (batch[0], Ragged([*batch[1][:-1], batch[1][-1] + 1]))
    assert fingerprint(batch) != fingerprint(other)


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_scores_are_those_of_a_slow_loop_over_images_with_the_statistics_of_all(form: tuple[Any, ps.Task]) -> None:
    given = data(*form)
    result = search(given, race=False)
    examples = examples_of(given)
    sizes = batches_by_size(examples.inputs)
    for trial in result.trials:
        slimmed = with_joint_statistics(result.best.weights.build(trial.structure), sizes)
        with torch.no_grad():
            losses = [
                F.mse_loss(slimmed(noisy[None])[0], clean)
                for noisy, clean in (Pictures()[i] for i in indices_of(examples.inputs))
            ]
        assert -float(trial.score or 0.0) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


def indices_of(images: Iterable[Tensor]) -> list[int]:
    """Which of the data set each image is."""
    known = [Pictures()[i][0] for i in range(N)]
    found = [next(i for i, x in enumerate(known) if x.shape == y.shape and torch.equal(x, y)) for y in images]
    return found


def test_a_batch_of_one_size_scores_to_the_last_bit_as_ever() -> None:
    same = [i for i in range(N) if image(i).shape[1] == HEIGHTS[0]]
    pairs = [Pictures()[i] for i in same]
    tensors = tuple(map(torch.stack, zip(*pairs, strict=True)))
    assert history(search(data(pairs))) == history(search(data(tensors)))


SETTINGS: dict[str, dict[str, Any]] = {
    "fidelity": {"metric": "fidelity"},
    "compensated": {"weight_source": "compensated"},
    "reconstructed": {"weight_source": "reconstructed"},
    "adaptive_bn": {"evaluator": "adaptive_bn", "evaluator_options": {"batches": 3}},
    "precise_bn": {"evaluator": "precise_bn"},
    "taylor": {"criterion": "taylor"},
    "lfe": {"criterion": "lfe", "criterion_options": {"masks": 20, "images": 16}},
    "cap": {"criterion": "cap"},
    "convex": {"searcher": "convex"},
    "sensitivity": {"searcher": "sensitivity"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_whatever_scores_takes_images_of_several_sizes(settings: dict[str, Any]) -> None:
    result = search(data(), n_trials=3, **settings)
    assert all(trial.failure is None for trial in result.trials)
    found = result.best.build()
    for height in HEIGHTS:
        assert found(torch.rand(1, 3, height, 12)).shape == (1, 3, height, 12)


def test_refitted_weights_come_from_images_of_all_sizes_alike() -> None:
    network = ps.trace(Denoiser().eval(), torch.rand(2, 3, 8, 12))
    images = examples_of(data()).inputs
    found = next(iter(layer_inputs(network, images)))
    whole = [next(iter(layer_inputs(network, batch))) for batch in batches_by_size(images)]
    shares = torch.tensor([len(batch) for batch in batches_by_size(images)], dtype=torch.float64) / len(images)
    expected = sum(share * each.mean for share, each in zip(shares, whole, strict=True))
    assert torch.allclose(found.mean, expected, atol=0.1)  # at other positions
    assert not torch.allclose(found.mean, whole[0].mean, atol=1e-6)


def test_a_race_scores_subsets_as_an_evaluator_of_them_does() -> None:
    network = ps.trace(Denoiser().eval(), torch.rand(2, 3, 8, 12))
    weights, examples = InheritedWeights(network, L1Criterion().rank(network)), examples_of(data())
    structures = [network.space.full, network.space.minimum]
    whole = AccuracyEvaluator(weights, examples)
    few = [3, 4, 9, 20, 21]
    assert whole.on(few).score(structures) == AccuracyEvaluator(weights, examples.take(torch.tensor(few))).score(
        structures
    )


def test_structures_run_together_give_what_each_gives_alone() -> None:
    network = ps.trace(Denoiser().eval(), torch.rand(2, 3, 8, 12))
    weights = InheritedWeights(network, L1Criterion().rank(network))
    batches = batches_by_size(examples_of(data()).inputs)
    half = tuple(group.widths[len(group.widths) // 2] for group in network.space.groups)
    structures = [network.space.full, half, network.space.minimum, half]
    together = SharedForward(weights).run_together(structures, batches)
    for limit in (0, 1 << 30):
        forward = SharedForward(weights, max_bytes=limit)
        for structure, found in zip(structures, together, strict=True):
            (alone,) = forward.run_together([structure], batches)
            assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


def test_criteria_weigh_images_and_not_sizes() -> None:
    network = ps.trace(Denoiser().eval(), torch.rand(2, 3, 8, 12))
    examples = examples_of(data())
    one = examples.by_size()[0]
    ragged = Examples((Ragged(one.batch[0]), Ragged(one.batch[1])), TASK)
    for criterion in (TaylorCriterion(), LFECriterion(masks=20, images=8)):
        assert criterion.scores(network, ragged) == pytest.approx(criterion.scores(network, one))
    few = examples.take(slice(32))
    scores = TaylorCriterion().scores(network, few)
    parameters = dict(network.model.named_parameters())
    losses = [part.losses(network.model(part.inputs)).sum() for part in few.by_size()]
    gradient = torch.autograd.grad(torch.stack(losses).sum() / 32, parameters["stem.weight"])[0]
    own = (parameters["stem.weight"] * gradient).flatten(1).sum(1).detach().double()
    assert ((own**2).numpy() <= scores[network.units[0]] * 1e3 + 1e-12).all()
    assert scores.any()


def test_a_study_goes_on_where_it_was_interrupted_and_refuses_other_images(tmp_path: Path) -> None:
    whole = search(data(), n_trials=6)

    def stop(event: Event) -> None:
        if event.trial.number == 2:
            raise KeyboardInterrupt

    study = f"sqlite:///{tmp_path / 's.db'}"
    with pytest.raises(KeyboardInterrupt):
        search(data(), n_trials=6, study=study, callbacks=stop)
    assert history(search(data(), n_trials=6, study=study)) == history(whole)
    pairs = [(noisy, clean + 1) for noisy, clean in (Pictures()[i] for i in range(N))]
    with pytest.raises(ps.StudyMismatch, match="data"):
        search(data(pairs), n_trials=6, study=study)


@pytest.mark.slow
def test_other_processes_score_several_sizes_alike() -> None:
    assert history(search(data(), workers=2)) == history(search(data()))


def test_a_result_says_of_which_size_costs_are() -> None:
    said = " ".join(search(data()).notes)
    assert "The images have 3 sizes" in said
    assert str(tuple(data().examples().shape[1:])) in said
    one = [pair for pair in MASKS if pair[0].shape[1] == HEIGHTS[0]]
    assert "sizes" not in " ".join(search(data(one, "segmentation"), segmenter()).notes)


# --- statistics -------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_all_positions_of_all_images() -> None:
    images = examples_of(data()).inputs
    expected = with_joint_statistics(Denoiser(), batches_by_size(images))
    for estimate in (ps.recalibrate_bn, precise_bn):
        found = Denoiser()
        estimate(found, images)
        assert torch.allclose(found.norm.running_mean, expected.norm.running_mean, atol=1e-6)
        assert torch.allclose(found.norm.running_var, expected.norm.running_var, rtol=1e-4)
    moved = Denoiser()
    adaptive_bn(moved, images, batches=2)
    assert not torch.equal(moved.norm.running_mean, Denoiser().norm.running_mean)


# --- training ---------------------------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_the_mean_over_images() -> None:
    recipe = ps.Recipe()
    model = Denoiser().eval()
    batch = data()._read(Pictures(), torch.arange(6).numpy())
    assert isinstance(batch[0], Ragged)
    loss = Student(model, None, recipe, TASK)(batch)
    alone = torch.stack([F.mse_loss(model(x[None])[0], y) for x, y in zip(*batch, strict=True)]).mean()
    torch.testing.assert_close(loss, alone)
    parameters = list(model.parameters())
    for mine, other in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(alone, parameters), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("source", [None, [image(i) for i in range(N)]], ids=["pairs", "images alone"])
def test_a_training_with_a_teacher_that_was_killed_goes_on(source: Any, tmp_path: Path) -> None:
    given = data(source, None if source else TASK, validation=0.25, test=source or Pictures())
    recipe = ps.Recipe(epochs=2, batch_size=8)
    teacher = Denoiser().eval()

    def tuned(checkpoint: Path | None, on_step: Any = None) -> nn.Module:
        return ps.finetune(
            Denoiser(), given, recipe=recipe, teacher=teacher, checkpoint=checkpoint, on_step=on_step, progress=False
        )

    def stop(report: Any) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    whole = tuned(None).state_dict()
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "c", stop)
    assert all(torch.equal(whole[name], value) for name, value in tuned(tmp_path / "c").state_dict().items())
    assert any(not torch.equal(whole[name], value) for name, value in Denoiser().state_dict().items())


@pytest.mark.slow
def test_a_pruningnet_and_attention_learn_from_several_sizes() -> None:
    given = data(calibration=16)
    network = ps.trace(Denoiser(), given.examples())
    net = ps.PruningNet(network)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ps.train_pruningnet(
        net, given, recipe=ps.PruningNetRecipe(epochs=1, batch_size=16, label_smoothing=0.0), progress=False
    )
    assert any(not torch.equal(before[name], value) for name, value in net.state_dict().items())
    recipe = ps.Recipe(epochs=5, batch_size=24)
    pruned = ps.paam(network, given, budget=ps.Budget(macs="80%"), recipe=recipe, progress=False)
    assert pruned.model(torch.rand(1, 3, 10, 12)).shape == (1, 3, 10, 12)


# --- the whole job ----------------------------------------------------------------------------------------------------


def segmenter() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, 2, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 2, 1),
    )


@pytest.mark.slow
def test_a_segmenter_is_pruned_compared_kept_and_reported(tmp_path: Path) -> None:
    given = ps.Data(MASKS, test=MASKS[:10], calibration=32, task="segmentation")
    model = segmenter()
    recipe = ps.Recipe(epochs=1, batch_size=16)
    small = ps.prune(model, given, "macs=60%", n_trials=4, recipe=recipe, folder=tmp_path, say=None, progress=False)
    network = ps.trace(model, given.examples())
    rows = ps.compare(network, {"small": small}, data=given).rows
    assert rows[1].cost.macs <= 0.6 * rows[0].cost.macs
    right = sum(
        torch.bincount(y.flatten() * 2 + scaled(small, x, y).flatten(), minlength=4) for x, y in MASKS[:10]
    ).view(2, 2)
    union = right.sum(0) + right.sum(1) - right.diagonal()
    assert rows[1].metric == pytest.approx(float((right.diagonal() / union)[union > 0].mean()))
    again = ps.load(tmp_path / "pruned.safetensors", segmenter())
    program = ps.export_program(again, given.examples()).module()
    torch.testing.assert_close(program(given.examples()), small(given.examples()))
    ps.write_report(f"sqlite:///{tmp_path / 'search.db'}", tmp_path / "report.html")
    assert "mIoU" in (tmp_path / "report.html").read_text()


def scaled(model: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        return F.interpolate(model(x[None]), size=mask.shape, mode="bilinear", align_corners=False).argmax(1)


def test_r2_of_targets_of_several_sizes_is_that_of_all_numbers() -> None:
    metric = R2()
    generator = torch.Generator().manual_seed(0)
    pairs = [[torch.rand(n, *shape, generator=generator) for _ in range(2)] for n, shape in ((3, (2, 3)), (2, (3, 2)))]
    for own, wanted in pairs:
        metric.update(own, (None, wanted))
    own, wanted = (torch.cat([pair[i].flatten() for pair in pairs]).double() for i in range(2))
    expected = 1 - float((own - wanted).square().sum() / (wanted - wanted.mean()).square().sum())
    assert metric.compute() == pytest.approx(expected)


def test_a_regressor_is_judged_by_r2() -> None:
    result = search(data(task=REGRESSION))
    assert result.judged is not None
    assert result.judged.metric == "R2"
    assert result.judged.unpruned > 0.5


def test_a_classifier_takes_several_sizes_if_its_task_says_so_by_another_name() -> None:
    task = replace(ps.tasks.classification(), name="any size")
    pairs = [(image(i), int(image(i).mean() > 0.5)) for i in range(N)]
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.ReLU())
    model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2)])
    result = search(data(pairs, task), model)
    assert result.judged is not None
    assert result.judged.metric == "accuracy"
    with pytest.raises(ValueError, match=r"Expected images of one size.*CenterCrop"):
        search(data(pairs, None), model)


# --- what is refused --------------------------------------------------------------------------------------------------


class Decides(Denoiser):
    """Does something else for large images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.shape[-2] > 9 else super().forward(x).flip(-1)


class Writes(Denoiser):
    """Takes sums over rows of a fixed number."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.linspace(0, 1, 12)[-x.shape[-1] :]


@pytest.mark.parametrize(
    "settings", [{}, {"weight_source": "compensated"}, {"weight_source": "reconstructed"}], ids=str
)
def test_a_forward_that_decides_by_size_is_refused_with_the_size(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Decides does something else for images of shape \(3, \d+, 12\)"):
        search(data(), Decides().eval(), **settings)


def test_a_forward_that_follows_sizes_is_not() -> None:
    assert search(data(), Writes().eval()).best.trial.score is not None


def test_images_that_the_network_cannot_take_are_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 9), nn.ReLU(), nn.Conv2d(12, 3, 1))
    pairs = [(torch.rand(3, 12, 12 - 8 * (i == 7)), torch.rand(())) for i in range(16)]
    task = ps.Task(loss=lambda o, b: o.mean((1, 2, 3)), name="mean")
    with pytest.raises(ValueError, match=r"cannot run on images of shape \(1, 3, 12, 4\)"):
        search(data(pairs, task), model)
    grey = [(torch.rand(3 if i else 1, 12, 12), torch.rand(())) for i in range(16)]
    with pytest.raises(ValueError, match=r"Expected images of shape \(n, 3, 12, 12\).* of another size; got \(1, 1,"):
        search(data([*grey[1:], grey[0]], task), model)
    types = [(torch.rand(3, 12 + i, 12).to(torch.float64 if i == 5 else torch.float32), 0.0) for i in range(16)]
    with pytest.raises(ValueError, match=r"type torch.float32.*torch.float64"):
        search(data(types, task), model)


def test_images_that_are_not_finite_are_named() -> None:
    images = Ragged([image(0), image(1), image(2) / 0])
    with pytest.raises(ValueError, match="1 of 3 have a NaN or an infinity, the first of them at index 2"):
        check_finite(Denoiser(), images)


def test_what_takes_one_size_says_so() -> None:
    network = ps.trace(Denoiser().eval(), torch.rand(2, 3, 8, 12))
    weights, examples = InheritedWeights(network, L1Criterion().rank(network)), examples_of(data())
    with pytest.raises(ValueError, match="cannot be run stacked"):
        AccuracyEvaluator(weights, examples, path="stacked")
    with pytest.raises(ValueError, match="no calibration= beside images of several sizes"):
        AccuracyEvaluator(weights, examples, calibration=torch.rand(4, 3, 8, 12))
    with pytest.raises(ValueError, match=r"ManiDP .* of one size"):
        ps.manidp(network, data(), budget=ps.Budget(macs="80%"), recipe=ps.Recipe(epochs=3))
    recipe = ps.Recipe(epochs=1, batch_size=8, augmentation=ps.Augmentation(flip=True))
    task = replace(TASK, targets_have_positions=False)
    with pytest.raises(ValueError, match=r"images of several sizes.*augment in the dataset"):
        ps.finetune(Denoiser(), data(task=task), recipe=recipe, progress=False)
    few = taken(examples.inputs, slice(5))
    with pytest.raises(ValueError, match=r"at most . have the same. Expected 8"):
        search(data([(x, x) for x in few]), searcher="convex", images=5)
