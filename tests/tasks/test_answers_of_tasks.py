"""Losses and metrics of the built-in tasks against their definitions, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import prunesearch as ps
from prunesearch.tasks.metric import Measured, training_loss, values
from prunesearch.tasks.outputs import output_agreement, output_distance
from prunesearch.tasks.segment import MeanIoU
from prunesearch.tasks.tag import MeanAveragePrecision

GENERATOR = torch.Generator().manual_seed(0)


def test_pixels_that_do_not_count_do_not_count() -> None:
    logits, masks = torch.randn(3, 4, 5, 6), torch.randint(0, 4, (3, 5, 6))
    masks[0, :, :3], masks[2] = 255, 255
    found = values(ps.tasks.segmentation(), "loss", {"out": logits}, (None, masks), 3)
    first = -F.log_softmax(logits[0], 0)[:, :, 3:].gather(0, masks[0, :, 3:][None])[0].mean()
    second = F.cross_entropy(logits[1:2], masks[1:2])
    assert torch.allclose(found, torch.stack([first, second, torch.tensor(0.0)]), atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_batch_without_a_pixel_that_counts_trains_nothing(smoothing: float) -> None:
    logits, masks = torch.randn(2, 4, 5, 6, requires_grad=True), torch.full((2, 5, 6), 255)
    outputs = {"out": logits, "aux": 2 * logits}
    nothing = training_loss(ps.tasks.segmentation(), outputs, (None, masks), smoothing)
    nothing.backward()
    assert nothing.item() == 0.0
    assert not logits.grad.any()
    masks[0, 0] = 3
    found = training_loss(ps.tasks.segmentation(), outputs, (None, masks), smoothing)
    seen = [x[0, :, 0].T for x in (logits, 2 * logits)]
    main, half = (F.cross_entropy(x, masks[0, 0], label_smoothing=smoothing) for x in seen)
    assert torch.allclose(found, main + half / 2)


def test_mean_iou_is_intersection_over_union_of_the_classes_that_occur() -> None:
    masks = torch.tensor([[[0, 0, 1], [1, 255, 2]]])
    answer = torch.tensor([[[0, 1, 1], [1, 0, 0]]])
    metric = MeanIoU()
    metric.update(F.one_hot(answer, 4).permute(0, 3, 1, 2).float(), (None, masks))
    # class 0: 1 of {(0,0), (0,1), (1,2)}; class 1: 2 of 3; class 2: 0 of 1; class 3 does not occur
    assert metric.compute() == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)


def test_average_precision_is_that_of_the_ranked_list() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.3], [0.7, 0.2], [0.6, 0.4]])
    truth = torch.tensor([[1, 0], [0, 0], [1, 0], [0, 0]])
    metric = MeanAveragePrecision()
    metric.update(scores[:2], (None, truth[:2]))
    metric.update(scores[2:], (None, truth[2:]))
    assert metric.compute() == pytest.approx((1 / 1 + 2 / 3) / 2)  # the second label has no positive


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_equal_scores_say_nothing_whatever_the_order_of_the_data(first: float) -> None:
    truth = torch.tensor([first] * 32 + [1 - first] * 32)[:, None]
    metric = MeanAveragePrecision()
    metric.update(torch.zeros(64, 1), (None, truth))
    assert metric.compute() == pytest.approx(0.5)
    metric = MeanAveragePrecision()
    scores = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0])[:, None]
    metric.update(scores, (None, torch.tensor([1.0, first, 0.0, 1 - first, 0.0])[:, None]))
    assert metric.compute() == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 4)


def test_r2_is_the_share_of_the_variance_that_is_explained() -> None:
    wanted = torch.randn(50, 2, generator=GENERATOR) * torch.tensor([1.0, 3.0])
    own = wanted + 0.5 * torch.randn(50, 2, generator=GENERATOR)
    metric = Measured(ps.tasks.regression())
    for part in (slice(0, 20), slice(20, 50)):
        metric.update(own[part], (None, wanted[part]), 1)
    expected = 1 - ((own - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum()
    assert metric.compute() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 100.7, 1e6 / 3])
def test_r2_of_targets_that_do_not_vary_is_zero(value: float) -> None:
    one, sizes = Measured(ps.tasks.regression()), Measured(ps.tasks.regression())
    for n in (7, 33, 20):
        wanted = torch.stack([torch.full((n,), value), torch.full((n,), value / 7)], 1)
        one.update(wanted + torch.randn(n, 2, generator=GENERATOR), (None, wanted), n)
        sizes.update(torch.randn(2, n, generator=GENERATOR), (None, torch.full((2, n), value)), 2)
    assert one.compute() == sizes.compute() == 0.0


def test_r2_does_not_lose_digits_to_a_large_mean() -> None:
    spread = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None]
    metric = Measured(ps.tasks.regression())
    metric.update(1e9 + spread / 2, (None, 1e9 + spread), 50)
    assert metric.compute() == pytest.approx(0.75, rel=1e-4)


def test_fidelity_takes_the_first_of_a_pair_and_all_of_more() -> None:
    one, two, three = torch.rand(3, 2, 4)
    inputs = ps.tasks.fidelity().inputs
    assert inputs(one) is inputs((one,)) is inputs((one, two)) is one
    assert inputs((one, two, three)) == (one, two, three)
    assert inputs({"a": one, "b": two}) == {"a": one, "b": two}


@pytest.mark.parametrize("shapes", [((6,), (6,)), ((6, 1), (6,)), ((6,), (6, 1)), ((6, 2, 3), (6, 2, 3))])
def test_one_number_per_example_may_have_a_dimension_of_its_own(shapes: tuple[tuple[int, ...], ...]) -> None:
    own, wanted = torch.randn(shapes[0]), torch.randn(shapes[1])
    found = values(ps.tasks.regression(), "loss", own, (None, wanted), 6)
    assert torch.allclose(found, (own.reshape(6, -1) - wanted.reshape(6, -1)).square().mean(1))


def test_distances_of_outputs_count_each_tensor_alike_whatever_its_unit() -> None:
    one, other = torch.randn(4, 3), torch.randn(4, 2, 5)
    moved = output_distance((one + 0.1 * one.std(), other * 1000), (one, other * 1000))
    alone = output_distance(one + 0.1 * one.std(), one)
    assert torch.allclose(moved, alone / 2)
    mean = one.mean().expand_as(one)
    assert float(output_distance(mean, one).mean()) == pytest.approx(1.0, rel=1e-5)
    assert output_distance({"a": one}, {"a": one}).tolist() == [0.0] * 4


def test_agreement_is_of_classes_where_there_are_some_and_else_what_is_explained() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert output_agreement(logits, logits.flip(1)).tolist() == [0.0, 0.0]
    image = torch.randn(3, 1, 4, 4)
    assert output_agreement(image, image).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match=r"of the form of the unpruned network's, \(3, 1, 4, 4\); got \(2, 2\)"):
        output_agreement((logits,)[0][:, :2], image)


@pytest.mark.parametrize("name", ["classification", "multilabel", "segmentation", "regression", "fidelity"])
def test_nothing_is_lost_to_a_teacher_that_says_the_same(name: str) -> None:
    shape = {"segmentation": (4, 3, 5, 5)}.get(name, (4, 3))
    task = getattr(ps.tasks, name)()
    outputs: Tensor = torch.randn(shape)
    assert torch.allclose(task.distil(outputs, outputs, 2.0), torch.zeros(4), atol=1e-6)
    other = task.distil(outputs, torch.randn(shape), 2.0)
    assert other.shape == (4,)
    assert bool((other > 0).all())
    assert torch.allclose(task.agreement(outputs, outputs), torch.ones(4))


def test_losses_are_those_of_torch() -> None:
    logits, labels = torch.randn(6, 3), torch.randint(0, 2, (6, 3))
    found = values(ps.tasks.multilabel(), "loss", logits, (None, labels), 6)
    assert torch.allclose(found.mean(), F.binary_cross_entropy_with_logits(logits, labels.float()))
    classes = torch.randint(0, 3, (6,))
    found = values(ps.tasks.classification(), "loss", logits, (None, classes), 6)
    assert torch.allclose(found.mean(), F.cross_entropy(logits, classes))
    assert np.isclose(float(found.sum()), float(F.cross_entropy(logits, classes, reduction="sum")), rtol=1e-6)
