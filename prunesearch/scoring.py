"""What decides the score of a structure, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from prunesearch.contracts import Contract, as_options, kind_of, name_of
from prunesearch.evaluators import EVALUATOR, WEIGHT_SOURCE, file_after
from prunesearch.evaluators.channels import CRITERION, RANKING
from prunesearch.ranges import whole_number

if TYPE_CHECKING:
    from prunesearch.evaluators.channels.criterion import Criterion
    from prunesearch.evaluators.evaluator import Evaluator
    from prunesearch.models.ranking import Ranking
    from prunesearch.models.weights import WeightSource


@dataclass(frozen=True, kw_only=True, repr=False)
class Scoring:
    """What decides the score of a structure: which channels stay, with which weights, and how that is scored.

    Wherever a name is taken, so is one that an installed package adds by an entry point, `"package.module:attribute"`,
    an object of the same contract, or a class or function that makes one (docs/extending.md).

    Attributes:
        criterion: Which channels of a group stay. One of `prunesearch.evaluators.channels.CRITERIA`; or an object
            that ranks (`evaluators.channels.criterion.Criterion`), or a ranking that is known already, such as what
            PAAM learnt. Not asked, and no part of the study's question, where the weights have a ranking of their own.
        weight_source: Where the weights of a structure come from. One of `prunesearch.evaluators.WEIGHT_SOURCES`:
            `"inherited"` ones are slices of the trained, `"compensated"` and `"reconstructed"` ones make up for the
            channels that go, `"generated:FILE"` are those of a PruningNet (`train_pruningnet`), with its own ranking.
            Or what makes a source of (network, ranking, images), or an object of this very network
            (`models.weights.WeightSource`), with a ranking of its own.
        evaluator: How structures are scored. One of `prunesearch.evaluators.EVALUATORS`; or what makes an evaluator of
            (weights, examples), or an object that scores (`evaluators.evaluator.Evaluator`), with examples of its own.
        metric: What is scored: loss, fidelity, agreement or the task's metric, such as accuracy. Of the evaluator
            `"accuracy"`: `"loss"` (its negative) of the task; `"fidelity"` to the outputs of the unpruned network
            (minus the distance from them) or `"agreement"` with them, which need no labels; or the task's own. None
            takes the loss, or fidelity where the task has none. The other evaluators have one of their own.
        images: How many of the calibration images score structures. Balanced by class; by default all. Where
            `"accuracy"` does not race, by default at most 512.
        race: Score on few images first, and on more if it may be the best so far. Few are 64, or one of each class up
            to 256, and more are twice as many, for as long as it may be better (`study.racing`). False scores every
            structure on all. Only evaluators that can score on some of their images race
            (`evaluators.evaluator.Divisible`).
        criterion_options: Further arguments of the criterion's constructor.
        evaluator_options: Further arguments of the evaluator's constructor, such as `calibration=` images of their own.

    Raises:
        ValueError: An unknown name, a number out of its range, or settings for an object, which has its own.
        TypeError: A value of another kind.
        ContractBroken: An object has not all that its contract asks for.

    Example:
        >>> Scoring(criterion="taylor", images=256)
        Scoring(criterion='taylor', images=256)
        >>> Scoring(images=0)
        Traceback (most recent call last):
        ...
        ValueError: Expected images >= 1, got 0.
    """

    criterion: str | Ranking | Criterion | Callable[..., Criterion] = "cap"
    weight_source: str | WeightSource | Callable[..., WeightSource] = "inherited"
    evaluator: str | Evaluator | Callable[..., Evaluator] = "accuracy"
    metric: str | None = None
    images: int | None = None
    race: bool = True
    criterion_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    evaluator_options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("criterion_options", "evaluator_options"):
            object.__setattr__(self, name, as_options(name, getattr(self, name)))
        if self.images is not None:
            object.__setattr__(self, "images", whole_number("images", self.images, at_least=1))
        if not isinstance(self.race, bool):
            raise TypeError(f"Expected race as True or False, got {kind_of(self.race)}.")
        if self.metric is not None and not isinstance(self.metric, str):
            raise TypeError(f"Expected metric as a name such as 'loss', got {kind_of(self.metric)}.")
        if RANKING.is_met(self.criterion) or _is_object(CRITERION, self.criterion):
            refuse_settings("criterion", {"criterion_options": bool(self.criterion_options)})
        _is_object(WEIGHT_SOURCE, file_after(self.weight_source)[0])
        if _is_object(EVALUATOR, self.evaluator):
            given = {"images": self.images is not None, "evaluator_options": bool(self.evaluator_options)}
            refuse_settings("evaluator", given)

    def __repr__(self) -> str:
        usual = {each.name: each.default for each in fields(self)}
        given = {name: value for name, value in vars(self).items() if value != usual[name] and value != {}}
        return f"Scoring({', '.join(f'{name}={_shown(value)}' for name, value in given.items())})"

    @property
    def is_bound(self) -> bool:
        """Whether an object scores, or gives weights, which has a network of its own and stays where that is."""
        return _is_object(EVALUATOR, self.evaluator) or is_bound(self.weight_source)

    @property
    def settings(self) -> dict[str, Any]:
        """What the evaluator's constructor gets beside the weights and the examples."""
        metric = {"metric": self.metric} if self.evaluator == "accuracy" and self.metric else {}
        return {**metric, **self.evaluator_options}


def is_bound(weight_source: str | WeightSource | Callable[..., WeightSource]) -> bool:
    """Whether weights come from an object, which has a network of its own."""
    return _is_object(WEIGHT_SOURCE, file_after(weight_source)[0])


def refuse_settings(whose: str, given: Mapping[str, bool]) -> None:
    """Make sure that nothing was given that an object cannot take.

    Args:
        whose: What kind of object.
        given: By name, whether it was given.

    Raises:
        ValueError: Something was.
    """
    for name in [name for name, is_given in given.items() if is_given]:
        raise ValueError(f"{name} is only for a named {whose}; an object has settings of its own. Leave {name} out.")


def _is_object(contract: Contract, given: Any) -> bool:
    """Whether an object stands in place of a name; raises if it is nothing that a role takes.

    The package's own names are looked up in their table, so that nothing is imported for a name.
    """
    if isinstance(given, str) and given in contract.names.own:
        return False
    return contract.is_met(contract.found(given))


def _shown(value: Any) -> str:
    """A value in a few words: of an object its class, as it may hold a network."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name!r}: {_shown(each)}' for name, each in value.items())}}}"
    return repr(value) if isinstance(value, (str, int, float)) else name_of(value)
