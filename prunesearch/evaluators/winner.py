"""The best trial of a search, and how to build its network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from prunesearch.evaluators.recalibration import Statistics, correct_bn, recalibrate_bn
from prunesearch.models.corrections import TrainedStatistics
from prunesearch.models.devices import device_of_module
from prunesearch.models.nested import Batch
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.progress import Progress
from prunesearch.structure import Cost, Structure
from prunesearch.trial import Trial


@dataclass(frozen=True, repr=False)
class Winner:
    """The best trial of a search, and how to build its network.

    Attributes:
        trial: What was recorded of it.
        weights: Where its weights come from.
        calibration: Images from which its BatchNorm statistics are estimated.
        unpruned: The network that it was pruned from; the caller's own, and where that is, what is built comes back.
        trained: What the images get wrong in the trained network, if its statistics are corrected, as in its score.
        progress: Whether a verifier that takes long shows how far it is: as the search that it is part of was told.
    """

    trial: Trial
    weights: WeightSource
    calibration: Batch
    unpruned: nn.Module
    trained: TrainedStatistics | None = None
    progress: Progress = False

    def __repr__(self) -> str:
        cost = f"MACs {self.cost.macs:,}, parameters {self.cost.params:,}"
        return f"Winner(trial {self.trial.number}, score {self.trial.score:.6g}, {cost}, structure {self.structure})"

    @property
    def structure(self) -> Structure:
        """Kept channels per group."""
        return self.trial.structure

    @property
    def statistics(self) -> Statistics:
        """Which BatchNorm statistics it is built with, as it was scored: those of the images, or corrected ones."""
        return "images" if self.trained is None else "corrected"

    @property
    def cost(self) -> Cost:
        """Exact cost."""
        return self.trial.cost

    def build(self) -> nn.Module:
        """Build the network, BatchNorm statistics re-estimated, in eval mode; a new module each time."""
        return self.build_another(self.structure)

    def build_another(self, structure: Structure) -> nn.Module:
        """The network of another structure, as `build` makes that of the winner."""
        model = self.weights.build(structure).eval()
        if self.trained is None:
            recalibrate_bn(model, self.calibration)
        else:
            slices = InheritedWeights(self.weights.network, self.weights.ranking)
            narrow = partial(slices.narrowed, structure=structure)
            correct_bn(model, self.calibration, trained=self.trained, narrow=narrow)
        return model.to(device_of_module(self.unpruned))
