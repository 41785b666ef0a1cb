"""The command `paam`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prunesearch.cli.arguments import settings, width_rules
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
    FromScratchOption,
    IgnoreOption,
    ImageSizeOption,
    JsonOption,
    LabelSmoothingOption,
    LearningRateOption,
    LogOption,
    MinChannelsOption,
    ModelOption,
    OptimizerOption,
    PrecisionOption,
    RoundToOption,
    SeedOption,
    TaskOption,
    TrackerOption,
    ValidationOption,
    WeightsOption,
    option,
    writes,
)
from prunesearch.cli.training import finish, training_session


def paam(
    model: ModelOption,
    data: DataOption,
    budget: BudgetOption,
    out: Annotated[Path, writes("Write the pruned, trained network here, as safetensors.")],
    weights: WeightsOption = None,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
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
    from_scratch: FromScratchOption = False,
    entries: Annotated[
        list[str] | None,
        option("--option", help="Of the method, such as share=0.5; repeatable.", panel=TRAINING, metavar="NAME=VALUE"),
    ] = None,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = None,
    log: LogOption = None,
    tracker: TrackerOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find structure and weights in one training (PAAM). Run the same command again to continue.

    Scores of filters are learnt while the network trains; the last epochs finetune what is left within the budget.

    Example: `prunesearch paam --model zoo:resnet20 --weights w.pt --data digits --budget macs=50% --out paam.st`
    """
    from prunesearch.training.augment import Augmentation
    from prunesearch.training.recipe import Recipe
    from prunesearch.training.settings import AttentionSettings

    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,  # type: ignore[arg-type]  # the recipe checks it
        lr=lr,
        label_smoothing=label_smoothing,
        augmentation=Augmentation.parse(augment),
        precision=precision,  # type: ignore[arg-type]
        from_scratch=from_scratch,
    )
    method, limits = settings(AttentionSettings, entries), budget_of(budget, takes_table=False)
    method.live_epochs(epochs)
    rules = width_rules(round_to, min_channels, ignore)
    check_network(model, weights=weights)
    check_data(data, validation)
    check_task(task)
    check_training_files(out, checkpoint, log, tracker)
    from prunesearch.models.trace import trace
    from prunesearch.sources import load_data, load_model_for
    from prunesearch.training.attention import paam as train

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
    network = trace(unpruned, source.examples(), **rules)
    with training_session(unpruned, source, out, checkpoint, log, tracker) as running:
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
    cost = network.space.cost(result.structure)
    share = cost.macs / network.space.cost(network.space.full).macs
    finish(
        running,
        result.model,
        unpruned,
        source,
        out,
        result.reports,
        as_json=as_json,
        more={"structure": result.structure, "cost": cost.amounts},
        told=f": {cost.macs:,} MACs ({share:.1%}), {cost.params:,} parameters",
    )
