"""The tutorials run from beginning to end, at sizes that say nothing about accuracy."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
WITH_RAY, TIMING, YOLO = "several_machines_with_ray", "mobilenet_for_a_cpu_latency", "yolo_on_your_images"
SHORT = ("unet_to_half", YOLO)


def run(name: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a tutorial as its reader does, in a folder of its own; warnings are errors here, too."""
    command = [sys.executable, "-W", "error", str(ROOT / "docs" / "tutorials" / f"{name}.py"), "--smoke", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if name in (WITH_RAY, YOLO):
        command[1:3] = []  # Ray and ultralytics have warnings of their own
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in TUTORIALS if path.stem not in (WITH_RAY, TIMING, YOLO)])
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


@pytest.mark.slow
def test_the_tutorial_about_a_unet_halves_it_and_finetuning_helps(tmp_path: Path) -> None:
    ended = run("unet_to_half", tmp_path)
    found = re.findall(r"^(\w.*): mIoU ([\d.]+)%, ([\d,]+) MACs$", ended.stdout, flags=re.MULTILINE)
    metric = {name: float(value) for name, value, _ in found}
    macs = {name: int(value.replace(",", "")) for name, _, value in found}
    assert macs["half, refitted"] == macs["half, trained on"] <= macs["unpruned"] / 2
    assert metric["half, trained on"] > metric["half, refitted"] > 25  # that of one answer for all pixels is below
    assert (tmp_path / "half.safetensors").exists()


@pytest.mark.parametrize("name", SHORT)
def test_a_short_tutorial_has_less_than_sixty_lines_of_code(name: str) -> None:
    source = (ROOT / "docs" / "tutorials" / f"{name}.py").read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    described = [node.body[0] for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    texts = [node for node in described if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    left_out = {line for node in texts for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    lines = [line for number, line in enumerate(source.splitlines(), 1) if line.strip() and number not in left_out]
    assert len(lines) < 60


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
