"""The tutorials run from beginning to end, at sizes that say nothing about accuracy."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
WITH_RAY, TIMING = "several_machines_with_ray", "mobilenet_for_a_cpu_latency"


def run(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a tutorial as its reader does, in a folder of its own; warnings are errors here, too."""
    command = [sys.executable, "-W", "error", str(ROOT / "docs" / "tutorials" / f"{name}.py"), "--smoke"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if name == WITH_RAY:
        command[1:3] = []  # Ray has warnings of its own
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in TUTORIALS if path.stem not in (WITH_RAY, TIMING)])
def test_a_tutorial_runs(name: str, tmp_path: Path) -> None:
    ended = run(name, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


@pytest.mark.slow
def test_the_tutorial_about_latency_runs_where_networks_can_be_timed(tmp_path: Path) -> None:
    ended = run(TIMING, tmp_path)
    if "too noisy" in ended.stderr or "cannot be met" in ended.stderr:
        pytest.skip("other work on this machine: its times say nothing")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "mobilenet" / "small.safetensors").exists()


@pytest.mark.faults  # as all tests of Ray
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_the_tutorial_about_ray_runs(tmp_path: Path) -> None:
    ended = run(WITH_RAY, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "scored by" in ended.stdout


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_shown_on_a_page_and_says_how_it_is_run(path: Path) -> None:
    page = (path.parent / "index.md").read_text()
    assert f"{{literalinclude}} {path.name}" in page
    assert f"python docs/tutorials/{path.name} --" in page
    assert f"python docs/tutorials/{path.name} --" in path.read_text()
