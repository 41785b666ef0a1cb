"""What a page knows of one study, read from the database and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prunesearch.errors import StudyUnreadable
from prunesearch.structure import Cost, Group, Space, Term, Width
from prunesearch.study.store import Store
from prunesearch.trial import Trial, best


@dataclass(frozen=True)
class StudyContents:
    """Everything that is recorded of one study.

    Attributes:
        name: Its name in the database.
        question: What it answers.
        space: The space its structures belong to.
        trials: What was scored, in order.
        summary: What became of its winner; any key may be missing.
    """

    name: str
    question: Mapping[str, Any]
    space: Space
    trials: tuple[Trial, ...]
    summary: Mapping[str, Any]

    @cached_property
    def winner(self) -> Trial | None:
        """The trial with the highest score; None if none succeeded."""
        return best(self.trials)

    @cached_property
    def scored(self) -> list[tuple[Trial, float]]:
        """The trials that succeeded with their scores, in order."""
        return [(trial, trial.score) for trial in self.trials if trial.score is not None]

    @cached_property
    def unpruned(self) -> Cost:
        """Cost of the unpruned network, exact."""
        return self.space.cost(self.space.full)

    @cached_property
    def failures(self) -> Counter[str]:
        """How many trials failed with each sentence; what was screened out did not fail."""
        return Counter(t.failure for t in self.trials if t.failure is not None and not t.is_screened_out)

    @property
    def seconds(self) -> float:
        """Duration of the search as recorded, otherwise the sum over its trials."""
        recorded = self.number("search_seconds")
        return sum(trial.seconds for trial in self.trials) if recorded is None else recorded

    def number(self, key: str) -> float | None:
        """A number of the summary; None if there is none under this key."""
        value = self.summary.get(key)
        return value if isinstance(value, (int, float)) else None


def read(store: Store, names: Sequence[str] | None) -> list[StudyContents]:
    """Read the named studies, or all of them.

    Raises:
        ValueError: There is no study of a name.
        StudyUnreadable: What is stored of a study does not fit together.
    """
    stored = store.studies()
    wanted = stored if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if name not in stored:
            raise ValueError(
                f"Expected names of stored studies, got {name!r}. There are: {', '.join(stored) or 'none yet'}."
            )
    return [_read_one(store, name) for name in wanted]


def by_network(studies: Sequence[StudyContents]) -> list[list[StudyContents]]:
    """Studies of the same unpruned network together, in the order of their first one."""
    groups: dict[str, list[StudyContents]] = {}
    for study in studies:
        network = f"{study.question.get('model')} {study.space.fingerprint}"
        groups.setdefault(network, []).append(study)
    return list(groups.values())


def space_from_dict(facts: Mapping[str, Any]) -> Space:
    """Return the space that `dataclasses.asdict` turned into `facts`; JSON's lists become tuples again.

    Example:
        >>> import dataclasses
        >>> stem = Group("stem", width=4, unit=1, widths=(2, 4), members=("stem",))
        >>> space = Space((stem,), macs_terms=(Term("stem", 9, Width(3), Width(0, ((0, 1),))),), params_terms=())
        >>> space_from_dict(dataclasses.asdict(space)) == space
        True
    """
    return Space(
        groups=tuple(
            Group(group["name"], group["width"], group["unit"], tuple(group["widths"]), tuple(group["members"]))
            for group in facts["groups"]
        ),
        macs_terms=tuple(_term(term) for term in facts["macs_terms"]),
        params_terms=tuple(_term(term) for term in facts["params_terms"]),
    )


def _term(term: Mapping[str, Any]) -> Term:
    return Term(term["layer"], term["coefficient"], _width(term["left"]), _width(term["right"]))


def _width(width: Mapping[str, Any]) -> Width:
    return Width(width["constant"], tuple((group, per_unit) for group, per_unit in width["terms"]))


def _read_one(store: Store, name: str) -> StudyContents:
    try:
        space = space_from_dict(store.space(name))
    except (KeyError, TypeError, ValueError) as error:
        raise StudyUnreadable(
            f"The space of study {name!r} cannot be read ({type(error).__name__}: {error}). Name other studies."
        ) from error
    trials = store.trials(name)
    for trial in trials:
        if len(trial.structure) != len(space.groups):
            raise StudyUnreadable(
                f"Trial {trial.number} of study {name!r} has {len(trial.structure)} widths, its space has "
                f"{len(space.groups)} groups. Name other studies."
            )
    return StudyContents(name, store.question(name) or {}, space, tuple(trials), store.summary(name) or {})
