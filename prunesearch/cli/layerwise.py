"""The command `layerwise`."""

from __future__ import annotations

from dataclasses import asdict
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
    RecipeOfTrained,
    SeedOptions,
    TrainingFileOptions,
    TrainingImageOptions,
    WidthOptions,
)
from prunesearch.training.settings import LayerwiseSettings


def layerwise(
    model: ModelOptions,
    widths: WidthOptions,
    images: TrainingImageOptions,
    budget: LimitOptions,
    recipe: RecipeOfTrained,
    settings: Annotated[LayerwiseSettings, Group(METHOD)],
    seed: SeedOptions,
    where: DeviceOptions,
    files: TrainingFileOptions,
    printing: PrintingOptions,
) -> None:
    """Prune layer by layer, with training in between. Run the same command again to continue.

    A genetic algorithm chooses the channels of a layer, the least sensitive one first; the unpruned network teaches.

    Example: `prunesearch layerwise --model zoo:resnet20 --weights w.pt --data digits --budget macs=50% --out small.st`
    """
    limits, rules = budget.limits, widths.rules
    from prunesearch.by_layers import layerwise as prune
    from prunesearch.models.trace import trace

    say_where(where.device)
    data = images.load()
    unpruned = model.loaded(data)
    network = trace(unpruned, data.examples(), **rules)
    with training_session(unpruned, data, files, where, in_parts=True) as running:
        result = prune(
            network,
            data,
            budget=limits,
            recipe=recipe,
            settings=settings,
            seed=seed.seed,
            on_score=lambda score: running.stop_if_asked(),
            **vars(running.session),
        )
    cost, told = cost_told(network, result.structure)
    layers = [asdict(layer) for layer in result.layers]
    finish(
        running,
        result.model,
        unpruned,
        result.reports,
        as_json=printing.json,
        more={"structure": result.structure, "cost": cost.amounts, "layers": layers},
        told=f": {len(layers)} layers, {told}",
    )
