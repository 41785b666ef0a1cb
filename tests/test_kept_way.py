"""The way of running structures is chosen once for a study, and whoever goes on with it has the same."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import prunesearch as ps
from prunesearch import kept_way
from prunesearch.evaluators.ways import Way, Wish
from prunesearch.kept_way import KEY, settled, typical
from prunesearch.models.network import Network
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.preparation import prepare
from prunesearch.study.store import Store
from tests.evaluators.test_ways import EACH, EXAMPLES, IMAGES, small, with_times
from tests.toys import admits

DATA = ps.Data(train=EXAMPLES.batch, calibration=48)
BUDGET = "macs=60%"


@pytest.fixture(scope="module")
def network() -> Network:
    model = small()
    ps.recalibrate_bn(model, IMAGES)
    return ps.trace(model.eval(), IMAGES[:2])


def found(network: Network, url: str, n_trials: int = 6, budget: str = BUDGET, **options: Any) -> ps.SearchResult:
    scoring = ps.Scoring(criterion="l1", evaluator_options=options)
    settings: dict[str, Any] = {"searcher": "random", "scoring": scoring, "study": url, "progress": False}
    return ps.search(network, DATA, budget=budget, n_trials=n_trials, **settings)


def stored(url: str, name: str = "search") -> tuple[str, Any]:
    """How a study describes its evaluator, and its way."""
    with closing(Store(url, create=False)) as store:
        question: Any = store.question(name)
        return question["evaluator"]["description"], (store.summary(name) or {}).get(KEY)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def choosing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The CPU has a choice, and 16 bits are the fastest, four at once; the list gets what was timed."""

    def on(self: Wish, device: torch.device, *, sliced: bool) -> tuple[Way, ...]:
        precisions = ("fp32", "bf16") if self.precision == "auto" else (self.precision,)
        return tuple(Way(path, self.at_once or 16, precision) for precision in precisions for path in EACH)

    monkeypatch.setattr(Wish, "on", on)
    return with_times(monkeypatch, {"stacked, bf16": 2.0, "stacked, 4 at once, bf16": 1.0})


def test_on_a_cpu_nothing_is_chosen_and_a_study_is_what_it_was(network: Network, url: str) -> None:
    found(network, url)
    assert stored(url) == ("accuracy(metric=loss, images=48, batch_size=256)", None)


def test_the_way_is_chosen_once_and_kept_in_the_study(
    network: Network, url: str, choosing: list[tuple[str, int]]
) -> None:
    first = found(network, url)
    description, way = stored(url)
    assert description == "accuracy(metric=loss, images=48, batch_size=256, precision=bf16)"
    assert (way["path"], way["at_once"], way["precision"], way["device"]) == ("stacked", 4, "bf16", "cpu")
    assert dict(way["seconds"]) == {name: 9.0 for name, _ in choosing} | {
        "stacked, bf16": 2.0,
        "stacked, 4 at once, bf16": 1.0,
    }
    choosing.clear()
    more = found(network, url, 12)
    assert [trial.score for trial in more.trials[:6]] == [trial.score for trial in first.trials]
    tighter = found(network, url, budget="macs=40%")
    assert tighter.name != first.name
    assert choosing == []
    assert stored(url, tighter.name) == (description, way)


def test_workers_are_told_the_way(network: Network, choosing: list[tuple[str, int]]) -> None:
    prepared = prepare(network, DATA, ps.Scoring(criterion="l1"))
    limits = ps.Budget(macs="60%").check(network)
    ready = settled(prepared, "sqlite://", None, {}, limits)
    choosing.clear()
    (theirs,) = ready.factory()
    assert theirs.way == ready.way  # type: ignore[attr-defined]
    assert ready.way is not None
    assert ready.way.at_once == 4
    structures = typical(limits)
    assert theirs.score(structures) == ready.scorer.score(structures)
    assert choosing == []


def test_a_study_in_16_bits_goes_on_in_16_bits_and_in_no_others(network: Network, url: str) -> None:
    first = found(network, url, precision="bf16")
    assert "precision=bf16" in stored(url)[0]
    more = found(network, url, 10)
    assert (more.name, more.trials[:6]) == (first.name, first.trials)
    whole = found(network, "sqlite://", 10, precision="bf16")
    assert [trial.score for trial in more.trials] == [trial.score for trial in whole.trials]
    assert [trial.score for trial in whole.trials] != [trial.score for trial in found(network, "sqlite://", 10).trials]
    with pytest.raises(ps.StudyMismatch, match="its evaluator is"):
        found(network, url, 10, precision="fp32")


def test_of_two_studies_the_one_that_answers_the_question_counts(network: Network, url: str) -> None:
    exact = ps.Scoring(criterion="l1")
    rounded = ps.Scoring(criterion="l1", evaluator_options={"precision": "bf16"})
    settings: dict[str, Any] = {"searcher": "random", "study": url, "progress": False, "n_trials": 4}
    ps.search(network, DATA, budget=BUDGET, scoring=rounded, **settings)
    running = ps.Running(open_another=True)
    exact = ps.Scoring(criterion="l1", evaluator_options={"precision": "fp32"})
    other = ps.search(network, DATA, budget="macs=40%", scoring=exact, running=running, **settings)
    again = ps.search(network, DATA, budget="macs=40%", scoring=ps.Scoring(criterion="l1"), **settings)
    assert (again.name, again.trials) == (other.name, other.trials)


def test_what_memory_allows_is_kept_at_once_and_not_tried_again(
    network: Network, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []
    run = StackedForward.run

    def little_memory(self: StackedForward, some: Any, *rest: Any, **named: Any) -> list[Any]:
        if len(some) > 2:
            refused.append(len(some))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, some, *rest, **named)

    monkeypatch.setattr(StackedForward, "run", little_memory)
    scoring = ps.Scoring(criterion="l1", evaluator_options={"path": "stacked"}, race=False)
    settings: dict[str, Any] = {"budget": BUDGET, "searcher": "random", "scoring": scoring, "study": url}

    def stops(event: ps.Event) -> bool:
        assert stored(url)[1]["at_once"] == 2
        if event.trial.number == 10:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        ps.search(network, DATA, n_trials=12, running=ps.Running(callbacks=stops), **settings)
    assert refused
    assert stored(url)[1]["at_once"] == 2
    refused.clear()
    ps.search(network, DATA, n_trials=12, **settings)
    assert refused == []


@pytest.mark.parametrize(
    "damaged",
    [
        *(None, 3, [], {"path": "stacked"}, {"path": 1, "at_once": 4, "device": "cpu"}),
        {"path": "stacked", "at_once": 0, "device": "cpu"},
        {"path": "stacked", "at_once": 4, "device": None},
    ],
)
def test_of_a_way_that_cannot_be_read_the_precision_is_left_which_the_question_has(damaged: Any) -> None:
    assert kept_way._read(damaged, "bf16") == Way("sliced", precision="bf16")


def test_a_way_is_read_as_it_was_recorded_but_for_times_that_are_none() -> None:
    way = Way("stacked", 4, "bf16", "cpu", (("stacked, 4 at once", 0.5),), (("sliced", "It failed."),))
    assert kept_way._read(json.loads(json.dumps(asdict(way))), "bf16") == way
    odd = {"path": "stacked", "at_once": 4, "device": "cpu", "seconds": [3, ["x"]], "left_out": "none"}
    assert kept_way._read(odd, "bf16") == Way("stacked", 4, "bf16", "cpu")


def test_a_way_that_is_not_known_any_more_is_found_anew(
    network: Network, url: str, choosing: list[tuple[str, int]]
) -> None:
    """All but the precision."""
    found(network, url)
    hewn = {"path": "hewn", "at_once": 4, "device": "cpu"}
    with closing(Store(url)) as store:
        store.change_summary("search", lambda kept: {**kept, KEY: hewn})
    choosing.clear()
    found(network, url, 8)
    assert {name.endswith("bf16") for name, _ in choosing} == {True}
    assert stored(url)[1]["path"] == "stacked"


def test_choosing_takes_structures_that_use_the_budget_up(network: Network) -> None:
    limits = ps.Budget(macs="60%").check(network)
    chosen = typical(limits)
    assert len(chosen) >= 16
    assert all(admits(limits, limits.cost(structure)) for structure in chosen)
