"""The command `finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prunesearch.cli.checks import check_data, check_network, check_study_name, check_task, check_training_files
from prunesearch.cli.options import (
    TRAINING,
    AugmentOption,
    BatchSizeOption,
    CalibrationOption,
    CheckpointOption,
    ConfigOption,
    DataOption,
    DataRootOption,
    DataWorkersOption,
    DownloadOption,
    EpochsOfPatienceOption,
    EpochsOption,
    FromScratchOption,
    ImageSizeOption,
    JsonOption,
    LabelSmoothingOption,
    LearningRateOption,
    LogOption,
    ModelOption,
    OptimizerOption,
    OptionalStudyOption,
    PrecisionOption,
    PrunedOption,
    SeedOption,
    StudyNameOption,
    TaskOption,
    TrackerOption,
    ValidationOption,
    WeightsOption,
    option,
    writes,
)
from prunesearch.cli.training import finish, training_session

if TYPE_CHECKING:
    from prunesearch.training.finetune import Training


def finetune(
    model: ModelOption,
    data: DataOption,
    out: Annotated[Path, writes("Write the trained network here, as safetensors.")],
    weights: WeightsOption = None,
    pruned: PrunedOption = None,
    data_root: DataRootOption = None,
    image_size: ImageSizeOption = None,
    download: DownloadOption = False,
    calibration: CalibrationOption = None,
    data_workers: DataWorkersOption = None,
    task: TaskOption = None,
    validation: ValidationOption = None,
    teacher: Annotated[
        bool,
        option("--teacher/--no-teacher", help="Learn from the unpruned model, too; needs --pruned.", panel=TRAINING),
    ] = True,
    epochs: EpochsOption = 20,
    batch_size: BatchSizeOption = 128,
    optimizer: OptimizerOption = "sgd",
    lr: LearningRateOption = 0.05,
    label_smoothing: LabelSmoothingOption = 0.0,
    ema: Annotated[
        float,
        option(
            "--ema",
            help="Decay of a moving average of the weights, such as 0.99; 0: none.",
            panel=TRAINING,
            metavar="DECAY",
        ),
    ] = 0.0,
    augment: AugmentOption = "none",
    precision: PrecisionOption = "fp32",
    from_scratch: FromScratchOption = False,
    patience: EpochsOfPatienceOption = None,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = None,
    log: LogOption = None,
    tracker: TrackerOption = None,
    study: OptionalStudyOption = None,
    study_name: StudyNameOption = "search",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Train a pruned network, or any. Run the same command again to continue after a stop or a kill.

    With --study, what is reached is recorded in the study that found the pruned network; `show` and `report` tell it.

    Example: `prunesearch finetune --model zoo:resnet20 --weights w.pt --pruned small.st --data digits --out tuned.st`
    """
    from prunesearch.training.augment import Augmentation
    from prunesearch.training.recipe import Recipe

    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,  # type: ignore[arg-type]  # the recipe checks it
        lr=lr,
        label_smoothing=label_smoothing,
        ema=ema,
        augmentation=Augmentation.parse(augment),
        patience=patience,
        precision=precision,  # type: ignore[arg-type]
        from_scratch=from_scratch,
    )
    check_network(model, weights=weights, pruned=pruned)
    check_data(data, validation)
    check_task(task)
    check_training_files(out, checkpoint, log, tracker)
    if study is not None:
        if pruned is None:
            raise ValueError("--study is where a pruned network was found; name that network with --pruned.")
        check_study_name(study, study_name)
    from prunesearch.followup import FollowUp
    from prunesearch.models.saving import load
    from prunesearch.models.trace import trace
    from prunesearch.sources import load_data, load_model_for
    from prunesearch.training.finetune import record_reached, train

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
    if patience is not None and source.validation is None:
        raise ValueError("--patience needs images to validate with: hold some out with --validation 0.1.")
    unpruned = load_model_for(model, weights, source)
    network = unpruned if pruned is None else load(pruned, unpruned)
    guide = unpruned if teacher and pruned is not None else None
    follow_up = None if study is None else FollowUp(study, study_name, trace(unpruned, source.examples()))
    structure = None if follow_up is None else follow_up.structure_of(network)
    with training_session(network, source, out, checkpoint, log, tracker) as running:
        result = train(network, source, recipe=recipe, teacher=guide, seed=seed, session=running.session)
    if follow_up is not None and structure is not None:
        record_reached(follow_up, structure, result, network, source, teacher=unpruned, seed=seed, file=out.name)
    was, now = result.validation_before, result.validation_after
    finish(
        running,
        result.best,
        network,
        source,
        out,
        result.reports,
        as_json=as_json,
        more={} if now is None else {"validation_before": was, "validation": now},
        first=_warning(result),
        told=f", the network of epoch {result.reports[-1].best_epoch} of {len(result.reports)}",
    )


def _warning(result: Training) -> str:
    """What comes first if the training did harm."""
    from prunesearch.tasks.metric import as_text

    was, now = result.validation_before, result.validation_after
    if was is None or now is None or not result.did_harm:
        return ""
    before, after = (as_text(result.metric, value) for value in (was, now))
    return (
        f"The network is worse than before: its validation {result.metric} is {after}, that of the one it was given "
        f"{before}. Try a lower --lr, or more --epochs. "
    )
