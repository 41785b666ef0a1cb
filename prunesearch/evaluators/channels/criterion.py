"""The role: look at a network, say which channels matter."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking

Need = Literal["nothing", "images", "labels"]


class Criterion(Protocol):
    """Ranks the channels of every group. Deterministic for its seed; leaves the network as found."""

    @property
    def needs(self) -> Need:
        """What it looks at besides the weights: `"nothing"`, some `"images"`, or images and `"labels"`."""

    def rank(self, network: Network, images: Tensor | None = None, labels: Tensor | None = None) -> Ranking:
        """Say which units of each group stay at each width.

        Args:
            network: A traced network.
            images: (n, ...) images, normalised like the training set.
            labels: (n,) class indices.

        Raises:
            ValueError: It needs images or labels and was given none.
        """


def given(needed: Tensor | None, what: str, criterion: str) -> Tensor:
    """Return what a criterion needs.

    Raises:
        ValueError: It is None.
    """
    if needed is None:
        raise ValueError(
            f"The criterion {criterion!r} looks at {what}, got none. Pass them to rank(network, images, labels), or "
            'take one that looks at weights only, such as "l1".'
        )
    return needed
