"""F23: locks that are lost while a study is driven, and files that are taken away from under it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from prunesearch.errors import PruneSearchError, StudyLocked, StudyUnwritable
from prunesearch.search import make_searcher
from prunesearch.study.database import parse
from prunesearch.study.executors import InlineExecutor
from prunesearch.study.locks import driving
from prunesearch.study.study import Study
from prunesearch.trial import Trial
from tests.faults.processes import recorded, start, stored, uninterrupted, wait_for
from tests.faults.servers import Postgres
from tests.faults.tally import Tally
from tests.faults.toy import BUDGET, NAME, QUESTION, SPACE, Scorer, history, run

pytestmark = pytest.mark.faults
TRIALS, WHEN = 30, 10
Fault = Callable[[], object]


def drive(url: str, fault: Fault, *, when: int = WHEN) -> list[Trial]:
    """A search to which something is done after some trials."""

    def befall(event: object) -> None:
        if event.trial.number == when - 1:  # type: ignore[attr-defined]
            fault()

    with Study(url, NAME, QUESTION, SPACE) as study:
        return study.run(
            make_searcher("evolution", SPACE, BUDGET, seed=0), InlineExecutor(Scorer(None, 0.0, {})), TRIALS,
            searcher_name="evolution", evaluator_name="toy", callbacks=[befall],
        )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder / "study.db"


@pytest.fixture(params=["PostgreSQL", "PgBouncer, transactions", "PgBouncer, sessions"])
def url(request: pytest.FixtureRequest, postgres: str) -> Iterator[str]:
    """An empty database on a server."""
    yield postgres if request.param == "PostgreSQL" else request.getfixturevalue("poolers")[request.param]
    _sql(postgres, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


def _sql(url: str, *statements: str) -> None:
    engine = parse(url).engine(writing=True)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


def _end_sessions(postgres: str) -> None:
    """As a server does that ends those who say nothing: when this returns, the sessions have ended."""
    ours = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name LIKE 'prunesearch%'"
    engine = parse(postgres).engine(writing=True)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        pids = connection.scalars(sa.text(f"SELECT pid {ours}")).all()
        connection.execute(sa.text("SELECT pg_terminate_backend(pid) FROM unnest(:pids) AS pid"), {"pids": list(pids)})
        left = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:pids)")
        # A signal is only sent above. A statement that meets a session before it obeys would fail.
        end = time.monotonic() + 30
        while connection.scalar(left, {"pids": list(pids)}):
            assert time.monotonic() < end, "the server ends no sessions"
            time.sleep(0.002)
    engine.dispose()


def _follow(url: str) -> None:
    """Another process drives the study to its end."""
    process = start(url, TRIALS)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


def _cut(url: str) -> None:
    """As `prunesearch delete --from-trial 5`."""
    with driving(url, NAME) as store:
        assert store.delete(NAME, from_trial=5) == WHEN - 5


def test_sessions_that_a_server_ends_are_made_again(url: str, postgres: str, tally: Tally) -> None:
    try:
        drive(url, lambda: _end_sessions(postgres))
    except StudyUnwritable:  # a pooler that has not noticed yet hands on what the server said
        assert url != postgres
        assert stored(url) == uninterrupted(WHEN)
        time.sleep(0.5)  # until it has noticed
    assert history(run(url, TRIALS)) == stored(url) == uninterrupted(TRIALS)
    tally.add("F23", "PostgreSQL ends the sessions of a driver, nobody follows: it goes on", 1)


def test_after_its_sessions_were_ended_a_second_driver_is_refused_once_the_first_has_written(
    url: str, postgres: str
) -> None:
    with Study(url, NAME, QUESTION, SPACE) as study:
        _end_sessions(postgres)
        with suppress(StudyUnwritable):  # a pooler
            study.record({"note": 1})
        study.record({"note": 1})
        with pytest.raises(StudyLocked, match=rf"pid {os.getpid()}\b"):
            Study(url, NAME, QUESTION, SPACE)


def _check_is_taken_over(url: str, lose: Callable[[], object], second: Callable[[str], None]) -> None:
    """A driver that loses its lock to a second one ends; what it wrote before is whole, and the study goes on."""

    def lose_and_follow() -> None:
        lose()
        second(url)

    with pytest.raises(StudyLocked, match="taken over by another run"):
        drive(url, lose_and_follow)
    left = stored(url)
    assert left == uninterrupted(TRIALS)[: len(left)]
    assert history(run(url, TRIALS)) == uninterrupted(TRIALS)


@pytest.mark.parametrize("second", [_follow, _cut], ids=["drives it to its end", "deletes its end"])
def test_a_driver_whose_session_ended_writes_nothing_after_a_second_one(
    url: str, postgres: str, tally: Tally, second: Callable[[str], None]
) -> None:
    _check_is_taken_over(url, partial(_end_sessions, postgres), second)
    tally.add("F23", f"PostgreSQL ends the sessions of a driver, and a second one {second.__name__[1:]}s", 1)


def test_a_server_that_restarts_is_noticed(postgres: str, server: Postgres, tally: Tally) -> None:
    def restart() -> None:
        server.stop()
        server.start()

    try:
        assert history(drive(postgres, restart)) == stored(postgres) == uninterrupted(TRIALS)
        with pytest.raises(StudyUnwritable, match="run the same command again") as caught:
            drive_again(postgres, server.stop)
        assert "s3cret" not in str(caught.value)
        server.start()
        assert history(run(postgres, TRIALS + 10)) == uninterrupted(TRIALS + 10)
    finally:
        _sql(postgres, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    tally.add("F23", "PostgreSQL restarts, or stops, under a driver", 2)


def drive_again(url: str, fault: Fault) -> None:
    with Study(url, NAME, QUESTION, SPACE) as study:
        fault()
        study.record({"note": 1})


@pytest.mark.parametrize("setting", ["idle_session_timeout", "idle_in_transaction_session_timeout"])
def test_a_server_that_ends_idle_sessions_neither_ends_a_search_nor_lets_a_second_driver_in(
    postgres: str, tally: Tally, setting: str
) -> None:
    _sql(postgres, f"ALTER ROLE prune SET {setting} = '150ms'")
    try:
        with Study(postgres, NAME, QUESTION, SPACE) as study:
            time.sleep(0.6)
            with pytest.raises(StudyLocked):
                Study(postgres, NAME, QUESTION, SPACE)
            study.record({"note": 1})
            assert study.fact("note") == 1
    finally:
        _sql(postgres, f"ALTER ROLE prune RESET {setting}", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    tally.add("F23", f"{setting} of 0.15 s: the lock stays", 1)


def test_a_copy_restored_under_a_driver_takes_nothing_of_it(postgres: str, tally: Tally) -> None:
    def restore() -> None:
        _sql(
            postgres,
            "UPDATE study SET holder = 'host of long ago, pid 1, 0'",
            "DELETE FROM trial WHERE number >= 4",
        )

    try:
        with pytest.raises(StudyLocked, match="host of long ago"):
            drive(postgres, restore)
        assert stored(postgres) == uninterrupted(4)
    finally:
        _sql(postgres, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    tally.add("F23", "PostgreSQL: an older copy is restored under a driver", 1)


def _delete_lock(path: Path) -> None:
    path.with_name("study.db.lock").unlink()


def _replace_lock(path: Path) -> None:
    path.with_name("study.db.lock").replace(path.with_name("away"))
    path.with_name("study.db.lock").touch()


@pytest.mark.parametrize("lose", [_delete_lock, _replace_lock])
def test_a_lock_file_that_is_taken_away_is_made_again(path: Path, tally: Tally, lose: Callable[[Path], None]) -> None:
    url = f"sqlite:///{path}"
    with Study(url, NAME, QUESTION, SPACE) as study:
        lose(path)
        study.record({"note": 1})
        with pytest.raises(StudyLocked):
            Study(url, NAME, QUESTION, SPACE)
    assert history(drive(url, lambda: lose(path))) == stored(url) == uninterrupted(TRIALS)
    tally.add("F23", "SQLite: the lock file deleted or replaced, nobody follows: it goes on", 1)


@pytest.mark.parametrize("second", [_follow, _cut], ids=["drives it to its end", "deletes its end"])
@pytest.mark.parametrize("lose", [_delete_lock, _replace_lock])
def test_a_driver_whose_lock_file_was_taken_away_writes_nothing_after_a_second_one(
    path: Path, tally: Tally, lose: Callable[[Path], None], second: Callable[[str], None]
) -> None:
    url = f"sqlite:///{path}"

    _check_is_taken_over(url, partial(lose, path), second)
    tally.add("F23", f"SQLite: the lock file is taken away, and a second driver {second.__name__[1:]}s", 1)


def test_a_second_driver_that_still_drives_stops_the_first(path: Path) -> None:
    url = f"sqlite:///{path}"
    held: list[Study] = []

    def lose_and_hold() -> None:
        _delete_lock(path)
        held.append(Study(url, NAME, QUESTION, SPACE))

    with pytest.raises(StudyLocked, match=rf"in use by another run \(host .+, pid {os.getpid()}\)"):
        drive(url, lose_and_hold)
    with pytest.raises(StudyLocked), closing(held[0]):
        Study(url, NAME, QUESTION, SPACE)  # the end of the first one let nobody in
    assert stored(url) == uninterrupted(WHEN)


def _copy_over(path: Path) -> None:
    """A backup that replaces the file, as rsync and editors do."""
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def _turn_link(path: Path) -> None:
    """The folder is a link that comes to point elsewhere."""
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.mkdir()


TAKEN: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "moved": lambda path: path.rename(path.with_name("away.db")),
    "moved to another folder": lambda path: shutil.move(path, path.parents[1] / "study.db"),
    "replaced by a copy": _copy_over,
    "replaced by an empty file": lambda path: (path.unlink(), path.touch()),
    "replaced by a folder": lambda path: (path.unlink(), path.mkdir()),
    "linked": lambda path: os.link(path, path.with_name("second.db")),
    "its log deleted": lambda path: path.with_name("study.db-wal").unlink(),
    "its log moved": lambda path: path.with_name("study.db-wal").rename(path.with_name("w")),
    "its index deleted": lambda path: path.with_name("study.db-shm").unlink(),
    "all of them deleted": lambda path: [each.unlink() for each in path.parent.iterdir()],
    "its folder moved": lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
    "its folder deleted": lambda path: shutil.rmtree(path.parent),
    "its folder replaced": _turn_link,
}


@pytest.mark.parametrize("when", [1, WHEN, TRIALS - 1])
@pytest.mark.parametrize("fault", TAKEN.values(), ids=TAKEN)
def test_a_file_that_is_taken_from_under_a_driver_is_noticed_at_the_next_write(
    path: Path, tally: Tally, fault: Callable[[Path], object], when: int
) -> None:
    seen: list[int] = []

    def count(event: object) -> None:
        seen.append(event.trial.number)  # type: ignore[attr-defined]
        if len(seen) == when:
            fault(path)

    with (
        pytest.raises(StudyUnwritable, match=r"study\.db") as caught,
        Study(f"sqlite:///{path}", NAME, QUESTION, SPACE) as study,
    ):
        study.run(
            make_searcher("evolution", SPACE, BUDGET, seed=0), InlineExecutor(Scorer(None, 0.0, {})), TRIALS,
            searcher_name="evolution", evaluator_name="toy", callbacks=[count],
        )  # fmt: skip
    assert len(seen) == when
    assert "deleted, moved or replaced" in str(caught.value) or "hard links" in str(caught.value)
    tally.add("F23", "SQLite: a file is deleted, moved, replaced or linked under a driver", 1)


def test_a_file_that_is_gone_at_the_end_is_no_success(path: Path) -> None:
    with pytest.raises(StudyUnwritable, match="deleted, moved or replaced"):
        drive(f"sqlite:///{path}", path.unlink, when=TRIALS)


def test_a_second_name_of_a_file_opens_no_study(path: Path, tally: Tally) -> None:
    run(f"sqlite:///{path}", 3)
    os.link(path, path.with_name("second.db"))
    for name in ("study.db", "second.db"):
        with pytest.raises(StudyUnwritable, match="2 names"):
            run(f"sqlite:///{path.with_name(name)}", 5)
    path.with_name("second.db").unlink()
    assert history(run(f"sqlite:///{path}", 5)) == uninterrupted(5)
    tally.add("F23", "SQLite: a file with two names is refused", 2)


def test_a_link_and_its_target_are_one_study(path: Path) -> None:
    run(f"sqlite:///{path}", 3)
    path.with_name("link.db").symlink_to(path)
    with Study(f"sqlite:///{path}", NAME, QUESTION, SPACE), pytest.raises(StudyLocked):
        Study(f"sqlite:///{path.with_name('link.db')}", NAME, QUESTION, SPACE)
    assert history(run(f"sqlite:///{path.with_name('link.db')}", 5)) == uninterrupted(5)


def test_a_copy_written_over_the_file_leaves_no_wrong_history(path: Path, tally: Tally) -> None:
    """The same file, other content: what SQLite makes of it is an error, or right."""
    url = f"sqlite:///{path}"
    run(url, 4)
    old = path.read_bytes()
    with suppress(PruneSearchError):
        drive(url, lambda: path.write_bytes(old))
    tally.add("F23", "SQLite: an older copy is written over the file under a driver", 1)
    try:
        found = stored(url)
    except PruneSearchError:
        return
    assert found == uninterrupted(TRIALS)[: len(found)]


def test_an_older_study_put_back_through_sqlite_takes_nothing_of_its_driver(path: Path) -> None:
    """As `sqlite3 study.db ".restore old.db"` does."""
    url = f"sqlite:///{path}"
    run(url, 4)
    with closing(sqlite3.connect(path)) as now, closing(sqlite3.connect(path.with_name("old.db"))) as old:
        now.backup(old)

    def restore() -> None:
        with closing(sqlite3.connect(path)) as now, closing(sqlite3.connect(path.with_name("old.db"))) as old:
            old.backup(now)

    with pytest.raises(StudyLocked, match="taken over"):
        drive(url, restore)
    assert stored(url) == uninterrupted(4)


def test_a_search_on_the_command_line_whose_study_is_deleted_does_not_end_in_success(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    process = start(f"sqlite:///{path}", 100_000, seconds=0.002)
    wait_for(f"sqlite:///{path}", 3, process)
    path.unlink()
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "StudyUnwritable" in said


def test_a_driver_may_change_its_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    assert history(drive("sqlite:///study.db", lambda: os.chdir("/"))) == uninterrupted(TRIALS)


def test_a_child_that_is_forked_off_a_driver_keeps_no_lock(path: Path) -> None:
    """As data loaders fork; the child outlives the driver."""
    program = (
        "import os, sys, time; from prunesearch.study.study import Study; from tests.faults.toy import *\n"
        "study = Study(sys.argv[1], NAME, QUESTION, SPACE)\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True); os.kill(os.getpid(), 9)\n"
        "time.sleep(30)"
    )
    url = f"sqlite:///{path}"
    driver = subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    child = int(driver.stdout.readline())
    driver.wait()
    try:
        assert recorded(url) == 0
        run(url, 3)
    finally:
        os.kill(child, 9)
        driver.stdout.close()
