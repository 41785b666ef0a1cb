"""The command `manidp`."""

from __future__ import annotations

from typing import Annotated

from prunesearch.cli.flags import Group
from prunesearch.cli.running import say_where
from prunesearch.cli.training import finish, training_session
from prunesearch.cli.values import (
    METHOD,
    DeviceOptions,
    LimitOptions,
    PrintingOptions,
    PrunedOptions,
    RecipeOfGates,
    SeedOptions,
    TrainingFileOptions,
    TrainingImageOptions,
)
from prunesearch.training.settings import ManifoldSettings


def manidp(
    model: PrunedOptions,
    images: TrainingImageOptions,
    budget: LimitOptions,
    recipe: RecipeOfGates,
    settings: Annotated[ManifoldSettings, Group(METHOD)],
    seed: SeedOptions,
    where: DeviceOptions,
    files: TrainingFileOptions,
    printing: PrintingOptions,
) -> None:
    """Give each image channels of its own (ManiDP). Run the same command again to continue.

    Gates are trained into a trained network, pruned or not; --budget limits the MACs of the average image. Read the
    file in Python with `ps.load(FILE, ps.gated(model, images))`.

    Example: `prunesearch manidp --model zoo:resnet20 --weights w.pt --data digits --budget macs=50% --out gated.st`
    """
    limits = budget.limits
    settings.check(limits, recipe)
    from prunesearch.models.trace import trace
    from prunesearch.training.manidp import manidp as train

    say_where(where.device)
    data = images.load()
    network = trace(model.load_pruned(model.loaded(data)), data.examples())
    with training_session(network.model, data, files, where) as running:
        result = train(
            network,
            data,
            budget=limits,
            recipe=recipe,
            settings=settings,
            seed=seed.seed,
            **vars(running.session),
        )
    share = result.average_macs / result.dense_macs
    finish(
        running,
        result.model,
        network.model,
        result.reports,
        as_json=printing.json,
        more={"average_macs": result.average_macs, "dense_macs": result.dense_macs},
        told=f": {result.average_macs:,.0f} MACs per image ({share:.1%}), the average of training images",
    )
