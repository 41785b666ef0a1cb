"""What a searcher is told of a network first: found once, kept in the study, given again to whoever resumes it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import prunesearch as ps
from prunesearch.errors import StudyUnreadable
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.evidence import KEY, as_facts, kept_evidence
from prunesearch.models.network import Network
from prunesearch.preparation import Prepared
from prunesearch.search.sensitivity import from_losses, losses
from prunesearch.structure import Structure
from prunesearch.study.store import Store
from prunesearch.training.data import Data

BUDGET = ps.Budget(macs="60%")
L1 = ps.Scoring(criterion="l1")  # takes no time; the default takes half of a search


def summary_of(url: str) -> dict[str, Any]:
    with closing(Store(url, create=False)) as store:
        return dict(store.summary("search") or {})


def history(result: ps.SearchResult) -> list[tuple[Structure, float | None]]:
    return [(trial.structure, trial.score) for trial in result.trials]


def test_the_default_begins_with_what_the_curves_say(network: Network, digits_data: Data, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    result = ps.search(network, digits_data, budget=BUDGET, n_trials=8, study=url, scoring=L1)
    kept = kept_evidence(url, "search")
    assert kept is not None
    said = from_losses(BUDGET.check(network.space), losses(network.space, kept["curves"]))
    assert set(said) <= {trial.structure for trial in result.trials}


def test_a_resumed_search_is_given_what_the_study_has(
    network: Network, digits_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another processor, whose sums end in other digits."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    part = ps.search(network, digits_data, budget=BUDGET, n_trials=8, study=url, scoring=L1)
    own = Prepared.evidence

    def elsewhere(self: Prepared, name: str, **more: Any) -> Any:
        return tuple(values[::-1] for values in own(self, name, **more))

    monkeypatch.setattr(Prepared, "evidence", elsewhere)
    more = ps.search(network, digits_data, budget=BUDGET, n_trials=16, study=url, scoring=L1)
    assert history(more)[:8] == history(part)
    monkeypatch.undo()
    assert history(more) == history(ps.search(network, digits_data, budget=BUDGET, n_trials=16, scoring=L1))


def test_what_a_searcher_cannot_do_without_is_kept_too(network: Network, digits_data: Data, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    ps.search(network, digits_data, budget=BUDGET, searcher="global", n_trials=2, study=url, scoring=L1)
    kept = kept_evidence(url, "search")
    assert kept is not None
    assert list(kept) == ["unit_scores"]
    assert as_facts(kept) == summary_of(url)[KEY]


def test_a_study_of_an_earlier_release_goes_on_without_curves(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    never = replace(L1, race=False)  # so that there are none
    part = ps.search(network, digits_data, budget=BUDGET, n_trials=8, study=url, scoring=never)
    with closing(Store(url)) as store:
        store.change_summary("search", lambda summary: {key: summary[key] for key in summary if key != KEY})
    more = ps.search(network, digits_data, budget=BUDGET, n_trials=12, study=url, scoring=never)
    assert history(more)[:8] == history(part)
    assert summary_of(url)[KEY] == {}


def test_curves_that_cannot_be_scored_are_done_without(network: Network, digits_data: Data) -> None:
    class OnlyFull:
        description = "refuses the unpruned network, which only curves ask for"
        n_images = 256

        def __init__(self, weights: object, examples: object) -> None: ...

        def score(self, structures: Sequence[Structure]) -> list[float]:
            if network.space.full in structures:
                raise RuntimeError("no")
            return [float(sum(structure)) for structure in structures]

        def on(self, images: Sequence[int]) -> Evaluator:
            return self

    scoring = replace(L1, evaluator=OnlyFull)  # type: ignore[arg-type]
    result = ps.search(network, digits_data, budget=BUDGET, n_trials=4, scoring=scoring)
    assert len(result.trials) == 4
    assert any("began without the curves" in note and note.endswith(": no") for note in result.notes)


def test_evidence_that_somebody_edited_is_refused(network: Network, digits_data: Data, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    ps.search(network, digits_data, budget=BUDGET, n_trials=2, study=url, scoring=L1)
    for broken in ({"curves": [["wide"]]}, {"curves": 3}, [1]):
        with closing(Store(url)) as store:
            store.add_to_summary("search", {KEY: broken})
        with pytest.raises(StudyUnreadable, match="evidence"):
            kept_evidence(url, "search")
