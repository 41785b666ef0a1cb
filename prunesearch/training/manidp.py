"""ManiDP: gates learn for each image which channels it needs, simple images fewer; similar images similar ones.

Source: Tang et al., "Manifold Regularized Dynamic Network Pruning", CVPR 2021, from the authors' released code and the
equations that a fork of it names. The gates are in `models.gates`. Departures: thresholds are quantiles of the layers'
mean saliencies as there, but the share kept follows from the average multiply-accumulates, measured on training images,
instead of being given; it reaches its end after two thirds of the epochs, not after the last step; the weight of an
image's sparsity passes no gradient to its loss (the released code's can turn the loss of simple images round); the mean
loss that tells simple images from hard ones in the first epoch is that of at most 256 calibration images in the network
without gates, theirs that of all training images; thresholds are set from the end of the first epoch on, theirs an
epoch later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.budget import AnyBudget, as_budget
from prunesearch.errors import InfeasibleBudget
from prunesearch.models.copying import copied
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.gates import GatedConv, gated, gated_layers, macs_per_image
from prunesearch.models.nested import Batch, called, members
from prunesearch.models.network import Network
from prunesearch.models.traced import check_traced
from prunesearch.progress import Progress
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.metric import check_has_loss, training_loss
from prunesearch.training.accelerating import Log
from prunesearch.training.data import Data, Source, as_data
from prunesearch.training.distillation import Watched
from prunesearch.training.finetune import as_module
from prunesearch.training.learner import Learner
from prunesearch.training.loop import run
from prunesearch.training.optimization import make_optimizer, parameter_groups
from prunesearch.training.recipe import Recipe, check_recipe
from prunesearch.training.reports import EpochReport, Session, StepReport
from prunesearch.training.settings import ManifoldSettings

_BISECTIONS = 8
_MEASURED = 256
_RAMP = 2 / 3


@dataclass(frozen=True, repr=False)
class DynamicallyPruned:
    """What ManiDP made of a network.

    Attributes:
        model: The gated network in eval mode, which computes everything and multiplies; `skipping(model)` skips. It has
            more parameters than the one it began with.
        average_macs: Mean over training images, measured; the budget holds for it. Other images may need more or less:
            `macs_per_image(model, images)`.
        dense_macs: Of the network without gates.
        reports: One per epoch.
    """

    model: nn.Module
    average_macs: float
    dense_macs: int
    reports: tuple[EpochReport, ...]

    def __repr__(self) -> str:
        macs = f"{self.average_macs:,.0f} of {self.dense_macs:,} MACs on average"
        return f"DynamicallyPruned({type(self.model).__name__}, {macs}, epochs: {len(self.reports)})"


def manidp(
    network: Network,
    data: Data | Source,
    *,
    budget: AnyBudget,
    recipe: Recipe | None = None,
    settings: ManifoldSettings | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    log: Log | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    device: str | None = None,
    progress: Progress = True,
) -> DynamicallyPruned:
    """Train gates into a network until the average image needs no more than a budget; the traced model stays as it is.

    In one process only.

    Args:
        network: A traced network with trained weights; such as what a search returned, traced.
        data: Where the training images come from; thresholds are set on up to 256 of `data.calibration_set()`.
        budget: Average MACs of an image, gates included. Parameters grow, so it may not limit them.
        recipe: How to train; at least 3 epochs, no moving average (`ema`), which would blur thresholds.
        settings: Weights of the loss's terms.
        seed: Decides everything random.
        checkpoint: A file for the state of the training.
        log: Where to log a row per epoch.
        on_epoch: Called after every epoch.
        on_step: Called after every step.
        device: Where it runs; by default on the GPU where there is one. What comes back is where the network was.
        progress: Whether to show how far it is, where there is a terminal or a notebook.

    Raises:
        InfeasibleBudget: What has no gates costs more.
        TraceError: The network has no place for a gate.
        ValueError: A limit of parameters, too few epochs, a moving average, or data that do not fit the network.
        TrainingDiverged: The loss became NaN or infinite.
        CheckpointError: The checkpoint is damaged, of another training, or cannot be written.
    """
    recipe, settings, data = Recipe() if recipe is None else recipe, settings or ManifoldSettings(), as_data(data)
    check_recipe(recipe)
    check_traced(network)
    budget = as_budget(budget)
    settings.check(budget, recipe)
    limits = dict(budget.check(network.space).limits)
    check_has_loss(data.goal, "ManiDP")
    examples = data.examples_of(data.calibration_set()).take(slice(_MEASURED))
    images = examples.inputs
    if not isinstance(images, Tensor):
        raise ValueError(
            "ManiDP counts for each image what its gates let pass, so it takes one tensor of images, of one size."
        )
    model = gated(network.model, network.example_inputs)
    learner = Manifold(copied(model), network.model, examples, int(limits["macs"]), settings, recipe)
    outcome = run(
        learner,
        data,
        recipe,
        seed=seed,
        session=Session(checkpoint, log, on_epoch, on_step, device, progress),
        question={
            "network": network.fingerprint(),
            "budget": limits,
            "settings": asdict(settings),
            "calibration": fingerprint(*members(examples.batch)),  # on which the budget is met
        },
    )
    pruned = as_module(model, outcome.last)  # the best epoch might be one before the budget was met
    average = macs_per_image(pruned, images).double().mean().item()
    return DynamicallyPruned(pruned, average, network.space.cost(network.space.full).macs, outcome.reports)


class Manifold(Learner):
    """A gated network, the terms that its gates learn from, and their thresholds.

    Args:
        network: The gated network; ours.
        ungated: The network without gates, whose loss says at first what is simple.
        examples: On which MACs are measured, with one tensor of images.
        limit: Average MACs to arrive at.
        settings: Weights of the terms.
        recipe: How it trains.
    """

    runs_in_parallel = False
    last_loss: Tensor
    sums: Tensor
    loss_sum: Tensor
    seen: Tensor

    def __init__(
        self,
        network: nn.Module,
        ungated: nn.Module,
        examples: Examples,
        limit: int,
        settings: ManifoldSettings,
        recipe: Recipe,
    ) -> None:
        super().__init__(network, examples.task)
        self._settings, self._recipe = settings, recipe
        self._images, self._limit = examples.inputs, limit
        self._layers = gated_layers(network)
        self._gates = Watched(network, [f"{name}.gate" for name in self._layers])
        self._norms = Watched(network, [f"{name}.norm" for name in self._layers])
        self.register_buffer("last_loss", _mean_loss(ungated, examples))
        self.register_buffer("sums", torch.zeros(sum(layer.conv.out_channels for layer in self._layers.values())))
        self.register_buffer("loss_sum", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))
        self._full = float(macs_per_image(network, self._images).double().mean())
        self._check_limit()

    def forward(self, batch: Batch) -> Tensor:
        """The task's loss, sparsity of simple images, and similarity of saliencies to that of features."""
        with self._gates as gates, self._norms as norms:
            returned = called(self.network, self.task.inputs(batch))
        losses = _of_examples(Examples(batch, self.task), returned)
        saliencies = [saliency.float() for saliency in gates.features]
        weights = self.simplicity(losses.detach())
        sparsity = torch.stack([(weights * saliency.mean(1)).mean() for saliency in saliencies]).sum()
        means = [_means(f.float(), layer) for f, layer in zip(norms.features, self._layers.values(), strict=True)]
        similarity = torch.stack([_similarity_loss(s, f) for s, f in zip(saliencies, means, strict=True)]).sum()
        with torch.no_grad():
            self.sums += torch.cat([saliency.sum(0) for saliency in saliencies])
            self.loss_sum += losses.sum()
            self.seen += len(losses)
        loss = training_loss(self.task, returned, batch, self._recipe.label_smoothing)
        return loss + self._settings.sparsity * sparsity + self._settings.similarity * similarity

    def simplicity(self, losses: Tensor) -> Tensor:
        """(n,) weights of the images' sparsity, from their losses: 0 for hard ones, towards 1 the simpler."""
        border = self._settings.simple * self.last_loss
        return ((border - losses) / border.clamp(min=1e-12)).clamp(min=0)

    def optimizers(self, recipe: Recipe) -> Sequence[torch.optim.Optimizer]:
        """The recipe's; gates do not decay."""
        gates = [parameter for layer in self._layers.values() for parameter in layer.gate.parameters()]
        ids = {id(parameter) for parameter in gates}
        others = [parameter for parameter in self.network.parameters() if id(parameter) not in ids]
        groups = [*parameter_groups(others, recipe.weight_decay), *parameter_groups(gates, 0.0)]
        return [make_optimizer(groups, recipe)]

    def end_epoch(self, epoch: int) -> None:
        """Set the thresholds so that the average image needs what it may need by now."""
        means = list(torch.split(self.sums / self.seen, [layer.conv.out_channels for layer in self._layers.values()]))
        progress = min(1.0, (epoch + 1) / math.ceil(_RAMP * self._recipe.epochs))
        allowed = self._limit + (self._full - self._limit) * 0.5 * (1 + math.cos(math.pi * progress))
        kept, too_many = -1.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (kept + too_many) / 2
            self._keep(means, middle)
            if self._average() <= allowed:
                kept = middle
            else:
                too_many = middle
        self._keep(means, kept)
        self.last_loss.copy_(self.loss_sum / self.seen)
        for total in (self.sums, self.loss_sum, self.seen):
            total.zero_()

    def _keep(self, means: Sequence[Tensor], share: float) -> None:
        """Thresholds that let a share of each layer's channels pass in the mean, at least one; a quantile.

        Below 0 that one channel passes for ever fewer images, at -1 for none: a channel each may be too many.
        """
        for mean, layer in zip(means, self._layers.values(), strict=True):
            kept = max(1, math.ceil(share * len(mean)))
            threshold = mean.topk(kept).values[-1]
            if share <= -1:
                threshold = torch.full_like(threshold, math.inf)
            elif share < 0:
                threshold = threshold / (1 + share)
            layer.threshold.copy_(threshold)

    def _average(self) -> float:
        return float(macs_per_image(self.network, self._images).double().mean())

    def _check_limit(self) -> None:
        thresholds = [layer.threshold.clone() for layer in self._layers.values()]
        for layer in self._layers.values():
            layer.threshold.fill_(math.inf)
        least = self._average()
        for layer, threshold in zip(self._layers.values(), thresholds, strict=True):
            layer.threshold.copy_(threshold)
        if least >= self._limit:
            raise InfeasibleBudget(
                f"A budget of {self._limit:,} macs cannot be met by gates: layers without gates take {least:,.0f}, "
                f"with all gates open it is {self._full:,.0f}. Raise the budget, or prune the network first.",
                limit=self._limit,
                reachable=(least, self._full),
                unit="macs",
            )


def _similarity_loss(saliency: Tensor, features: Tensor) -> Tensor:
    """Mean squared distance of the cosines between images, of (n, c) saliencies and of (n, c) features."""
    one, other = (F.normalize(rows, dim=1) for rows in (saliency, features))
    return (one @ one.T - other @ other.T).pow(2).mean()


def _means(features: Tensor, layer: GatedConv) -> Tensor:
    """(n, c) means over positions of what a layer's gate is for."""
    return (F.relu(features) if layer.is_rectified else features).mean((2, 3))


def _of_examples(examples: Examples, returned: Any) -> Tensor:
    """(n,) losses.

    Raises:
        ValueError: The task has only their mean.
    """
    losses = examples.losses(returned)
    if losses.dim() == 0:
        raise ValueError(
            f"ManiDP looks at the loss of every image, and that of the task {examples.task.name} is their mean. Return "
            "one number per image."
        )
    return losses


def _mean_loss(model: nn.Module, examples: Examples) -> Tensor:
    """Of a network in eval mode."""
    still = copied(model).eval()
    device = next(still.parameters()).device
    with torch.no_grad():
        placed = examples.to(device)
        return _of_examples(placed, called(still, placed.inputs)).mean().cpu()
