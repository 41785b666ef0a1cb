"""The database: what goes in comes out, and what is not ours is left alone."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from pathlib import Path

import pytest

from prunesearch.errors import StudyUnreadable
from prunesearch.structure import Cost
from prunesearch.study.store import Store
from prunesearch.trial import Trial
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


def test_studies_of_one_file_do_not_mix(url: str) -> None:
    store = Store(url)
    for name in ("a", "b"):
        store.create(name, {}, SPACE)
    store.add("a", trial(0, (1,), 1.0))
    store.set_summary("b", {"accuracy_after": 0.5})
    assert (len(store.trials("a")), len(store.trials("b"))) == (1, 0)
    assert (store.summary("a"), store.summary("b")) == (None, {"accuracy_after": 0.5})
    assert store.question("c") is None
    store.close()


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


@pytest.mark.parametrize("url", ["", "studies.db", "sqlite:///", "postgresql://me:secret@server/db", "sqlite:/x.db"])
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
    with pytest.raises(StudyUnreadable, match="schema version 99, this release reads 1"):
        Store(url)


def test_a_damaged_row_is_an_error_and_not_a_wrong_trial(tmp_path: Path, url: str) -> None:
    store = Store(url)
    store.create("a", {}, SPACE)
    store.add("a", trial(0, (1,), 1.0))
    store.close()
    connection = sqlite3.connect(tmp_path / "studies.db")
    connection.execute("update trial set structure = '[1, \"x'")
    connection.commit()
    connection.close()
    again = Store(url)
    with pytest.raises(StudyUnreadable, match="a trial of study 'a' cannot be read"):
        again.trials("a")
    again.close()
