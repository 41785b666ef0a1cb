"""Latency budgets that hold when measured: winners are timed, and searches go on until one is in time."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import prunesearch as ps
from prunesearch import rounds
from prunesearch.evaluators.built_costs import structure_of
from prunesearch.evaluators.latency.built import MeasuredLatency
from prunesearch.evaluators.latency.remote import plan
from prunesearch.evaluators.latency.timing import processor_name
from prunesearch.latency_model import LatencyModel
from prunesearch.latency_table import LatencyTable
from prunesearch.latency_times import Timing
from prunesearch.models.network import Network
from prunesearch.report.contents import read
from prunesearch.structure import Structure
from prunesearch.study.store import Store
from prunesearch.training.data import Data
from prunesearch.verifiers import latency


@pytest.fixture(scope="module")
def table(network: Network) -> LatencyTable:
    """A table of the digits network as if measured here: each layer takes as long as it is wide."""
    empty = plan(network, "toy", points=3)
    layers = []
    for layer in empty.layers:
        shape = [len(axis) for axis in layer.axes]
        times = sum(np.indices(shape), np.ones(shape)).ravel() * 0.1
        layers.append(dataclasses.replace(layer, timings=tuple(Timing(t, t, t) for t in times.tolist())))
    conditions = dataclasses.replace(empty.conditions, backend="eager", device="cpu", processor=processor_name("cpu"))
    return dataclasses.replace(empty, conditions=conditions, layers=tuple(layers), networks=(), reference_ms=1.0)


@pytest.fixture
def machine(network: Network, table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Structure]]:
    """A machine on which networks take a multiple of what the table says, and a list of what it timed.

    What is looked at twice in a row is in the list once. The first `hiccups` looks take three times as long.
    """

    def made_up(factor: float, *, only_below: float = 0.0, hiccups: int = 0) -> list[Structure]:
        timed: list[Structure] = []
        built: list[nn.Module | None] = [None]
        looks = itertools.count()

        def measure(model: nn.Module, inputs: Sequence[Tensor], _: LatencyTable) -> MeasuredLatency:
            if built[-1] is not model:
                built.append(model)
                timed.append(structure_of(network, model))
            predicted = float(LatencyModel(table, network.space).predict([timed[-1]])[0])
            ms = max(factor * predicted, only_below) * (3.0 if next(looks) < hiccups else 1.0)
            return MeasuredLatency(Timing(ms, ms, ms), 1.0)

        monkeypatch.setattr(latency, "measure_built", measure)
        return timed

    return made_up


def search(network: Network, data: Data, table: LatencyTable, **options: object) -> ps.SearchResult:
    budget = ps.Budget(latency_ms="60%", table=table)
    scoring = ps.Scoring(images=16, criterion="l1")
    settings: dict[str, Any] = {"n_trials": 16, "scoring": scoring, "searcher": "random", **options}
    return ps.search(network, data, budget=budget, **settings)


def test_a_winner_in_time_is_timed_once(
    network: Network, digits_data: Data, table: LatencyTable, machine: Callable[..., list[Structure]]
) -> None:
    timed = machine(1.0)
    result = search(network, digits_data, table)
    assert timed == [result.best.structure]
    assert result.latency is not None
    assert result.latency.holds
    assert result.latency.predicted_ms == pytest.approx(result.latency.measured.timing.ms)
    assert len(result.trials) == 16
    assert "measured" in str(result)


def test_one_slow_moment_of_the_machine_does_not_send_the_search_on(
    network: Network, digits_data: Data, table: LatencyTable, machine: Callable[..., list[Structure]]
) -> None:
    timed = machine(1.0, hiccups=1)
    result = search(network, digits_data, table)
    assert timed == [result.best.structure]
    assert result.latency is not None
    assert result.latency.holds
    assert len(result.trials) == 16


def test_a_search_goes_on_until_a_measured_winner_is_in_time(
    network: Network, digits_data: Data, table: LatencyTable, machine: Callable[..., list[Structure]]
) -> None:
    timed = machine(1.2)
    result = search(network, digits_data, table)
    assert result.latency is not None
    assert result.latency.holds
    assert len(timed) == len(result.latency.attempts) == 2
    assert result.latency.attempts[0][1] > result.latency.limit_ms >= result.latency.attempts[1][1]
    assert timed[-1] == result.best.structure
    assert len(result.trials) > 16
    in_time = [
        t for t in result.trials if 1.2 * 1.011 * _predicted(network, table, t.structure) <= result.latency.limit_ms
    ]
    assert result.best.trial.score == max(t.score for t in in_time if t.score is not None)


def test_a_limit_out_of_reach_is_said_with_the_best_that_was_reached(
    network: Network, digits_data: Data, table: LatencyTable, machine: Callable[..., list[Structure]], tmp_path: Path
) -> None:
    timed = machine(100.0)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    result = search(network, digits_data, table, study=url)
    assert result.latency is not None
    assert not result.latency.holds
    with closing(Store(url, create=False)) as store:
        assert [note["said"] for note in (store.summary(result.name) or {})["notes"]] == list(result.notes)
    narrowest = 100 * _predicted(network, table, network.space.minimum)
    assert timed[-1] == network.space.minimum
    assert result.latency.narrowest_ms == pytest.approx(narrowest)
    assert any("was not met" in note for note in result.notes)
    assert f"The narrowest structure of the space takes {narrowest:.3g} ms" in str(result)


def test_run_again_a_stored_search_times_only_the_last_winner(
    network: Network, digits_data: Data, table: LatencyTable, machine: Callable[..., list[Structure]], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    timed = machine(1.2)
    first = search(network, digits_data, table, study=url)
    assert len(timed) == 2
    again = search(network, digits_data, table, study=url)
    assert timed[2:] == [first.best.structure] == [again.best.structure]
    assert [t.structure for t in again.trials] == [t.structure for t in first.trials]
    store = Store(url, create=False)
    assert len(store.studies()) == 2
    store.close()


def test_a_table_of_another_device_is_trusted_and_nothing_is_timed(
    network: Network, digits_data: Data, table: LatencyTable, machine: Callable[..., list[Structure]]
) -> None:
    timed = machine(1.0)
    result = search(network, digits_data, table.as_remote())
    assert timed == []
    assert result.latency is None
    assert ps.Budget(latency_ms="60%", table=table).check(network.space).contains([result.best.structure])[0]


def test_a_table_of_another_machine_is_refused_before_anything_is_scored(
    network: Network, digits_data: Data, table: LatencyTable
) -> None:
    foreign = dataclasses.replace(table, conditions=dataclasses.replace(table.conditions, processor="Abacus 3000"))
    with pytest.raises(ValueError, match=r"measured on 'Abacus 3000'.*as_remote\(\)"):
        search(network, digits_data, foreign)


def test_a_search_whose_study_somebody_else_drives_by_then_says_what_is_not_recorded(
    network: Network,
    digits_data: Data,
    table: LatencyTable,
    machine: Callable[..., list[Structure]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    machine(1.0)

    def locked(url: str, name: str) -> None:
        raise ps.StudyLocked("study.db is in use.")

    monkeypatch.setattr(rounds, "recording", locked)
    result = search(network, digits_data, table, study=url)
    assert result.latency is not None
    assert result.notes[-1] == "What was verified is not recorded in the study. study.db is in use."


def _predicted(network: Network, table: LatencyTable, structure: Structure) -> float:
    return float(LatencyModel(table, network.space).predict([structure])[0])


def test_a_report_knows_who_was_timed_and_what_was_predicted_of_every_trial(
    network: Network, digits_data: Data, table: LatencyTable, machine: Callable[..., list[Structure]], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    timed = machine(1.2)
    result = search(network, digits_data, table, study=url)
    search(network, digits_data, table, study=url)  # times the last winner again; the others stay
    assert len(timed) == 3
    with closing(Store(url, create=False)) as store:
        (study,) = read(store, None)
    assert [(a.structure, a.predicted_ms, a.measured_ms) for a in study.attempts] == [
        (s, _predicted(network, table, s), pytest.approx(1.2 * _predicted(network, table, s))) for s in timed[:2]
    ]
    assert study.winner == result.best.trial
    assert study.trials == result.trials
    assert study.predicted_ms == pytest.approx([_predicted(network, table, t.structure) for t in result.trials])
    assert result.latency is not None
    assert study.limit_ms == result.latency.limit_ms
    assert study.full_ms == pytest.approx(_predicted(network, table, network.space.full))
