"""What criteria, weight sources and evaluators are tested on: a small trained network and data, with no download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking
from prunesearch.models.trace import trace
from prunesearch.models.zoo import make_model
from prunesearch.structure import Structure
from prunesearch.tasks.examples import Examples
from prunesearch.training import digits as data
from prunesearch.training.finetune import finetune
from prunesearch.training.recipe import Recipe


@dataclass(frozen=True)
class Subject:
    """A trained network and data for it; the suites only read them.

    Attributes:
        network: Traced.
        examples: A few hundred, with the task that reads them.
    """

    network: Network
    examples: Examples

    @property
    def ranking(self) -> Ranking:
        """Which channels stay, by L1 norm."""
        return L1Criterion().rank(self.network)

    def structures(self) -> list[Structure]:
        """The unpruned structure, one of middling widths, and the narrowest."""
        space = self.network.space
        return [space.full, tuple(group.widths[len(group.widths) // 2] for group in space.groups), space.minimum]


@cache
def digits() -> Subject:
    """A ResNet-8 that has learnt scikit-learn's digits; it is trained once in a process, which takes seconds."""
    source = data.digits(calibration=256)
    examples = source.examples_of(source.calibration_set())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_model("resnet8", in_channels=1, image_size=8)
    trained = finetune(model, source, recipe=Recipe(epochs=4, lr=0.1), progress=False)
    return Subject(trace(trained, examples.take(slice(2)).inputs), examples)
