"""The package of the tutorial, installed as its reader does, but into a folder and with no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prunesearch.search import SEARCHER
from tests.pages import ROOT

EXAMPLE = ROOT / "examples" / "prunesearch-hillclimb"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package is installed into; it is built from a copy, as building leaves files behind."""
    folder = tmp_path_factory.mktemp("installed")
    copy = folder / "source"
    shutil.copytree(EXAMPLE, copy)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    run(folder, [*pip, "--no-deps", "--no-build-isolation", "--target", str(folder / "target"), str(copy)])
    return folder / "target"


def run(installed: Path, command: list[str], folder: Path | None = None) -> str:
    path = os.pathsep.join([str(installed), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder or installed, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_not_installed_where_the_tests_run() -> None:
    assert not SEARCHER.names.has("hillclimb")  # or the tests below would say nothing


def test_its_own_tests_of_the_contracts_pass(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    pytest_ = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    out = run(installed, [*pytest_, str(tmp_path / "tests")], tmp_path)
    assert "passed" in out
    assert "skipped" not in out


def test_its_names_are_names_of_a_search(installed: Path, tmp_path: Path) -> None:
    program = """
import torch, prunesearch as ps
from prunesearch.training.digits import digits
data = digits()
torch.manual_seed(0)
network = ps.trace(ps.make_model("resnet8", in_channels=1, image_size=8), data.calibration_set()[0][:2])
arguments = dict(budget="macs=50%", n_trials=20, options={"step": 2}, study="sqlite:///search.db")
found = ps.search(network, data, searcher="hillclimb", scoring=ps.Scoring(criterion="spread"), **arguments)
assert {trial.searcher for trial in found.trials} == {"hillclimb"}
assert len(found.trials) == 20
again = ps.search(network, data, searcher="hillclimb", scoring=ps.Scoring(criterion="spread"), **arguments)
assert again.trials == found.trials
try:
    ps.search(network, data, searcher="hillclimb", **{**arguments, "options": {"stepp": 2}})
except TypeError as error:
    print(error)
"""
    out = run(installed, [sys.executable, "-W", "error", "-c", program], tmp_path)
    assert "The searcher 'hillclimb' has no option 'stepp'; it has step, neighbours. Did you mean 'step'?" in out


def test_its_names_are_names_of_the_command_line(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prunesearch", "search"]
    assert "hillclimb" in run(installed, [*command, "--help"], tmp_path)
    out = run(
        installed,
        [
            *command, "--model", "zoo:resnet8", "--data", "digits", "--budget", "macs=50%", "--searcher", "hillclimb",
            "--criterion", "spread", "--options", "neighbours=8", "--n-trials", "12", "--json",
            "--task", "top2", "--metric", "top2",
        ],
        tmp_path,
    )  # fmt: skip
    best = json.loads(out)["best"]
    assert best["searcher"] == "hillclimb"
    assert "metric=top2" in best["evaluator"]
