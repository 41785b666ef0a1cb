"""The public names, and that asking for none of them costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import prunesearch


def test_every_public_name_resolves() -> None:
    for name in prunesearch.__all__:
        assert getattr(prunesearch, name) is not None
    assert set(prunesearch.__all__) <= set(dir(prunesearch))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = prunesearch.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "module", ["prunesearch", "prunesearch.budget", "prunesearch.search", "prunesearch.study.store"]
)
def test_importing_the_package_or_a_room_without_networks_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "code",
    [
        "import prunesearch as ps; assert callable(ps.search)",
        "import prunesearch.search; import prunesearch as ps; assert callable(ps.search)",
        "from prunesearch.search import SEARCHERS as S; import prunesearch as ps; assert ps.search.SEARCHERS is S",
    ],
)
def test_search_is_the_main_job_whatever_was_imported_before(code: str) -> None:
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
