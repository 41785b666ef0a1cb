"""Whether the numbers of a network are numbers: the first tensor that is not, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def numbers_in(tensor: Tensor) -> Tensor:
    """The numbers of a tensor: of a sparse one those that are stored, of a quantised one what they stand for."""
    tensor = tensor.detach()
    if tensor.layout == torch.sparse_coo:
        return tensor.coalesce().values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        return tensor.values()
    return tensor.dequantize() if tensor.is_quantized else tensor


def first_not_finite(model: nn.Module) -> str | None:
    """Name of the first parameter, or else buffer, of a network that holds a NaN or an infinity.

    Args:
        model: The network; it is only read. Tensors of the meta device, which have no values, count as finite.

    Returns:
        Its qualified name, such as `layer1.0.conv1.weight`; None if every number is finite.
    """
    for named in (model.named_parameters(), model.named_buffers()):
        for name, tensor in named:
            if not tensor.is_meta and not bool(torch.isfinite(numbers_in(tensor)).all()):
                return name
    return None
