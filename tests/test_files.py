"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

import prunesearch as ps
from prunesearch.cli import main
from prunesearch.files import check_is_writable_file, remove_drafts, whole, write_text

posix = pytest.mark.skipif(os.name == "nt", reason="of POSIX")


def test_what_fails_leaves_the_file_that_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with whole(path) as draft:
            draft.write_text("ha")
            raise OSError(errno.ENOSPC, "No space left on device", str(draft))

    with pytest.raises(OSError, match="No space left") as caught:
        fail()
    assert caught.value.filename == str(path)  # not the draft, of which nobody knows
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nobody_sees_a_file_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole(path) as draft:
        draft.write_text("new")
        assert not path.exists()
        assert draft.suffix == path.suffix
    assert path.read_text() == "new"


def test_only_the_drafts_of_this_very_file_are_removed(tmp_path: Path) -> None:
    with whole(tmp_path / "[a].st.checkpoint") as other, whole(tmp_path / "[a].st") as mine:
        (tmp_path / ".draft-x").touch()
        remove_drafts(tmp_path / "[a].st")
        assert not mine.exists()
        assert other.exists()
        mine.touch()
    assert {file.name for file in tmp_path.iterdir()} == {".draft-x", "[a].st", "[a].st.checkpoint"}


@posix
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target.txt", tmp_path / "link.txt"
    if exists:
        target.write_text("old")
    link.symlink_to(Path("there") / "target.txt")
    again = tmp_path / "again.txt"
    again.symlink_to(link)
    write_text(again, "new")
    assert again.is_symlink()
    assert link.is_symlink()
    assert not target.is_symlink()
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["target.txt"]


@posix
def test_a_link_to_itself_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        write_text(tmp_path / "loop", "new")
    assert (tmp_path / "loop").is_symlink()


@contextmanager
def special(path: Path, kind: str) -> Iterator[Path]:
    """Something that is no ordinary file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "folder":
        path.mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        if kind == "socket":
            made.bind(str(path))
        yield path


@posix
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
def test_devices_pipes_and_folders_are_refused_and_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets must be short
    with special(Path("a.safetensors"), kind) as path:
        before = os.lstat(path)
        with pytest.raises(ValueError, match=rf"a\.safetensors is a {kind}"):
            write_text(path, "new")
        with pytest.raises(ps.CheckpointError, match=rf"a\.safetensors .*is a {kind}"):
            ps.save(nn.Conv2d(1, 2, 3), path)
        with pytest.raises(SystemExit) as ended:
            main(["finetune", "--model", "zoo:resnet8", "--data", "digits", "--out", str(path)])
        assert ended.value.code == 2
        assert f"a.safetensors is a {kind}" in capsys.readouterr().err
        assert os.path.samestat(os.lstat(path), before)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@posix
@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/fd/1"])
def test_devices_of_the_system_are_refused(name: str) -> None:
    if stat.S_ISREG(os.stat(name).st_mode):
        pytest.skip("stdout is a file here")
    with pytest.raises(ValueError, match="expected a file"):
        check_is_writable_file(Path(name))


def test_writers_with_equal_process_ids_never_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers that share a folder, in each of which the process has number 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "a.txt"
    with whole(path) as first, whole(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_draft_that_is_there_already_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0" * 16)
    with whole(tmp_path / "a.txt") as draft:
        draft.write_text("first")
        with pytest.raises(FileExistsError, match=r"a\.txt"), whole(tmp_path / "a.txt"):
            pytest.fail("two had one draft")


def test_many_threads_write_one_file_and_it_is_one_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    texts = [str(n) * 5000 for n in range(8)]
    threads = [threading.Thread(target=lambda text=text: [write_text(path, text) for _ in range(5)]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["a.txt"]


@posix
@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600), (0o007, 0o660)])
def test_new_files_have_the_permissions_that_the_mask_of_the_process_says(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "")
        ps.save(nn.Conv2d(1, 2, 3), tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    for name in ("a.txt", "a.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


@posix
def test_a_file_that_is_replaced_keeps_its_permissions_and_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.touch()
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    before = path.stat()
    ps.save(nn.Conv2d(1, 2, 3), path)
    after = path.stat()
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


@posix
def test_files_and_their_folder_are_on_the_disk_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def sync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    replace = os.replace
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), replace(*names)))
    write_text(tmp_path / "a.txt", "new")
    assert done == ["file", "rename", "folder"]


def test_names_as_long_as_they_may_be_are_written(tmp_path: Path) -> None:
    name = "n" * 243 + ".safetensors"
    ps.save(nn.Conv2d(1, 2, 3), tmp_path / name)
    assert os.listdir(tmp_path) == [name]


_SAVE = """
import sys, torch, prunesearch as ps
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
ps.save(net, sys.argv[1], example_inputs=torch.zeros(2, 1, 8, 8))
"""


@pytest.mark.slow
def test_equal_networks_give_equal_bytes(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, "-c", _SAVE, tmp_path / f"{seed}.safetensors"], check=True, env=environment,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()


def test_metadata_are_one_key_as_safetensors_writes_several_in_any_order(tmp_path: Path) -> None:
    import safetensors

    ps.save(nn.Conv2d(1, 2, 3), tmp_path / "a.safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert list(file.metadata()) == ["prunesearch"]


def test_files_of_earlier_versions_with_several_keys_are_read(tmp_path: Path) -> None:
    import json

    import safetensors
    import safetensors.torch

    path, net = tmp_path / "a.safetensors", nn.Conv2d(1, 2, 3)
    ps.save(net, path)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["prunesearch"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    safetensors.torch.save_file(tensors, path, metadata)
    assert torch.equal(ps.load(path, nn.Conv2d(1, 2, 3)).weight, net.weight)
