"""A training that is under way, in one file: safetensors for tensors, JSON for the rest, no pickle.

The file is written whole or not at all, so a kill leaves the one before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunesearch.errors import CheckpointError, CheckpointLocked
from prunesearch.files import remove_drafts
from prunesearch.locking import Held, PathLock
from prunesearch.models.tensor_file import FileKind, check_plain, content_of, plain, writable
from prunesearch.question import innermost

FORMAT = "prunesearch-training-1"
_KIND = FileKind(
    FORMAT,
    "facts",
    "is not the checkpoint of a training",
    " Give another path.",
    " If it is the state of this training, delete it to start again; otherwise give another path.",
)


@dataclass(frozen=True)
class Snapshot:
    """All that a training needs to go on.

    Attributes:
        tensors: By name; what else states hold (`get_extra_state`) is there, too, if JSON has it.
        facts: Plain values.
    """

    tensors: Mapping[str, Any]
    facts: Mapping[str, Any]


class SoleWriter:
    """The right to write a training's file, which one training at a time has; a context manager.

    Args:
        path: The file, which need not be there.

    Raises:
        CheckpointError: The lock beside it cannot be made.
        CheckpointLocked: Another training has it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors():
            self._lock = PathLock(writable(path))
        self._mark = self._found()

    def __enter__(self) -> SoleWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make sure before a write that nobody else writes, or has written.

        Raises:
            CheckpointLocked: Another training wrote to the file since, or has its lock.
        """
        with self._errors():
            self._lock.check()
        found = self._found()
        if found is not None and found != self._mark:
            raise CheckpointLocked(
                f"{self._path} was written by another training meanwhile, so this one ends. Give each its own file."
            )
        yield
        self._mark = self._found()

    def _found(self) -> tuple[int, ...] | None:
        """What tells the file that is there from another one; None if there is none."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Held as held:
            raise CheckpointLocked(
                f"{self._path} is in use by another training ({held.owner}). Wait for it to end, or give another file."
            ) from None
        except OSError as error:
            raise CheckpointError(
                f"{error.filename} cannot be created: {error.strerror}. Give a file in another folder."
            ) from None


class CheckpointFile:
    """The file of a training's state; a context manager.

    Args:
        path: Where it is, or will be.
        question: What decides the outcome of the training; a file of another question is refused.
        writes: Whether this process is the one that writes, of several that train together.

    Raises:
        CheckpointError: The lock beside it cannot be made.
        CheckpointLocked: Another training has it.
    """

    def __init__(self, path: Path, question: Mapping[str, Any], *, writes: bool = True) -> None:
        self.path = path
        self._question = json.loads(json.dumps(question))
        self._writer = SoleWriter(path) if writes else None

    def __enter__(self) -> CheckpointFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.__exit__()

    def read(self) -> Snapshot | None:
        """The snapshot that a training left, or None if there is no file.

        Raises:
            CheckpointError: It is damaged, no checkpoint of ours, or of another training; the message names what
                differs.
        """
        if not self.path.exists():
            return None
        stored, tensors = _KIND.read(self.path)
        with content_of(self.path):
            _compare(self.path, dict(stored["question"]), self._question)
            return Snapshot({**tensors, **stored.get("extra", {})}, dict(stored["facts"]))

    def check(self, snapshot: Snapshot) -> None:
        """Make sure, before what takes long, that a file can hold such a snapshot.

        Raises:
            CheckpointError: It cannot; the message names what of it.
        """
        tensors, _ = _parts(snapshot)
        check_plain(tensors)

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot, whole or not at all.

        Raises:
            CheckpointError: The file cannot be written; what was there before still is.
            CheckpointLocked: Another training wrote to it since, or has its lock.
        """
        assert self._writer is not None
        tensors, extra = _parts(snapshot)
        tensors = plain(tensors)
        more = {"extra": extra} if extra else {}
        facts = json.dumps({"question": self._question, "facts": snapshot.facts, **more})
        with self._writer.writing():
            remove_drafts(self.path)
            _KIND.write(tensors, facts, self.path)


def _parts(snapshot: Snapshot) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and the rest, which is the same in JSON.

    Raises:
        CheckpointError: Some of it is not.
    """
    tensors = {name: value for name, value in snapshot.tensors.items() if isinstance(value, Tensor)}
    extra = {name: value for name, value in snapshot.tensors.items() if name not in tensors}
    for name, value in extra.items():
        try:
            is_the_same = json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError):
            is_the_same = False
        if not is_the_same:
            raise CheckpointError(
                f"No checkpoint can hold {name}, which is a {type(value).__name__}: only tensors, and what is the same "
                "when it is read from JSON. Let get_extra_state give such, or train without a checkpoint."
            )
    return tensors, extra


def _compare(path: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    told = "; ".join(f"{name} was {was}, now it is {now}" for name, was, now in innermost(stored, asked))
    if told:
        raise CheckpointError(
            f"{path} is of another training: {told}. Give the same arguments to continue it, or another checkpoint "
            "path to start again."
        )


def nested(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors with a prefix before their names."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `nested`."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Momentum and the like, by name."""
    states = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, state in states.items() for key, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, each laid out in memory as its parameter, lest sums round differently."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, values in tensors.items():
        index, _, key = name.partition(".")
        parameter = parameters[int(index)]
        if values.shape == parameter.shape:
            values = torch.empty_like(parameter, requires_grad=False).copy_(values)
        optimizer.state[parameter][key] = values
