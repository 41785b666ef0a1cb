"""F3, F4, F16, F17, F19: what can happen to a file, a disk, a clock."""

from __future__ import annotations

import os
import random
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from prunesearch.errors import PruneSearchError, StudyUnreadable, StudyUnwritable
from prunesearch.study.store import Store
from tests.faults.processes import finish, recorded, start, stored, uninterrupted, wait_for
from tests.faults.tally import Tally
from tests.faults.toy import history, run

pytestmark = pytest.mark.faults
TRIALS = 40


@pytest.fixture
def torn(tmp_path: Path) -> tuple[Path, bytes, bytes]:
    """A database whose driver was killed: the file, its content and that of its write-ahead log."""
    path = tmp_path / "torn.db"
    process = start(f"sqlite:///{path}", 100_000, seconds=0.001)
    wait_for(f"sqlite:///{path}", TRIALS, process)
    process.kill()
    process.communicate()
    return path, path.read_bytes(), path.with_name("torn.db-wal").read_bytes()


def put(path: Path, main: bytes, log: bytes) -> None:
    for name in ("torn.db-shm", "torn.db-wal", "torn.db.lock"):
        path.with_name(name).unlink(missing_ok=True)
    path.write_bytes(main)
    path.with_name("torn.db-wal").write_bytes(log)


def check_damaged(path: Path, whole: list[object]) -> int | None:
    """A damaged database opens with a prefix of what was recorded, or is refused; return how many, None if refused."""
    try:
        found = stored(f"sqlite:///{path}")
    except PruneSearchError:
        return None
    assert found == whole[: len(found)]
    return len(found)


def test_a_log_torn_at_any_byte_of_its_end_costs_only_what_is_torn_and_the_study_goes_on(
    torn: tuple[Path, bytes, bytes], tally: Tally
) -> None:
    path, main, log = torn
    whole = uninterrupted(400)
    put(path, main, log)
    intact = check_damaged(path, whole)
    assert intact is not None
    frame = 24 + 4096
    lengths = [*range(1, frame + 1, 41), *range(frame - 30, frame + 30), len(log) // 2, len(log) - 1, len(log)]
    lost = 0
    for length in lengths:
        put(path, main, log[: len(log) - length])
        left = check_damaged(path, whole)
        if left is not None:
            lost = max(lost, intact - left) if length <= frame else lost
    put(path, main, log[:-1])
    assert history(run(f"sqlite:///{path}", 60))[:40] == whole[:40]  # goes on, and can be read again
    assert stored(f"sqlite:///{path}")[:40] == whole[:40]
    assert lost <= 1
    tally.add("F3", "write-ahead log torn at the end, up to a record: only the torn trial", len(lengths), lost=lost)


def test_a_flipped_bit_anywhere_never_changes_a_trial(torn: tuple[Path, bytes, bytes], tally: Tally) -> None:
    path, _, _ = torn
    run(f"sqlite:///{path}", 1)  # closing moves everything into the main file
    main, rng = path.read_bytes(), random.Random(0)
    whole = stored(f"sqlite:///{path}")
    places = [rng.randrange(len(main)) for _ in range(600)]
    refused = 0
    for place in places:
        damaged = bytearray(main)
        damaged[place] ^= 1 << rng.randrange(8)
        put(path, bytes(damaged), b"")
        refused += check_damaged(path, whole) is None
    assert refused
    tally.add("F3", f"one bit flipped in the database: refused {refused} times, otherwise unchanged", len(places))


def test_a_truncated_database_is_refused_or_right(torn: tuple[Path, bytes, bytes], tally: Tally) -> None:
    path, _, _ = torn
    run(f"sqlite:///{path}", 1)
    main = path.read_bytes()
    whole = stored(f"sqlite:///{path}")
    lengths = [*range(0, 600, 37), *range(600, len(main), 811)]
    for length in lengths:
        put(path, main[:length], b"")
        check_damaged(path, whole)
    tally.add("F3", "database cut off: refused, or right", len(lengths))


@contextmanager
def a_full_disk() -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = Path(tempfile.mkdtemp())
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    )
    try:
        if not mounted:
            pytest.skip("this user may not mount a file system")
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)  # what maps a file may hold it a moment longer
        folder.rmdir()


def test_a_disk_that_is_full_stops_with_a_sentence_and_the_search_goes_on_when_there_is_space(tally: Tally) -> None:
    with a_full_disk() as folder:
        url = f"sqlite:///{folder / 'study.db'}"
        process = start(url, TRIALS, seconds=0.02)
        wait_for(url, 10, process)
        with (folder / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        _, said = process.communicate()
        assert process.returncode != 0
        assert "StudyUnwritable" in said, said
        assert "run the same command again" in said
        _, said = start(url, TRIALS).communicate()
        assert "heck the disk" in said, said
        (folder / "ballast").unlink()
        now = recorded(url)
        assert now >= 10
        assert stored(url) == uninterrupted(TRIALS)[:now]
        finish(start(url, TRIALS))
        assert stored(url) == uninterrupted(TRIALS)
    tally.add("F4", "full disk (a file system of 1 MB)", 1)


def test_a_write_that_the_system_refuses_at_any_size_leaves_no_partial_record(tmp_path: Path, tally: Tally) -> None:
    """The limit on the size of files makes a write fail in the middle, as a quota does."""
    whole, url = uninterrupted(TRIALS), f"sqlite:///{tmp_path / 'study.db'}"
    limits, lost, seen = list(range(40_000, 200_000, 13_000)), 0, 0
    for limit in limits:
        command = [sys.executable, "-m", "tests.faults.toy", url, str(TRIALS), ""]
        subprocess.run(
            command, capture_output=True, check=False,
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),  # type: ignore[misc]
        )  # fmt: skip
        now = recorded(url)
        lost += max(0, seen - now)
        seen = now
        if now:
            assert stored(url) == whole[:now]
    finish(start(url, TRIALS))
    assert stored(url) == whole
    assert lost == 0
    tally.add("F4", "writes refused beyond a size of file", len(limits), lost=lost)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """For root, who may write into any folder, a file system that is mounted so."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    else:
        folder.chmod(0o555)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        else:
            folder.chmod(0o755)


def test_a_read_only_folder_is_refused_with_a_sentence_and_can_be_watched(tmp_path: Path, tally: Tally) -> None:
    with a_full_disk() if os.geteuid() == 0 else nullcontext(tmp_path) as folder:
        url = f"sqlite:///{folder / 'study.db'}"
        run(url, 10)
        with read_only(folder):
            assert recorded(url) == 10
            with pytest.raises(StudyUnwritable):
                run(url, 20)
        assert history(run(url, 20)) == uninterrupted(20)
    tally.add("F4", "read-only folder: refused; `status` works", 1)


HOSTILE = {
    "a structure nested a million deep": "update trial set structure = '{deep}'",
    "a question nested a million deep": "update study set question = '{deep}'",
    "a pickle in place of a structure": "update trial set structure = x'80049521000000000000008c0270'",
    "a pickle in place of a question": "update study set question = x'80049521000000000000008c0270'",
    "code in place of a structure": 'update trial set structure = \'__import__("os").system("touch HACKED")\'',
    "a number of ten thousand digits": "update trial set structure = '[' || replace(hex(zeroblob(5000)), 0, 9) || ']'",
    "a width that is infinite": "update trial set structure = '[Infinity, 1, 1]'",
    "a structure that is an object": "update trial set structure = '{{}}'",
    "costs beyond every integer": "update trial set macs = 1e300",
    "a text in place of seconds": "update trial set seconds = 'soon'",
    "a list in place of a question": "update study set question = '[1]'",
    "a view in place of the trials": "alter table trial rename to t; create view trial as select * from t, t as u",
    "a trigger that deletes": "create trigger t after insert on trial begin delete from trial; end",
}


@pytest.mark.parametrize("statement", HOSTILE.values(), ids=HOSTILE)
def test_a_file_made_to_do_harm_is_an_error_with_a_sentence_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, statement: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.db"
    run(f"sqlite:///{path}", 3)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statement.format(deep="[" * 1_000_000))
    with pytest.raises(PruneSearchError):
        run(f"sqlite:///{path}", 5)
    assert not (tmp_path / "HACKED").exists()
    tally.add("F16", "hostile rows and tables in a study file", 1)


def test_time_zones_clocks_and_host_names_may_change_and_folders_may_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    whole, folder = uninterrupted(TRIALS), tmp_path / "first"
    folder.mkdir()
    run(f"sqlite:///{folder / 'study.db'}", 10)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    run(f"sqlite:///{folder / 'study.db'}", 15)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # 1970
    monkeypatch.setattr(socket, "gethostname", lambda: "another-host")
    run(f"sqlite:///{folder / 'study.db'}", 20)
    shutil.copytree(folder, tmp_path / "copy")
    shutil.move(folder, tmp_path / "second place")
    for place in ("copy", "second place"):
        url = f"sqlite:///{tmp_path / place / 'study.db'}"
        trials = run(url, TRIALS)
        assert history(trials) == whole
        assert all(trial.seconds >= 0 for trial in trials)
    monkeypatch.undo()
    time.tzset()
    tally.add("F17", "time zone, clock and host name changed, folder copied and moved", 5)


@pytest.mark.parametrize("fixture", sorted((Path(__file__).parents[1] / "study" / "fixtures").glob("*.db")))
def test_a_study_of_every_schema_version_is_read_as_it_is_and_upgraded_by_a_driver(
    tmp_path: Path, fixture: Path, tally: Tally
) -> None:
    path = tmp_path / "old.db"
    shutil.copy(fixture, path)
    before = path.read_bytes()
    with closing(Store(f"sqlite:///{path}", create=False)) as store:
        trials = store.trials("toy")
    assert len(trials) == 12
    assert path.read_bytes() == before
    with closing(Store(f"sqlite:///{path}")) as store:
        assert store.trials("toy") == trials
    tally.add("F19", f"{fixture.name}: read, and upgraded", 1)


def test_a_study_of_a_newer_release_is_refused(tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "new.db"
    run(f"sqlite:///{path}", 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("update prunesearch_schema set version = 99")
        connection.commit()
    with pytest.raises(StudyUnreadable, match="schema version 99"):
        run(f"sqlite:///{path}", 2)
    tally.add("F19", "a newer schema version: refused", 1)
