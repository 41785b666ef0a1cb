"""The role: look at a network, say which channels matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Protocol

from prunesearch.evaluators.channels.slices import stand_in_notes, stand_ins
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.models.nested import Batch
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking, Ranking
from prunesearch.models.weights import WeightSource
from prunesearch.structure import FloatArray
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.metric import check_has_loss

Need = Literal["nothing", "inputs", "loss"]


class Criterion(Protocol):
    """Ranks the channels of every group. Deterministic for its seed; leaves the network as found."""

    @property
    def needs(self) -> Need:
        """What it looks at besides the weights: `"nothing"`, some `"inputs"`, or also the `"loss"` on them."""

    def rank(self, network: Network, examples: Examples | None = None) -> Ranking:
        """Say which units of each group stay at each width.

        Args:
            network: A traced network.
            examples: Some data, with the task that reads them.

        Raises:
            ValueError: It needs examples and was given none, or a loss and the task has none.
        """


class ScoringCriterion(ABC):
    """A criterion that gives every unit one score, whatever the width; what it keeps is nested.

    A subclass says how in `scores`.

    Args:
        seed: Decides every random draw; most make none.
    """

    needs: ClassVar[Need] = "nothing"

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    @abstractmethod
    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """(units,) importance of every unit of the network, comparable between groups; that of no group is not used."""

    def rank(self, network: Network, examples: Examples | None = None) -> NestedRanking:
        """Order the units of every group by importance; see `Criterion`."""
        scores = self.scores(network, examples)
        return NestedRanking.by_importance([scores[units] for units in network.units], self.notes(network))

    def notes(self, network: Network) -> tuple[str, ...]:
        """What should be known before the order is believed."""
        del network
        return ()


class FilterCriterion(ScoringCriterion):
    """One that looks at the weights which produce each channel."""

    def notes(self, network: Network) -> tuple[str, ...]:
        """Groups that no weight is known to produce."""
        return stand_in_notes(network, stand_ins(network))


def comparable_scores(weights: WeightSource, evaluator: Evaluator, images: Batch) -> tuple[FloatArray, ...]:
    """Per group, (units,) scores of the criterion that chose the channels, as `search.global_order` wants them.

    Args:
        weights: Of the traced network, and the ranking of its channels.
        evaluator: Not used; every kind of evidence takes one.
        images: Not used, either.

    Raises:
        ValueError: The criterion has no scores that can be compared between groups.
    """
    del evaluator, images
    scores = weights.ranking.scores if isinstance(weights.ranking, NestedRanking) else None
    if scores is None:
        raise ValueError(
            "The searcher 'global' wants a criterion whose scores can be compared between groups; this one's are "
            'choices within each. Take another, such as "l1", "taylor", "cpmc" or "lfe".'
        )
    return scores


def given(examples: Examples | None, criterion: str) -> Examples:
    """The examples that a criterion needs for the loss on them.

    Raises:
        ValueError: There are none, or their task has no loss.
    """
    if examples is None:
        raise ValueError(
            f"The criterion {criterion!r} looks at the loss of examples, got none. Pass them to rank(network, "
            'examples), or take one that looks at weights only, such as "l1".'
        )
    check_has_loss(examples.task, f"The criterion {criterion}")
    return examples


def inputs_of(examples: Examples | None, criterion: str) -> Batch:
    """The inputs that a criterion needs.

    Raises:
        ValueError: There are none.
    """
    if examples is None:
        raise ValueError(
            f"The criterion {criterion!r} looks at inputs, got none. Pass examples to rank(network, examples), or "
            'take one that looks at weights only, such as "l1".'
        )
    return examples.inputs
