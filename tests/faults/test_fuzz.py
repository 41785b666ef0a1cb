"""F16: ten thousand damaged or hostile inputs for every reader (`--fuzz N` for more)."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest

from tests.faults.tally import Tally
from tests.fuzz.readers import READERS, Reader, check
from tests.fuzz.urls import misspelt
from tests.test_urls import check_shows_no_password

pytestmark = pytest.mark.faults
_CHUNK = 500
_MOST = 300  # megabytes that all reading of one kind of file may add to the process


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_every_input_is_read_or_is_an_error_that_names_it_in_bounded_memory(
    reader: Reader, tmp_path: Path, tally: Tally, pytestconfig: pytest.Config
) -> None:
    count = pytestconfig.getoption("--fuzz")
    check(reader, tmp_path, 0, 50)  # what is loaded once is no growth
    before, refused = _peak(), 0
    for seed in range(1, max(2, count // _CHUNK + 1)):
        refused += check(reader, tmp_path, seed, min(_CHUNK, count))
    assert _peak() - before < _MOST
    assert refused
    tally.add("F16", f"{reader.name}: damaged and hostile files, read or refused by name", count)


def test_no_misspelt_address_shows_its_password(tally: Tally, pytestconfig: pytest.Config) -> None:
    rng, count = random.Random(1), pytestconfig.getoption("--fuzz")
    for _ in range(count):
        check_shows_no_password(misspelt(rng))
    tally.add("F16", "misspelt addresses of databases: no password shown", count)


def _peak() -> float:
    """Megabytes that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
