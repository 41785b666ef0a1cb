"""Hashes by which a stored result is known to belong to the same tensors."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from prunesearch.models.nested import Batch, parts_of, tensors_in


def fingerprint(*batches: Batch) -> str:
    """Hash of the shapes, types and values of tensors, in order; in nests of them also of their names."""
    digest = hashlib.sha256()
    for batch in batches:
        for name, part in sorted(parts_of(batch).items()):
            for tensor in tensors_in(part):  # several where it is one item per example
                digest.update(f"{name}{tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def model_fingerprint(model: nn.Module) -> str:
    """Hash of a model's class, its printed form and every tensor of it."""
    digest = hashlib.sha256(f"{type(model).__qualname__}\n{model}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
