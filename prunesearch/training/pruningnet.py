"""Training a PruningNet, or a supernet, on random structures: one run serves every budget."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunesearch.budget import Budget
from prunesearch.errors import CheckpointError, TrainingDiverged
from prunesearch.models.devices import devices_here, has_bfloat16, random_apart, seed_generators
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.hypernet import PruningNet
from prunesearch.models.hypernet_file import Stored, fill, read, save_pruningnet
from prunesearch.models.memory import require
from prunesearch.models.misfit import outputs_of
from prunesearch.models.nested import Batch, arguments, mapped, members, moved
from prunesearch.models.tensor_file import content_of
from prunesearch.progress import Progress, shown
from prunesearch.question import differences
from prunesearch.structure import IntArray, Structure
from prunesearch.tasks import CLASSIFICATION, make_task
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.metric import check_has_loss, training_loss
from prunesearch.training.accelerating import Accelerator, accelerated
from prunesearch.training.checkpoint import SoleWriter
from prunesearch.training.data import Data, Source, as_data
from prunesearch.training.evaluation import question_of_task
from prunesearch.training.optimization import parameter_groups
from prunesearch.training.reports import StepReport
from prunesearch.training.settings import PruningNetRecipe

_BYTES = 4 * (1 + 1 + 2)  # gradient, momentum, and what a file is written from, per parameter


def train_pruningnet(
    net: PruningNet,
    data: Data | Source,
    *,
    recipe: PruningNetRecipe | None = None,
    seed: int = 0,
    file: str | Path | None = None,
    save_every: float = 60.0,
    on_step: Callable[[StepReport], None] | None = None,
    device: str | None = None,
    progress: Progress = True,
) -> None:
    """Train a PruningNet in place: per step, random structures, with the weights it gives them.

    It trains on what MetaPruning calls sub-training data, `data.train` without the calibration images, so that these
    can score structures. Runs on a GPU if there is one, in bfloat16 if that has it; under `accelerate launch` or
    `torchrun` in several processes, which share each batch. Only run on CPUs so far.

    With a `file` it can be killed at any time: run the same call again to go on. Until the end the state is in
    `FILE.training`, rewritten every `save_every` seconds and when training stops early; the values at the end are those
    of an uninterrupted run, to the last bit on the same machine, if the images are functions of torch's generator.

    Source: Liu et al., MetaPruning, ICCV 2019, arXiv:1903.10258, and the authors' scripts ("random"; departs from
    them: one recipe for all networks). Yu and Huang, Universally slimmable networks, ICCV 2019, arXiv:1903.05134
    ("sandwich"; departs from it: the mean of the losses is taken, not their sum; BatchNorm has no statistics to train).

    Args:
        net: As `PruningNet` makes it; the file of an earlier run goes over its values.
        data: Where the training images come from.
        recipe: How to train.
        seed: Decides structures, the order of the images, and every dropout.
        file: Where the trained PruningNet goes, as safetensors. If it is there already, it is read, and that is all.
        save_every: Seconds between two states on disk; 0 writes every step.
        on_step: Called after every step. If it raises, the state is written before the exception goes on.
        device: Where it runs; by default on the GPU where there is one. `net` comes back to where it was.
        progress: Whether to show how far it is, where there is a terminal or a notebook.

    Raises:
        ValueError: The network is no classifier, or no image is left to train on.
        CheckpointError: The file is damaged, or of another network, PruningNet, recipe, seed or data.
        CheckpointLocked: Another training has the file.
        NotEnoughMemory: Gradients and momentum would not fit; nothing of them has been allocated.
        TrainingDiverged: The loss or a gradient became NaN or infinite. `net`, and the file, hold the last good state.
    """
    recipe, data = recipe or PruningNetRecipe(), as_data(data)
    check_has_loss(data.goal, "A PruningNet")
    if data.goal.check is not None:
        for part in data.examples_of(data.calibration_set()).by_size():
            inputs = moved(part.take(slice(2)).inputs, net.network.device)
            data.goal.check(outputs_of(net.network.model, inputs), part.batch)
    question = _question(net, data, recipe, seed)
    if file is not None and Path(file).exists():
        _resume(net, Path(file), question)
        return
    data = data.sub_training()
    was = next(net.parameters()).device
    place = devices_here().chosen(device, was)
    require(_BYTES * net.size, place, f"Training {net.size / 1e6:.1f} M parameters", 'Use form="compact".')
    state = None if file is None else Path(f"{file}.training")
    with ExitStack() as stack:
        accelerator = stack.enter_context(accelerated("bf16" if has_bfloat16(place) else "fp32", None, place))
        stack.callback(net.to, was)
        run = _Run(net.to(accelerator.device), data, recipe, seed, accelerator)
        writer = None
        if state is not None and accelerator.is_main_process:
            writer = stack.enter_context(SoleWriter(state))

        def save() -> None:
            if writer is not None and state is not None:
                note = {"question": question, "step": run.step, "steps": run.steps}
                with writer.writing():
                    save_pruningnet(net, state, training=note, more=_momenta(net, run.optimizer))

        if state is not None and state.exists():
            run.step = int(_resume(net, state, question, run.optimizer)["step"])
        save()  # a file that cannot be written is better known before the work than after it
        is_seen = progress if accelerator.is_main_process else False
        with random_apart(accelerator.device), shown("training", "steps", is_seen) as bar:

            def told(report: StepReport) -> None:
                bar.update(report.step, report.steps, f"loss {report.loss:.4f}")
                if on_step is not None:
                    on_step(report)

            _train(run, save, save_every, told)
        net.eval()
        if file is not None and accelerator.is_main_process:
            save_pruningnet(net, file, training={"question": question, "step": run.step, "steps": run.steps})
            Path(f"{file}.training").unlink(missing_ok=True)
        accelerator.wait_for_everyone()


def _train(run: _Run, save: Callable[[], None], save_every: float, on_step: Callable[[StepReport], None]) -> None:
    saved = time.monotonic()
    try:
        for report in run.reports():
            if time.monotonic() - saved >= save_every:
                save()
                saved = time.monotonic()
            on_step(report)
    except (Exception, KeyboardInterrupt):
        if not run.updating:  # an interrupt in the middle of an update leaves what was saved before it
            save()
        raise


class _Run:
    """The steps of one run.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        updating: Whether parameters and `step` are being changed right now, and do not belong together.
    """

    def __init__(
        self, net: PruningNet, data: Data, recipe: PruningNetRecipe, seed: int, accelerator: Accelerator
    ) -> None:
        self._net = net
        self._data = data
        self._recipe = recipe
        self._seed = seed
        self._accelerator = accelerator
        groups = parameter_groups(net.parameters(), recipe.weight_decay)
        self.optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
        self._per_epoch = data.steps_per_epoch(recipe.batch_size)
        self.steps = recipe.epochs * self._per_epoch
        self.step = 0
        self.updating = False

    def reports(self) -> Iterator[StepReport]:
        """Do the steps that are left, and report each."""
        model, _ = self._accelerator.prepare(self._net, self.optimizer)
        model.train()
        start, first = time.monotonic(), self.step
        batches = self._batches()
        while self.step < self.steps:
            seed_generators(_torch_seed(self._seed, 2 * self.step))  # of augmentation
            batch = next(batches)
            seed_generators(_torch_seed(self._seed, 2 * self.step + 1))  # of dropout
            loss = self._update(model, batch)
            each = (time.monotonic() - start) / (self.step - first)
            yield StepReport(self.step, self.steps, loss, each * (self.steps - self.step))

    def _batches(self) -> Iterator[Batch]:
        """Those of the steps that are left, each process its share."""
        share = (self._accelerator.process_index, self._accelerator.num_processes)
        size, pinned = self._recipe.batch_size, self._accelerator.device.type == "cuda"
        done = self.step % self._per_epoch
        for epoch in range(self.step // self._per_epoch, self._recipe.epochs):
            rng = np.random.default_rng([self._seed, 2, epoch])
            yield from self._data.train_batches(size, rng, first=done, share=share, pinned=pinned)
            done = 0

    def _update(self, model: Any, batch: Batch) -> float:
        placed = self._data.examples_of(moved(batch, self._accelerator.device))
        loss = _loss(model, self._structures(), placed, self._recipe.label_smoothing)
        mean = self._accelerator.reduce(loss.detach(), "mean")
        self.optimizer.zero_grad()
        self._accelerator.backward(loss)
        gradients = [parameter.grad for parameter in self._net.parameters() if parameter.grad is not None]
        numbers = torch.stack([mean.float(), torch.nn.utils.get_total_norm(gradients).float()])
        value, norm = numbers.cpu().tolist()  # both at once, as a GPU is waited for
        if not math.isfinite(value):
            raise self._diverged(f"The training loss became {value}")
        if not math.isfinite(norm):
            raise self._diverged(f"The norm of the gradients became {norm}")
        for group in self.optimizer.param_groups:
            group["lr"] = self._recipe.lr * (1 - self.step / self.steps)
        self.updating = True
        self.optimizer.step()
        self.step += 1
        self.updating = False
        return value

    def _structures(self) -> list[Structure]:
        space = self._net.network.space
        wanted = 1 if self._recipe.sampling == "random" else 2
        rng = np.random.default_rng([self._seed, 5, self.step])
        drawn = space.sample(rng, wanted)
        if self._recipe.scales:
            drawn = self._scaled(drawn, rng)
        structures = [space.check(row.tolist()) for row in drawn]
        return structures if self._recipe.sampling == "random" else [space.full, space.minimum, *structures]

    def _scaled(self, drawn: IntArray, rng: np.random.Generator) -> IntArray:
        """(p, g) structures in the same proportions, each as wide as a random share of the MACs allows."""
        whole = Budget(macs="100%").check(self._net.network.space)
        shares = rng.uniform(self._recipe.macs_from, self._recipe.macs_to, len(drawn))
        rows = [whole.tightened(share).fit(row[None]) for row, share in zip(drawn, shares.tolist(), strict=True)]
        return np.concatenate(rows)

    def _diverged(self, what: str) -> TrainingDiverged:
        return TrainingDiverged(
            f"{what} at step {self.step} of {self.steps}; the state before it is kept. Lower the learning rate (now "
            f"{self._recipe.lr}), or check the images for NaN.",
            step=self.step,
        )


def _loss(model: Callable[..., list[Any]], structures: list[Structure], examples: Examples, smoothing: float) -> Tensor:
    """Mean over the structures: the first learns from the task's loss, others from the outputs of the first.

    Of images of several sizes it is that of each size, weighted by its images.
    """
    return examples.mean_by_size(lambda part: _of_one_size(model, structures, part, smoothing))


def _of_one_size(
    model: Callable[..., list[Any]], structures: list[Structure], examples: Examples, smoothing: float
) -> Tensor:
    positional, by_name = arguments(examples.inputs)
    first, *others = model(structures, *positional, **by_name)
    answer = mapped(first, Tensor.detach)
    losses = [training_loss(examples.task, first, examples.batch, smoothing)]
    losses += [examples.task.distil(other, answer, 1.0).mean() for other in others]
    return torch.stack(losses).mean()


def _question(net: PruningNet, data: Data, recipe: PruningNetRecipe, seed: int) -> dict[str, Any]:
    """What must be the same when a training goes on."""
    orders = json.dumps(net.ranking.orders).encode()
    told = {each.name for each in fields(recipe)} - ({"macs_from", "macs_to"} if not recipe.scales else set())
    return {
        "network": net.network.fingerprint(),
        "space": net.network.space.fingerprint,
        "ranking": hashlib.sha256(orders).hexdigest()[:16],
        "data": data.fingerprint(),
        "calibration": fingerprint(*members(data.calibration_set())),
        **({} if data.goal == make_task(CLASSIFICATION) else question_of_task(net.network.model, data)),
        "seed": seed,
        **{f"PruningNet's {name}": value for name, value in net.settings.items()},
        **{f"recipe's {name}": value for name, value in asdict(recipe).items() if name in told},
    }


def _resume(
    net: PruningNet, path: Path, question: Mapping[str, Any], optimizer: torch.optim.SGD | None = None
) -> Mapping[str, Any]:
    """Fill in a stored state, and return what its training noted.

    Raises:
        CheckpointError: It is damaged, or of another training.
    """
    stored = read(path)
    with content_of(path):
        return _filled(net, path, stored, question, optimizer)


def _filled(
    net: PruningNet,
    path: Path,
    stored: Stored,
    question: Mapping[str, Any],
    optimizer: torch.optim.SGD | None,
) -> Mapping[str, Any]:
    for field, was, now in differences(stored.training.get("question", {}), question):
        raise CheckpointError(
            f"{path} is of another training: the {field} was {was}, now it is {now}. Train into another file, or "
            "remove this one."
        )
    fill(net, stored.values, path)
    if optimizer is not None:
        for name, parameter in net.named_parameters():
            if name in stored.more:
                momentum = stored.more[name].to(parameter.device)
                if momentum.shape != parameter.shape or not momentum.is_floating_point():
                    raise ValueError(f"the momentum of {name} is {momentum.dtype} of shape {tuple(momentum.shape)}")
                optimizer.state[parameter]["momentum_buffer"] = momentum
    return {**stored.training, "step": int(stored.training.get("step", 0))}


def _momenta(net: PruningNet, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    found = {
        name: optimizer.state.get(parameter, {}).get("momentum_buffer") for name, parameter in net.named_parameters()
    }
    return {name: momentum for name, momentum in found.items() if momentum is not None}


def _torch_seed(seed: int, index: int) -> int:
    return int(np.random.default_rng([seed, 6, index]).integers(2**62))
