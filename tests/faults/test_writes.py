"""F24: writes that fail, full disks, kills in the middle: whole or not at all, for every writer."""

from __future__ import annotations

import csv
import errno
import gc
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import prunesearch as ps
from prunesearch.errors import PruneSearchError
from prunesearch.models import export
from prunesearch.models.export import _write, export_program
from prunesearch.models.hypernet import PruningNet
from prunesearch.models.hypernet_file import load_pruningnet, save_pruningnet
from prunesearch.report import write_report
from prunesearch.study.optuna_export import export_to_optuna
from prunesearch.study.store import Store
from prunesearch.study.tables import write_table
from prunesearch.training.checkpoint import CheckpointFile, Snapshot
from tests.faults.tally import Tally
from tests.faults.test_files import a_full_disk, read_only
from tests.faults.toy import NAME, run
from tests.fuzz.readers import Net, _network
from tests.toys import chain_space, toy_table

pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore")]


@dataclass(frozen=True)
class Writer:
    """A way to write a file.

    Attributes:
        name: The file's.
        write: Writes it.
        read: Raises if it is not whole.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]


_QUESTION = {"seed": 0}


def _checkpoint(path: Path) -> None:
    with CheckpointFile(path, _QUESTION) as file:
        file.write(Snapshot(Net().state_dict(), {"epoch": 1}))


def _read_checkpoint(path: Path) -> None:
    with CheckpointFile(path, _QUESTION, writes=False) as file:
        assert file.read() is not None


def _from_study(write: Callable[[Store, Path], object]) -> Callable[[Path], object]:
    """A writer of a small study's content."""

    def apply(path: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run(f"sqlite:///{folder}/study.db", 12)
            with closing(Store(f"sqlite:///{folder}/study.db", create=False)) as store:
                write(store, path)

    return apply


def _report(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(f"sqlite:///{folder}/study.db", 12)
        write_report(f"sqlite:///{folder}/study.db", path)


@cache
def _exported_to_onnx() -> Any:
    """What takes seconds, and writes nothing."""
    pytest.importorskip("onnxscript")
    return torch.onnx.export(_program(), dynamo=True, verbose=False)


@cache
def _program() -> torch.export.ExportedProgram:
    return export_program(Net(), torch.zeros(2, 2, 6, 6))


def _write_program(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export_program", lambda *_: _program())
        export.write_program(Net(), path, torch.zeros(2, 2, 6, 6))


def _read_csv(path: Path) -> None:
    with path.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12


def _read_parquet(path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(path).num_rows == 12


def _read_onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load(path))


def _read_page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


WRITERS = (
    Writer("net.safetensors", lambda path: ps.save(Net(), path), lambda path: ps.load(path, Net())),
    Writer(
        "pruningnet.safetensors",
        lambda path: save_pruningnet(PruningNet(_network(), hidden=4, rank=2), path),
        lambda path: load_pruningnet(path, _network()),
    ),
    Writer("run.checkpoint", _checkpoint, _read_checkpoint),
    Writer("table.json", lambda path: toy_table(chain_space()).save(path), ps.LatencyTable.load),
    Writer("net.onnx", lambda path: _write(path, _exported_to_onnx().save), _read_onnx),
    Writer("net.pt2", lambda path: _write_program(path), torch.export.load),
    Writer("trials.csv", _from_study(lambda store, path: write_table(store, NAME, path)), _read_csv),
    Writer("trials.parquet", _from_study(lambda store, path: write_table(store, NAME, path)), _read_parquet),
    Writer("report.html", _report, _read_page),
)
every_writer = pytest.mark.parametrize("writer", WRITERS, ids=[writer.name for writer in WRITERS])
CALLS = ("open", "fsync", "replace", "chmod")


@contextmanager
def failing(call: str, n: int, folder: Path, number: int = errno.ENOSPC) -> Iterator[list[str]]:
    """Let the n-th call of a function of `os`, counted from 0 and in one folder, fail; give those that were made."""
    real, made = getattr(os, call), []

    def wrapped(*arguments: Any, **others: Any) -> Any:
        first = arguments[0]
        place = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else os.fspath(first)
        if str(place).startswith(str(folder)) and not str(place).endswith(".lock"):
            made.append(str(place))
            if len(made) == n + 1:
                raise OSError(number, os.strerror(number), first if not isinstance(first, int) else None)
        return real(*arguments, **others)

    setattr(os, call, wrapped)
    try:
        yield made
    finally:
        setattr(os, call, real)


def refused(writer: Writer, path: Path) -> str | None:
    """What is said if a file cannot be written, which names the file and no draft; None if it was written."""
    try:
        writer.write(path)
    except (PruneSearchError, OSError) as error:
        said = str(error)
    else:
        return None
    assert writer.name in said
    assert "draft" not in said
    return said


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may become larger, as a quota has it: a write fails in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FROM_FILES = [writer for writer in WRITERS if not writer.name.startswith(("trials", "report"))]  # and not from studies


@pytest.mark.parametrize("writer", FROM_FILES, ids=[writer.name for writer in FROM_FILES])
def test_a_write_that_fails_at_any_size_leaves_the_file_as_it_was(writer: Writer, tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / writer.name
    writer.write(path)
    before = path.read_bytes()
    sizes = [0, 1, 7, 100, len(before) // 3, len(before) // 2, len(before) - 1]
    for size in sizes:
        with limited(size):
            assert refused(writer, path)
        assert path.read_bytes() == before
        assert [left for left in os.listdir(tmp_path) if "draft" in left] == []
    tally.add("F24", f"{writer.name}: a write fails in the middle", len(sizes))


@every_writer
@pytest.mark.parametrize("exists", [False, True], ids=["new", "replaced"])
def test_whichever_call_fails_the_file_is_whole_or_as_before_and_the_error_names_it(
    writer: Writer, exists: bool, tmp_path: Path, tally: Tally
) -> None:
    path, tries = tmp_path / writer.name, 0
    for call in CALLS:
        for n in range(8):
            path.unlink(missing_ok=True)
            if exists:
                writer.write(path)
            before = path.read_bytes() if exists else None
            with failing(call, n, tmp_path) as made:
                error = refused(writer, path)
            assert (error is None) == (len(made) <= n)
            if error is not None and call in ("replace", "chmod"):  # the others are called after the rename, too
                assert (path.read_bytes() if path.exists() else None) == before
            if path.exists():
                writer.read(path)
            assert [left for left in os.listdir(tmp_path) if "draft" in left] == []
            tries += 1
            if len(made) <= n:
                break
    tally.add("F24", f"{writer.name}: the n-th open, sync, rename or chmod fails", tries)


@every_writer
def test_a_full_disk_leaves_the_file_as_it_was_and_the_error_names_it(writer: Writer, tally: Tally) -> None:
    with a_full_disk() as folder:
        path = folder / writer.name
        writer.write(path)
        before = path.read_bytes()
        with (folder / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1024))
        with pytest.raises((PruneSearchError, OSError), match=writer.name.replace(".", r"\.")):
            writer.write(path)
        assert path.read_bytes() == before
        assert sorted(left for left in os.listdir(folder) if not left.endswith(".lock")) == ["ballast", writer.name]
        (folder / "ballast").unlink()
        writer.write(path)
        writer.read(path)
    tally.add("F24", f"{writer.name}: the disk is full", 1)


@every_writer
def test_a_read_only_folder_is_an_error_that_names_the_file(writer: Writer, tally: Tally) -> None:
    with a_full_disk() as folder, read_only(folder), pytest.raises((PruneSearchError, OSError), match=writer.name[:6]):
        writer.write(folder / writer.name)
    tally.add("F24", f"{writer.name}: the folder is read-only", 1)


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.faults.test_writes import CALLS, WRITERS
def killing(call, n):
    real, made = getattr(os, call), []
    def wrapped(first, *others, **named):
        place = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else os.fspath(first)
        if str(place).startswith(sys.argv[1]) and not str(place).endswith(".lock"):
            made.append(place)
            if len(made) == n + 1:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(first, *others, **named)
    return wrapped
kills = 0
for writer in WRITERS:
    if writer.name not in sys.argv[2:]:
        continue
    path = Path(sys.argv[1]) / writer.name
    for call in CALLS:
        for n in range(4):
            child = os.fork()
            if not child:
                setattr(os, call, killing(call, n))
                writer.write(path)
                os._exit(0)
            killed = os.waitpid(child, 0)[1] != 0
            kills += killed
            if path.exists():
                writer.read(path)
            if not killed:
                break
    writer.write(path)
    writer.read(path)
print(kills)
"""


def test_a_kill_at_any_call_leaves_a_whole_file_or_none_and_it_can_be_run_again(tmp_path: Path, tally: Tally) -> None:
    names = ["net.safetensors", "run.checkpoint", "table.json", "trials.csv", "pruningnet.safetensors"]
    command = [sys.executable, "-W", "ignore", "-c", _KILLED, str(tmp_path), *names]
    kills = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert kills >= 3 * len(names)
    tally.add("F24", "killed at the n-th open, sync, rename or chmod, and run again", kills)


@pytest.mark.parametrize("kill_at", [1, 5, 12])
def test_an_export_to_optuna_that_is_killed_leaves_no_study_and_can_be_run_again(
    tmp_path: Path, tally: Tally, kill_at: int
) -> None:
    import optuna

    url, target = f"sqlite:///{tmp_path / 'study.db'}", f"sqlite:///{tmp_path / 'optuna.db'}"
    run(url, 12)
    with closing(Store(url, create=False)) as store:
        export_to_optuna(store, NAME, target.replace("optuna.db", "other.db"))
    program = (
        "import os, signal, sys, optuna; from contextlib import closing\n"
        "from prunesearch.study.store import Store; from prunesearch.study.optuna_export import export_to_optuna\n"
        "add, made = optuna.study.Study.add_trial, []\n"
        "def killed(self, trial):\n"
        "    made.append(trial)\n"
        "    if len(made) == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    add(self, trial)\n"
        "optuna.study.Study.add_trial = killed\n"
        "with closing(Store(sys.argv[1], create=False)) as store: export_to_optuna(store, 'toy', sys.argv[2])"
    )
    ended = subprocess.run([sys.executable, "-c", program, url, target, str(kill_at)], check=False).returncode
    assert ended == -signal.SIGKILL
    names = optuna.get_all_study_names(storage=target)
    assert NAME not in names
    with closing(Store(url, create=False)) as store:
        assert export_to_optuna(store, NAME, target) == 12
    assert optuna.get_all_study_names(storage=target) == [NAME]
    assert len(optuna.load_study(study_name=NAME, storage=target).trials) == 12
    tally.add("F24", "an export to Optuna: killed, and run again", 1)


def test_an_export_to_optuna_on_a_full_disk_is_an_error_and_leaves_no_study(tally: Tally, tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path / 'study.db'}"
    run(url, 12)
    with a_full_disk() as folder, closing(Store(url, create=False)) as store:
        target = f"sqlite:///{folder / 'optuna.db'}"
        optuna.create_study(storage=target, study_name="other")
        with (folder / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1024))
        with pytest.raises(PruneSearchError, match=r"optuna\.db"):
            export_to_optuna(store, NAME, target)
        (folder / "ballast").unlink()
        assert optuna.get_all_study_names(storage=target)[0] == "other"
        assert NAME not in optuna.get_all_study_names(storage=target)
        assert export_to_optuna(store, NAME, target) == 12
        gc.collect()  # Optuna's connections, which keep the disk busy
    tally.add("F24", "an export to Optuna: the disk is full", 1)


def test_a_log_for_tensorboard_that_cannot_be_written_ends_no_search(
    tally: Tally, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    with a_full_disk() as folder:
        logger = ps.TensorBoardLogger(folder / "log")
        (folder / "ballast").write_bytes(b"")
        with (folder / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1024))
        result = ps.search(
            _network(), (torch.zeros(64, 2, 6, 6), torch.arange(64) % 3), budget="macs=80%", searcher="random",
            n_trials=12, running=ps.Running(callbacks=[logger]),
        )  # fmt: skip
        assert len(result.trials) == 12
        del logger
    assert "cannot be written, and is given up" in caplog.text
    tally.add("F24", "TensorBoard's log on a full disk: the search goes on", 1)


def test_a_training_goes_on_without_the_log_that_it_cannot_write(
    tmp_path: Path, tally: Tally, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    data = ps.Data(train=(torch.randn(64, 2, 6, 6), torch.arange(64) % 3), validation=0.25)
    (tmp_path / "metrics.csv").mkdir()
    log = ps.Log(tmp_path, trackers=("csv",))
    result = ps.finetune(Net(), data, recipe=ps.Recipe(epochs=3, batch_size=16), log=log)
    assert isinstance(result, (nn.Module, ps.Training))
    assert "log of this training cannot be written" in caplog.text
    tally.add("F24", "a training's log that cannot be written: it goes on", 1)
