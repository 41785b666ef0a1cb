"""The best trial of a search, and how to build its network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from prunesearch.evaluators.batchnorm import recalibrate_bn
from prunesearch.models.nested import Batch
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Cost, Structure
from prunesearch.trial import Trial


@dataclass(frozen=True, repr=False)
class Winner:
    """The best trial of a search, and how to build its network.

    Attributes:
        trial: What was recorded of it.
        weights: Where its weights come from.
        calibration: Images from which its BatchNorm statistics are estimated.
    """

    trial: Trial
    weights: WeightSource
    calibration: Batch

    def __repr__(self) -> str:
        cost = f"MACs {self.cost.macs:,}, parameters {self.cost.params:,}"
        return f"Winner(trial {self.trial.number}, score {self.trial.score:.6g}, {cost}, structure {self.structure})"

    @property
    def structure(self) -> Structure:
        """Kept channels per group."""
        return self.trial.structure

    @property
    def cost(self) -> Cost:
        """Exact cost."""
        return self.trial.cost

    @property
    def unpruned(self) -> nn.Module:
        """The network that it was pruned from; the caller's own."""
        return self.weights.network.model

    def build(self) -> nn.Module:
        """Build the network, BatchNorm statistics re-estimated, in eval mode; a new module each time."""
        return built(self.weights, self.structure, self.calibration)


def built(weights: WeightSource, structure: Structure, calibration: Batch) -> nn.Module:
    """The network of a structure, BatchNorm statistics re-estimated, in eval mode."""
    model = weights.build(structure).eval()
    recalibrate_bn(model, calibration)
    return model
