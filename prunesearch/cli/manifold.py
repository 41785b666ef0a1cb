"""The command `manidp`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prunesearch.cli.arguments import settings
from prunesearch.cli.checks import budget_of, check_data, check_network, check_task, check_training_files
from prunesearch.cli.options import (
    TRAINING,
    AugmentOption,
    BatchSizeOption,
    BudgetOption,
    CalibrationOption,
    CheckpointOption,
    ConfigOption,
    DataOption,
    DataRootOption,
    DataWorkersOption,
    DownloadOption,
    EpochsOption,
    ImageSizeOption,
    JsonOption,
    LabelSmoothingOption,
    LearningRateOption,
    LogOption,
    ModelOption,
    OptimizerOption,
    PrecisionOption,
    PrunedOption,
    SeedOption,
    TaskOption,
    TrackerOption,
    ValidationOption,
    WeightsOption,
    option,
    writes,
)
from prunesearch.cli.training import finish, training_session


def manidp(
    model: ModelOption,
    data: DataOption,
    budget: BudgetOption,
    out: Annotated[Path, writes("Write the gated network here, as safetensors.")],
    weights: WeightsOption = None,
    pruned: PrunedOption = None,
    data_root: DataRootOption = None,
    image_size: ImageSizeOption = None,
    download: DownloadOption = False,
    calibration: CalibrationOption = None,
    data_workers: DataWorkersOption = None,
    task: TaskOption = None,
    validation: ValidationOption = None,
    epochs: EpochsOption = 40,
    batch_size: BatchSizeOption = 128,
    optimizer: OptimizerOption = "sgd",
    lr: LearningRateOption = 0.05,
    label_smoothing: LabelSmoothingOption = 0.0,
    augment: AugmentOption = "none",
    precision: PrecisionOption = "fp32",
    entries: Annotated[
        list[str] | None,
        option(
            "--option", help="Of the method, such as sparsity=0.01; repeatable.", panel=TRAINING, metavar="NAME=VALUE"
        ),
    ] = None,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = None,
    log: LogOption = None,
    tracker: TrackerOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Give each image channels of its own (ManiDP). Run the same command again to continue.

    Gates are trained into a trained network, pruned or not; --budget limits the MACs of the average image. Read the
    file in Python with `ps.load(FILE, ps.gated(model, images))`.

    Example: `prunesearch manidp --model zoo:resnet20 --weights w.pt --data digits --budget macs=50% --out gated.st`
    """
    from prunesearch.training.augment import Augmentation
    from prunesearch.training.recipe import Recipe
    from prunesearch.training.settings import ManifoldSettings

    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,  # type: ignore[arg-type]  # the recipe checks it
        lr=lr,
        label_smoothing=label_smoothing,
        augmentation=Augmentation.parse(augment),
        precision=precision,  # type: ignore[arg-type]
    )
    method, limits = settings(ManifoldSettings, entries), budget_of(budget, takes_table=False)
    method.check(limits, recipe)
    check_network(model, weights=weights, pruned=pruned)
    check_data(data, validation)
    check_task(task)
    check_training_files(out, checkpoint, log, tracker)
    from prunesearch.models.saving import load
    from prunesearch.models.trace import trace
    from prunesearch.sources import load_data, load_model_for
    from prunesearch.training.manifold import manidp as train

    source = load_data(
        data,
        data_root=data_root,
        image_size=image_size,
        download=download,
        calibration=calibration,
        data_workers=data_workers,
        task=task,
        validation=validation,
    )
    unpruned = load_model_for(model, weights, source)
    network = trace(unpruned if pruned is None else load(pruned, unpruned), source.examples())
    with training_session(network.model, source, out, checkpoint, log, tracker) as running:
        result = train(
            network,
            source,
            budget=limits,
            recipe=recipe,
            settings=method,
            seed=seed,
            checkpoint=running.session.checkpoint,
            log=running.session.log,
            on_epoch=running.session.on_epoch,
            on_step=running.session.on_step,
        )
    share = result.average_macs / result.dense_macs
    finish(
        running,
        result.model,
        network.model,
        source,
        out,
        result.reports,
        as_json=as_json,
        more={"average_macs": result.average_macs, "dense_macs": result.dense_macs},
        told=f": {result.average_macs:,.0f} MACs per image ({share:.1%}), the average of training images",
    )
