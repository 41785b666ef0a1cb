"""The command `paam`."""

from __future__ import annotations

from typing import Annotated

from prunesearch.cli.flags import Group
from prunesearch.cli.running import say_where
from prunesearch.cli.training import cost_told, finish, training_session
from prunesearch.cli.values import (
    METHOD,
    DeviceOptions,
    LimitOptions,
    ModelOptions,
    PrintingOptions,
    RecipeWithoutTeacher,
    SeedOptions,
    TrainingFileOptions,
    TrainingImageOptions,
    WidthOptions,
)
from prunesearch.training.settings import AttentionSettings


def paam(
    model: ModelOptions,
    widths: WidthOptions,
    images: TrainingImageOptions,
    budget: LimitOptions,
    recipe: RecipeWithoutTeacher,
    settings: Annotated[AttentionSettings, Group(METHOD)],
    seed: SeedOptions,
    where: DeviceOptions,
    files: TrainingFileOptions,
    printing: PrintingOptions,
) -> None:
    """Find structure and weights in one training (PAAM). Run the same command again to continue.

    Scores of filters are learnt while the network trains; the last epochs finetune what is left within the budget.

    Example: `prunesearch paam --model zoo:resnet20 --weights w.pt --data digits --budget macs=50% --out paam.st`
    """
    limits, rules = budget.limits, widths.rules
    settings.live_epochs(recipe.epochs)
    from prunesearch.models.trace import trace
    from prunesearch.training.paam import paam as train

    say_where(where.device)
    data = images.load()
    unpruned = model.loaded(data)
    network = trace(unpruned, data.examples(), **rules)
    with training_session(unpruned, data, files, where) as running:
        result = train(
            network,
            data,
            budget=limits,
            recipe=recipe,
            settings=settings,
            seed=seed.seed,
            **vars(running.session),
        )
    cost, told = cost_told(network, result.structure)
    finish(
        running,
        result.model,
        unpruned,
        result.reports,
        as_json=printing.json,
        more={"structure": result.structure, "cost": cost.amounts},
        told=f": {told}",
    )
