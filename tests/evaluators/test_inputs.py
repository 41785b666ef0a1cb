"""Forwards that take more than one tensor of images, and layers that are called by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.evaluators import EVALUATORS, EVIDENCE, WEIGHT_SOURCES, gather, make_evaluator, make_weights
from prunesearch.evaluators.channels import CRITERIA, make_criterion
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.diagnosis import diagnose
from prunesearch.evaluators.hooks import watched
from prunesearch.evaluators.hsic import nhsic
from prunesearch.evaluators.inputs import example_batch
from prunesearch.evaluators.recalibration import precise_bn
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.tasks.classify import labelled

IMAGES = torch.randn(48, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(48) % 3


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)

    def body(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        return self.head(F.relu(self.inner(x)).mean((2, 3)))


class Plain(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Optional(Body):
    def forward(self, x: Tensor, mask: Tensor | None = None, flag: bool = True) -> Tensor:
        return self.body(x if mask is None else x * mask)


class Keywords(Body):
    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        return self.body(x)


class Rest(Body):
    def forward(self, *inputs: Tensor) -> Tensor:
        return self.body(inputs[0])


class Everything(Body):
    def forward(self, x: Tensor, *rest: Tensor, flag: bool = True, **kwargs: Any) -> Tensor:
        return self.body(x)


class Two(Body):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.body(x + y)


def traced(kind: type[Body], inputs: tuple[Tensor, ...] = (IMAGES[:2],)) -> Network:
    torch.manual_seed(0)
    return trace(kind(), inputs)


@cache
def found(kind: type[Body]) -> list[Any]:
    network = traced(kind)
    structure = network.space.minimum
    ranking = L1Criterion().rank(network)
    results: list[Any] = []
    for source in sorted(WEIGHT_SOURCES.keys() - {"generated"}):
        weights = make_weights(source, network, ranking, IMAGES)
        results += list(weights.build(structure).state_dict().values())
        for name in EVALUATORS:
            evaluator = make_evaluator(name, weights, labelled(IMAGES, LABELS))
            results += evaluator.score([structure])
        results += [array for name in EVIDENCE for array in gather(name, weights, evaluator, IMAGES)]
        results += list(diagnose(weights, labelled(IMAGES, LABELS), structure))
    return results


@pytest.mark.parametrize("kind", [Optional, Keywords, Rest, Everything])
def test_what_else_a_forward_could_take_changes_nothing(kind: type[Body]) -> None:
    """Scores, refitted weights, evidence and rankings are those of the forward that takes images only."""
    for mine, plain in zip(found(kind), found(Plain), strict=True):
        assert mine == plain if isinstance(mine, str) else torch.equal(torch.as_tensor(mine), torch.as_tensor(plain))


NEEDS_IMAGES: dict[str, Callable[[Network], Any]] = {
    **{
        f"evaluator {name}": lambda network, name=name: make_evaluator(
            name, make_weights("inherited", network, L1Criterion().rank(network), IMAGES), labelled(IMAGES, LABELS)
        )
        for name in EVALUATORS
    },
    **{
        f"weights {name}": lambda network, name=name: make_weights(name, network, L1Criterion().rank(network), IMAGES)
        for name in ("compensated", "reconstructed")
    },
    **{
        f"criterion {name}": lambda network, name=name: make_criterion(name).rank(network, labelled(IMAGES, LABELS))
        for name in CRITERIA
        if make_criterion(name).needs != "nothing"
    },
    "similarity": lambda network: nhsic(network, IMAGES),
}


@pytest.mark.parametrize("use", NEEDS_IMAGES.values(), ids=NEEDS_IMAGES)
def test_images_alone_are_refused_with_a_sentence_by_a_network_that_takes_more(use: Callable[[Network], Any]) -> None:
    network = traced(Two, (IMAGES[:2], IMAGES[:2]))
    with pytest.raises(ValueError, match=r"Expected inputs as .* \(0, 1\), got one tensor: the input 1 is missing"):
        use(network)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (([IMAGES[0], IMAGES[1]],), "taken for a list of images"),
        ((IMAGES[:2], 3.0), "traced with a float as its input 1"),
        ((IMAGES[:2], torch.tensor(2.0)), "1 is a single number"),
    ],
)
def test_inputs_that_are_no_batches_of_tensors_are_refused_with_a_sentence(
    inputs: tuple[Any, ...], sentence: str
) -> None:
    class Odd(Body):
        def forward(self, x: Any, y: Any = 1.0) -> Tensor:
            return self.body((torch.stack(x) if isinstance(x, list) else x) * y)

    with pytest.raises(ValueError, match=sentence):
        example_batch(traced(Odd, inputs))


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(input=self.layer(input=x))


def test_what_a_layer_is_given_by_name_is_seen_and_can_be_replaced() -> None:
    model, x = ByName(), torch.randn(4, 3)
    seen: list[Tensor] = []

    def look(given: Tensor) -> Tensor:
        seen.append(given)
        return torch.zeros_like(given)

    with watched(model, [("layer", look)]):
        found = model(x)
    assert torch.equal(seen[0], x)
    assert torch.equal(found, model.eval()(torch.zeros_like(x)))


def test_statistics_of_a_norm_that_is_called_by_name_are_estimated() -> None:
    model, x = ByName(), torch.randn(4, 3)
    precise_bn(model, x)
    torch.testing.assert_close(model.norm.running_var, model.layer(x).var(0, correction=0))
