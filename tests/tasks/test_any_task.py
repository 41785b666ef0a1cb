"""Networks that are no classifiers are searched, trained, compared and stored, as their tasks say."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator, measured_on
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.models.nested import Ragged, called
from prunesearch.models.weights import InheritedWeights
from prunesearch.tasks.examples import Examples
from prunesearch.training.evaluation import metric_on_test
from tests.models_state import state_of
from tests.tasks.networks import CASES, Case, TwoInputs, drawn

SHORT = ps.Recipe(epochs=2, batch_size=32, lr=0.003, optimizer="adamw")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def test_it_is_searched_trained_compared_and_saved(case: Case, tmp_path: Path) -> None:
    before = state_of(case.model)
    network = ps.trace(case.model, case.data.examples())
    result = ps.search(network, case.data, budget="macs=60%", n_trials=12, study=f"sqlite:///{tmp_path / 's.db'}")
    assert result.measures == "loss"
    assert result.unpruned is not None
    assert result.best.cost.macs <= 0.6 * network.space.cost(network.space.full).macs
    small = result.best.build()
    tuned = ps.train(small, case.data, recipe=SHORT, teacher=case.model)
    assert tuned.metric == case.metric
    assert tuned.validation_after is not None
    assert tuned.validation_before is not None
    gained = tuned.validation_after - tuned.validation_before
    assert tuned.did_harm == (gained > 0 if case.metric == "error" else gained < 0)
    found = ps.compare(network, {"small": tuned.best}, data=case.data)
    assert found.metric == case.metric
    assert [row.metric for row in found.rows] == [metric_on_test(m, case.data)[0] for m in (case.model, tuned.best)]
    ps.save(tuned.best, tmp_path / "small.safetensors", example_inputs=case.data.examples())
    again = ps.load(tmp_path / "small.safetensors", case.model)
    assert metric_on_test(again, case.data) == metric_on_test(tuned.best, case.data)
    assert state_of(case.model) == before


def test_the_score_is_the_loss_of_the_built_network_with_its_own_statistics(case: Case) -> None:
    network = ps.trace(case.model, case.data.examples())
    weights = InheritedWeights(network, L1Criterion().rank(network))
    examples = case.data.examples_of(case.data.calibration_set())
    half = tuple(group.widths[len(group.widths) // 2] for group in network.space.groups)
    model = weights.build(half).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = None
    with torch.no_grad():
        outputs = called(model, examples.inputs)
    assert AccuracyEvaluator(weights, examples).score([half])[0] == pytest.approx(
        -float(examples.losses(outputs).mean()), rel=1e-4
    )


@pytest.mark.parametrize("metric", ["fidelity", "agreement", "metric"])
def test_the_unpruned_network_scores_highest_and_narrow_ones_low(case: Case, metric: str) -> None:
    network = ps.trace(case.model, case.data.examples())
    weights = InheritedWeights(network, L1Criterion().rank(network))
    examples = case.data.examples_of(case.data.calibration_set())
    full, least = AccuracyEvaluator(weights, examples, metric=metric).score([network.space.full, network.space.minimum])
    assert full > least


def test_sliced_and_stacked_scores_agree(case: Case) -> None:
    network = ps.trace(case.model, case.data.examples())
    weights = InheritedWeights(network, L1Criterion().rank(network))
    examples = case.data.examples_of(case.data.calibration_set())
    some = [tuple(row) for row in network.space.sample(__import__("numpy").random.default_rng(0), 5).tolist()]
    sliced, stacked = (AccuracyEvaluator(weights, examples, path=path).score(some) for path in ("sliced", "stacked"))
    assert stacked == pytest.approx(sliced, rel=1e-3)


def test_inputs_alone_are_enough(case: Case) -> None:
    """No labels and no loss: structures are scored, and trained, by the outputs of the unpruned network."""
    inputs = case.data.examples(160)
    data = ps.Data(train=inputs, calibration=64, validation=0.2, task=ps.tasks.fidelity(inputs=lambda batch: batch))
    network = ps.trace(case.model, case.data.examples())
    result = ps.search(network, data, budget="macs=60%", n_trials=6)
    assert result.measures == "fidelity"
    small = result.best.build()
    with pytest.raises(ValueError, match="no labels to learn from, so it needs a network to follow"):
        ps.finetune(small, data, recipe=SHORT)
    tuned = ps.train(small, data, recipe=SHORT, teacher=case.model)
    assert tuned.metric == "agreement"
    assert tuned.validation_before is not None
    assert tuned.validation_after is not None
    assert tuned.validation_after >= tuned.validation_before  # agreement may be complete from the beginning
    assert tuned.validation_after > 0.75


def test_a_tensor_of_images_means_fidelity() -> None:
    case = CASES["multilabel"]()
    images = case.data.examples(160)
    for source in (images, images.numpy(), list(images), torch.utils.data.TensorDataset(images)):
        data = ps.Data(train=source, calibration=32)
        assert data.goal.name == "fidelity"
        result = ps.search(case.model, data, budget="macs=60%", searcher="uniform", n_trials=1)
        assert result.measures == "fidelity"


class Rows(torch.utils.data.Dataset[Any]):
    """Items are dictionaries, with boxes of which each image has another number."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": drawn(index, 2, 8, 8), "boxes": drawn(index, index % 3, 4), "name": f"image {index}"}


def test_items_of_any_form_are_batches_and_what_cannot_be_stacked_is_one_per_example() -> None:
    counts = ps.Task(
        inputs=lambda batch: batch["image"],
        loss=lambda outputs, batch: (outputs.mean(1) - torch.tensor([float(len(b)) for b in batch["boxes"]])).square(),
        strata=lambda batch: torch.tensor([len(b) for b in batch["boxes"]]),
        name="counting",
    )
    data = ps.Data(train=Rows(), calibration=30, task=counts)
    batch = data.calibration_set()
    assert batch["image"].shape == (30, 2, 8, 8)
    assert isinstance(batch["boxes"], Ragged)
    assert [len(boxes) for boxes in batch["boxes"]].count(0) == 10  # equal shares of 0, 1 and 2 boxes
    for name, boxes in zip(batch["name"], batch["boxes"], strict=True):
        assert torch.equal(boxes, Rows()[int(name.split()[1])]["boxes"])
    model = CASES["multilabel"]().model
    result = ps.search(model, data, budget="macs=60%", n_trials=4, scoring=ps.Scoring(images=20))
    assert result.measures == "loss"
    assert data.sub_training().calibration_set()["name"] == batch["name"]


def test_a_loader_with_a_collate_function_of_its_own_is_asked_to_use_it() -> None:
    def collate(items: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        return torch.stack([item["image"] for item in items]), torch.tensor([len(item["boxes"]) for item in items])

    loader = torch.utils.data.DataLoader(Rows(), batch_size=4, collate_fn=collate)
    task = ps.Task(loss=lambda outputs, batch: (outputs.mean(1) - batch[1]).square())
    data = ps.Data(train=loader, calibration=16, task=task)
    images, counts = data.calibration_set()
    assert (tuple(images.shape), tuple(counts.shape)) == ((16, 2, 8, 8), (16,))
    ps.finetune(CASES["multilabel"]().model, data, recipe=ps.Recipe(epochs=1, batch_size=8))


class Average:
    """A metric as an object."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def update(self, outputs: Tensor, batch: Any) -> None:
        self.values.append((outputs - batch[1]).abs().mean(1))

    def compute(self) -> Tensor:
        return torch.cat(self.values).mean()


class Torchmetric:
    """Looks like one of torchmetrics: `update(predictions, targets)`, and it says which way is better."""

    __module__ = "torchmetrics.regression"
    higher_is_better = False

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def reset(self) -> None:
        self.values = []

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        self.values.append((predictions - targets).abs().mean(1))

    def compute(self) -> Tensor:
        return torch.cat(self.values).mean()


@pytest.mark.parametrize(
    "metric",
    [
        lambda outputs, batch: (outputs - batch[1]).abs().mean(1),
        lambda outputs, batch: (outputs - batch[1]).abs().mean(),
        Average,
        Average(),
        lambda: Average(),
        Torchmetric,
        Torchmetric(),
    ],
    ids=["values", "mean", "class", "object", "factory", "torchmetrics class", "torchmetrics object"],
)
def test_metrics_come_in_several_forms_and_mean_the_same(metric: Any) -> None:
    case = CASES["regression"]()
    task = ps.Task(loss=case.data.goal.loss, metric=metric)
    examples = Examples(case.data.test_set(), task)
    (pictures, facts), targets = case.data.test_set()
    with torch.no_grad():
        expected = float((case.model(pictures, facts) - targets).abs().mean())
    for _ in range(2):  # an object that was given is not used up
        assert measured_on(case.model, examples, batch_size=40) == pytest.approx(expected, rel=1e-5)


REGRESSION = CASES["regression"]


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (
            ps.Task(loss=lambda outputs, batch: (outputs - batch[1]).square()),
            r"one number per example, \(2,\), or as their mean; got shape \(2, 2\). Take the mean",
        ),
        (ps.Task(loss=lambda outputs, batch: outputs["out"]), "The loss of Task.task. failed: "),
        (ps.Task(loss=lambda outputs, batch: None), "or as their mean; got a NoneType"),
        (ps.Task(inputs=lambda batch: batch[0]["picture"]), "failed: |indices|Expected"),
        (
            ps.Task(loss=lambda outputs, batch: outputs.mean(1), metric=lambda: 3),
            "as a function of .outputs, batch., or as an object with update",
        ),
        (ps.tasks.segmentation(), r"Expected \(n, classes, h, w\) logits; the network returned \(2, 2\)"),
        (ps.tasks.multilabel(), "Expected targets of zeros and ones"),
        (ps.tasks.classification(), "Expected labels as class indices, got one of shape .* or give Data.task=...."),
    ],
)
def test_what_breaks_the_contract_of_a_task_is_one_sentence(task: ps.Task, sentence: str) -> None:
    case = REGRESSION()
    batch = case.data.test_set()

    def searched() -> None:
        data = ps.Data(train=batch, task=task)
        metric = "metric" if task.metric is not None and task.name == "task" else None
        ps.search(
            ps.trace(case.model, case.data.examples()),
            data,
            budget="macs=60%",
            scoring=ps.Scoring(metric=metric),
            n_trials=1,
        )

    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        searched()
    assert str(caught.value).count("\n") == 0


LIST = [[0, 1], [1]] * 4
MASKS = [torch.zeros(8, 8).long(), torch.zeros(6, 6).long()] * 4


@pytest.mark.parametrize(
    ("task", "targets", "sentence"),
    [
        (
            "multilabel",
            LIST,
            r"zeros and ones \(labels,\), and no list of labels, .* got a list\. Make each a tensor with",
        ),
        ("multilabel", [None] * 8, "got none"),
        ("segmentation", LIST, r"a mask \(h, w\) of class indices .* got a list"),
        (
            "segmentation",
            MASKS,
            r"got tensors of \(8, 8\) and \(6, 6\)\. Make each a tensor; masks of images of one size",
        ),
        ("regression", LIST, "a tensor of numbers .* got a list"),
        ("regression", [1.0, None] * 4, "got a float and a NoneType"),
        ("regression", [1.0, float("nan"), float("inf"), 2.0] * 2, "NaN or infinite ones in 4 of 8 examples. Leave"),
    ],
)
def test_targets_that_are_not_what_a_task_takes_are_one_sentence(task: str, targets: Any, sentence: str) -> None:
    case = CASES["segmentation" if task == "segmentation" else "multilabel"]()
    items = list(zip(case.data.examples(8), targets, strict=True))
    with pytest.raises(ValueError, match=sentence):
        ps.search(case.model, ps.Data(train=items, calibration=8, task=task), budget="macs=60%", n_trials=1)


@pytest.mark.parametrize("task", ["multilabel", "segmentation", "regression"])
def test_inputs_without_targets_are_one_sentence(task: str) -> None:
    case = CASES["segmentation" if task == "segmentation" else "multilabel"]()
    with pytest.raises(ValueError, match=r"Expected pairs of inputs and targets, .*; got inputs without targets"):
        ps.search(case.model, ps.Data(train=case.data.examples(8), task=task), budget="macs=60%", n_trials=1)


def test_a_segmenter_with_one_logit_for_each_pixel_is_told_what_to_do() -> None:
    images = torch.rand(8, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 1, 1))
    data = ps.Data(train=(images, (images.mean(1) > 0.5).long()), task="segmentation")
    with pytest.raises(
        ValueError, match=r"two or more; .*\(2, 1, 8, 8\)\. Give it a channel for each class.*binary loss"
    ):
        ps.search(model, data, budget="macs=60%", n_trials=1)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("segmentations", "Unknown task 'segmentations'; there are .* Did you mean 'segmentation'?"),
        (3, "Expected task as one of classification, "),
        (lambda: 3, "contract Task: it made 3, which has no inputs"),
    ],
)
def test_what_is_no_task_is_refused(given: Any, sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        ps.Data(train=torch.zeros(4, 2, 8, 8), task=given)


def test_masks_are_not_augmented_without_their_images() -> None:
    case = CASES["segmentation"]()
    with pytest.raises(ValueError, match="such as masks, would have to change with the images"):
        ps.finetune(case.model, case.data, recipe=ps.Recipe(augmentation=ps.Augmentation(flip=True)))


def test_labels_of_somebody_else_are_noticed_without_classes() -> None:
    case = REGRESSION()
    inputs, targets = case.data.test_set()
    data = ps.Data(train=(inputs, targets.roll(7, 0)), calibration=160, task=case.data.goal)
    result = ps.search(
        ps.trace(case.model, case.data.examples()), data, budget="macs=60%", n_trials=2, scoring=ps.Scoring(images=160)
    )
    assert any("fits its own examples no better than others: scores mean nothing" in note for note in result.notes)
    right = ps.Data(train=(inputs, targets), calibration=160, task=case.data.goal)
    good = ps.search(
        ps.trace(case.model, case.data.examples()), right, budget="macs=60%", n_trials=2, scoring=ps.Scoring(images=160)
    )
    assert not any("mean nothing" in note for note in good.notes)


@pytest.mark.parametrize("criterion", ["taylor", "lfe"])
def test_criteria_that_look_at_the_loss_do_so_with_any_task(case: Case, criterion: str) -> None:
    network = ps.trace(case.model, case.data.examples())
    options = {"masks": 20} if criterion == "lfe" else {}
    result = ps.search(
        network,
        case.data,
        budget="macs=60%",
        n_trials=2,
        scoring=ps.Scoring(criterion=criterion, criterion_options=options),
    )
    assert result.best.trial.score is not None


def test_a_study_goes_on_with_the_same_task_and_refuses_another(tmp_path: Path) -> None:
    case = REGRESSION()
    network = ps.trace(case.model, case.data.examples())
    url = f"sqlite:///{tmp_path / 's.db'}"
    part = ps.search(network, case.data, budget="macs=60%", n_trials=3, study=url)
    whole = ps.search(network, case.data, budget="macs=60%", n_trials=6, study=url)
    assert whole.trials[:3] == part.trials
    other = ps.Data(train=case.data.test_set(), calibration=64, validation=0.2, task=ps.tasks.regression("huber"))
    with pytest.raises(ps.StudyMismatch):
        ps.search(network, other, budget="macs=60%", n_trials=6, study=url, study_name=whole.name)


def test_a_classification_with_another_loss_is_another_task(tmp_path: Path) -> None:
    images, labels = drawn(0, 64, 2, 8, 8), torch.arange(64) % 16  # the first examples have none of class 0
    first, second = nn.Conv2d(2, 12, 3), nn.Conv2d(12, 12, 3)
    model = nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 16))

    def search(weight: float) -> ps.SearchResult:
        def loss(outputs: Tensor, batch: Any) -> Tensor:
            weights = torch.ones(16).index_fill(0, torch.tensor(0), weight)
            return nn.functional.cross_entropy(outputs, batch[1], weight=weights, reduction="none")

        data = ps.Data(train=(images, labels), task=replace(ps.tasks.classification(), loss=loss))
        scoring = ps.Scoring(evaluator_options={"statistics": "images"})
        own = {"searcher": "uniform", "n_trials": 1, "study": tmp_path / "s.db", "study_name": "search"}
        return ps.search(model, data, budget="macs=60%", scoring=scoring, **own)  # type: ignore[arg-type]

    assert search(1.0).trials == search(1.0).trials
    with pytest.raises(ps.StudyMismatch, match="its task is"):
        search(50.0)


def test_a_study_from_before_the_loss_of_all_was_part_of_its_task_goes_on(tmp_path: Path) -> None:
    case = REGRESSION()
    network = ps.trace(case.model, case.data.examples())
    url = f"sqlite:///{tmp_path / 's.db'}"

    def search(macs: str, n_trials: int) -> ps.SearchResult:
        return ps.search(network, case.data, budget=f"macs={macs}", searcher="random", n_trials=n_trials, study=url)

    part = search("60%", 2)
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        (stored,) = connection.execute("select question from study").fetchone()
        question = json.loads(stored)
        del question["task"]["loss of all"]
        connection.execute("update study set question = ?", (json.dumps(question),))
        connection.commit()
    assert search("60%", 4).trials[:2] == part.trials
    assert search("50%", 2).name == "search macs=50%"


def test_scores_of_one_task_are_not_taken_over_by_a_study_of_another(tmp_path: Path) -> None:
    case = REGRESSION()
    network = ps.trace(case.model, case.data.examples())

    def scores(loss: str, url: str, name: str | None = None) -> list[float | None]:
        data = replace(case.data, task=ps.tasks.regression(loss))
        found = ps.search(network, data, budget="macs=60%", searcher="uniform", n_trials=1, study=url, study_name=name)
        return [trial.score for trial in found.trials]

    url = f"sqlite:///{tmp_path / 's.db'}"
    squared = scores("squared", url, "squared")
    assert scores("absolute", url, "absolute") == scores("absolute", "sqlite://") != squared


def test_pruningnet_paam_and_manidp_take_tasks() -> None:
    case = CASES["multilabel"]()
    network = ps.trace(case.model, case.data.examples())
    net = ps.PruningNet(network)
    ps.train_pruningnet(net, case.data, recipe=ps.PruningNetRecipe(epochs=1, batch_size=32, label_smoothing=0.0))
    found = ps.paam(network, case.data, budget=ps.Budget(macs="70%"), recipe=ps.Recipe(epochs=6, batch_size=32))
    assert network.space.cost(found.structure).macs <= 0.7 * network.space.cost(network.space.full).macs
    gated = ps.manidp(network, case.data, budget=ps.Budget(macs="95%"), recipe=ps.Recipe(epochs=3, batch_size=32))
    assert gated.average_macs <= 0.95 * gated.dense_macs
    for method in (ps.paam, ps.manidp):
        with pytest.raises(ValueError, match="learns from a loss, and the task fidelity has none"):
            method(network, case.data.examples(64), budget=ps.Budget(macs="95%"))


def test_what_training_needs_and_a_task_has_not_is_said() -> None:
    case = REGRESSION()
    with pytest.raises(ValueError, match="Expected label_smoothing=0"):
        ps.finetune(case.model, case.data, recipe=ps.Recipe(epochs=1, label_smoothing=0.1))
    with pytest.raises(ValueError, match=r"Expected outputs of the shape of the targets"):
        ps.finetune(TwoInputs(), ps.Data(train=(case.data.examples(8), torch.zeros(8, 3)), task="regression"))
