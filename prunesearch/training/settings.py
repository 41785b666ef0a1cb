"""Settings of the methods that train, as plain values: the command line checks them before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from prunesearch.errors import expect
from prunesearch.ranges import number, whole_number

if TYPE_CHECKING:
    from prunesearch.budget import BudgetOrSet
    from prunesearch.training.recipe import Recipe

Sampling = Literal["random", "sandwich"]


@dataclass(frozen=True)
class AttentionSettings:
    """How attention is learnt; nothing here is per layer.

    Attributes:
        share: Share of the epochs with live scores. In the others the pruned network is finetuned.
        every: Steps of the network for each step of the attention.
        reach: How far Adam can move the logarithm of a score in all its steps together. Sets its learning rate.
        strength: Weight of the scores' term in the loss, at first. It adapts.
        hidden: Size of queries and keys.
    """

    share: float = 0.6
    every: int = 5
    reach: float = 5.0
    strength: float = 0.5
    hidden: int = 64

    def __post_init__(self) -> None:
        number("share", self.share, "(0, 1)")
        whole_number("every", self.every, at_least=1)
        number("reach", self.reach, "(0, inf)")
        number("strength", self.strength, "(0, inf)")
        whole_number("hidden", self.hidden, at_least=1)

    def live_epochs(self, epochs: int) -> int:
        """How many of so many epochs have live scores.

        Raises:
            ValueError: Too few, or all of them.
        """
        live = round(self.share * epochs)
        if live < 3 or live == epochs:
            raise ValueError(
                f"Expected at least 3 epochs with live scores and 1 of finetuning, got {live} of {epochs}. Give more "
                f"epochs, or another share (now {self.share})."
            )
        return live


@dataclass(frozen=True)
class ManifoldSettings:
    """Weights of the terms of the loss; the defaults are those of the authors' README for ResNet-56.

    Attributes:
        sparsity: Weight of the mean saliency of simple images.
        similarity: Weight of the distance between similarities of saliencies and of features.
        simple: Images with less than this share of the last epoch's mean loss are simple.
    """

    sparsity: float = 5e-3
    similarity: float = 1.0
    simple: float = 0.5

    def __post_init__(self) -> None:
        number("sparsity", self.sparsity, "[0, inf)")
        number("similarity", self.similarity, "[0, inf)")
        number("simple", self.simple, "(0, inf)")

    @staticmethod
    def check(budget: BudgetOrSet, recipe: Recipe) -> None:
        """Make sure that gates can be trained to a budget by a recipe.

        Raises:
            ValueError: They cannot.
        """
        if {name for name, _ in budget.limits} != {"macs"}:
            raise ValueError(f"Expected a budget of MACs only, as gates add parameters; got {budget}.")
        expect(recipe.epochs >= 3, "at least 3 epochs", recipe.epochs)
        expect(not recipe.ema, "no moving average (ema=0)", recipe.ema)
        expect(recipe.patience is None, "patience=None, as the last epochs are those that meet it", recipe.patience)
        expect(not recipe.features, "no features, as there is no teacher (features=())", recipe.features)
        expect(not recipe.from_scratch, "trained weights (from_scratch=False)", recipe.from_scratch)


@dataclass(frozen=True)
class LayerwiseSettings:
    """How layers are pruned one after the other; all of it is ours.

    Attributes:
        share_of_budget: Layers are narrowed as if this share of the budget were allowed. It is met before the most
            sensitive ones have their turn, and those keep their width; at 1 all are narrowed alike.
        epochs_per_layer: Passes over the training data between two layers, with the unpruned network as teacher.
        generations: Generations of the genetic algorithm, for each layer.
        scored: Sets of channels that are scored on data in each generation, those that a closed form finds best.
    """

    share_of_budget: float = 0.8
    epochs_per_layer: int = 1
    generations: int = 5
    scored: int = 8

    def __post_init__(self) -> None:
        number("share_of_budget", self.share_of_budget, "(0, 1]")
        whole_number("epochs_per_layer", self.epochs_per_layer, at_least=0)
        whole_number("generations", self.generations, at_least=1)
        whole_number("scored", self.scored, at_least=1)

    @staticmethod
    def check(recipe: Recipe) -> None:
        """Make sure that a recipe trains what was trained.

        Raises:
            ValueError: It does not.
        """
        expect(not recipe.from_scratch, "trained weights (from_scratch=False)", recipe.from_scratch)


@dataclass(frozen=True)
class PruningNetRecipe:
    """How to train on random structures.

    Attributes:
        epochs: Passes over the training data. The authors' rule of thumb: a quarter of those of ordinary training.
        batch_size: Images per step, of all processes together.
        lr: Learning rate at the start. It is that of SGD, and falls linearly to zero.
        momentum: Momentum of SGD.
        weight_decay: Weight decay, of parameters with two or more dimensions.
        label_smoothing: Label smoothing of the cross-entropy.
        sampling: Structures per step: random or sandwich. `"random"`: one, every width drawn uniformly (MetaPruning).
            `"sandwich"`: the full and the narrowest one and two random ones; all but the full learn from its outputs
            (in-place distillation).
        macs_from: Least MACs of random structures, as a share of the unpruned network's. They are scaled to a share
            that is drawn uniformly between this and `macs_to`. From 0 to 1 they are not scaled.
        macs_to: Most MACs of random structures, as a share of the unpruned network's.
    """

    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    sampling: Sampling = "random"
    macs_from: float = 0.0
    macs_to: float = 1.0

    def __post_init__(self) -> None:
        whole_number("epochs", self.epochs, at_least=1)
        whole_number("batch_size", self.batch_size, at_least=2)
        number("lr", self.lr, "(0, inf)")
        number("momentum", self.momentum, "[0, 1)")
        number("macs_from", self.macs_from, "[0, 1]")
        number("macs_to", self.macs_to, "(0, 1]")
        if self.macs_from > self.macs_to:
            raise ValueError(f"Expected macs_from <= macs_to, got {self.macs_from} and {self.macs_to}.")
        number("label_smoothing", self.label_smoothing, "[0, 1)")
        number("weight_decay", self.weight_decay, "[0, inf)")
        if self.sampling not in get_args(Sampling):
            raise ValueError(f"Unknown sampling {self.sampling!r}; there are {', '.join(get_args(Sampling))}.")

    @property
    def scales(self) -> bool:
        """Whether random structures are scaled to a share of the MACs."""
        return (self.macs_from, self.macs_to) != (0.0, 1.0)
