"""A config file says what the flags say, and is checked like them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.calls import SEARCH, Call

FILE = """
model = "zoo:resnet8"
weights = "w.safetensors"
data = "digits"
epochs = 3  # of those commands that train

[search]
criterion = "l1"
images = 64
budget = "macs=50%"
searcher = "evolution"
n_trials = 4
json = true
options = { population = 4, parents = 2, mutants = 2, crossovers = 1 }
round-to = ["4", "layer3.*=8"]

[finetune]
teacher = false
"""


def test_a_file_equals_the_flags_and_flags_win(call: Call, folder: Path) -> None:
    (folder / "run.toml").write_text(FILE)
    flags = ["--searcher", "evolution", "--n-trials", "4", "--round-to", "4", "--round-to", "layer3.*=8", "--json"]
    for entry in ("population=4", "parents=2", "mutants=2", "crossovers=1"):
        flags += ["--options", entry]
    run = call("search", "--config", "run.toml", "--study", "sqlite:///toml.db")
    assert run.returncode == 0, run.stderr
    same = call(*SEARCH, *flags, "--study", "sqlite:///toml.db")  # another question would be refused
    assert same.returncode == 0, same.stderr
    assert json.loads(run.stdout)["best"] == json.loads(same.stdout)["best"]
    more = call("search", "--config", "run.toml", "--n-trials", "6", "--study", "sqlite:///toml.db")
    assert json.loads(more.stdout)["trials"] == 6


WRONG = {
    "no TOML": ("model: x", "is not valid TOML"),
    "unknown key": ("modle = 'x'", "modle is no flag. Did you mean 'model'?"),
    "unknown key of the command": (
        "[search]\nseracher = 'x'",
        "seracher is no flag of search. Did you mean 'searcher'?",
    ),
    "key of another command": ("[search]\nepochs = 3", "epochs is no flag of search"),
    "mistake in what is for another command": (
        "[finetune]\nepocs = 3",
        "epocs is no flag of finetune. Did you mean 'epochs'",
    ),
    "unknown command": ("[serach]\nseed = 1", "[serach] is no command. Did you mean 'search'?"),
    "command that is no table": ("search = 3", "expected its flags below [search]"),
    "text for a switch": ("[search]\nasynchronous = 'yes'", "expected asynchronous = true or false, got 'yes'"),
    "no entry of several": ("[search]\nverifiers = []", "expected verifiers with at least one entry"),
    "word for the model": ("network = 'zoo:resnet8'", "network is no flag. Did you mean 'model'?"),
    "word for the output": ("[search]\noutput = 'x'", "output is no flag of search. Did you mean 'out'?"),
    "old name": ("[search]\nas-finished = true", "as-finished is no flag of search. It is now asynchronous."),
    "list for one value": ("[search]\nseed = [1, 2]", "expected seed as text or a number"),
    "switch for a value": ("[search]\nseed = true", "expected seed as text or a number"),
    "text for a number": ("[search]\nn-trials = 'many'", "Expected --n-trials as a whole number >= 1, got 'many'."),
    "file in a file": ("config = 'other.toml'", "config is no flag"),
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_a_sentence(call: Call, folder: Path, text: str, sentence: str) -> None:
    (folder / "wrong.toml").write_text(text)
    run = call(*SEARCH, "--config", "wrong.toml", "--study", "sqlite:///never.db")
    assert run.returncode == 2
    assert sentence in " ".join(run.stderr.split())
    assert not (folder / "never.db").exists()
