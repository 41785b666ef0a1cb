"""PostgreSQL, a real server: what holds for a file holds for it (F1, F2, F5, F6, F7, F16)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict

import pytest
import sqlalchemy as sa

from prunesearch.errors import PruneSearchError, StudyLocked, StudyMismatch, StudyUnreadable
from prunesearch.structure import Cost
from prunesearch.study.database import parse
from prunesearch.study.locks import driver_of
from prunesearch.study.store import Store
from prunesearch.study.study import Study, recording
from prunesearch.trial import Trial
from tests.faults.processes import finish, recorded, start, stored, uninterrupted, wait_for
from tests.faults.tally import Tally
from tests.faults.toy import NAME, QUESTION, SPACE, history, run

pytestmark = pytest.mark.faults
TRIALS = 120
AWKWARD = [
    Trial(0, (1, 2, 3), Cost(2**62, 1), 0.1 + 0.2, None, 0.25, "s", "e", "host:1"),
    Trial(1, (1, 2, 4), Cost(1, 2**40), None, "It said: 'no'; DROP TABLE trial;-- %s :x", 1e-9, "s", "e", "host:2"),
    Trial(2, (), Cost(1, 1), -1e308, None, 0.0, "s", "ü", "host:3"),
    Trial(3, (7,), Cost(1, 1), 5e-324, None, 0.0, "s", "e", "host:3"),
]


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    """The server's database, empty again afterwards."""
    yield postgres
    engine = parse(postgres).engine(writing=True)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()


def test_trials_come_out_as_they_went_in(url: str) -> None:
    with closing(Store(url)) as store:
        store.create("a", {"seed": 1}, {})
        for each in AWKWARD:
            store.add("a", each)
        assert store.trials("a") == AWKWARD
        progress = store.progress("a")
        assert progress is not None
        assert (progress.trials, progress.failed, progress.best) == (4, 1, AWKWARD[0])
    with closing(Store(url, create=False)) as reader:
        assert reader.trials("a") == AWKWARD
        with pytest.raises(PruneSearchError, match="read-only"):
            reader.want("a", 3)


def test_what_two_writers_add_to_a_summary_is_all_kept_and_an_outcome_waits_for_the_driver(url: str) -> None:
    with closing(Store(url)) as store:
        store.create(NAME, QUESTION, asdict(SPACE))

    def count(key: str) -> None:
        with closing(Store(url)) as mine:
            for _ in range(20):
                mine.change_summary(NAME, lambda summary: {**summary, key: summary.get(key, 0) + 1})
                mine.change_summary(NAME, lambda summary: {**summary, "both": summary.get("both", 0) + 1})

    with ThreadPoolExecutor() as threads:
        list(threads.map(count, ("one", "other")))
    driving = Study(url, NAME, QUESTION, SPACE)
    ending = threading.Timer(0.5, driving.close)
    ending.start()
    with recording(url, NAME) as store:
        assert not ending.is_alive()
        store.add_to_summary(NAME, {"accuracy": 0.5})
        with pytest.raises(StudyLocked):
            Study(url, NAME, QUESTION, SPACE)
        assert store.summary(NAME) == {"one": 20, "other": 20, "both": 40, "accuracy": 0.5}


def test_killed_again_and_again_the_history_is_that_of_an_uninterrupted_run(url: str, tally: Tally) -> None:
    instants, seen, kills = random.Random(0), 0, 0
    while kills < 6:
        process = start(url, TRIALS, seconds=0.005)
        wait_for(url, seen, process)
        time.sleep(instants.uniform(0.0, 0.1))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
        now = recorded(url)
        assert now >= seen
        seen = now
    finish(start(url, TRIALS))
    assert stored(url) == uninterrupted(TRIALS)
    assert kills
    tally.add("F1", f"{TRIALS} candidates, PostgreSQL", kills)
    tally.add("F2", f"{TRIALS} candidates, PostgreSQL: identical", kills)


def test_a_second_driver_is_refused_naming_the_first_and_its_lock_dies_with_it(url: str, tally: Tally) -> None:
    for _ in range(3):
        process = start(url, 100_000, seconds=0.005)
        wait_for(url, recorded(url), process)
        with pytest.raises(StudyLocked, match=rf"host .+, pid {process.pid}\b"):
            Study(url, NAME, QUESTION, SPACE)
        with closing(Store(url, create=False)) as store:
            driver = driver_of(store, parse(url), NAME)
        assert driver is not None
        assert driver.running
        assert driver.name.endswith(f"pid {process.pid}")
        with Study(url, "another", QUESTION, SPACE):  # a server has a driver per study
            pass
        process.kill()
        process.communicate()
        _soon(lambda: Study(url, NAME, QUESTION, SPACE).close())  # the server must notice first
    tally.add("F5", "PostgreSQL: the server gives the lock back when the connection breaks", 3)
    tally.add("F6", "PostgreSQL: refused, naming host and process", 3)


def _soon(attempt: object, seconds: float = 1.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return attempt()  # type: ignore[operator,no-any-return]
        except StudyLocked:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_many_drivers_make_the_tables_once_and_one_of_them_drives(url: str, tally: Tally) -> None:
    drivers = [start(url, 60, seconds=0.01) for _ in range(4)]
    said = [driver.communicate()[1] for driver in drivers]
    assert sum(driver.returncode == 0 for driver in drivers) >= 1, said
    assert all("StudyLocked" in words for driver, words in zip(drivers, said, strict=True) if driver.returncode), said
    assert stored(url) == uninterrupted(60)
    tally.add("F6", "PostgreSQL: four drivers started together", 1)


def test_a_reader_polls_a_running_study(url: str, tally: Tally) -> None:
    process, reads = start(url, 150, seconds=0.01), 0
    wait_for(url, 0, process)
    while process.poll() is None:
        recorded(url)
        reads += 1
        time.sleep(0.1)
    finish(process)
    assert stored(url) == uninterrupted(150)
    tally.add("F7", "PostgreSQL: `status` read", reads)


def test_connections_that_the_server_ends_stop_the_run_in_order_and_it_goes_on(url: str, tally: Tally) -> None:
    process = start(url, TRIALS, seconds=0.01)
    wait_for(url, 20, process)
    engine = parse(url).engine(writing=True)
    with engine.connect() as connection:
        connection.execute(sa.text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            f" AND application_name LIKE '%pid {process.pid}'"
        ))  # fmt: skip
    engine.dispose()
    process.communicate()
    assert stored(url)[:20] == uninterrupted(TRIALS)[:20]
    assert history(run(url, TRIALS)) == uninterrupted(TRIALS)
    tally.add("F4", "PostgreSQL ends every connection of a run", 1)


def test_edited_rows_are_refused(url: str, tally: Tally) -> None:
    run(url, 5)
    engine = parse(url).engine(writing=True)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE trial SET score = score + 1 WHERE number = 3"))
    with pytest.raises(StudyUnreadable, match="trial 3 is not as it was written"):
        run(url, 10)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE study SET question = '[]'"))
    with pytest.raises((StudyUnreadable, StudyMismatch)):
        run(url, 10)
    engine.dispose()
    tally.add("F16", "PostgreSQL: rows edited by hand", 2)


def test_tables_of_another_program_are_left_alone(url: str) -> None:
    engine = parse(url).engine(writing=True)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE study (id integer)"))
    engine.dispose()
    with pytest.raises(StudyUnreadable, match="another program"):
        run(url, 1)


@pytest.mark.parametrize(
    "change",
    [("s3cret-word", "wr0ng-word"), ("/postgres", "/no_such_database"), ("127.0.0.1", "localhost.invalid")],
    ids=["password", "database", "host"],
)
def test_no_password_is_ever_shown(url: str, tally: Tally, change: tuple[str, str]) -> None:
    wrong = url.replace(*change)
    with pytest.raises(StudyUnreadable) as caught:
        Store(wrong)
    process = start(wrong, 3)
    _, said = process.communicate()
    assert process.returncode != 0
    for text in (str(caught.value), repr(caught.value), said, repr(parse(wrong)), Store.__name__):
        assert "s3cret" not in text
        assert "wr0ng" not in text
    tally.add("F16", "passwords in errors and tracebacks: none", 1)


def test_errors_of_a_running_study_show_no_password(url: str) -> None:
    with Study(url, NAME, QUESTION, SPACE), pytest.raises(StudyLocked) as locked:
        Study(url, NAME, QUESTION, SPACE)
    with pytest.raises(StudyMismatch) as mismatch:
        Study(url, NAME, {**QUESTION, "seed": 1}, SPACE)
    assert "s3cret" not in f"{locked.value!r} {mismatch.value!r}"
