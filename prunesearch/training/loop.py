"""The training loop, which finetuning, PAAM and ManiDP share: epochs, steps, evaluation, checkpoints, resuming.

Everything random is drawn from generators made anew for each step or epoch from the seed, so that a checkpoint needs
none of their states, and a training that was killed anywhere ends with the very weights of one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunesearch.errors import TrainingDiverged
from prunesearch.models.copying import copied, copied_value
from prunesearch.models.devices import device_of_module, devices_here, random_apart, seed_generators
from prunesearch.models.misfit import outputs_of
from prunesearch.models.nested import Batch, in_format, moved, tensors_in
from prunesearch.models.sizes import size_of_first
from prunesearch.models.tensor_file import content_of
from prunesearch.progress import shown
from prunesearch.tasks.examples import Examples, judged_as
from prunesearch.tasks.metric import name_of
from prunesearch.training import checkpoint
from prunesearch.training.accelerating import Accelerator, accelerated, log_epoch, process_mean, start_logging
from prunesearch.training.augment import Augmentation
from prunesearch.training.augmenting import augmented, place_of_images
from prunesearch.training.averaging import Average
from prunesearch.training.checkpoint import CheckpointFile
from prunesearch.training.data import Data
from prunesearch.training.evaluation import evaluate, order_of, question_of_task
from prunesearch.training.fitting import check_extra_state, laid_out
from prunesearch.training.learner import Learner
from prunesearch.training.optimization import rate, set_rate
from prunesearch.training.progress import Progress, State, TrainedStates
from prunesearch.training.recipe import Recipe
from prunesearch.training.reports import EpochReport, Session, StepReport
from prunesearch.training.watching import LossAndMetric

_SAVE_EVERY = 60.0
"""Seconds between checkpoints within an epoch; more if writing one takes more than a twentieth of it."""


def run(
    learner: Learner,
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    session: Session,
    question: Mapping[str, Any],
    given: nn.Module | None = None,
) -> TrainedStates:
    """Train a learner, in place, from the beginning or from its checkpoint.

    Args:
        learner: Its network returns in eval mode what its task understands.
        data: What to train on, and what to hold out.
        recipe: How.
        seed: Decides everything random.
        session: Checkpoint, log and callbacks.
        question: What else decides the outcome; a checkpoint of another question is refused.
        given: The network that came in, where it is not the learner's own as that comes.

    Raises:
        ValueError: Data, labels or settings that do not fit each other.
        TrainingDiverged: The loss became NaN or infinite.
        CheckpointError: The checkpoint is damaged, of another training, or cannot be written.
        CheckpointLocked: Another training has it.
    """
    check_patience(recipe, data)
    check_extra_state(learner.network)
    device = devices_here().chosen(session.device, device_of_module(learner))
    with accelerated(recipe.precision, session.log, device) as accelerator, random_apart(accelerator.device):
        asked = {**question, "recipe": asdict(recipe), "seed": seed, "torch": torch.__version__}
        with ExitStack() as stack:
            file = None
            if session.checkpoint is not None:
                asked |= {"data": data.fingerprint(), "processes": accelerator.num_processes}
                asked |= question_of_task(learner.network, data)
                opened = CheckpointFile(Path(session.checkpoint), asked, writes=accelerator.is_main_process)
                file = stack.enter_context(opened)
            watched = stack.enter_context(_watched(session, learner, is_seen=accelerator.is_main_process))
            loop = _Loop(accelerator, learner, data, recipe, seed, watched, file)
            loop.judge_before(given)
            return loop.run()


@contextmanager
def _watched(session: Session, learner: Learner, *, is_seen: bool) -> Iterator[Session]:
    """The session, which also shows how far the training is."""
    with shown("training step", "steps", session.progress if is_seen else False) as bar:
        told = LossAndMetric(bar, name_of(judged_as(learner.task)))

        def on_step(report: StepReport) -> None:
            told.step(report)
            if session.on_step is not None:
                session.on_step(report)

        def on_epoch(report: EpochReport) -> None:
            told.epoch(report)
            if session.on_epoch is not None:
                session.on_epoch(report)

        yield replace(session, on_step=on_step, on_epoch=on_epoch)


def check_patience(recipe: Recipe, data: Data) -> None:
    """Make sure that there is something to stop early by.

    Raises:
        ValueError: There is not.
    """
    if recipe.patience is not None and data.validation is None:
        raise ValueError(f"Expected Data(validation=...) to stop early by (patience={recipe.patience}), got none.")


class _Loop:
    def __init__(
        self,
        accelerator: Accelerator,
        learner: Learner,
        data: Data,
        recipe: Recipe,
        seed: int,
        session: Session,
        file: CheckpointFile | None,
    ) -> None:
        self._accelerator, self._data, self._recipe, self._seed = accelerator, data, recipe, seed
        self._share = accelerator.process_index, accelerator.num_processes
        if self._share[1] > 1 and not learner.runs_in_parallel:
            raise ValueError(f"{type(learner).__name__} trains in one process, got {self._share[1]}.")
        if recipe.batch_size % self._share[1]:
            raise ValueError(
                f"Expected a batch_size that {self._share[1]} processes can share, got {recipe.batch_size}."
            )
        self._learner = learner.to(accelerator.device)
        examples = data.examples()
        self._size = size_of_first(examples)
        self._format, self._outputs = laid_out(learner.network, examples, accelerator.device)
        for helper in learner.helpers:
            helper.to(accelerator.device).to(memory_format=self._format)
        self._images_at = place_of_images(recipe.augmentation, data.first(), learner.task)
        self._optimizers = list(learner.optimizers(recipe))
        self._prepared, *self._stepping = accelerator.prepare(learner, *self._optimizers)
        self._average = Average(learner.network, recipe.ema) if recipe.ema else None
        held_out = data.validation_set()
        self._held_out = None if held_out is None else learner.judged(Examples(held_out, learner.task))
        if self._held_out is not None and held_out is not None:
            self._check(held_out)
            for part in self._held_out.by_size():
                if size_of_first(part.inputs) != self._size:
                    outputs_of(learner.network, part.take(slice(2)).to(accelerator.device).inputs)
        self._session = session
        self._file = file
        self._progress = Progress()
        self._steps = data.steps_per_epoch(recipe.batch_size)
        self._best: State = {}
        self._restore()
        self._good: State | None = self._copied() if self._progress.reports else None
        self._start = self._saved = time.monotonic()
        self._save_every = _SAVE_EVERY
        self._begun = self._number
        if file is not None:
            file.check(self._snapshot())

    @property
    def _number(self) -> int:
        """Steps done in all."""
        return self._progress.epoch * self._steps + self._progress.step

    @property
    def _network(self) -> nn.Module:
        """What is evaluated and handed back."""
        return self._learner.network if self._average is None else self._average.network

    def judge_before(self, given: nn.Module | None) -> None:
        """Evaluate the network that came in, unless an earlier run has done so."""
        if self._held_out is None or self._number:
            return
        network = self._learner.network if given is None else copied(given).to(self._accelerator.device)
        self._progress.before = evaluate(network, self._held_out, self._accelerator.device)[0]

    def run(self) -> TrainedStates:
        resumed_at = self._progress.epoch
        if self._session.log is not None:
            settings = asdict(self._recipe) | {"seed": self._seed}
            start_logging(self._accelerator, self._session.log, settings, self._progress.epoch)
        while not self._is_finished():
            self._run_epoch()
        last = self._copied()
        progress = self._progress
        return TrainedStates(self._best or last, last, tuple(progress.reports), progress.before, resumed_at)

    def _is_finished(self) -> bool:
        epoch, patience = self._progress.epoch, self._recipe.patience
        if epoch and patience is not None and epoch - self._progress.reports[-1].best_epoch >= patience:
            return True
        return epoch >= self._recipe.epochs

    def _run_epoch(self) -> None:
        progress = self._progress
        if progress.step == 0:
            self._learner.begin_epoch(progress.epoch)
        self._learner.train()
        rng = np.random.default_rng([self._seed, 2, progress.epoch])
        pinned = self._accelerator.device.type == "cuda"
        size, first = self._recipe.batch_size, progress.step
        batches = self._data.train_batches(size, rng, first=first, share=self._share, pinned=pinned)
        for batch in batches:
            loss = self._take_step(batch)
            progress.step += 1
            progress.loss += loss
            self._tell(loss)
        self._learner.end_epoch(progress.epoch)
        progress.epoch += 1
        self._judge()
        progress.step, progress.loss = 0, 0.0
        self._save()
        report = progress.reports[-1]
        if self._session.log is not None:
            known = {key: value for key, value in asdict(report).items() if value is not None and key != "epoch"}
            log_epoch(self._accelerator, known, report.epoch)
        if self._session.on_epoch is not None:
            self._session.on_epoch(report)

    def _check(self, batch: Batch) -> None:
        """Let the task look at a batch beside what the network returned: of its examples of that size."""
        task = self._learner.task
        if task.check is None:
            return
        for part in Examples(batch, task).by_size():
            if size_of_first(part.inputs) == self._size:
                task.check(self._outputs, part.batch)

    def _take_step(self, batch: Batch) -> float:
        self._check(batch)
        number, recipe = self._number, self._recipe
        for optimizer in self._optimizers:
            set_rate(optimizer, rate(recipe, number / (self._steps * recipe.epochs)))
        draw, dropout = np.random.default_rng([self._seed, 4, number, self._share[0]]).integers(2**63, size=2).tolist()
        seed_generators(dropout)
        given = self._placed(moved(batch, self._accelerator.device), torch.Generator().manual_seed(draw))
        loss = self._prepared(given)
        if not loss.requires_grad:
            raise ValueError(
                f"The loss of {type(self._learner.network).__name__} does not depend on what is trained. Does its "
                "forward run under torch.no_grad() or torch.inference_mode(), or call detach()?"
            )
        value = float(process_mean(self._accelerator, loss))
        if not math.isfinite(value):
            raise self._diverged(value, given)
        self._accelerator.backward(loss)
        for stepping in self._stepping:
            stepping.step()
            stepping.zero_grad()
        if self._average is not None:
            self._average.update(self._learner.network, number + 1)
        return value

    def _placed(self, batch: Batch, draws: torch.Generator) -> Batch:
        """The batch with its images augmented, and laid out in memory as the network wants them."""
        if self._recipe.augmentation != Augmentation():
            batch = augmented(self._recipe.augmentation, batch, self._images_at, draws)
        return in_format(batch, self._format)

    def _diverged(self, loss: float, batch: Batch) -> TrainingDiverged:
        path = None if self._file is None else self._file.path
        kept = "" if path is None or not path.exists() else f" The last good state is kept in {path}."
        good = None
        if self._good is not None:
            good = copied(self._learner.network).cpu().eval()
            good.load_state_dict(self._good)
        advice = f"Lower the learning rate (now {self._recipe.lr})."
        if not all(bool(x.isfinite().all()) for x in tensors_in(self._learner.task.inputs(batch))):
            advice = "Images of that batch hold NaN or infinite values; leave them out."
        return TrainingDiverged(
            f"The training loss became {loss} at step {self._number} of {self._steps * self._recipe.epochs}. {advice}"
            f"{kept}",
            step=self._number,
            last_good=good,
        )

    def _judge(self) -> None:
        """Evaluate what there is after an epoch, and report it."""
        progress = self._progress
        held_out, metric, loss = self._held_out, None, None
        best_epoch = progress.reports[-1].best_epoch if progress.reports else progress.epoch
        if held_out is None:
            best_epoch = progress.epoch
        else:
            metric, loss = evaluate(self._network, held_out, self._accelerator.device)
            order = order_of(held_out, metric, loss)
            if progress.best is None or order > tuple(progress.best):
                progress.best, best_epoch, self._best = order, progress.epoch, self._copied()
        steps_left = (self._recipe.epochs - progress.epoch) * self._steps
        progress.reports.append(
            EpochReport(
                epoch=progress.epoch,
                epochs=self._recipe.epochs,
                loss=progress.loss / self._steps,
                validation_loss=loss,
                metric=metric,
                best_epoch=best_epoch,
                seconds=progress.seconds + time.monotonic() - self._start,
                seconds_left=self._seconds_per_step() * steps_left,
            )
        )
        self._good = self._copied()

    def _tell(self, loss: float) -> None:
        if self._session.on_step is not None:
            steps = self._steps * self._recipe.epochs
            left = self._seconds_per_step() * (steps - self._number)
            try:
                self._session.on_step(StepReport(self._number, steps, loss, left))
            except BaseException:  # an interrupt, as a rule: between steps the state is whole
                self._save()
                raise
        if time.monotonic() - self._saved > self._save_every:
            self._save()

    def _seconds_per_step(self) -> float:
        return (time.monotonic() - self._start) / max(1, self._number - self._begun)

    def _copied(self) -> State:
        """The network's state as it is now, on the CPU."""
        return {name: copied_value(value, "cpu") for name, value in self._network.state_dict().items()}

    def _save(self) -> None:
        if self._file is None:
            return
        start = time.monotonic()
        if self._accelerator.is_main_process:
            self._file.write(self._snapshot())
        self._accelerator.wait_for_everyone()
        self._saved = time.monotonic()
        self._save_every = max(_SAVE_EVERY, 20 * (self._saved - start))

    def _snapshot(self) -> checkpoint.Snapshot:
        tensors = checkpoint.nested("learner", self._learner.state_dict())
        tensors |= checkpoint.nested("best", self._best)
        if self._average is not None:
            tensors |= checkpoint.nested("average", self._average.network.state_dict())
        for index, optimizer in enumerate(self._optimizers):
            tensors |= checkpoint.nested(f"optimizer{index}", checkpoint.optimizer_tensors(optimizer))
        facts = asdict(self._progress)
        facts["seconds"] += time.monotonic() - self._start
        facts["scaler"] = None if self._accelerator.scaler is None else self._accelerator.scaler.state_dict()
        return checkpoint.Snapshot(tensors, facts)

    def _restore(self) -> None:
        found = None if self._file is None else self._file.read()
        if found is None or self._file is None:
            return
        with content_of(self._file.path):
            self._go_on_from(found)

    def _go_on_from(self, found: checkpoint.Snapshot) -> None:
        self._learner.load_state_dict(checkpoint.part("learner", found.tensors))
        self._best = checkpoint.part("best", found.tensors)
        if self._average is not None:
            self._average.network.load_state_dict(checkpoint.part("average", found.tensors))
        for index, optimizer in enumerate(self._optimizers):
            checkpoint.restore_optimizer(optimizer, checkpoint.part(f"optimizer{index}", found.tensors))
        facts = dict(found.facts)
        if (scaler := facts.pop("scaler")) is not None:
            self._accelerator.scaler.load_state_dict(scaler)
        reports = [EpochReport(**report) for report in facts.pop("reports")]
        self._progress = Progress(**facts, reports=reports)
