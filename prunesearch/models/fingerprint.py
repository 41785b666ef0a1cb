"""Hashes by which a stored result is known to belong to the same tensors."""

from __future__ import annotations

import hashlib
from numbers import Number

import torch
from torch import Tensor, nn

from prunesearch.models.finite import numbers_in
from prunesearch.models.nested import Batch, parts_of, tensors_in, without_arrays

_INDICES = {
    torch.sparse_coo: ("indices",),
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}
"""Of each sparse layout, the methods that say where its values are."""
_PLAIN = (type(None), Number, str, bytes, torch.dtype, torch.device)


def bytes_in(tensor: Tensor) -> bytes:
    """The values of a tensor, one after another; of a sparse one also where they are."""
    tensor = tensor.coalesce() if tensor.layout == torch.sparse_coo else tensor
    parts = [*(getattr(tensor, part)() for part in _INDICES.get(tensor.layout, ())), numbers_in(tensor)]
    layout = b"" if tensor.layout == torch.strided else str(tensor.layout).encode()
    return layout + b"".join(part.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() for part in parts)


def fingerprint(*batches: Batch) -> str:
    """Hash of the shapes, types and values of tensors, in order; in nests of them also of their names."""
    digest = hashlib.sha256()
    for batch in batches:
        for name, part in sorted(parts_of(batch).items()):
            for tensor in tensors_in(part):  # several where it is one item per example
                digest.update(f"{name}{tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(bytes_in(tensor))
    return digest.hexdigest()[:16]


def model_fingerprint(model: nn.Module) -> str:
    """Hash of a model's class, its printed form and everything in its state.

    Raises:
        ValueError: A module keeps something in its state (`get_extra_state`) that is neither tensors nor plain values.
    """
    digest = hashlib.sha256(f"{type(model).__qualname__}\n{model}".encode())
    for own, value in model.state_dict().items():
        for name, part in parts_of(without_arrays(value), own).items():
            if isinstance(part, Tensor):
                digest.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
                digest.update(bytes_in(part))
            elif isinstance(part, _PLAIN):
                digest.update(f"{name} {part!r}".encode())
            else:
                raise ValueError(
                    f"Expected the state of {type(model).__name__} to be tensors and plain values, by which it is "
                    f"known again; {name} is a {type(part).__name__}. Let get_extra_state give numbers, texts, "
                    "tensors, or lists and dictionaries of them."
                )
    return digest.hexdigest()[:16]
