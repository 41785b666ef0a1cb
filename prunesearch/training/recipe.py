"""How to train: one frozen value, which a checkpoint remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from prunesearch.contracts import expect_kind
from prunesearch.ranges import number, whole_number
from prunesearch.training.augment import Augmentation

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "constant"]
Precision = Literal["fp32", "bf16", "fp16"]

_INTERVALS = {
    "lr": "(0, inf)",
    "momentum": "[0, 1)",
    "weight_decay": "[0, inf)",
    "warmup": "[0, 1)",
    "label_smoothing": "[0, 1)",
    "distillation": "[0, 1]",
    "temperature": "(0, inf)",
    "feature_weight": "[0, inf)",
    "ema": "[0, 1)",
}


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Images per step, of all processes together.
        optimizer: `"sgd"` (with Nesterov momentum) or `"adamw"` (with betas `momentum` and 0.999).
        lr: Peak learning rate.
        momentum: Momentum of SGD; the first beta of AdamW.
        weight_decay: Weight decay, of weights with two or more dimensions. Biases and BatchNorm have none.
        schedule: After the warm-up the rate falls as a `"cosine"` to zero, or stays `"constant"`.
        warmup: Share of all steps over which the rate rises linearly.
        label_smoothing: Label smoothing of the cross-entropy.
        distillation: With a teacher, the weight of its soft labels against the true ones.
        temperature: Temperature of the soft labels.
        features: With a teacher, names of modules (the same in both networks) whose outputs are pulled towards the
            teacher's. See `training.distillation`.
        feature_weight: Weight of the features in the loss.
        ema: Decay per step of a moving average of the weights, such as 0.99; 0: none. The average is then what is
            evaluated and returned. It starts lower: never above (1 + step) / (10 + step).
        augmentation: What is done to the images at random.
        patience: Stop after so many epochs without a better one. Needs images to validate with; None never stops.
        precision: `"fp32"`, `"bf16"` or `"fp16"`. The latter two (`"fp16"` on GPUs only) compute convolutions and
            products in 16 bits; weights stay 32.
        from_scratch: Draw new random weights first. The control for what the pruned network's weights are worth.

    Raises:
        TypeError: A setting is no number, or no whole one, or of another kind.
        ValueError: A setting is out of its range.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: Optimizer = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.1
    label_smoothing: float = 0.0
    distillation: float = 0.5
    temperature: float = 2.0
    features: tuple[str, ...] = ()
    feature_weight: float = 1000.0
    ema: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    patience: int | None = None
    precision: Precision = "fp32"
    from_scratch: bool = False

    def __post_init__(self) -> None:
        whole_number("epochs", self.epochs, at_least=1)
        whole_number("batch_size", self.batch_size, at_least=2)
        for name, interval in _INTERVALS.items():
            number(name, getattr(self, name), interval)
        if self.patience is not None:
            whole_number("patience", self.patience, at_least=1)
        if isinstance(self.features, str):
            raise TypeError(f"Expected features as names in a tuple, such as ({self.features!r},), got a text.")
        object.__setattr__(self, "features", tuple(self.features))
        expect_kind("augmentation", self.augmentation, Augmentation, "Augmentation(flip=True)")
        for name, kind in (("optimizer", Optimizer), ("schedule", Schedule), ("precision", Precision)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"Expected {name} as one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}.")


def check_recipe(given: object) -> None:
    """Make sure that something is a recipe.

    Raises:
        TypeError: It is not.
    """
    expect_kind("recipe", given, Recipe, "Recipe(epochs=20)")
