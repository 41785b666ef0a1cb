"""The database: what goes in comes out, and what is not ours is left alone."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from prunesearch.errors import StudyUnreadable, StudyUnwritable
from prunesearch.structure import Cost
from prunesearch.study import store as store_module
from prunesearch.study.schema import SCHEMA_VERSION
from prunesearch.study.store import Store, is_kept, summary_of
from prunesearch.study.study import add_to_summary, recording
from prunesearch.trial import Trial
from tests.study.test_study import reseal
from tests.toys import chain_space, trial

SPACE = asdict(chain_space())
AWKWARD = [
    Trial(0, (1, 2, 3), Cost(2**62, 1), 0.1 + 0.2, None, 0.25, "s", "e", "host:1"),
    Trial(1, (1, 2, 4), Cost(1, 2**40), None, "It said: 'no'; DROP TABLE trial;--", 1e-9, "s", "e", "host:2"),
    Trial(2, (), Cost(1, 1), -1e308, None, 0.0, "s", "ü", "host:3"),
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def test_trials_come_out_as_they_went_in_also_after_reopening(url: str) -> None:
    store = Store(url)
    store.create("a", {"seed": 1}, SPACE)
    for each in AWKWARD:
        store.add("a", each)
    assert store.trials("a") == AWKWARD
    store.close()
    again = Store(url, create=False)
    assert again.trials("a") == AWKWARD
    assert again.question("a") == {"seed": 1}
    assert again.studies() == ["a"]
    again.close()


def test_a_score_of_minus_zero_can_be_read_again(url: str) -> None:
    store = Store(url)
    store.create("a", {}, SPACE)
    store.add("a", trial(0, (1,), -0.0))
    assert [found.score for found in store.trials("a")] == [0.0]
    store.close()


def test_studies_of_one_file_do_not_mix(url: str) -> None:
    store = Store(url)
    for name in ("a", "b"):
        store.create(name, {}, SPACE)
    store.add("a", trial(0, (1,), 1.0))
    store.add_to_summary("b", {"accuracy_after": 0.5})
    assert (len(store.trials("a")), len(store.trials("b"))) == (1, 0)
    assert (store.summary("a"), store.summary("b")) == (None, {"accuracy_after": 0.5})
    store.add_to_summary("a", {"score_full": 1.0})
    store.add_to_summary("b", {"score_full": 2.0})
    assert (store.summary("a"), store.summary("b")) == ({"score_full": 1.0}, {"accuracy_after": 0.5, "score_full": 2.0})
    assert store.question("c") is None
    store.close()


def test_what_two_writers_add_to_a_summary_at_the_same_time_is_all_kept(url: str) -> None:
    with closing(Store(url)) as store:
        store.create("a", {}, SPACE)

    def count(key: str) -> None:
        with closing(Store(url)) as mine:
            for _ in range(20):
                mine.change_summary("a", lambda summary: {**summary, key: summary.get(key, 0) + 1})
                mine.change_summary("a", lambda summary: {**summary, "both": summary.get("both", 0) + 1})

    with ThreadPoolExecutor() as threads:
        list(threads.map(count, ("one", "other")))
    with closing(Store(url, create=False)) as store:
        assert store.summary("a") == {"one": 20, "other": 20, "both": 40}


def test_the_outcome_of_a_study_that_was_deleted_is_refused(url: str) -> None:
    with closing(Store(url)) as store, pytest.raises(StudyUnwritable, match=r"Study 'a' .* was deleted meanwhile"):
        store.add_to_summary("a", {"score_full": 1.0})


def test_a_reader_sees_what_is_committed_while_a_writer_is_open(url: str) -> None:
    writer = Store(url)
    writer.create("a", {}, SPACE)
    reader = Store(url, create=False)
    writer.add("a", trial(0, (1,), 1.0))
    assert len(reader.trials("a")) == 1
    reader.close()
    writer.close()


def test_a_store_in_memory_keeps_nothing() -> None:
    store = Store("sqlite://")
    store.create("a", {}, SPACE)
    assert store.studies() == ["a"]
    store.close()
    fresh = Store("sqlite://")
    assert fresh.studies() == []
    fresh.close()


@pytest.mark.parametrize(
    "url", ["", "studies", "postgres:/x.db", "sqlite:///", "mysql://me:secret@server/db", "sqlite:/x.db"]
)
def test_a_url_we_do_not_know_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="Expected a study URL such as") as caught:
        Store(url)
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_not_made_for_a_reader(tmp_path: Path) -> None:
    with pytest.raises(StudyUnreadable, match="There is no study file"):
        Store(f"sqlite:///{tmp_path / 'none.db'}", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_and_one_in_place_of_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyUnreadable, match="does not exist"):
        Store(f"sqlite:///{tmp_path / 'no' / 'x.db'}")
    with pytest.raises(StudyUnreadable, match="is a folder"):
        Store(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize("content", [b"this is not a database, just a text of some length" * 40, b"\x00\xff" * 4096])
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes, create: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StudyUnreadable, match="cannot be read as a study"):
        Store(f"sqlite:///{path}", create=create)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("create table customers (name text)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StudyUnreadable, match=r"another program .*customers.*Nothing was written"):
        Store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_study_of_a_newer_release_is_refused_with_both_versions(tmp_path: Path, url: str) -> None:
    Store(url).close()
    connection = sqlite3.connect(tmp_path / "studies.db")
    connection.execute("update prunesearch_schema set version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(StudyUnreadable, match=f"schema version 99, this release reads 1 to {SCHEMA_VERSION}"):
        Store(url)


@pytest.mark.slow
def test_a_file_that_was_being_made_when_its_process_died_can_be_opened(tmp_path: Path) -> None:
    """The child kills itself before its n-th statement, for every n until it lives."""
    program = """
import os, signal, sys
import sqlalchemy as sa
from prunesearch.study import store
left = int(sys.argv[2])
make = store.Database.engine
def counting(database, *, writing):
    engine = make(database, writing=writing)
    @sa.event.listens_for(engine, "before_cursor_execute")
    def count(*_):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return engine
store.Database.engine = counting
store.Store(sys.argv[1]).create("a", {}, {})
"""
    for n in range(1, 40):
        url = f"sqlite:///{tmp_path / f'{n}.db'}"
        ended = subprocess.run([sys.executable, "-c", program, url, str(n)], check=False).returncode
        with closing(Store(url)) as store:
            if not store.studies():
                store.create("a", {}, SPACE)
            store.add("a", trial(0, (1,), 1.0))
            assert len(store.trials("a")) == 1
        if ended == 0:
            break
    else:
        pytest.fail("the child never lived")
    assert n > 5


def test_a_name_that_looks_like_part_of_a_url_is_a_file_name(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a%20b?mode=ro#c ü.db'}"
    with closing(Store(url)) as store:
        store.create("a", {}, SPACE)
    assert (tmp_path / "a%20b?mode=ro#c ü.db").exists()
    with closing(Store(url, create=False)) as store:
        assert store.studies() == ["a"]


def test_a_database_is_in_wal_mode_so_that_readers_never_block_the_driver(tmp_path: Path, url: str) -> None:
    Store(url).close()
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)


def test_a_write_that_fails_is_a_sentence_and_keeps_what_was_recorded(tmp_path: Path, url: str) -> None:
    store = Store(url)
    store.create("a", {}, SPACE)
    store.add("a", trial(0, (1,), 1.0))
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection:  # as good as a full disk
        connection.execute("create trigger full before insert on trial begin select raise(abort, 'disk is full'); end")
        connection.commit()
    with pytest.raises(StudyUnwritable, match="cannot be written: disk is full"):
        store.add("a", trial(1, (2,), 1.0))
    assert len(store.trials("a")) == 1
    store.close()


EDITS = {
    "a score that is a text": "update trial set score = 'abc'",
    "a score that is infinite": "update trial set score = 9e999",
    "neither score nor failure": "update trial set score = null",
    "both score and failure": "update trial set failure = 'it broke'",
    "a missing trial": "update trial set number = 5",
    "a structure that is none": "update trial set structure = '{'",
    "a structure of floats": "update trial set structure = '[1.5]'",
    "a structure that is an object": "update trial set structure = '{}'",
    "a structure nested too deep": "update trial set structure = replace(hex(zeroblob(100000)), 0, '[')",
    "costs that are no integers": "update trial set macs = 'many'",
    "seconds that are a text": "update trial set seconds = 'soon'",
}


@pytest.mark.parametrize("resealed", [False, True])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_row_that_somebody_edited_is_an_error_and_not_a_wrong_trial(
    tmp_path: Path, url: str, edit: str, resealed: bool
) -> None:
    """Also if the checksum was made to fit."""
    with closing(Store(url)) as store:
        store.create("a", {}, SPACE)
        store.add("a", trial(0, (1,), 1.0))
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection:
        connection.execute(edit)
        connection.commit()
        if resealed:
            reseal(connection)
    with closing(Store(url)) as store, pytest.raises(StudyUnreadable, match="a trial of study 'a' cannot be read"):
        store.trials("a")


@pytest.mark.parametrize("column", ["structure", "macs", "params", "score", "seconds", "searcher", "worker", "error"])
def test_any_edited_value_is_noticed(tmp_path: Path, url: str, column: str) -> None:
    with closing(Store(url)) as store:
        store.create("a", {}, SPACE)
        for number in range(3):
            store.add("a", trial(number, (8,), 1.0))
    value = {"structure": "'[9]'", "searcher": "'other'", "worker": "'other:1'"}.get(column, f"{column} + 1")
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection:
        connection.execute(f"update trial set {column} = {value} where number = 1")
        connection.commit()
    with closing(Store(url)) as store, pytest.raises(StudyUnreadable, match="trial 1 is not as it was written"):
        store.trials("a")


def test_progress_says_how_far_a_study_is_and_which_trial_is_best(url: str) -> None:
    with closing(Store(url)) as store:
        store.create("a", {"seed": 1}, SPACE)
        assert store.progress("b") is None
        for number, score in enumerate([0.5, None, 0.75, 0.75]):
            store.add("a", trial(number, (number + 1,), score))
        lucky = replace(trial(4, (9,), 0.9), error=0.2, images=64, parts=((3, 0.95), (0, 0.85)))
        store.add("a", lucky)
        assert store.trials("a")[4] == lucky
        store.want("a", 20)
        progress = store.progress("a")
    assert progress is not None
    assert (progress.trials, progress.failed, progress.wanted, progress.question) == (5, 1, 20, {"seed": 1})
    assert progress.best == trial(2, (3,), 0.75)  # the earlier of equals


def test_a_study_or_its_end_can_be_deleted(url: str) -> None:
    with closing(Store(url)) as store:
        for name in ("a", "b"):
            store.create(name, {}, SPACE)
            for number in range(4):
                store.add(name, trial(number, (number + 1,), 1.0))
        assert store.delete("a", from_trial=3) == 1
        assert [len(store.trials(name)) for name in ("a", "b")] == [3, 4]
        assert store.delete("a") == 3
        assert store.studies() == ["b"]
        assert store.delete("a") == 0


FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("schema-*.db"))


@pytest.mark.parametrize("fixture", FIXTURES, ids=[path.stem for path in FIXTURES])
def test_a_study_of_every_schema_version_is_read_unchanged_and_upgraded_by_a_driver(
    tmp_path: Path, url: str, fixture: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "studies.db"
    shutil.copy(fixture, path)
    before = path.read_bytes()
    with closing(Store(url, create=False)) as store:
        trials, summary, progress = store.trials("toy"), store.summary("toy"), store.progress("toy")
    assert path.read_bytes() == before
    assert (len(trials), progress is not None and progress.failed) == (12, 1)
    assert (summary or {})["accuracy_after"] == 0.5
    with closing(Store(url)) as store:
        assert store.trials("toy") == trials
        assert store.summary("toy") == summary
        assert store.facts("toy") == []
        store.add_fact("toy", "finetuned", {"reached": 0.9})
        assert [(fact.kind, fact.value) for fact in store.facts("toy")] == [("finetuned", {"reached": 0.9})]
        store.add("toy", trial(12, (1,), 1.0))
    assert ("upgraded from schema version" in caplog.text) is (fixture.stem != f"schema-{SCHEMA_VERSION}")


def test_there_is_a_fixture_of_the_current_schema_version() -> None:
    assert f"schema-{SCHEMA_VERSION}" in [path.stem for path in FIXTURES]


def test_a_file_with_triggers_or_views_is_no_study(tmp_path: Path, url: str) -> None:
    Store(url).close()
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection:
        connection.execute("create trigger t after insert on trial begin delete from trial; end")
    with pytest.raises(StudyUnreadable, match="has views or triggers"):
        Store(url)


def test_a_question_that_somebody_edited_is_an_error_naming_the_file(tmp_path: Path, url: str) -> None:
    with closing(Store(url)) as store:
        store.create("a", {}, SPACE)
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection:
        connection.execute("update study set question = '{'")
        connection.commit()
    with closing(Store(url)) as store, pytest.raises(StudyUnreadable, match=r"studies\.db: study 'a' cannot be read"):
        store.question("a")


def test_whoever_reads_opens_the_database_once_and_makes_none(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, look = list[int](), store_module.look
    assert (is_kept(url), summary_of(url, "a"), is_kept("sqlite://")) == (False, {}, False)
    add_to_summary(url, "a", {"one": 1})
    assert list(tmp_path.iterdir()) == []
    with closing(Store(url)) as store:
        store.create("a", {}, SPACE)
    add_to_summary(url, "a", {"one": 1})
    with recording(url, "a") as store:
        store.add_to_summary("a", {"two": 2})
    monkeypatch.setattr(store_module, "look", lambda database: opened.append(1) or look(database))
    assert summary_of(url, "a") == {"one": 1, "two": 2}
    assert summary_of(url, "another") == {}
    assert len(opened) == 2
