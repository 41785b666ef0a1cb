"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunesearch.files import remove_drafts, whole, write_text


def test_what_fails_leaves_the_file_that_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with whole(path) as draft:
            draft.write_text("ha")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
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
    others = {".12.[a].st.checkpoint", ".12.b.[a].st", ".x.[a].st", "[a].st", ".12.a.st"}
    for name in {".12.[a].st", ".7.[a].st", *others}:
        (tmp_path / name).touch()
    remove_drafts(tmp_path / "[a].st")
    assert {file.name for file in tmp_path.iterdir()} == others
