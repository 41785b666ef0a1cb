"""Files of tensors and a note about them: safetensors, with a checksum that notices any change. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from prunesearch.errors import CheckpointError
from prunesearch.files import whole


@dataclass(frozen=True)
class FileKind:
    """One kind of safetensors file: tensors, a note in JSON, and a checksum of both.

    Attributes:
        format: Its name and version, in the metadata.
        note: Under which key of the metadata the note is.
        foreign: What is said of a file of another kind.
        foreign_advice: What to do then.
        damaged_advice: What to do with a damaged one.
    """

    format: str
    note: str
    foreign: str
    foreign_advice: str = ""
    damaged_advice: str = ""

    def write(self, tensors: Mapping[str, Tensor], note: str, path: Path) -> None:
        """Write tensors of the CPU and a note, whole or not at all.

        Raises:
            CheckpointError: The folder does not exist, or the file cannot be written.
        """
        metadata = {"format": self.format, self.note: note, "sha256": checksum(note, tensors)}
        try:
            with whole(path) as draft:
                draft.touch()
                mode = (
                    draft.stat().st_mode
                )  # as of any new file; some versions of safetensors leave it to the owner alone
                safetensors.torch.save_file(dict(tensors), draft, metadata)
                draft.chmod(mode)
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                f"{path} cannot be written: {error}. Is there such a folder, with room in it?"
            ) from error

    def read(self, path: Path) -> tuple[Any, dict[str, Tensor]]:
        """The note, parsed, and the tensors.

        Raises:
            CheckpointError: The file is of another kind, or not what was written.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            if metadata.get("format") != self.format:
                raise CheckpointError(
                    f"{path} {self.foreign} (format {metadata.get('format')!r}, expected {self.format!r})."
                    f"{self.foreign_advice}"
                )
            if checksum(metadata[self.note], tensors) != metadata["sha256"]:
                raise CheckpointError(f"{path} is damaged: its contents are not what was written.{self.damaged_advice}")
            return json.loads(metadata[self.note]), tensors
        except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path} is damaged, or no safetensors file: {error}.{self.damaged_advice}"
            ) from error


def checksum(about: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash of everything in a file; safetensors itself would not notice a flipped bit."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
