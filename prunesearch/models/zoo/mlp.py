"""A plain multi-layer perceptron on flattened images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        sizes: Features of the input, of each hidden layer, and of the output.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for size, following in itertools.pairwise(sizes[:-1]):
            layers += [nn.Linear(size, following), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))

    def forward(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n, num_classes) logits."""
        return self.layers(x)


def mlp(
    *, hidden: Sequence[int] = (256, 128), num_classes: int = 10, in_channels: int = 3, image_size: int = 32
) -> MLP:
    """An MLP for square images."""
    return MLP((in_channels * image_size**2, *hidden, num_classes))
