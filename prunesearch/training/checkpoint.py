"""A training that is under way, in one file: safetensors for tensors, JSON for the rest, no pickle.

The file is written whole or not at all, so a kill leaves the one before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunesearch.errors import CheckpointError
from prunesearch.files import remove_drafts
from prunesearch.models.tensor_file import FileKind
from prunesearch.question import innermost

FORMAT = "prunesearch-training-1"
_KIND = FileKind(
    FORMAT, "facts", "is not the checkpoint of a training", " Give another path.", " Delete it to start again."
)


@dataclass(frozen=True)
class Snapshot:
    """All that a training needs to go on.

    Attributes:
        tensors: By name.
        facts: Plain values.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write(path: Path, snapshot: Snapshot, question: Mapping[str, Any]) -> None:
    """Write a snapshot of the training that `question` describes.

    Raises:
        CheckpointError: The file cannot be written; what was there before still is.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in snapshot.tensors.items()}
    facts = json.dumps({"question": question, "facts": snapshot.facts})
    remove_drafts(path)
    _KIND.write(tensors, facts, path)


def read(path: Path, question: Mapping[str, Any]) -> Snapshot | None:
    """The snapshot that a training left, or None if there is no file.

    Raises:
        CheckpointError: It is damaged, no checkpoint of ours, or of another training; the message names what differs.
    """
    if not path.exists():
        return None
    stored, tensors = _KIND.read(path)
    _compare(path, stored["question"], json.loads(json.dumps(question)))
    return Snapshot(tensors, stored["facts"])


def _compare(path: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    told = "; ".join(f"{name} was {was}, now it is {now}" for name, was, now in innermost(stored, asked))
    if told:
        raise CheckpointError(
            f"{path} is of another training: {told}. Give the same arguments to continue it, or another checkpoint "
            "path to start again."
        )


def nested(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with a prefix before their names."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
