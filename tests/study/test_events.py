"""Callbacks: what they are told, and that they can end a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunesearch.search import make_searcher
from prunesearch.study.events import Callback, Event, early_stopping, stop_after
from prunesearch.study.executors import InlineExecutor
from prunesearch.study.study import Study
from prunesearch.study.tensorboard import TensorBoardLogger
from prunesearch.trial import Trial, best
from tests.study.toy import BUDGET, QUESTION, SPACE, Scorer, history, run


def listen(url: str, n_trials: int, *callbacks: Callback) -> list[Trial]:
    with Study(url, "toy", QUESTION, SPACE) as study:
        searcher = make_searcher("random", SPACE, BUDGET, seed=0)
        return study.run(
            searcher, InlineExecutor(Scorer()), n_trials, searcher_name="random", evaluator_name="toy",
            callbacks=callbacks,
        )  # fmt: skip


def test_an_event_has_the_new_trial_and_the_best_of_all_runs(tmp_path: Path) -> None:
    url, events = f"sqlite:///{tmp_path / 'study.db'}", list[Event]()
    for n_trials in (20, 50):
        trials = listen(url, n_trials, events.append)
    assert [event.trial for event in events] == trials
    assert [event.best for event in events] == [best(trials[: i + 1]) for i in range(50)]
    assert [event.n_trials for event in events] == [20] * 20 + [50] * 30
    assert all(event.study == "toy" and event.seconds >= 0 for event in events)


def test_a_callback_that_returns_true_ends_the_run_and_it_can_go_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    assert len(listen(url, 50, lambda event: event.trial.number == 6, lambda event: None)) == 7
    assert history(listen(url, 50)) == history(run("sqlite://", 50, searcher="random"))


def test_early_stopping_waits_for_the_best_to_improve_also_across_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    whole = run("sqlite://", 200, searcher="random")
    patience = 15
    stop = next(n for n in range(200) if (top := best(whole[: n + 1])) is not None and n - top.number >= patience)
    listen(url, stop - 4)
    assert len(listen(url, 200, early_stopping(patience))) == stop + 1
    assert len(listen(url, 200, early_stopping(patience))) == stop + 1  # it is finished
    assert len(listen(url, 200, early_stopping(patience + 1))) > stop + 1


def test_stop_after_stops_at_the_first_trial_after_the_time() -> None:
    assert len(listen("sqlite://", 50, stop_after(1e-9))) == 1
    assert len(listen("sqlite://", 50, stop_after(1e9))) == 50


@pytest.mark.parametrize("make", [lambda: early_stopping(0), lambda: stop_after(0.0), lambda: stop_after(float("nan"))])
def test_settings_that_make_no_sense_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="Expected"):
        make()  # type: ignore[operator]


def test_curves_for_tensorboard_hold_every_score(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    trials = listen("sqlite://", 10, TensorBoardLogger(tmp_path))
    read = reader.EventAccumulator(str(tmp_path))
    read.Reload()
    found = {point.step: read_number(point) for point in read.Tensors("toy/score")}
    assert found == pytest.approx({trial.number: trial.score for trial in trials}, rel=1e-6)  # float32 there


def read_number(point: object) -> float:
    from tensorboard.util import tensor_util

    return float(tensor_util.make_ndarray(point.tensor_proto))  # type: ignore[attr-defined]
