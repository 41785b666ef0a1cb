"""The loop: resume is replay, failures are trials, and another question is another study."""

from __future__ import annotations

import math
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from prunesearch.errors import EvaluationFailed, StudyLocked, StudyMismatch, StudyUnreadable, StudyUnwritable
from prunesearch.search import SEARCHERS, make_searcher
from prunesearch.structure import Structure
from prunesearch.study import study as study_module
from prunesearch.study.executors import InlineExecutor, RememberingExecutor
from prunesearch.study.schema import checksum
from prunesearch.study.store import Store
from prunesearch.study.study import Study, find, recording
from prunesearch.trial import Source, Trial, best
from tests.study.toy import BUDGET, QUESTION, SCORE, SPACE, Scorer, history, run
from tests.toys import trials_of


def reseal(connection: sqlite3.Connection) -> None:
    """Make the checksums fit what somebody wrote, as somebody who knows of them might."""
    connection.row_factory = sqlite3.Row
    for row in connection.execute("select * from trial").fetchall():
        connection.execute("update trial set checksum = ? where number = ?", (checksum(dict(row)), row["number"]))
    connection.commit()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


PIECES = [(1, 120), (49, 50, 51, 120), (64, 120), (7, 13, 77, 119, 120)]
PIECEWISE = [(name, stops) for name in ("random", "evolution", "surrogate") for stops in PIECES]


@pytest.mark.slow
@pytest.mark.parametrize(("searcher", "stops"), [*PIECEWISE, *((name, (1, 30, 31, 50)) for name in SEARCHERS)])
def test_a_study_in_pieces_has_the_history_of_one_in_one_go(url: str, searcher: str, stops: tuple[int, ...]) -> None:
    scorer = Scorer()
    for n_trials in stops:
        trials = run(url, n_trials, scorer=scorer, searcher=searcher)
    assert history(trials) == history(run("sqlite://", stops[-1], searcher=searcher))
    assert len(scorer.scored) == len(set(scorer.scored)) == len(trials)  # nothing was scored twice


def test_asking_for_fewer_trials_than_are_recorded_returns_them_all_and_scores_nothing(url: str) -> None:
    trials = run(url, 60)
    scorer = Scorer()
    assert run(url, 10, scorer=scorer) == trials
    assert scorer.scored == []


def test_costs_in_trials_are_exact() -> None:
    assert all(trial.cost == SPACE.cost(trial.structure) for trial in run("sqlite://", 60))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_a_number_is_a_failure_and_never_the_best(bad: float) -> None:
    worst = min(run("sqlite://", 40), key=lambda trial: trial.score or 0.0)
    trials = run("sqlite://", 40, scorer=Scorer(lambda s: bad if s == worst.structure else SCORE(s)))
    (failed,) = [trial for trial in trials if trial.score is None]
    assert failed.structure == worst.structure
    assert failed.failure == f"The score is {bad}."
    assert best(trials) != failed


def test_an_exception_is_a_failure_with_its_sentence_and_the_search_goes_on() -> None:
    def sometimes(structure: Structure) -> float:
        if sum(structure) % 3 == 0:
            raise RuntimeError(f"no memory for {structure}\nsecond line")
        return SCORE(structure)

    trials = run("sqlite://", 60, scorer=Scorer(sometimes))
    failed = [trial for trial in trials if trial.failure is not None]
    assert len(trials) == 60
    assert failed
    assert all(trial.failure == f"RuntimeError: no memory for {trial.structure}" for trial in failed)


def test_ten_failures_in_a_row_stop_with_the_first_traceback_and_keep_what_is_recorded(url: str) -> None:
    def broken(structure: Structure) -> float:
        first.append(structure)
        raise RuntimeError("the first of many" if structure == first[0] else "a later one")

    first: list[Structure] = []
    scorer = Scorer(broken)
    with pytest.raises(EvaluationFailed, match=r"10 structures in a row.*the first of many") as caught:
        run(url, 60, scorer=scorer)
    assert "in broken" in str(caught.value)
    with Study(url, "toy", QUESTION, SPACE) as study:
        assert len(study.trials()) == 10


def test_an_interrupt_is_not_a_failure_and_loses_nothing_recorded(url: str) -> None:
    def interrupted(structure: Structure) -> float:
        if len(scorer.scored) > 20:
            raise KeyboardInterrupt
        return SCORE(structure)

    scorer = Scorer(interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(url, 60, scorer=scorer)
    assert history(run(url, 60)) == history(run("sqlite://", 60))


@pytest.mark.parametrize(
    ("question", "field"),
    [({**QUESTION, "budget": "40%"}, "budget"), ({**QUESTION, "seed": 1}, "seed"), ({**QUESTION, "new": 1}, "new")],
)
def test_another_question_is_refused_naming_the_field_and_changing_nothing(
    url: str, question: dict[str, object], field: str
) -> None:
    trials = run(url, 20)
    with pytest.raises(StudyMismatch, match=f"its {field} is") as caught:
        Study(url, "toy", question, SPACE)
    assert caught.value.field == field
    with Study(url, "toy", QUESTION, SPACE) as study:
        assert study.trials() == trials


def test_a_searcher_that_proposes_something_else_than_is_recorded_is_refused(url: str) -> None:
    run(url, 20)
    with pytest.raises(StudyMismatch, match=r"trial \d+ is recorded as"):
        run(url, 40, seed=9)


def test_several_studies_share_a_file(url: str) -> None:
    for name in ("one", "two"):
        with Study(url, name, QUESTION, SPACE) as study:
            assert study.trials() == []


def test_a_second_driver_is_refused_with_the_owner_and_a_reader_is_not(url: str) -> None:
    code = f"""
import sys
from prunesearch.study.store import Store
from prunesearch.study.study import Study
from tests.study.toy import QUESTION, SPACE
with Study({url!r}, "toy", QUESTION, SPACE):
    print("open", flush=True)
    sys.stdin.read()
"""
    driver = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "open\n"
    try:
        with pytest.raises(StudyLocked, match=f"pid {driver.pid}"):
            Study(url, "other", QUESTION, SPACE)
    finally:
        driver.kill()
        driver.communicate()
    with Study(url, "other", QUESTION, SPACE) as study:  # the lock died with its process
        assert study.trials() == []


def test_an_outcome_is_recorded_by_nobody_while_another_drives(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "_PATIENCE", 0.2)
    run(url, 2)
    with Study(url, "toy", QUESTION, SPACE), pytest.raises(StudyLocked), recording(url, "toy"):
        pytest.fail("two had the lock")
    with recording(url, "toy") as store:
        store.add_to_summary("toy", {"accuracy": 0.5})
        with pytest.raises(StudyLocked):
            Study(url, "toy", QUESTION, SPACE)
    with Study(url, "toy", QUESTION, SPACE) as opened, closing(Store(url, create=False)) as reader:
        opened.record({"notes": ["new"]})
        assert reader.summary("toy") == {"accuracy": 0.5, "notes": ["new"]}


def test_an_outcome_waits_for_the_driver_to_end(url: str) -> None:
    run(url, 2)
    driving, ended = threading.Event(), threading.Event()

    def drive() -> None:
        with Study(url, "toy", QUESTION, SPACE):
            driving.set()
            time.sleep(0.3)
            ended.set()

    thread = threading.Thread(target=drive)
    thread.start()
    assert driving.wait(10)
    with recording(url, "toy") as store:
        assert ended.is_set()
        store.add_to_summary("toy", {"accuracy": 0.5})
    with closing(Store(url, create=False)) as reader:
        assert reader.summary("toy") == {"accuracy": 0.5}
    thread.join()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_a_database_that_cannot_be_there_is_said_to_be_so_and_not_to_be_in_use() -> None:
    with pytest.raises(StudyUnwritable, match="cannot be created") as caught:
        Study("sqlite:////proc/x.db", "toy", QUESTION, SPACE)
    assert "driven" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there that users do not have")
def test_a_link_to_a_database_is_the_same_database_to_the_lock(tmp_path: Path, url: str) -> None:
    run(url, 2)
    (tmp_path / "link.db").symlink_to(tmp_path / "study.db")
    with Study(url, "toy", QUESTION, SPACE), pytest.raises(StudyLocked):
        Study(f"sqlite:///{tmp_path / 'link.db'}", "toy", QUESTION, SPACE)


def test_a_refused_question_changes_nothing_in_the_file(tmp_path: Path, url: str) -> None:
    run(url, 2)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("update prunesearch_schema set driver = 'somebody else'")
        connection.commit()
    with pytest.raises(StudyMismatch):
        Study(url, "toy", {"seed": 8}, SPACE)
    with closing(Store(url, create=False)) as store:
        driver = store.driver()
    assert driver is not None
    assert driver.name == "somebody else"


def test_a_cost_that_somebody_edited_is_noticed(tmp_path: Path, url: str) -> None:
    run(url, 2)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("update trial set macs = 5")
        reseal(connection)
        connection.commit()
    with pytest.raises(StudyUnreadable, match="Somebody edited the database"):
        run(url, 4)


def test_a_question_is_compared_as_it_is_stored(url: str) -> None:
    for _ in range(2):
        with Study(url, "toy", {"tuple": (1, 2)}, SPACE) as study:
            assert study.trials() == []


def test_failures_of_earlier_runs_count_so_a_broken_evaluator_gets_one_more_try_each_time(url: str) -> None:
    def broken(structure: Structure) -> float:
        raise RuntimeError("still broken")

    for tries in (10, 11, 12):
        with pytest.raises(EvaluationFailed, match=f"{tries} structures in a row"):
            run(url, 60, scorer=Scorer(broken))
    assert len(run(url, 13)) == 13  # mended: it goes on


def test_a_refused_study_lets_the_next_driver_in(url: str) -> None:
    run(url, 5)
    with pytest.raises(StudyMismatch):
        Study(url, "toy", {"seed": 8}, SPACE)
    assert len(run(url, 6)) == 6


def test_scores_of_another_study_apply_if_the_fields_they_depend_on_are_the_same(url: str) -> None:
    first = run(url, 20)
    for question, expected in (({**QUESTION, "seed": 1}, 20), ({**QUESTION, "budget": "40%"}, 0)):
        with Study(url, f"seed {question['seed']}, {question['budget']}", question, SPACE) as study:
            known = study.known_trials(["budget"])
        assert len(known) == expected
    with Study(url, "third", {**QUESTION, "seed": 2}, SPACE) as study:
        known = study.known_trials(["budget"])
    assert known[first[3].structure] == (first[3], Source("toy", 3))


def test_a_fact_beside_the_trials_decides_whether_scores_apply_and_without_it_a_field_of_the_question(url: str) -> None:
    def known_to(seed: int, fact: str | None) -> dict[Structure, tuple[Trial, Source]]:
        with Study(url, f"seed {seed}, {fact}", {**QUESTION, "seed": seed}, SPACE) as study:
            if fact is not None:
                study.record({"kept": fact})
            return study.known_trials(["budget"], fact="kept", otherwise="seed")

    old = run(url, 20)  # by an earlier release, which recorded no such fact
    assert len(known_to(0, "a")) == 20
    assert not known_to(1, "a")
    with Study(url, "toy", QUESTION, SPACE) as study:
        study.record({"kept": "a"})
    assert known_to(1, "a")[old[3].structure] == (old[3], Source("toy", 3))
    assert not known_to(0, "b")
    assert not known_to(1, None)


def test_what_an_earlier_release_took_over_from_a_study_whose_scores_do_not_apply_is_not_passed_on(url: str) -> None:
    run(url, 20)
    with Study(url, "second", {**QUESTION, "seed": 1}, SPACE) as study:
        executor = RememberingExecutor(InlineExecutor(Scorer()), study.known_trials(["budget"]))
        searcher = make_searcher("evolution", SPACE, BUDGET)
        trials = study.run(searcher, executor, 30, searcher_name="evolution", evaluator_name="toy")
    assert [trial.source is None for trial in trials] == [False] * 20 + [True] * 10
    with Study(url, "third", {**QUESTION, "seed": 1}, SPACE) as study:
        known = study.known_trials(["budget"], fact="kept", otherwise="seed")
    assert set(known) == {trial.structure for trial in trials[20:]}


def test_known_scores_are_taken_and_the_others_scored() -> None:
    batch = [(i,) for i in range(1, 9)]
    scorer = Scorer(lambda structure: float(structure[0]))
    one, two, seven = trials_of([(1,), (2,), (7,)], lambda structure: 10.0 * structure[0])
    known = {(2,): (two, Source("other", 1)), (7,): (seven, Source("other", 2))}
    outcomes = list(RememberingExecutor(InlineExecutor(scorer), known).run(batch, [one]))
    assert [outcome.score for outcome in outcomes] == [20.0, 3.0, 4.0, 5.0, 6.0, 70.0, 8.0]
    assert scorer.scored == [(3,), (4,), (5,), (6,), (8,)]
    assert [outcome.source for outcome in outcomes] == [Source("other", 1), *[None] * 4, Source("other", 2), None]


def test_without_a_name_the_question_finds_its_study_and_another_budget_or_searcher_opens_one(url: str) -> None:
    def opened(question: dict[str, object], name: str | None = None) -> str:
        with Study(url, name, question, SPACE) as study:
            return study.name

    assert opened(QUESTION) == "search"
    assert opened({**QUESTION, "budget": "40%"}) == "search 40%"
    assert opened({**QUESTION, "budget": "30%"}) == "search 30%"
    assert opened(QUESTION) == "search"
    assert opened({**QUESTION, "budget": "40%"}) == "search 40%"
    assert opened({**QUESTION, "searcher": "evolution()"}) == "search evolution()"
    assert opened({**QUESTION, "searcher": "evolution()", "budget": "40%"}) == "search evolution() 40%"
    assert opened({**QUESTION, "searcher": "evolution()"}) == "search evolution()"
    assert opened({**QUESTION, "seed": 5}, "mine") == "mine"
    assert opened({**QUESTION, "seed": 5}) == "mine"
    with pytest.raises(StudyMismatch, match="its seed is 0, not 6"):
        opened({**QUESTION, "seed": 6})
    with pytest.raises(StudyMismatch, match="its budget is '50%', not '40%'"):
        opened({**QUESTION, "budget": "40%"}, "search")


OTHERS = [
    ({"seed": 1}, "search seed 1"),
    ({"model": "fedcba9876543210"}, "search model fedcba98"),
    ({"model": "fedcba9876543210", "space": "1"}, "search model fedcba98"),
    ({"space": "1"}, "search space 1"),
    ({"data": "0123456789abcdef", "budget": "40%"}, "search 40% data 01234567"),
    ({"evaluator": "accuracy(metric=agreement, images=64, batch_size=64)"},
     "search evaluator accuracy(metric=agreement, images=64, ba"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "name"), OTHERS)
def test_where_no_study_was_named_whatever_differs_opens_another(
    url: str, change: dict[str, object], name: str
) -> None:
    first = {**QUESTION, "model": "0123456789abcdef", "evaluator": "accuracy(metric=loss)", "versions": {"torch": "2"}}
    with Study(url, None, first, SPACE):
        pass
    other = {**first, **change}
    assert find(url, None, other, open_another=True) == name
    with pytest.raises(StudyMismatch):  # a study that is named refuses
        find(url, "search", other, open_another=True)
    with Study(url, name, other, SPACE):
        pass
    assert find(url, None, other, open_another=True) == name
    assert find(url, None, first, open_another=True) == "search"
    assert " versions " in find(url, None, {**other, "versions": {"torch": "3"}}, open_another=True)


def test_a_name_that_another_question_has_is_not_taken(url: str) -> None:
    for name, question in (("search", QUESTION), ("search seed 1", {**QUESTION, "seed": 2})):
        with Study(url, name, question, SPACE):
            pass
    assert find(url, None, {**QUESTION, "seed": 1}, open_another=True) == "search seed 1 (2)"


def test_of_a_table_that_differs_the_entry_is_named(url: str) -> None:
    with Study(url, "toy", {**QUESTION, "versions": {"torch": "2", "prunesearch": "1"}}, SPACE):
        pass
    with pytest.raises(StudyMismatch, match="its torch is '2', not '3'") as caught:
        Study(url, "toy", {**QUESTION, "versions": {"torch": "3", "prunesearch": "1"}}, SPACE)
    assert caught.value.field == "versions"


def test_a_driver_is_recorded_while_it_drives(url: str) -> None:
    with Study(url, "toy", QUESTION, SPACE), closing(Store(url, create=False)) as store:
        driver = store.driver()
        assert driver is not None
        assert driver.running
        assert driver.name.endswith(f"pid {os.getpid()}")
    with closing(Store(url, create=False)) as store:
        assert store.driver() is None


@pytest.mark.parametrize(
    ("who", "running"),
    [
        ("host {here}, pid 999999999", False if os.name == "posix" else None),  # elsewhere one cannot look
        ("host elsewhere, pid 1", None),
        ("?", None),
    ],
)
def test_a_driver_that_ended_without_a_word_is_told_from_one_that_runs(
    url: str, who: str, running: bool | None
) -> None:
    run(url, 1)
    with closing(Store(url)) as store:
        store.set_driver(who.format(here=socket.gethostname()))
        driver = store.driver()
    assert driver is not None
    assert driver.running is running
