"""The files of a study in SQLite while it is open: whether they are still where they were."""

from __future__ import annotations

import os
from pathlib import Path

from prunesearch.errors import StudyUnwritable

_BESIDE = ("-wal", "-shm")


class Place:
    """Remembers which files a path named, as a process may write for hours into one that was deleted.

    Args:
        path: The database, which exists.

    Raises:
        StudyUnwritable: The file has another name (a hard link).
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.abspath(path))  # a folder that is moved, or a link that is turned, moves the study
        real = path.resolve()
        self._beside = [real.with_name(real.name + suffix) for suffix in _BESIDE]
        self._found: dict[Path, os.stat_result] = {}
        self.check()

    def check(self) -> None:
        """Make sure that what is written can be found again.

        Raises:
            StudyUnwritable: A file was deleted, moved, replaced, or got a second name.
        """
        found = self._same(self._path)
        if found is None:
            raise self._lost(self._path)
        if found.st_nlink > 1:
            raise StudyUnwritable(
                f"{self._path} is one file with {found.st_nlink} names (hard links). SQLite keeps other files beside "
                "each name, and would damage the study. Delete the other names, and copy the file instead."
            )
        for path in self._beside:
            self._same(path)

    def _same(self, path: Path) -> os.stat_result | None:
        """The file there, if it is, and is the one that was there before."""
        try:
            found = os.stat(path)
        except OSError:
            found = None
        before = self._found.get(path, found)
        if before is not None and (found is None or not os.path.samestat(found, before)):
            raise self._lost(path)
        if found is not None:
            self._found[path] = found
        return found

    def _lost(self, path: Path) -> StudyUnwritable:
        return StudyUnwritable(
            f"{path} was deleted, moved or replaced while the study was being written, so nothing more is recorded. "
            f"While a study runs, {self._path.name}, {self._path.name}-wal, {self._path.name}-shm and "
            f"{self._path.name}.lock belong to it. Put the file back, and run the same command again."
        )
