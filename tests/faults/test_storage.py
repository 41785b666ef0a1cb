"""What every database of studies must do, each test on a file, on PostgreSQL, and through PgBouncer (F6, F23)."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

import pytest
import sqlalchemy as sa

from prunesearch.errors import PruneSearchError, StudyLocked, StudyUnwritable
from prunesearch.structure import Cost
from prunesearch.study import schema
from prunesearch.study.database import parse
from prunesearch.study.locks import driver_of, driving
from prunesearch.study.store import Store
from prunesearch.study.study import Study, recording
from prunesearch.trial import Trial
from tests.faults.tally import Tally
from tests.faults.toy import NAME, QUESTION, SPACE

pytestmark = pytest.mark.faults
AWKWARD = [
    Trial(0, (1, 2, 3), Cost(2**62, 1), 0.1 + 0.2, None, 0.25, "s", "e", "host:1"),
    Trial(1, (1, 2, 4), Cost(1, 2**40), None, "It said: 'no'; DROP TABLE trial;-- %s :x", 1e-9, "s", "e", "host:2"),
    Trial(2, (), Cost(1, 1), -1e308, None, 0.0, "s", "ü", "host:3"),
    Trial(3, (7,), Cost(1, 1), 5e-324, None, 0.0, "s", "e", "host:3", 64, 0.5, ((3, 0.25), (0, -1.0))),
]


@pytest.fixture(params=["SQLite", "PostgreSQL", "PgBouncer, transactions", "PgBouncer, sessions"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "SQLite":
        yield f"sqlite:///{tmp_path / 'study.db'}"
        return
    postgres = request.getfixturevalue("postgres")
    yield postgres if request.param == "PostgreSQL" else request.getfixturevalue("poolers")[request.param]
    engine = parse(postgres).engine(writing=True)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()


def trial(number: int) -> Trial:
    return Trial(number, (number, 1, 1), Cost(1, 1), float(number), None, 0.0, "s", "e", "here:1")


def made(url: str, trials: int) -> None:
    with closing(Store(url)) as store:
        store.create(NAME, QUESTION, asdict(SPACE))
        for number in range(trials):
            store.add(NAME, trial(number))


def read(url: str) -> list[Trial]:
    with closing(Store(url, create=False)) as store:
        return store.trials(NAME)


def test_trials_come_out_as_they_went_in(url: str) -> None:
    made(url, 0)
    with closing(Store(url)) as store:
        for each in AWKWARD:
            store.add(NAME, each)
        assert store.trials(NAME) == AWKWARD
        progress = store.progress(NAME)
    assert progress is not None
    assert (progress.trials, progress.failed, progress.best) == (4, 1, AWKWARD[0])
    assert read(url) == AWKWARD
    with closing(Store(url, create=False)) as reader, pytest.raises(PruneSearchError, match=r"read-?only"):
        reader.want(NAME, 3)


@pytest.mark.parametrize("number", [0, 2, 4, 1_000_000])
def test_a_trial_has_a_place_only_after_the_one_before(url: str, number: int) -> None:
    made(url, 3)
    with closing(Store(url)) as store, pytest.raises(StudyUnwritable, match=f"Trial {number} .* does not follow"):
        store.add(NAME, trial(number))
    assert len(read(url)) == 3


def test_a_second_driver_is_refused_naming_the_first_until_that_ends(url: str) -> None:
    with Study(url, NAME, QUESTION, SPACE):
        for _ in range(3):
            with pytest.raises(StudyLocked, match=r"host .+, pid \d+"):
                Study(url, NAME, QUESTION, SPACE)
            with pytest.raises(StudyLocked), driving(url, NAME):
                pytest.fail("two had the lock")
        with closing(Store(url, create=False)) as store:
            driver = driver_of(store, parse(url), NAME)
        assert driver is not None
        assert driver.running
    Study(url, NAME, QUESTION, SPACE).close()


WRITES: dict[str, Callable[[Store], object]] = {
    "a trial": lambda store: store.add(NAME, trial(3)),
    "how many are wanted": lambda store: store.want(NAME, 9),
    "a fact": lambda store: store.add_to_summary(NAME, {"accuracy": 0.5}),
    "a deletion": lambda store: store.delete(NAME),
    "a deletion of its end": lambda store: store.delete(NAME, from_trial=1),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_who_was_followed_by_another_driver_writes_nothing_more(
    url: str, tally: Tally, write: Callable[[Store], object]
) -> None:
    """Whatever happened to its lock."""
    made(url, 3)
    with closing(Store(url)) as first, closing(Store(url)) as second:
        first.take(NAME)
        second.take(NAME)
        with pytest.raises(StudyLocked, match=r"taken over by another run \(host .+, pid \d+\)"):
            write(first)
        assert read(url) == [trial(number) for number in range(3)]
        assert second.summary(NAME) is None
        write(second)
        with suppress(StudyLocked, StudyUnwritable):  # or it was deleted, and there is nothing to delete
            assert write(first) == 0
    tally.add("F23", "another driver came: no write of the first one is taken", 1)


def test_a_study_that_is_deleted_or_made_anew_under_its_driver_takes_no_more_of_it(url: str, tally: Tally) -> None:
    made(url, 3)
    with closing(Store(url)) as first, closing(Store(url)) as second:
        first.take(NAME)
        assert second.delete(NAME) == 3
        for write in WRITES.values():
            with suppress(StudyUnwritable):  # there is nothing to delete
                assert write(first) == 0
        second.create(NAME, QUESTION, asdict(SPACE))
        with pytest.raises(StudyLocked):
            first.add(NAME, trial(0))
        with pytest.raises(StudyLocked):
            first.delete(NAME)
        second.add(NAME, trial(0))
    assert read(url) == [trial(0)]
    tally.add("F23", "deleted, or deleted and made anew, under its driver", 2)


def test_threads_that_take_a_study_from_each_other_leave_one_history(url: str, tally: Tally) -> None:
    """None of them has a lock; what each was told is recorded is there."""
    made(url, 0)
    recorded: dict[int, int] = {}
    guard = threading.Lock()

    def rob(thief: int) -> None:
        rng = random.Random(thief)
        with closing(Store(url)) as store:
            for _ in range(8):
                with suppress(StudyLocked, StudyUnwritable):
                    store.take(NAME)
                    number = len(store.trials(NAME))
                    for _ in range(rng.randrange(1, 6)):
                        store.add(NAME, Trial(number, (thief, 1, 1), Cost(1, 1), 1.0, None, 0.0, "s", "e", "here:1"))
                        with guard:
                            assert number not in recorded
                            recorded[number] = thief
                        number += 1

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(rob, range(6)))
    found = read(url)
    assert [(each.number, each.structure[0]) for each in found] == sorted(recorded.items())
    tally.add("F23", "six threads without a lock, each taking the study from the others", 48)


_ROB = """
import json, sys
from prunesearch.errors import StudyLocked, StudyUnwritable
from prunesearch.structure import Cost
from prunesearch.study.store import Store
from prunesearch.trial import Trial
url, name, thief = sys.argv[1], sys.argv[2], int(sys.argv[3])
store, recorded = Store(url), []
for _ in range(10):
    try:
        store.take(name)
        number = len(store.trials(name))
        for number in range(number, number + 4):
            store.add(name, Trial(number, (thief, 1, 1), Cost(1, 1), 1.0, None, 0.0, "s", "e", "here:1"))
            recorded.append([number, thief])
    except (StudyLocked, StudyUnwritable):
        pass
store.close()
print(json.dumps(recorded))
"""


def test_processes_that_take_a_study_from_each_other_leave_one_history(url: str, tally: Tally) -> None:
    made(url, 0)
    thieves = [
        subprocess.Popen([sys.executable, "-c", _ROB, url, NAME, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    said = [thief.communicate(timeout=120)[0] for thief in thieves]
    assert all(thief.returncode == 0 for thief in thieves)
    recorded = sorted(tuple(line) for text in said for line in json.loads(text))
    assert recorded
    assert [(each.number, each.structure[0]) for each in read(url)] == recorded
    tally.add("F23", "four processes without a lock, each taking the study from the others", 40)


def test_a_reader_never_sees_a_gap(url: str) -> None:
    made(url, 0)
    done = threading.Event()

    def write() -> None:
        with closing(Store(url)) as store:
            for number in range(150):
                store.add(NAME, trial(number))
        done.set()

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        while not done.is_set() and not writing.done():
            found = read(url)
            assert found == [trial(number) for number in range(len(found))]
        writing.result()
    assert len(read(url)) == 150


def test_what_two_record_of_an_outcome_is_all_kept_as_each_waits_for_the_other(url: str) -> None:
    made(url, 1)

    def count(key: str) -> None:
        for _ in range(6):
            with recording(url, NAME) as store:
                store.change_summary(NAME, lambda summary: {**summary, key: summary.get(key, 0) + 1})
                store.change_summary(NAME, lambda summary: {**summary, "both": summary.get("both", 0) + 1})

    with ThreadPoolExecutor() as threads:
        list(threads.map(count, ("one", "other")))
    with closing(Store(url, create=False)) as store:
        assert store.summary(NAME) == {"one": 6, "other": 6, "both": 12}


def test_a_row_that_somebody_changed_is_noticed(url: str) -> None:
    made(url, 4)
    engine = parse(url).engine(writing=True)
    with engine.begin() as connection:
        connection.execute(schema.trial.update().where(schema.trial.c.number == 2).values(score=9.0))
    engine.dispose()
    with pytest.raises(PruneSearchError, match="trial 2 is not as it was written"):
        read(url)
