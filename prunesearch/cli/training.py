"""What the commands that train a network share: a session with progress, and what is said at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prunesearch.cli.console import print_json, say
from prunesearch.cli.running import first_interrupt_waits, interruptible, shown

if TYPE_CHECKING:
    from prunesearch.cli.values import TrainingFiles, Where
    from prunesearch.training.data import Data
    from prunesearch.training.reports import EpochReport, Session, StepReport
    from prunesearch.training.watching import LossAndMetric


_FEW_STEPS, _MUCH = 100, 0.05
"""Steps of a training; share of the statistics of BatchNorm that are from before it."""


def note_few_steps(network: Any, steps: int) -> None:
    """Say so if a training is too short to learn much, or for the statistics of BatchNorm to follow the weights.

    Small data sets and large batches make it so; some networks average their statistics over hundreds of steps.
    """
    from prunesearch.evaluators.recalibration import batch_norms

    old = max(((1 - norm.momentum) ** steps for norm in batch_norms(network) if norm.momentum is not None), default=0.0)
    if steps >= _FEW_STEPS and old <= _MUCH:
        return
    why = f" and leave {old:.0%} of the BatchNorm statistics from before, which spoils the accuracy" * (old > _MUCH)
    say(f"note: {steps} steps in all are few{why}. Give a smaller --batch-size, or more --epochs.", aside=True)


@dataclass(frozen=True)
class TrainingRun:
    """A training on the command line.

    Attributes:
        session: What the training is given.
        files: What it leaves.
        data: What it learns from.
        stop_if_asked: Ends it, if it was interrupted; to be called where its state can be written.
    """

    session: Session
    files: TrainingFiles
    data: Data
    stop_if_asked: Callable[[], None]
    _show: LossAndMetric

    @property
    def was_finished(self) -> bool:
        """Whether an earlier run had done all of it; known at the end."""
        return not self._show.begun


@contextmanager
def training_session(
    network: Any, data: Data, files: TrainingFiles, where: Where, *, in_parts: bool = False
) -> Iterator[TrainingRun]:
    """A session that shows progress; an interrupt ends it with the state on disk.

    Args:
        network: What is trained.
        data: What it learns from.
        files: What it leaves.
        where: On what device.
        in_parts: Whether it is several trainings, so that the steps of the first say nothing about all.
    """
    from prunesearch.tasks.examples import judged_as
    from prunesearch.tasks.metric import name_of
    from prunesearch.training.accelerating import Log
    from prunesearch.training.evaluation import check_test
    from prunesearch.training.reports import Session
    from prunesearch.training.watching import LossAndMetric

    check_test(network, data)
    kept = f"The state is in {files.state}"
    with interruptible(kept), first_interrupt_waits() as stop_if_asked, shown("training step", "steps") as bar:
        show = LossAndMetric(bar, name_of(judged_as(data.goal)))

        def on_step(report: StepReport) -> None:
            if not show.begun and not in_parts:
                note_few_steps(network, report.steps)
            show.step(report)
            stop_if_asked()

        logged = None if files.log is None else Log(files.log, files.trackers or ("csv",))
        session = Session(files.state, logged, show.epoch, on_step, where.device, progress=False)
        yield TrainingRun(session, files, data, stop_if_asked, show)


def cost_told(network: Any, structure: Any) -> tuple[Any, str]:
    """What a structure of a traced network costs, and the same in words."""
    cost, full = (network.space.cost(each) for each in (structure, network.space.full))
    return cost, f"{cost.macs:,} MACs ({cost.macs / full.macs:.1%}), {cost.params:,} parameters"


def finish(
    running: TrainingRun,
    trained: Any,
    before: Any,
    reports: Sequence[EpochReport],
    *,
    as_json: bool,
    more: dict[str, Any] | None = None,
    first: str = "",
    told: str = "",
) -> None:
    """Write the network, and say what became of it.

    Args:
        running: The training.
        trained: The network that is written.
        before: The network whose metric it is compared with.
        reports: One per epoch.
        as_json: Whether to say it to a program.
        more: Further facts for it.
        first: What people are told before anything else.
        told: What they are told of the file.
    """
    from prunesearch.models.saving import save
    from prunesearch.tasks.examples import follows
    from prunesearch.tasks.metric import as_text, name_of
    from prunesearch.training.evaluation import metric_on_test

    data, out = running.data, running.files.out
    save(trained, out, example_inputs=data.examples())
    found: dict[str, Any] = {"out": str(out), **(more or {}), "epochs": [asdict(report) for report in reports]}
    found["was_finished"] = running.was_finished
    sentence = f"{first}Wrote {out}{told}."
    if running.was_finished:
        sentence = (
            f"{first}Nothing to do: this training is finished, and {out} is what came of it{told}. To train again, "
            f"delete {running.files.state}, or give another --out."
        )
    if data.test is not None and not follows(data.goal):
        try:
            (was, n), (now, _) = (
                metric_on_test(each, data, device=running.session.device) for each in (before, trained)
            )
        except ValueError:
            say(sentence, aside=True)  # the network is there, whatever the test images are
            raise
        name = name_of(data.goal)
        found |= {f"{name}_before": was, name: now, "test_images": n}
        sentence += f" Test {name} {as_text(name, was)} before, {as_text(name, now)} now, of {n:,} images."
    if as_json:
        print_json(found)
    else:
        say(sentence)
