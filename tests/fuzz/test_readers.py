"""Damaged and hostile files: each is read, or is a `PruneSearchError` that names it. See tests/faults, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.readers import READERS, Reader, check

COUNT = 60


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_a_damaged_file_is_read_or_is_an_error_that_names_it(reader: Reader, tmp_path: Path) -> None:
    assert check(reader, tmp_path, 0, COUNT)
