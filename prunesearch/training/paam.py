"""PAAM: attention over filters learns, while the network trains, which of them to keep.

Source: "Pruning by Active Attention Manipulation", arXiv:2210.11114. Its text could be had in part only: that scores
are learnt from the filters' weights by attention per layer, multiply the layer's feature maps, start at 1 with live
gradients everywhere (hence a leaky exponential and no sigmoid), pay an additive term in the loss, and that a budget for
the whole network and the distribution of all scores select what the network trains with. How each of these is done here
is our own design: the equations of attention and activation, all constants, the schedule, and that the budget may be of
MACs. So this is no reproduction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunesearch.budget import AnyBudget, FeasibleSet, above_threshold, as_budget
from prunesearch.errors import expect
from prunesearch.models.nested import Batch, arguments, called
from prunesearch.models.network import Network
from prunesearch.models.operators.norm import norm_of_layer
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import kept_units, slim
from prunesearch.models.traced import check_traced
from prunesearch.progress import Progress
from prunesearch.structure import FloatArray, IntArray, Structure
from prunesearch.tasks.metric import check_has_loss, training_loss
from prunesearch.tasks.task import Task
from prunesearch.training.accelerating import Log
from prunesearch.training.data import Data, Source, as_data
from prunesearch.training.finetune import as_module, start_from, train
from prunesearch.training.learner import Learner
from prunesearch.training.loop import check_patience, run
from prunesearch.training.optimization import make_optimizer, parameter_groups
from prunesearch.training.paam_filters import FilterAttention, leaky_exponential, producers
from prunesearch.training.recipe import Recipe, check_recipe
from prunesearch.training.reports import EpochReport, Session, StepReport
from prunesearch.training.settings import AttentionSettings

_DROPPED = 0.5  # a score below counts as given up, when the strength of the regulariser is adapted


@dataclass(frozen=True, repr=False)
class AttentionPruned:
    """What PAAM found. `search(result.network, ..., criterion=result.ranking)` goes on from there.

    Attributes:
        structure: Kept channels per group; within the budget.
        ranking: Which channels stay, by their scores.
        scores: Per group, (units,) the score of each unit, in (0, 1].
        network: The traced network with the full-width weights as they were when the scores were final.
        model: The pruned network, finetuned, in eval mode; plain modules.
        reports: One per epoch, those of the finetuning after those with live scores.
    """

    structure: Structure
    ranking: NestedRanking
    scores: tuple[FloatArray, ...]
    network: Network
    model: nn.Module
    reports: tuple[EpochReport, ...]

    def __repr__(self) -> str:
        cost = self.network.space.cost(self.structure)
        return f"AttentionPruned({type(self.model).__name__}, MACs {cost.macs:,}, epochs: {len(self.reports)})"


def paam(
    network: Network,
    data: Data | Source,
    *,
    budget: AnyBudget,
    recipe: Recipe | None = None,
    settings: AttentionSettings | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    log: Log | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    device: str | None = None,
    progress: Progress = True,
) -> AttentionPruned:
    """Train a network and find its structure in one go; the traced model stays as it is.

    The first `settings.share` of the epochs train the network at full width under a mask, that of the units with the
    highest scores, while attention learns the scores; the budget tightens meanwhile. Then the pruned network is built
    and finetuned in the rest, the learning rate going on where it was. Coupled channels have one score, learnt from all
    filters that produce them. In one process only.

    Args:
        network: A traced network, trained or not.
        data: Where the training images come from.
        budget: What the structure meets, exactly.
        recipe: How to train, for all epochs together; at least 5. `from_scratch=True` draws new random weights.
        settings: How attention learns.
        seed: Decides everything random.
        checkpoint: A file for the state; the finetuning has one beside it, ending in `.finetune`.
        log: Where to log a row per epoch; the finetuning in a folder `finetune` of it.
        on_epoch: Called after every epoch; the finetuning counts its epochs from 1.
        on_step: Called after every step.
        device: Where it runs; by default on the GPU where there is one. What comes back is where the network was.
        progress: Whether to show how far it is, where there is a terminal or a notebook.

    Raises:
        InfeasibleBudget: No structure meets the budget.
        ValueError: Too few epochs, or data that do not fit the network.
        TrainingDiverged: The loss became NaN or infinite.
        CheckpointError: The checkpoint is damaged, of another training, or cannot be written.
    """
    recipe, settings, data = Recipe() if recipe is None else recipe, settings or AttentionSettings(), as_data(data)
    check_recipe(recipe)
    check_traced(network)
    check_has_loss(data.goal, "PAAM")
    check_patience(recipe, data)
    expect(not recipe.features, "no features, as there is no teacher (features=())", recipe.features)
    feasible = as_budget(budget).check(network)
    live = settings.live_epochs(recipe.epochs)
    steps = data.steps_per_epoch(recipe.batch_size)
    learner = Attentive(network, feasible, settings, replace(recipe, epochs=live), seed, steps, data.goal)
    outcome = run(
        learner,
        data,
        replace(recipe, epochs=live, schedule="constant", ema=0.0, patience=None),
        seed=seed,
        session=Session(checkpoint, log, on_epoch, on_step, device, progress),
        question={
            "network": network.fingerprint(),
            "space": network.space.fingerprint,
            "budget": feasible.as_facts(),
            "settings": asdict(settings),
        },
    )
    found = replace(network, model=as_module(network.model, outcome.last))
    scores = [leaky_exponential(torch.from_numpy(values)).numpy() for values in learner.importances()]
    structure, ranking = learner.structure(), NestedRanking.by_importance(learner.importances())
    last = train(
        slim(found, structure, ranking),
        data,
        recipe=replace(recipe, epochs=recipe.epochs - live, warmup=0.0, from_scratch=False),
        seed=seed,
        session=Session(
            None if checkpoint is None else f"{checkpoint}.finetune",
            None if log is None else replace(log, folder=Path(log.folder) / "finetune"),
            on_epoch,
            on_step,
            device,
            progress,
        ),
    )
    return AttentionPruned(structure, ranking, tuple(scores), found, last.best, outcome.reports + last.reports)


class Attentive(Learner):
    """A network under the mask of its highest scores, and the attention that learns them.

    Args:
        network: The traced network; its model is copied.
        feasible: What the mask meets at the end.
        settings: How attention learns.
        recipe: For the epochs with live scores.
        seed: Decides the first queries, and the weights if they are drawn anew.
        steps_per_epoch: Of the training.
        task: What reads batches; it has a loss.
    """

    runs_in_parallel = False
    importance: Tensor
    widths: Tensor
    mask: Tensor
    strength: Tensor
    steps: Tensor
    epoch: Tensor
    costs: Tensor

    def __init__(
        self,
        network: Network,
        feasible: FeasibleSet,
        settings: AttentionSettings,
        recipe: Recipe,
        seed: int,
        steps_per_epoch: int,
        task: Task,
    ) -> None:
        super().__init__(start_from(network.model, recipe, seed), task)
        self._steps_per_epoch = steps_per_epoch
        self._traced, self._feasible, self._settings, self._recipe = network, feasible, settings, recipe
        self._filters = [producers(network, units) for units in network.units]
        for group, filters in enumerate(self._filters):
            for number, (_, channels) in enumerate(filters):
                self._index(f"filters{group}_{number}", channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.attention = nn.ModuleList(
                FilterAttention(len(units), self._rows(group).shape[1], settings.hidden)
                for group, units in enumerate(network.units)
            )
        self.register_buffer("importance", torch.zeros(sum(map(len, network.units))))
        self.register_buffer("widths", torch.tensor(network.space.full))
        self.register_buffer("mask", torch.ones(network.unit_count))
        self.register_buffer("strength", torch.tensor(settings.strength))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("epoch", torch.tensor(0))
        self.register_buffer("costs", _unit_costs(network, feasible))
        self._factors: Tensor | None = None
        self._counted: tuple[int, int] | None = None  # epoch and steps: a GPU is not asked for them in every step
        self.register_load_state_dict_post_hook(_count_anew)  # type: ignore[no-untyped-call]
        self._index("ids", np.concatenate(network.units))
        for number, read in enumerate(network.layer_reads("PAAM")):
            self._index(f"read{number}", read.units)
            module = self.network.get_submodule(read.place)
            module.register_forward_pre_hook(self._multiplying(f"read{number}", read.dim))
            if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)):  # to which zeros are values like others
                module.register_forward_hook(self._normalising(f"read{number}", read.dim))

    def forward(self, batch: Batch) -> Tensor:
        """The task's loss under the mask, and, now and then, what attention learns from."""
        loss = self.over_sizes(batch, lambda some: self._loss(called(self.network, self.task.inputs(some)), some))
        epoch, steps = self._counted = self._counted or (int(self.epoch), int(self.steps))
        if 1 <= epoch < self._recipe.epochs - 1 and steps % self._settings.every == 0:
            loss = loss + self.over_sizes(batch, self._attention_loss)
        self.steps += 1
        self._counted = epoch, steps + 1
        return loss

    def optimizers(self, recipe: Recipe) -> Sequence[torch.optim.Optimizer]:
        """The recipe's for the network, Adam for attention."""
        groups = parameter_groups(self.network.parameters(), recipe.weight_decay)
        steps = self._steps_per_epoch * (recipe.epochs - 2) / self._settings.every
        attention = torch.optim.Adam(self.attention.parameters(), lr=self._settings.reach / max(1.0, steps))
        return [make_optimizer(groups, recipe), attention]

    def begin_epoch(self, epoch: int) -> None:
        """Choose the mask of the epoch: dense for two, then tighter until it meets the budget."""
        self.epoch.fill_(epoch)
        self._counted = None
        if epoch < 2:
            return
        scores = torch.cat(self._before_activation()).detach()
        self.importance.copy_(scores)
        tightened = self._at(self._progress(epoch))
        structure = above_threshold(tightened, [np.sort(values) for values in self.importances()])
        self.widths.copy_(torch.tensor(structure))
        kept = kept_units(self._traced, structure, NestedRanking.by_importance(self.importances()))
        self.mask.copy_(torch.from_numpy(kept))

    def end_epoch(self, epoch: int) -> None:
        """Press harder where too few scores have fallen for the budget of now, and less where too many."""
        scores = leaky_exponential(torch.cat(self._before_activation()).detach())
        given_up = float((self.costs * (scores < _DROPPED)).sum() / self.costs.sum())
        to_go = max(1 - limit / full for (_, limit), full in zip(self._feasible.limits, self._full(), strict=True))
        missing = to_go * self._progress(epoch) - given_up
        self.strength.mul_(float(np.exp(2 * missing))).clamp_(1e-3, 1e2)

    def structure(self) -> Structure:
        """The structure of the mask."""
        return self._traced.space.check(self.widths.cpu().tolist())

    def importances(self) -> list[FloatArray]:
        """Per group, what the mask was chosen by."""
        sizes = [len(units) for units in self._traced.units]
        return [part.double().cpu().numpy() for part in torch.split(self.importance, sizes)]

    def _progress(self, epoch: int) -> float:
        """Share of the way to the budget: a straight line from the second epoch to the last but one."""
        return min(1.0, max(0, epoch - 1) / max(1, self._recipe.epochs - 3))

    def _full(self) -> list[float]:
        """What the full network costs of each limited resource."""
        cost = self._feasible.cost(self._traced.space.full)
        return [cost[resource] for resource, _ in self._feasible.limits]

    def _at(self, progress: float) -> FeasibleSet:
        """The budget on the way from the full network."""
        limits = tuple(
            (resource, limit + (full - limit) * (1 - progress))
            for (resource, limit), full in zip(self._feasible.limits, self._full(), strict=True)
        )
        return replace(self._feasible, limits=limits)

    def _attention_loss(self, batch: Batch) -> Tensor:
        """The task's loss of the whole network with scores on its feature maps, plus what the scores cost.

        Gradients reach attention only; the network's statistics stay as they are.
        """
        scores = leaky_exponential(torch.cat(self._before_activation()))
        own = (*self.network.named_parameters(), *self.network.named_buffers())  # each once, if it has several names
        frozen = {name: tensor.detach().clone() for name, tensor in own}
        with self._scored(scores):
            returned = torch.func.functional_call(self.network, frozen, *arguments(self.task.inputs(batch)))
        return self._loss(returned, batch) + self.strength * (self.costs * scores).sum() / self.costs.sum()

    def _loss(self, returned: Any, batch: Batch) -> Tensor:
        return training_loss(self.task, returned, batch, self._recipe.label_smoothing)

    def _before_activation(self) -> list[Tensor]:
        return [attention(self._rows(group)) for group, attention in enumerate(self.attention)]

    def _rows(self, group: int) -> Tensor:
        """(n, d) the filters of a group, detached: their learning is left to the network's loss."""
        parameters = dict(self.network.named_parameters())
        n = len(self._traced.units[group])
        rows = [
            parameters[cut.tensor].detach().movedim(cut.dim, 0)[self.get_buffer(f"filters{group}_{number}")]
            for number, (cut, _) in enumerate(self._filters[group])
        ]
        rows = [each.reshape(n, -1) for each in rows]
        return torch.cat([torch.zeros(n, 0, device=self.costs.device) if not rows else rows[0], *rows[1:]], dim=1)

    @contextmanager
    def _scored(self, scores: Tensor) -> Any:
        self._factors = torch.ones_like(self.mask).index_put((self.get_buffer("ids"),), scores)
        try:
            yield
        finally:
            self._factors = None

    def _index(self, name: str, values: IntArray) -> None:
        """Keep indices where the network is; no part of the state."""
        self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def _multiplying(self, name: str, dim: int) -> Any:
        """Multiply what a layer reads, by scores while attention learns and else by the mask."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            factors = (self.mask if self._factors is None else self._factors)[self.get_buffer(name)]
            shape = [1] * inputs[0].dim()
            shape[dim] = len(factors)
            return (inputs[0] * factors.view(shape), *inputs[1:])

        return hook

    def _normalising(self, name: str, dim: int) -> Any:
        """Normalise over the channels of the mask alone; over all where attention learns."""

        def hook(
            module: nn.LayerNorm | nn.GroupNorm | nn.RMSNorm, inputs: tuple[Tensor, ...], output: Tensor
        ) -> Tensor:
            if self._factors is not None:
                return output
            return norm_of_layer(module, output.dtype).over(inputs[0], dim, self.mask[self.get_buffer(name)] > 0)

        return hook


def _count_anew(learner: Attentive, _: object) -> None:
    learner._counted = None


def _unit_costs(network: Network, feasible: FeasibleSet) -> Tensor:
    """(units,) what one unit of each group costs in the full network, of all limits alike."""
    groups = network.space.groups
    total = np.zeros(len(groups))
    for resource, _ in feasible.limits:
        matrix = feasible.quadratic(resource)
        slope = (matrix + matrix.T).sum(1)[1:]
        total += slope / slope.sum()
    return torch.from_numpy(np.repeat(total / [g.units for g in groups], [g.units for g in groups])).float()
