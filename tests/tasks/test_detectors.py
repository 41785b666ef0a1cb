"""Detectors of torchvision: their own losses and boxes, of what a pruned network returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

import prunesearch as ps
from prunesearch.tasks.average_precision import BoxAveragePrecision
from prunesearch.tasks.metric import Measured
from tests.tasks.detectors import DETECTORS, squares


def prepared(name: str, n: int = 8) -> Any:
    torch.manual_seed(0)
    return ps.tasks.torchvision_detection(DETECTORS[name](), squares(n), test=squares(4, 1), calibration=n)


@pytest.mark.parametrize("name", DETECTORS)
def test_losses_and_boxes_are_those_of_the_detector_itself(name: str) -> None:
    task = prepared(name)
    examples = task.data.examples_of(task.data.calibration_set())
    detector = task.model.detector
    images = [image for image, _ in squares(8)]
    with torch.no_grad():
        outputs = task.model(examples.inputs)
        found, measured = detector(images), Measured(examples.task)
        measured.update(outputs, examples.batch, 8)
        alone = BoxAveragePrecision()
        alone.update(found, [target for _, target in squares(8)])
        assert measured.compute() == pytest.approx(alone.compute(), abs=1e-6)
        own = examples.losses(outputs)
        for module in (detector, *detector.children(), getattr(detector, "rpn", detector)):
            module.training = True  # but not its BatchNorm, as what was recorded of it was in eval mode
        torch.manual_seed(0)
        theirs = detector(images, [dict(target) for _, target in squares(8)])
    assert float(own) == pytest.approx(float(sum(theirs.values())), rel=1e-5)


def sure(size: tuple[int, int], growth: float) -> RetinaNet:
    """A detector that sees one box, of class 1, around every place of a map of 4 x 4 pixels each."""
    backbone: Any = nn.Conv2d(3, 16, 4, 4)
    backbone.out_channels = 16
    anchors = AnchorGenerator(((16,),), ((1.0,),))
    found = RetinaNet(backbone, 3, anchor_generator=anchors, min_size=min(size), max_size=max(size)).eval()
    with torch.no_grad():
        for layer, said in (
            (found.head.classification_head.cls_logits, [-9.0, 2.0, -9.0]),
            (found.head.regression_head.bbox_reg, [0.0, 0.0, growth, growth]),
        ):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor(said))
    return found


def scene(height: int, width: int, box: list[float], label: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.rand(3, height, width), {"boxes": torch.tensor([box]), "labels": torch.tensor([label])}


def test_boxes_end_where_the_image_ends_and_not_where_its_padding_does() -> None:
    scenes = [scene(40, 40, [0.0, 0.0, 40.0, 40.0]), scene(40, 36, [0.0, 0.0, 36.0, 40.0])] * 2
    detector = sure((40, 40), growth=4.0)
    task = ps.tasks.torchvision_detection(detector, scenes, test=scenes)
    batch, metric, own = task.data.test_set(), task.data.goal.metric(), BoxAveragePrecision()
    assert tuple(batch["images"].shape) == (4, 3, 64, 64)
    with torch.no_grad():
        metric.update(task.model(batch["images"]), batch)
        own.update(detector([image for image, _ in scenes]), [target for _, target in scenes])
    assert metric.compute() == own.compute() == 1.0


def test_images_that_the_transform_gives_several_sizes_are_refused_wherever_they_are() -> None:
    wide, high = ([scene(*shape, [4.0, 4.0, 20.0, 20.0]) for _ in range(3)] for shape in ((32, 64), (64, 32)))
    for sources in ({"train": [*wide, *high]}, {"train": wide, "test": high}):
        with pytest.raises(
            ValueError, match=r"got 32 x 64 pixels \(item 0 of train\) and 64 x 32 pixels .*Give images"
        ):
            ps.tasks.torchvision_detection(sure((32, 128), 0.0), **sources)
    task, other = (ps.tasks.torchvision_detection(sure((32, 128), 0.0), items) for items in (wide, high))
    batch = other.data.calibration_set()
    with pytest.raises(ValueError, match="got 32 x 64 pixels and 64 x 32 pixels"), torch.no_grad():
        task.data.goal.loss(task.model(batch["images"]), batch)
    small, large = scene(40, 40, [4.0, 4.0, 20.0, 20.0]), scene(50, 60, [4.0, 4.0, 20.0, 20.0])
    same = ps.tasks.torchvision_detection(sure((40, 64), 0.0), [small, large])  # both padded to 64 x 64
    assert tuple(same.example_inputs.shape) == (2, 3, 64, 64)


def test_boxes_come_as_tensors_arrays_and_lists_and_may_be_none() -> None:
    image, box = torch.rand(3, 32, 32), [[4.0, 4.0, 20.0, 20.0]]
    targets = [
        {"boxes": torch.tensor(box), "labels": torch.tensor([1])},
        {"boxes": np.array(box), "labels": np.array([1])},
        {"boxes": box, "labels": [1]},
        {"boxes": torch.tensor([]), "labels": torch.tensor([])},
    ]
    task = ps.tasks.torchvision_detection(DETECTORS["fcos"](), [(image, target) for target in targets])
    batch = task.data.calibration_set()
    assert sorted(tuple(target["boxes"].shape) for target in batch["targets"]) == [(0, 4), *[(1, 4)] * 3]
    with torch.no_grad():
        assert task.data.goal.loss(task.model(batch["images"]), batch).isfinite()


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_is_searched_and_trained_and_comes_back_as_a_detector(name: str) -> None:
    task = prepared(name)
    network = ps.trace(task.model, task.example_inputs)
    assert network.space.cost(network.space.minimum).macs < 0.6 * network.space.cost(network.space.full).macs
    scoring = ps.Scoring(metric="fidelity" if name == "ssd" else "mAP50-95" if name == "fcos" else None)
    result = ps.search(network, task.data, budget="macs=70%", n_trials=3, scoring=scoring)
    recipe = ps.Recipe(epochs=1, batch_size=4, lr=1e-3, features=("detector.backbone",) if name == "fcos" else ())
    small = ps.finetune(result.best.build(), task.data, teacher=task.model, recipe=recipe).detector
    assert type(small) is type(task.model.detector)
    (answer,) = small([squares(1)[0][0]])
    assert answer.keys() >= {"boxes", "labels", "scores"}
    small.train()
    assert sum(small([squares(1)[0][0]] * 2, [squares(1)[0][1]] * 2).values()).isfinite()


def test_the_average_precision_of_boxes_by_hand() -> None:
    box, other = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]
    truth = {"boxes": torch.tensor([box, other]), "labels": torch.tensor([1, 1])}

    def precision(boxes: list[list[float]], scores: list[float], labels: list[int] | None = None) -> float:
        metric = BoxAveragePrecision()
        found = {"boxes": torch.tensor(boxes).reshape(-1, 4), "scores": torch.tensor(scores)}
        metric.update([{**found, "labels": torch.tensor(labels or [1] * len(boxes))}], [truth])
        return metric.compute()

    assert precision([box, other], [0.9, 0.8]) == 1.0
    assert precision([], []) == 0.0
    assert precision([box, other], [0.9, 0.8], [2, 2]) == 0.0
    assert precision([box], [0.9]) == pytest.approx(51 / 101)  # recalls up to a half
    assert precision([box, box, other], [0.9, 0.8, 0.7]) == pytest.approx((51 + 50 * 2 / 3) / 101)  # one too many
    assert precision([[0.0, 0.0, 10.0, 7.0], other], [0.9, 0.8]) == pytest.approx(
        (5 * 1 + 5 * (51 * 0.5 / 101)) / 10  # 0.7 of it: right up to this threshold, then first and wrong
    )


@pytest.mark.parametrize("overlap", range(50, 100, 5))
def test_a_box_that_reaches_a_threshold_exactly_is_found(overlap: int) -> None:
    metric = BoxAveragePrecision()
    truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 100.0]]), "labels": torch.tensor([1])}
    found = {"boxes": torch.tensor([[0.0, 0.0, 10.0, float(overlap)]]), "labels": torch.tensor([1])}
    metric.update([{**found, "scores": torch.tensor([0.9])}], [truth])
    assert metric.compute() == pytest.approx((overlap - 45) / 50)  # from 0.5 up to its own


@pytest.mark.detectors
def test_the_average_precision_of_boxes_is_that_of_pycocotools() -> None:
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    draws = torch.Generator().manual_seed(0)
    metric, truth, found = BoxAveragePrecision(), [], []
    for image in range(12):
        corners = torch.rand(6, 2, generator=draws) * 60
        wanted = torch.cat([corners, corners + 12 + torch.rand(6, 2, generator=draws) * 20], 1)
        boxes = torch.cat([wanted + torch.randn(6, 4, generator=draws) * 2, wanted.flip(1).sort(1).values[:3]])
        labels = torch.randint(1, 4, (6,), generator=draws)
        guessed = torch.cat([labels, torch.randint(1, 4, (3,), generator=draws)])
        scores = torch.rand(9, generator=draws)
        metric.update([{"boxes": boxes, "labels": guessed, "scores": scores}], [{"boxes": wanted, "labels": labels}])
        for said, kept in (((wanted, labels, None), truth), ((boxes, guessed, scores), found)):
            for i, (box, label) in enumerate(zip(said[0].tolist(), said[1].tolist(), strict=True)):
                size = [box[2] - box[0], box[3] - box[1]]
                entry = {"image_id": image, "category_id": label, "bbox": [*box[:2], *size], "area": size[0] * size[1]}
                score = {} if said[2] is None else {"score": float(said[2][i])}
                kept.append({**entry, **score, "id": len(kept) + 1, "iscrowd": 0})
    described = {"images": [{"id": i} for i in range(12)], "categories": [{"id": i} for i in (1, 2, 3)]}
    ours = coco.COCO()
    ours.dataset = {**described, "annotations": truth}
    ours.createIndex()
    judged = evaluation.COCOeval(ours, ours.loadRes(found), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert metric.compute() == pytest.approx(float(judged.stats[0]), abs=1e-6)
    assert 0.1 < metric.compute() < 0.9


def test_detectors_and_data_that_are_refused() -> None:
    detector = DETECTORS["retinanet"]()
    with pytest.raises(TypeError, match="Expected a detector of torchvision"):
        ps.tasks.torchvision_detection(nn.Conv2d(3, 8, 3), squares(2))
    with pytest.raises(ValueError, match="Expected images in train, got none"):
        ps.tasks.torchvision_detection(detector, [])
    with pytest.raises(ValueError, match="as \\(image, target\\)"):
        ps.tasks.torchvision_detection(detector, [torch.rand(3, 32, 32)])
    with pytest.raises(ValueError, match="with boxes and labels, which a RetinaNet learns, got masks in item 0"):
        ps.tasks.torchvision_detection(detector, [(torch.rand(3, 32, 32), {"masks": torch.zeros(1)})])
    for labels, message in (
        ([0], "from 1 to 2, .*got 0 in item 1 of train"),
        ([3], "got 3 in item 1 of train"),
        ([1, 2], "a label for each box, got 1 boxes and 2 labels in item 1 of train"),
        (["cat"], "Expected boxes .* of numbers, got others in item 1 of train"),
    ):
        target = {**squares(1)[0][1], "boxes": torch.tensor([[4.0, 4.0, 9.0, 9.0]]), "labels": labels}
        wrong = (torch.rand(3, 32, 32), target)
        for make in DETECTORS.values():
            with pytest.raises(ValueError, match=message):
                ps.tasks.torchvision_detection(make(), [*squares(1), wrong])
    with pytest.raises(ValueError, match=r"as \(3, h, w\) floats in \[0, 1\], got \(3, 32, 32\) torch.uint8 as item 1"):
        ps.tasks.torchvision_detection(detector, [*squares(1), (torch.zeros(3, 32, 32).byte(), squares(1)[0][1])])
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    with pytest.raises(ValueError, match="with boxes, found none in 2 images"):
        ps.tasks.torchvision_detection(detector, [(torch.rand(3, 32, 32), empty)] * 2)


@pytest.mark.parametrize(
    "box",
    [
        [4.0, 4.0, 4.0, 20.0],
        [20.0, 20.0, 8.0, 8.0],
        [4.0, 20.0, 8.0, 8.0],
        [float("nan"), 4.0, 8.0, 8.0],
        [4.0, 4.0, float("inf"), 8.0],
    ],
)
def test_boxes_without_a_size_are_refused_wherever_they_are(box: list[float]) -> None:
    scenes = [*squares(2), scene(32, 32, box)]
    with pytest.raises(
        ValueError, match=r"in item 2 of test\. Boxes are left, top, right, bottom, not width and height"
    ):
        ps.tasks.torchvision_detection(DETECTORS["retinanet"](), squares(2), test=scenes)


def test_a_warning_says_what_looks_like_another_scale() -> None:
    def given(*scenes: Any) -> Any:
        return ps.tasks.torchvision_detection(DETECTORS["retinanet"](), list(scenes))

    image, target = squares(1)[0]
    with pytest.warns(UserWarning, match="All boxes of train lie within 1 pixel .* multiply them by its width") as told:
        given(scene(32, 32, [0.1, 0.1, 0.5, 1.0]))
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match=r"got \[4.0, 4.0, 40.0, 20.0\] in item 1 of train, of 24 x 32 pixels"):
        given(scene(24, 32, [0.0, 0.0, 33.0, 25.0]), scene(24, 32, [4.0, 4.0, 40.0, 20.0]))
    with pytest.warns(UserWarning, match=r"in \[0, 1\], got 0 to 255 in item 1 of train"):
        given((image, target), (torch.linspace(0, 255, 3 * 32 * 32).reshape(3, 32, 32), target))
    with pytest.warns(UserWarning, match=r"in \[0, 1\], got -1 to 1 in item 0 of train"):
        given((torch.linspace(-1, 1, 3 * 32 * 32).reshape(3, 32, 32), target))


def test_what_a_second_stage_learns_besides_must_be_there() -> None:
    image, target = squares(1)[0]
    for name, kind, other, shape in (
        ("mask_rcnn", "masks", torch.zeros(1, 16, 32), r"\(1, 32, 32\) for 1 boxes, got \(1, 16, 32\)"),
        ("keypoint_rcnn", "keypoints", torch.zeros(1, 3, 3), r"\(1, 2, 3\) for 1 boxes, got \(1, 3, 3\)"),
    ):
        without = {part: value for part, value in target.items() if part != kind}
        with pytest.raises(ValueError, match=f"labels and {kind}, which a .*RCNN learns, got .* in item 1"):
            ps.tasks.torchvision_detection(DETECTORS[name](), [(image, target), (image, without)])
        with pytest.raises(ValueError, match=f"Expected {kind} {shape} in item 0 of train"):
            ps.tasks.torchvision_detection(DETECTORS[name](), [(image, {**target, kind: other})])
        with pytest.raises(ValueError, match=f"labels .*{kind} .* of numbers, got others in item 0 of train"):
            ps.tasks.torchvision_detection(DETECTORS[name](), [(image, {**target, kind: ["none"]})])
        empty = {part: value[:0] for part, value in target.items()}
        task = ps.tasks.torchvision_detection(DETECTORS[name](), [(image, target), (image, empty)])
        batch = task.data.calibration_set()
        assert all(kind in each for each in batch["targets"])
        with torch.no_grad():
            assert task.data.goal.loss(task.model(batch["images"]), batch).isfinite()
