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


def test_public_hosts_test_every_python_and_system_that_the_package_says_it_is_for() -> None:
    metadata, hosts = (ROOT / "pyproject.toml").read_text(), (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    versions = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', metadata)
    assert versions[0] == re.search(r'^requires-python = ">=([\d.]+)"', metadata, re.M)[1]  # type: ignore[index]
    matrix = re.search(r"\n  test:\n.*?os: \[(.*?)\]\n *python: \[(.*?)\]", hosts, re.S)
    assert matrix is not None
    assert [version.strip('" ') for version in matrix[2].split(",")] == versions
    systems = {"MacOS": "macos", "Microsoft :: Windows": "windows", "POSIX :: Linux": "ubuntu"}
    named = re.findall(r'"Operating System :: (.*)"', metadata)
    assert {host.strip().removesuffix("-latest") for host in matrix[1].split(",")} == {systems[name] for name in named}


def test_a_commit_is_checked_by_tools_that_are_there() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    entries = re.findall(r"entry: \.venv/bin/(\w+)", hooks)
    assert entries == ["ruff", "ruff", "mypy", "python"]
    for file in re.findall(r"tests/\w+\.py", hooks):
        assert (ROOT / file).exists()


def test_the_forms_for_issues_ask_for_what_is_needed_to_see_them() -> None:
    forms = {path.stem: path.read_text() for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")}
    assert set(forms) == {"bug", "network", "idea", "config"}
    for name in set(forms) - {"config"}:
        assert re.match(r"name: .+\ndescription: .+\n", forms[name]), name
        assert "type: textarea" in forms[name]
    assert "PRUNESEARCH_DEBUG=1" in forms["bug"]
    assert "explain()" in forms["network"]
