"""What scores are of, and how they are written: a loss as a loss, a share in percent."""

from __future__ import annotations

from dataclasses import dataclass

from prunesearch.report.contents import StudyContents
from prunesearch.shares import is_share

_NEGATED = ("loss", "fidelity")
_NAMES = {"fidelity": "distance from the unpruned outputs", "agreement": "agreement with the unpruned network"}


@dataclass(frozen=True)
class Measure:
    """What the scores of a study are of.

    Attributes:
        name: Such as `loss` or `accuracy`; `score` where it is not recorded.
        is_negated: Whether scores are minus it.
    """

    name: str = "score"
    is_negated: bool = False

    @property
    def factor(self) -> float:
        """What a score is multiplied by to be shown."""
        return (-1.0 if self.is_negated else 1.0) * (100.0 if is_share(self.name) else 1.0)

    @property
    def unit(self) -> str:
        """Behind a number."""
        return "%" if is_share(self.name) else ""

    @property
    def title(self) -> str:
        """Of an axis; better is always up."""
        name = _NAMES.get(self.name, self.name)
        way = "lower is better, and further up" if self.is_negated else "higher is better"
        return f"{name[:1].upper()}{name[1:]}{', %' if self.unit else ''} ({way})"

    def difference(self, score: float | None) -> str:
        """By how much it gets worse if the score falls by so much; empty if that is not known."""
        if score is None:
            return ""
        value = abs(self.factor) * score
        return f"{value:+.1f} points" if self.unit else f"{value:+.3g}"

    def text(self, score: float, digits: int = 4) -> str:
        """A score as what it measures."""
        value = self.factor * score
        return f"{value:.1f}%" if self.unit else f"{value:.{digits}g}"


def measure_of(study: StudyContents) -> Measure:
    """What the scores of a study are of."""
    name = study.scoring.get("measures")
    if not isinstance(name, str):
        return Measure()
    return Measure(name, bool(study.scoring.get("is_negated", name in _NEGATED)))
