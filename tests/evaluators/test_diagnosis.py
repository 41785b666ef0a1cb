"""Sentences about scores that mean nothing, and silence about those that do."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.evaluators import make_evaluator
from prunesearch.evaluators.accuracy import top1
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.diagnosis import check_finite, diagnose
from prunesearch.models.network import Network
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled


def weights_of(network: Network) -> InheritedWeights:
    return InheritedWeights(network, L1Criterion().rank(network))


def test_there_is_nothing_to_say_of_a_trained_network(network: Network, images: Tensor, labels: Tensor) -> None:
    assert diagnose(weights_of(network), labelled(images, labels), network.space.full) == ()


def test_labels_of_something_else_are_noticed(network: Network, images: Tensor, labels: Tensor) -> None:
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    (note,) = diagnose(weights_of(network), labelled(images, shuffled), network.space.full)
    assert note.startswith("The unpruned network classifies")
    assert "labels those of training?" in note


def test_a_budget_at_which_everything_is_chance_is_noticed(network: Network, images: Tensor, labels: Tensor) -> None:
    tight = ps.trace(network.model, images[:2], min_channels=1)
    (note,) = diagnose(weights_of(tight), labelled(images, labels), tight.space.minimum)
    assert "at this budget scores without training say little" in note


def test_a_network_without_batch_norm_is_said_to_have_none() -> None:
    torch.manual_seed(0)
    images = torch.eye(4).repeat(16, 1)
    labels = images.argmax(1)
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.cat([torch.eye(4)] * 2))
        model[1].weight.copy_(torch.cat([torch.eye(4)] * 2, dim=1))
    network = ps.trace(model, images[:2])
    (note,) = diagnose(weights_of(network), labelled(images, labels), network.space.full)
    assert "no BatchNorm that keeps statistics" in note


class Scores:
    """Gives the unpruned network one accuracy, and everything else another."""

    description = "scores"

    def __init__(self, unpruned: float, pruned: float) -> None:
        self.scores = [unpruned, pruned]

    def score(self, structures: Sequence[Structure]) -> list[float]:
        assert len(structures) == 2
        return self.scores


def test_the_evaluator_of_the_search_decides_what_is_at_chance(
    network: Network, images: Tensor, labels: Tensor
) -> None:
    """Not the statistics of one batch, if the search did not score with them."""
    arguments = weights_of(network), labelled(images, labels), network.space.minimum
    (note,) = diagnose(*arguments, Scores(0.1, 0.1))
    assert "the unpruned network falls from" in note
    assert 'with evaluator="adaptive_bn", which estimates statistics from all calibration images' in note
    (note,) = diagnose(*arguments, Scores(0.9, 0.1))
    assert note.startswith("The best structure classifies 10.0% of the images correctly")
    assert diagnose(*arguments, Scores(0.9, 0.8)) == ()


def test_a_note_that_names_a_protocol_names_one_that_forgets_the_old_statistics(
    network: Network, images: Tensor, labels: Tensor
) -> None:
    """Statistics that have nothing to do with the images; where the note sends users they are found again."""
    model = copy.deepcopy(network.model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 100.0
    weights = weights_of(ps.trace(model, images[:2]))
    evaluator = make_evaluator("adaptive_bn", weights, labelled(images, labels), batch_size=64)
    assert top1(model, images, labels) < 0.3
    assert evaluator.score([network.space.full])[0] > top1(network.model, images, labels) - 0.05


def test_whatever_tensor_makes_the_outputs_no_numbers_is_named(network: Network, images: Tensor) -> None:
    """Each of them, one at a time: weights, biases, statistics."""
    names = [name for name, tensor in network.model.state_dict().items() if tensor.is_floating_point()]
    assert {name.rpartition(".")[2] for name in names} == {"weight", "bias", "running_mean", "running_var"}
    model = copy.deepcopy(network.model)
    tensors = model.state_dict()  # shares their memory
    for name in names:
        first = tensors[name].view(-1)[0].clone()
        tensors[name].view(-1)[0] = float("nan")
        with pytest.raises(ValueError, match=f"The tensor {name} of the network has a NaN or an infinity"):
            check_finite(model, images)
        tensors[name].view(-1)[0] = first
    check_finite(model, images)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_an_image_that_is_not_finite_is_named(network: Network, images: Tensor, wrong: float) -> None:
    broken = images.clone()
    broken[17, 0, 3, 4] = broken[200, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match="2 of 256 have a NaN or an infinity, the first of them at index 17"):
        check_finite(network.model, images, broken)


def test_an_infinite_tensor_that_does_no_harm_is_none_of_our_business() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.register_buffer("mask", torch.tensor([0.0, 0.0, -torch.inf, 0.0]))

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(self.layer(x) + self.mask, dim=1)

    masked, inputs = Masked(), torch.randn(3, 4)
    check_finite(masked, inputs)
    assert torch.isfinite(masked(inputs)).all()
    masked.mask.fill_(-torch.inf)
    with pytest.raises(ValueError, match="mask"):
        check_finite(masked, inputs)


def test_numbers_that_overflow_on_the_way_are_told_from_tensors_that_are_not_finite() -> None:
    model = nn.Linear(4, 2).half()
    nn.init.ones_(model.weight)
    with pytest.raises(ValueError, match=r"too large for torch\.float16"):
        check_finite(model, torch.full((2, 4), 6e4).half())
