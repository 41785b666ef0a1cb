"""Finetune a winner for an epoch, and accept it if it is good enough then."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import cached_property
from typing import Any

from prunesearch.evaluators.winner import Winner
from prunesearch.models.devices import random_apart
from prunesearch.tasks.metric import as_text
from prunesearch.training.data import Data, Source, as_data
from prunesearch.training.finetune import train
from prunesearch.training.recipe import Recipe
from prunesearch.training.reports import Session
from prunesearch.verifiers.verifier import Verdict


class FinetuneVerifier:
    """Finetunes the winner briefly, the unpruned network as its teacher, and accepts what reaches a metric.

    The score of a structure says how good it is before training; this says how good it soon becomes. A winner that does
    not get there is refused, and the next best structure is tried.

    Args:
        data: What to train with, and the validation examples that judge (`Data(validation=...)`): not those that
            scored, and not those of the test.
        reach: What the metric of the task must reach on them; of one that falls, such as a loss, what it may be at
            most.
        recipe: How to finetune; by default for one epoch.
        seed: Decides everything random.
        device: Where it is finetuned; by default on the GPU where there is one.

    Raises:
        ValueError: The data have no validation examples, or `reach` is not finite.
    """

    def __init__(
        self,
        data: Data | Source,
        *,
        reach: float,
        recipe: Recipe | None = None,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self._data = as_data(data)
        if self._data.validation is None:
            raise ValueError(
                "Expected data with validation examples to judge by, such as Data(train, validation=0.1); got none."
            )
        if not math.isfinite(reach):
            raise ValueError(f"Expected reach as a finite value of the metric, got {reach!r}.")
        self._reach = float(reach)
        self._recipe = recipe or Recipe(epochs=1)
        self._seed, self._device = seed, device

    @cached_property
    def description(self) -> str:
        """Everything that a verdict depends on: what is reached, the recipe where it is unusual, and the data."""
        usual = asdict(Recipe(epochs=self._recipe.epochs))
        own = {name: value for name, value in asdict(self._recipe).items() if value != usual[name]}
        told: dict[str, Any] = {"reach": f"{self._reach:g}", "epochs": self._recipe.epochs, "seed": self._seed, **own}
        with random_apart():  # datasets may draw
            told["data"] = self._data.fingerprint()
        return f"finetune({', '.join(f'{name}={value}' for name, value in told.items())})"

    def verify(self, winner: Winner) -> Verdict:
        """Train it, and show how far that is if the search shows it; see `Verifier`."""
        trained = train(
            winner.build(),
            self._data,
            recipe=self._recipe,
            teacher=winner.unpruned,
            seed=self._seed,
            session=Session(device=self._device, progress=winner.progress),
        )
        reached, before = trained.validation_after, trained.validation_before
        assert reached is not None  # as there are validation examples
        off = self._reach - reached if trained.higher_is_better else reached - self._reach
        facts = {"metric": trained.metric, "before": before, "reached": reached, "epochs": len(trained.reports)}
        if off <= 0:
            return Verdict(True, facts=facts)
        got, wanted = (as_text(trained.metric, value) for value in (reached, self._reach))
        return Verdict(
            False,
            f"No winner reached {trained.metric} {wanted} within {len(trained.reports)} epochs of finetuning; this one "
            f"comes nearest, with {got}.",
            shortfall=off,
            facts=facts,
        )
