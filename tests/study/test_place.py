"""A study whose files or lock are taken away, and another driver that comes in between."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from prunesearch.errors import StudyLocked, StudyUnwritable
from prunesearch.study.locks import driving
from prunesearch.study.store import Store
from tests.toys import trial


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "place" / "study.db"
    path.parent.mkdir()
    with closing(Store(f"sqlite:///{path}")) as store:
        store.create("a", {}, {})
    return path


TAKEN: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "replaced": lambda path: (path.unlink(), path.touch()),
    "linked": lambda path: os.link(path, path.with_name("second.db")),
    "its log deleted": lambda path: path.with_name("study.db-wal").unlink(),
    "its folder moved": lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
}


@pytest.mark.parametrize("fault", TAKEN.values(), ids=TAKEN)
def test_a_file_that_is_taken_away_is_noticed_at_the_next_write(path: Path, fault: Callable[[Path], object]) -> None:
    with driving(f"sqlite:///{path}", "a") as store:
        store.add("a", trial(0, (1,), 1.0))
        fault(path)
        with pytest.raises(StudyUnwritable, match=r"deleted, moved or replaced|hard links"):
            store.add("a", trial(1, (1,), 1.0))


def test_a_lock_file_that_is_taken_away_is_made_again(path: Path) -> None:
    with driving(f"sqlite:///{path}", "a") as store:
        path.with_name("study.db.lock").unlink()
        store.add("a", trial(0, (1,), 1.0))
        with pytest.raises(StudyLocked, match="in use by another run"), driving(f"sqlite:///{path}", "a"):
            pytest.fail("two had the lock")


def test_nothing_is_written_after_another_driver_came(path: Path) -> None:
    with driving(f"sqlite:///{path}", "a") as store:
        store.add("a", trial(0, (1,), 1.0))
        path.with_name("study.db.lock").unlink()
        with driving(f"sqlite:///{path}", "a") as other:
            other.delete("a", from_trial=0)
            other.create("a", {}, {})
        for write in (
            lambda: store.add("a", trial(1, (1,), 1.0)),
            lambda: store.want("a", 3),
            lambda: store.add_to_summary("a", {"accuracy": 1}),
            lambda: store.delete("a"),
        ):
            with pytest.raises(StudyLocked, match=rf"taken over by another run \(host .+, pid {os.getpid()}\)"):
                write()
        assert store.trials("a") == []


@pytest.mark.parametrize("number", [0, 2])
def test_a_trial_is_recorded_only_after_the_one_before(path: Path, number: int) -> None:
    with driving(f"sqlite:///{path}", "a") as store:
        store.add("a", trial(0, (1,), 1.0))
        with pytest.raises(StudyUnwritable, match=f"Trial {number} .* does not follow the last one"):
            store.add("a", trial(number, (1,), 1.0))
        assert len(store.trials("a")) == 1
