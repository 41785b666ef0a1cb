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


IMPORTS = (
    "import prunesearch as ps",
    "import prunesearch.search; import prunesearch as ps",
    "from prunesearch.search import SEARCHERS; import prunesearch.search.uniform; import prunesearch as ps",
    "import prunesearch as ps; ps.search; import prunesearch.search; from prunesearch.search.uniform import *",
)


@pytest.mark.slow
def test_search_is_a_function_whatever_was_imported() -> None:
    """In one process, which forgets the package in between, as importing torch takes longest."""
    code = f"""
import inspect, pydoc, sys
for imports in {IMPORTS!r}:
    for name in [name for name in sys.modules if name.partition(".")[0] == "prunesearch"]:
        del sys.modules[name]
    exec(imports)
    from prunesearch import search
    assert inspect.isfunction(ps.search) and ps.search is search, imports
    assert list(inspect.signature(ps.search).parameters)[:3] == ["network", "data", "budget"]
    assert len(inspect.signature(ps.search).parameters) <= 16
    assert "Search the structure of a network under a budget" in pydoc.render_doc(ps.search)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("criterion", r"has no argument 'criterion' any more. Write scoring=Scoring\(criterion=...\) instead"),
        ("weight_source", r"Write scoring=Scoring\(weight_source=...\) instead"),
        ("workers", r"Write running=Running\(workers=...\) instead"),
        ("n_trial", r"has no argument 'n_trial'. Did you mean 'n_trials'\?"),
    ],
)
def test_an_argument_that_search_does_not_have_is_answered_with_where_it_went(name: str, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        prunesearch.search(None, None, budget="macs=50%", **{name: 1})  # type: ignore[arg-type]
