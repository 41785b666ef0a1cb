"""The command `finetune`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from prunesearch.cli.console import (
    JsonOption,
    ModelOption,
    WeightsOption,
    fail,
    first_interrupt_waits,
    print_json,
    progress,
    stdout,
)

if TYPE_CHECKING:
    from prunesearch.training.data import Data
    from prunesearch.training.reports import EpochReport, StepReport


def finetune(
    model: ModelOption,
    data: Annotated[str, typer.Option(help="digits, or path/to/file.py:function returning Data.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Write the trained network here, as safetensors.", show_default=False)],
    weights: WeightsOption = None,
    pruned: Annotated[Path | None, typer.Option(help="What `search --save` wrote for this model: train that.")] = None,
    teacher: Annotated[bool, typer.Option(help="Learn from the unpruned model, too; needs --pruned.")] = True,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 128,
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = "sgd",
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.05,
    label_smoothing: Annotated[float, typer.Option(help="Of the cross-entropy.")] = 0.0,
    ema: Annotated[float, typer.Option(help="Decay of a moving average of the weights, such as 0.99; 0: none.")] = 0.0,
    augment: Annotated[str, typer.Option(help="Such as flip,crop=4,erase=8.")] = "none",
    validation: Annotated[float | None, typer.Option(help="Share of the training images to hold out.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without a better one.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    from_scratch: Annotated[bool, typer.Option(help="Draw all weights anew first.")] = False,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    checkpoint: Annotated[Path | None, typer.Option(help="State of the training.", show_default="beside --out")] = None,
    log: Annotated[Path | None, typer.Option(help="Folder for a row per epoch.")] = None,
    tracker: Annotated[list[str] | None, typer.Option(help="csv, tensorboard, ...; repeatable.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a pruned network, or any. Run the same command again to continue after a stop or a kill.

    Example: `prunesearch finetune --model zoo:resnet20 --weights w.pt --pruned small.st --data digits --out tuned.st`
    """
    from prunesearch.training.accelerating import Log
    from prunesearch.training.augment import Augmentation
    from prunesearch.training.finetune import train
    from prunesearch.training.recipe import Recipe
    from prunesearch.training.reports import Session

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
    source, unpruned, network = _sources(model, weights, pruned, data, validation)
    state = checkpoint or out.with_name(out.name + ".checkpoint")
    guide = unpruned if teacher and pruned is not None else None
    with first_interrupt_waits() as stop_if_asked, progress() as bar:
        show = _Show(bar)

        def on_step(report: StepReport) -> None:
            show.step(report)
            stop_if_asked()

        trackers = tuple(tracker or ["csv"])
        session = Session(state, None if log is None else Log(log, trackers), show.epoch, on_step)
        try:
            result = train(network, source, recipe=recipe, teacher=guide, seed=seed, session=session)
        except KeyboardInterrupt:
            fail(f"Interrupted. The state is in {state}; run the same command again to continue.", status=130)
    _finish(result.best, network, source, out, result.reports, as_json)


def _sources(
    model: str, weights: Path | None, pruned: Path | None, data: str, validation: float | None
) -> tuple[Data, Any, Any]:
    """The data, the unpruned model, and what is to be trained."""
    from prunesearch.models.saving import load
    from prunesearch.sources import load_data, load_model_for

    source = load_data(data)
    if validation is not None:
        source = replace(source, validation=validation)
    unpruned = load_model_for(model, weights, *source.calibration_set())
    return source, unpruned, unpruned if pruned is None else load(pruned, unpruned)


def _finish(trained: Any, before: Any, data: Data, out: Path, reports: tuple[EpochReport, ...], as_json: bool) -> None:
    """Write the network, and say what became of it."""
    from prunesearch.evaluators.accuracy import top1
    from prunesearch.models.saving import save

    save(trained, out)
    found: dict[str, Any] = {"out": str(out), "epochs": [asdict(report) for report in reports]}
    sentence = f"Wrote {out}, the network of epoch {reports[-1].best_epoch} of {len(reports)}."
    if data.test is not None:
        images, labels = data.test_set()
        found["accuracy_before"], found["accuracy"] = (top1(net.eval(), images, labels) for net in (before, trained))
        sentence += f" Test accuracy {found['accuracy_before']:.2%} before, {found['accuracy']:.2%} now."
    if as_json:
        print_json(found)
    else:
        stdout.print(sentence, highlight=False)


class _Show:
    """Moves a progress bar on with every step, and shows the loss and the accuracy."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("training", total=None)
        self._accuracy = ""

    def step(self, report: StepReport) -> None:
        """After a step."""
        self._progress.update(
            self._task,
            total=report.steps,
            completed=report.step,
            description=f"loss {report.loss:.3f}{self._accuracy}",
        )

    def epoch(self, report: EpochReport) -> None:
        """After an epoch."""
        if report.accuracy is not None:
            self._accuracy = f", validation {report.accuracy:.2%} (best in epoch {report.best_epoch})"
