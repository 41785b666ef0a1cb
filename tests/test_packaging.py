"""What pip is told: the oldest versions that are admitted are those that `make test-minimum` tests with."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = {
    "ruff",
    "mypy",
    "sphinx",
    "furo",
    "myst-nb",
    "sphinx-copybutton",
    "playwright",
}  # not run with old versions
EXTRAS = {"timm", "ray", "lightning", "transformers", "ultralytics"}  # those that tests can do without


def test_every_floor_is_tested() -> None:
    package, version = r"([a-z-]+)(?:\[[a-z]+\])?", r"([\d.]+)"
    floors = dict(re.findall(f'^  "{package}>={version}', (ROOT / "pyproject.toml").read_text(), re.M))
    tested = dict(re.findall(f"^{package}=={version}", (ROOT / "tests" / "minimum.txt").read_text(), re.M))
    assert len(floors) > 20
    for name in floors.keys() - TOOLS - EXTRAS:
        assert name in tested, f"{name} has no line in tests/minimum.txt"
        assert tested[name].split(".")[: floors[name].count(".") + 1] == floors[name].split("."), name


@pytest.mark.parametrize("file", ["CITATION.cff", "pyproject.toml"])
def test_the_version_is_one(file: str) -> None:
    stated = re.search(r'^version[:=]? ?=? ?"?([\d.]+)', (ROOT / file).read_text(), re.M)
    assert stated is not None
    changelog = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert changelog is not None
    assert stated[1] == changelog[1]
