"""A training that is killed, interrupted or denied its disk, and what it goes on with."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from prunesearch.errors import CheckpointError, CheckpointLocked
from prunesearch.files import whole
from prunesearch.tasks.task import Task
from prunesearch.training.augment import Augmentation
from prunesearch.training.data import Data
from prunesearch.training.finetune import finetune, train
from prunesearch.training.loop import State
from prunesearch.training.recipe import Recipe
from prunesearch.training.reports import Session, StepReport
from tests.models_state import state_of

RECIPE = Recipe(
    epochs=4,
    batch_size=16,
    lr=0.05,
    ema=0.9,
    label_smoothing=0.1,
    augmentation=Augmentation(flip=True, crop=1, erase=2),
)
STEPS = 24  # 6 an epoch


def pictures(seed: int = 0) -> Data:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(128) % 3
    images = torch.randn(128, 2, 6, 6, generator=generator) + labels[:, None, None, None]
    return Data(train=(images, labels), validation=0.2)


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def states(checkpoint: Path | None, recipe: Recipe = RECIPE, on_step: Any = None) -> tuple[State, State]:
    """Of the best network and of the last."""
    result = train(
        convolutional(),
        pictures(),
        recipe=recipe,
        teacher=convolutional(),
        session=Session(checkpoint, on_step=on_step),
    )
    return result.best.state_dict(), result.last.state_dict()


@cache
def uninterrupted(recipe: Recipe = RECIPE) -> tuple[State, State]:
    return states(None, recipe)


def equal(one: tuple[State, State], two: tuple[State, State]) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, two, strict=True) for name in a)


def killed_at(checkpoint: Path, step: int | None) -> int:
    """Train in a child process that is killed after a step; how it ended."""
    child = os.fork()
    if child == 0:

        def kill(report: StepReport) -> None:
            if report.step == step:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            best, last = states(checkpoint, on_step=kill)
            safetensors.torch.save_file({f"best.{k}": v for k, v in best.items()}, f"{checkpoint}.best")
            safetensors.torch.save_file({f"last.{k}": v for k, v in last.items()}, f"{checkpoint}.last")
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 16), nn.ReLU(), nn.Linear(16, 3))


def in_processes(folder: Path, processes: int) -> list[int]:
    """Train twice in child processes, each rank writing its weights; how they ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        children.append(os.fork())
        if children[-1] == 0:
            launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
            os.environ.update({name: str(value) for name, value in (launched | place).items()} if processes > 1 else {})
            status = 1
            try:
                network: nn.Module = linear()
                for _ in range(2):
                    network = train(network, pictures(), recipe=Recipe(epochs=2, batch_size=16, lr=0.05)).last
                safetensors.torch.save_file(network.state_dict(), folder / f"{processes}-{rank}")
                status = 0
            finally:
                os._exit(status)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


PROGRAM = """
import sys
from pathlib import Path
import torch
from tests.training.test_resume import in_processes, killed_at
torch.set_num_threads(1)
folder = Path(sys.argv[1])
ends = [killed_at(folder / "killed", step) for step in (9, 18, None)]
ends.append(killed_at(folder / "whole", None))
ends += in_processes(folder, 1) + in_processes(folder, 2)
print(ends)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """What many processes left, and how each ended; they are forked from one, which imports everything once."""
    folder = tmp_path_factory.mktemp("ended")
    run = subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder, json.loads(run.stdout)


@pytest.mark.slow
def test_a_training_killed_twice_ends_with_the_very_weights_of_one_that_was_not(ended: tuple[Path, list[int]]) -> None:
    folder, statuses = ended
    assert statuses[:4] == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    for kind in ("best", "last"):
        killed, whole = ((folder / f"{name}.{kind}").read_bytes() for name in ("killed", "whole"))
        assert killed == whole


@pytest.mark.slow
def test_two_processes_train_what_one_does(ended: tuple[Path, list[int]]) -> None:
    folder, statuses = ended
    assert statuses[4:] == [0, 0, 0]
    one, *two = (safetensors.torch.load_file(folder / name) for name in ("1-0", "2-0", "2-1"))
    assert all(torch.equal(two[0][name], two[1][name]) for name in one)
    assert all(torch.allclose(one[name], two[0][name], atol=1e-5) for name in one)  # sums in another order
    assert not all(torch.allclose(one[name], start, atol=1e-2) for name, start in linear().state_dict().items())


@pytest.mark.parametrize(("step", "optimizer"), [(1, "sgd"), (12, "sgd"), (8, "adamw")])
def test_a_training_interrupted_between_steps_goes_on_with_the_next(tmp_path: Path, step: int, optimizer: Any) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, lr=0.01)
    seen: list[int] = []

    def interrupt(report: StepReport) -> None:
        seen.append(report.step)
        if len(seen) == step:
            raise KeyboardInterrupt

    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        states(path, recipe, interrupt)
    resumed = states(path, recipe, lambda report: seen.append(report.step))
    assert seen == list(range(1, STEPS + 1))
    assert equal(resumed, uninterrupted(recipe))


def test_a_finished_training_is_not_done_again_and_remembers_how_it_went(tmp_path: Path) -> None:
    first, again = (
        train(convolutional(), pictures(), recipe=RECIPE, session=Session(tmp_path / "run", on_step=taken))
        for taken in (None, lambda report: pytest.fail("a step was taken"))
    )
    assert again.reports == first.reports
    assert equal(*((one.best.state_dict(), one.last.state_dict()) for one in (first, again)))


def other_network() -> nn.Module:
    network = convolutional()
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] += 1e-6
    return network


CHANGES: dict[str, dict[str, Any]] = {
    "data": {"data": pictures(seed=1)},
    "lr": {"recipe": replace(RECIPE, lr=0.01)},
    "crop": {"recipe": replace(RECIPE, augmentation=replace(RECIPE.augmentation, crop=2))},
    "network": {"model": other_network()},
    "teacher": {"teacher": convolutional()},
    "seed": {"seed": 1},
}


def test_a_checkpoint_of_another_training_is_refused_with_what_differs(tmp_path: Path) -> None:
    session = Session(tmp_path / "run")
    settings: dict[str, Any] = {"model": convolutional(), "data": pictures(), "recipe": RECIPE, "session": session}
    train(**settings)
    before = (tmp_path / "run").read_bytes()
    for field, change in CHANGES.items():
        with pytest.raises(CheckpointError, match=rf"of another training: {field} was \S+, now it is \S+\. Give"):
            train(**{**settings, **change})
    with pytest.raises(
        CheckpointError, match=r"training: epochs was 4, now it is 5; ema was 0\.9, now it is 0\.5; seed was 0"
    ):
        train(**{**settings, "recipe": replace(RECIPE, epochs=5, ema=0.5), "seed": 1})
    assert (tmp_path / "run").read_bytes() == before


def test_a_label_changed_on_disk_is_noticed(tmp_path: Path) -> None:
    states(tmp_path / "run")
    data = pictures()
    data.train[1][5] = (data.train[1][5] + 1) % 3  # type: ignore[index]
    with pytest.raises(CheckpointError, match="training: data was"):
        train(convolutional(), data, recipe=RECIPE, teacher=convolutional(), session=Session(tmp_path / "run"))


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    states(path)
    content = bytearray(path.read_bytes())
    flipped = content.copy()
    flipped[-3] ^= 1
    foreign = safetensors.torch.save({"x": torch.zeros(1)})
    for damaged in (content[:-10], flipped, foreign, b""):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"damaged|not the checkpoint"):
            states(path)


def test_a_write_that_fails_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "run", safetensors.torch.save_file
    writes: list[Path] = []

    def fails_at_third(tensors: Any, file: Path, metadata: Any) -> None:
        writes.append(file)
        if len(writes) == 3:
            file.write_bytes(b"half")
            raise OSError("No space left on device")
        write(tensors, file, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", fails_at_third)
    with pytest.raises(CheckpointError, match="cannot be written: No space left"):
        states(path)
    monkeypatch.undo()
    assert {file.name for file in tmp_path.iterdir()} == {"run", "run.lock"}
    assert equal(states(path), uninterrupted())


def test_what_a_kill_left_of_a_write_is_no_obstacle(tmp_path: Path) -> None:
    drafts = []
    for name in ("run", "run2", "run.checkpoint"):
        with whole(tmp_path / name) as draft:
            drafts.append(draft)
        (tmp_path / name).unlink()
    for draft in drafts:
        draft.write_bytes(b"half")
    assert equal(states(tmp_path / "run"), uninterrupted())
    assert {file.name for file in tmp_path.iterdir()} == {"run", "run.lock", *(draft.name for draft in drafts[1:])}


def in_the_middle(then: Callable[[], object]) -> Callable[[StepReport], None]:
    """Do something after some steps of a training."""

    def on_step(report: StepReport) -> None:
        if report.step == 3:
            then()

    return on_step


def test_two_trainings_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run"

    def second() -> None:
        owner = rf"in use by another training \(host .+, pid {os.getpid()}\)"
        with pytest.raises(CheckpointLocked, match=owner):
            states(path)

    assert equal(states(path, on_step=in_the_middle(second)), uninterrupted())


def test_a_training_whose_lock_was_taken_away_writes_nothing_after_another_one(tmp_path: Path) -> None:
    path, others = tmp_path / "run", []

    def second() -> None:
        path.with_name("run.lock").unlink()
        others.append(states(path))

    with pytest.raises(CheckpointLocked, match="written by another training meanwhile"):
        states(path, on_step=in_the_middle(second))
    written = path.read_bytes()
    assert equal(states(path), others[0])
    assert path.read_bytes() == written


def test_a_lock_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert equal(states(path, on_step=in_the_middle(path.with_name("run.lock").unlink)), uninterrupted())
    assert path.with_name("run.lock").exists()


def test_a_checkpoint_of_another_loss_is_refused(tmp_path: Path) -> None:
    images, labels = torch.randn(32, 4), torch.arange(32) % 2
    model = nn.Linear(4, 2)

    def trained(power: int) -> nn.Module:
        task = Task(loss=lambda outputs, batch: (outputs[:, 0] - batch[1].float()).abs() ** power)
        data = Data(train=(images, labels), task=task)
        return finetune(model, data, recipe=Recipe(epochs=1, batch_size=16), checkpoint=tmp_path / "state")

    first = trained(1)
    assert state_of(trained(1)) == state_of(first)
    with pytest.raises(CheckpointError, match="loss at first"):
        trained(2)
