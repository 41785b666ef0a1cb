"""Sentences about scores that mean nothing, and silence about those that do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.diagnosis import diagnose
from prunesearch.models.network import Network
from prunesearch.models.weights import InheritedWeights


def weights_of(network: Network) -> InheritedWeights:
    return InheritedWeights(network, L1Criterion().rank(network))


def test_there_is_nothing_to_say_of_a_trained_network(network: Network, images: Tensor, labels: Tensor) -> None:
    assert diagnose(weights_of(network), images, labels, network.space.full) == ()


def test_labels_of_something_else_are_noticed(network: Network, images: Tensor, labels: Tensor) -> None:
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    (note,) = diagnose(weights_of(network), images, shuffled, network.space.full)
    assert note.startswith("The unpruned network classifies")
    assert "labels those of training?" in note


def test_a_budget_at_which_everything_is_chance_is_noticed(network: Network, images: Tensor, labels: Tensor) -> None:
    tight = ps.trace(network.model, images[:2], min_channels=1)
    (note,) = diagnose(weights_of(tight), images, labels, tight.space.minimum)
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
    (note,) = diagnose(weights_of(network), images, labels, network.space.full)
    assert "no BatchNorm that keeps statistics" in note
