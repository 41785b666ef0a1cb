"""The command `finetune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from prunesearch.cli.flags import Group
from prunesearch.cli.running import say_where
from prunesearch.cli.training import finish, training_session
from prunesearch.cli.values import (
    TRAINING,
    DeviceOptions,
    FoundInOptions,
    PrintingOptions,
    PrunedOptions,
    RecipeOptions,
    SeedOptions,
    TrainingFileOptions,
    TrainingImageOptions,
)

if TYPE_CHECKING:
    from prunesearch.training.finetune import Training


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Whom a network follows.

    Attributes:
        teacher: Learn from the unpruned model, too; needs --pruned.
    """

    teacher: bool = True


def finetune(
    model: PrunedOptions,
    images: TrainingImageOptions,
    teaching: Annotated[Teaching, Group(TRAINING)],
    recipe: RecipeOptions,
    seed: SeedOptions,
    where: DeviceOptions,
    files: TrainingFileOptions,
    found_in: FoundInOptions,
    printing: PrintingOptions,
) -> None:
    """Train a pruned network, or any. Run the same command again to continue after a stop or a kill.

    With --study, what is reached is recorded in the study that found the pruned network; `show` and `report` tell it.

    Example: `prunesearch finetune --model zoo:resnet20 --weights w.pt --pruned small.st --data digits --out tuned.st`
    """
    found_in.check(model.pruned)
    from prunesearch.models.trace import trace
    from prunesearch.training.finetune import record_reached, train

    say_where(where.device)
    data = images.load()
    if recipe.patience is not None and data.validation is None:
        raise ValueError("--patience needs images to validate with: hold some out with --validation 0.1.")
    unpruned = model.loaded(data)
    network = model.load_pruned(unpruned)
    teacher = unpruned if teaching.teacher and model.pruned is not None else None
    follow_up = None if found_in.study is None else found_in.follow_up(trace(unpruned, data.examples()))
    structure = None if follow_up is None else follow_up.structure_of(network)
    with training_session(network, data, files, where) as running:
        result = train(network, data, recipe=recipe, teacher=teacher, seed=seed.seed, session=running.session)
    if follow_up is not None and structure is not None:
        record_reached(
            follow_up,
            structure,
            result,
            network,
            data,
            teacher=unpruned,
            seed=seed.seed,
            device=where.device,
            file=files.out.name,
        )
    was, now = result.validation_before, result.validation_after
    finish(
        running,
        result.best,
        network,
        result.reports,
        as_json=printing.json,
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
