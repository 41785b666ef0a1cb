"""The contracts as tests: what a searcher, criterion, evaluator, task or resource of anybody's must do, for pytest.

    from prunesearch.testing import SearcherContract

    class TestClimber(SearcherContract):
        searcher = Climber  # or the name that an entry point gives it

Each promise is a method whose name says it, so that pytest runs and reports them one by one, one that fails hides no
other, and tests of an author's own stand beside them. That is why they are classes, as in `optuna.testing`, and not one
function that stops at the first mistake, as scikit-learn's `check_estimator`. Nothing here needs pytest: `promises`
gives the methods to any other runner. prunesearch tests everything that it has a name for by these very classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunesearch.testing.criteria import CriterionContract as CriterionContract
    from prunesearch.testing.evaluators import EvaluatorContract as EvaluatorContract
    from prunesearch.testing.expecting import promises as promises
    from prunesearch.testing.resources import ResourceContract as ResourceContract
    from prunesearch.testing.searchers import SearcherContract as SearcherContract
    from prunesearch.testing.subjects import Subject as Subject
    from prunesearch.testing.subjects import digits as digits
    from prunesearch.testing.tasks import TaskContract as TaskContract
    from prunesearch.testing.weight_sources import WeightSourceContract as WeightSourceContract

_PUBLIC = {
    "CriterionContract": "prunesearch.testing.criteria:CriterionContract",
    "EvaluatorContract": "prunesearch.testing.evaluators:EvaluatorContract",
    "ResourceContract": "prunesearch.testing.resources:ResourceContract",
    "SearcherContract": "prunesearch.testing.searchers:SearcherContract",
    "Subject": "prunesearch.testing.subjects:Subject",
    "TaskContract": "prunesearch.testing.tasks:TaskContract",
    "WeightSourceContract": "prunesearch.testing.weight_sources:WeightSourceContract",
    "digits": "prunesearch.testing.subjects:digits",
    "promises": "prunesearch.testing.expecting:promises",
}  # imported when first used: those of searchers need no torch

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'prunesearch.testing' has no attribute {name!r}")
    from prunesearch.registry import resolve

    return resolve(_PUBLIC, name, "name")


def __dir__() -> list[str]:
    return list(__all__)
