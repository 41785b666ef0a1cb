"""Settings that authors released, read in their code, in terms of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Released:
    """A setting in ITPruner's scripts: the importance of a layer is exp(-beta s / sum(s)), s its summed similarity.

    Attributes:
        beta: The factor.
        layers: How many layers are compared, so how many s there are.
    """

    beta: int
    layers: int

    @property
    def strength(self) -> float:
        """The same as a factor of s over its mean, which is what `convex` takes: the sum is the mean times `layers`."""
        return self.beta / self.layers


ITPRUNER: Mapping[tuple[str, str], Released] = {
    ("resnet50", "54.7%"): Released(2000, 37),
    ("mobilenet_v1", "285M"): Released(233, 14),
    ("mobilenet_v2", "220M"): Released(2000, 8),
    ("resnet56", "60M"): Released(500, 27),
    ("vgg16", "100M"): Released(231, 13),
}
"""By network and budget; of its scripts `extract_*.sh`, and of what `feature_extract` of its networks gives."""
