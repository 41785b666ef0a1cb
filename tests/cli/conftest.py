"""Running the command line in this process, in a folder with a trained network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch

from prunesearch.cli import main
from prunesearch.models.network import Network
from prunesearch.study.store import Store
from tests.cli.calls import Call, Run


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process, in the working folder; a process of its own costs seconds of imports."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Run:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        return Run(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Iterator[Path]:
    """A working folder with trained weights of a ResNet-8 for digits; the next one may have modules of equal names."""
    path = tmp_path_factory.mktemp("work")
    safetensors.torch.save_file(network.model.state_dict(), path / "w.safetensors")
    (path / "mine.py").write_text(
        "import torch, prunesearch as ps\n"
        "def model():\n    return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(),"
        " torch.nn.Flatten(), torch.nn.Linear(288, 10))\n"
        "def data():\n    g = torch.Generator().manual_seed(0)\n"
        "    return ps.Data(train=(torch.randn(64, 1, 8, 8, generator=g), torch.arange(64) % 10), calibration=32)\n"
        "def number():\n    return 3\n"
        "class Branching(torch.nn.Module):\n"
        "    def forward(self, x):\n        return x if x.sum() > 0 else -x\n"
        "def branching():\n    return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), Branching())\n"
        "def fails():\n    return 1 / 0\n"
        "def holes():\n    nothing = torch.full((64, 1, 8, 8), float('nan'))\n"
        "    return ps.Data(train=(nothing, torch.arange(64) % 10), calibration=32)\n"
        "def from_one():\n    images, labels = torch.zeros(64, 1, 8, 8), torch.arange(64) % 10\n"
        "    return ps.Data(train=(images, labels), test=(images, labels + 1))\n"
        "ten = 10\n"
    )
    (path / "roles.py").write_text(
        "from prunesearch.evaluators.accuracy import AccuracyEvaluator as Judge\n"
        "from prunesearch.evaluators.channels.l2 import L2Criterion as Choice\n"
        "from prunesearch.models.weights import inherited_weights as source\n"
        "from prunesearch.search.random_search import RandomSearcher as Walker\n"
        "class Silent:\n    def ask(self, n):\n        return []\n"
        "silent = Silent()\n"
    )
    (path / "photos").mkdir()
    (path / "pruned").mkdir()
    for name in ("pn.st", "pruned/pruned.safetensors"):
        (path / name).write_bytes((path / "w.safetensors").read_bytes())
    (path / "keys.toml").write_text('device = "cpu"\n')
    (path / "foreign.py").write_text("def model(:")
    Store(f"sqlite:///{path / 'known.db'}").close()
    (path / "foreign.db").write_text("not a database, but a text that is long enough to be looked at" * 20)
    yield path
    sys.path[:] = [entry for entry in sys.path if entry != str(path)]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(path)):
            del sys.modules[name]
