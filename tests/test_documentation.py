"""What the documentation says is what was measured, and what it shows runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_is_what_the_committed_results_say() -> None:
    module = tables()
    for page in module.PAGES:
        assert module.render(page.read_text()) == page.read_text(), f"{page.name} is out of date; run: make readme"


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert all((ROOT / link).exists() for link in links), links
    for folder in ("prunesearch", "tests", "benchmarks"):
        for named in re.findall(rf"`({folder}/[\w./]+)`", text):
            assert (ROOT / named).exists(), named


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, but with fewer trials and epochs."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    quick = code.replace("n_trials=200", "n_trials=3").replace("epochs=20", "epochs=1").replace("epochs=40", "epochs=1")
    assert quick.count("epochs=1") == 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(quick, "README.md", "exec"), names)
    assert (tmp_path / "search.db").exists()


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"\.PHONY: (.*)", makefile)[1].split())  # type: ignore[index]
    documented = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    assert documented == targets
