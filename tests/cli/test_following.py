"""What commands say at the end: the next one, which can be copied and run."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from prunesearch.cli.arguments import named_options
from prunesearch.cli.following import words_of
from prunesearch.cli.studies import Searching
from prunesearch.cli.values import Images, Model, Widths
from prunesearch.scoring import Scoring
from tests.cli.calls import BUDGET, NETWORK, SEARCH, Call


def test_options_are_written_as_they_are_typed_and_defaults_are_left_out() -> None:
    model = Model(model="mine.py:model", weights=Path("my weights.pt"))
    widths = Widths(round_to=("8", "layer4.*=16"))
    scoring = Scoring(criterion="lfe", criterion_options={"rounds": 5}, race=False)
    words = words_of(model, widths, Images(data="digits"), scoring)
    assert words == [
        *("--model", "mine.py:model", "--weights", "my weights.pt"),
        *("--round-to", "8", "--round-to", "layer4.*=16", "--data", "digits"),
        *("--criterion", "lfe", "--no-race", "--criterion-options", "rounds=5"),
    ]


def test_values_are_read_as_what_they_were() -> None:
    options = {"a": True, "b": None, "c": {"d": [1, 0.5]}, "e": "text", "f": "5", "g": "true", "h": 1e-4, "i": ""}
    words = words_of(Scoring(criterion_options=options))
    entries = [word for option, word in pairwise(words) if option == "--criterion-options"]
    assert entries[:4] == ["a=true", "b=null", 'c={"d": [1, 0.5]}', "e=text"]
    assert named_options("--criterion-options", entries) == options


def test_that_nobody_verifies_is_said_and_that_the_usual_ones_do_is_not() -> None:
    assert words_of(Searching(verifiers=())) == ["--verifiers", "none"]
    assert words_of(Searching(verifiers=None)) == []


def test_the_folder_of_a_file_is_nobodys_business_but_of_who_runs_the_command() -> None:
    model = Model(model="zoo:resnet8", weights=Path("/home/me/w.pt"))
    assert words_of(model)[-1] == "w.pt"
    assert words_of(model, whole_paths=True)[-1] == "/home/me/w.pt"


@pytest.mark.slow
def test_the_next_command_runs_and_the_report_has_the_exact_one_and_the_file(folder: Path, call: Call) -> None:
    weights = str(folder / "w.safetensors")
    words = [weights if word == "w.safetensors" else word for word in SEARCH]
    searched = call(*words, "--n-trials", "4", "--out", "small.safetensors")
    assert searched.returncode == 0, searched.stderr
    assert "accuracy on 512 images" in searched.stdout
    assert "Uniform widths" in searched.stdout or "best of 4" in searched.stdout
    following = searched.stdout.splitlines()[-1].removeprefix("Next: ")
    program, *words = shlex.split(following)
    assert program == "prunesearch"
    assert words[words.index("--weights") + 1] == weights
    tuned = call(*words, "--epochs", "1")
    assert tuned.returncode == 0, tuned.stderr
    assert call("report", "--study", "search.db", "--out", "r.html").returncode == 0
    page = (folder / "r.html").read_text()
    assert "ps.load(&#39;small-tuned.safetensors&#39;, model)" in page
    assert "prunesearch search" in page
    assert "--weights w.safetensors" in page
    assert "resnet8 on digits, pruned to 50% of the MACs" in page


@pytest.mark.slow
def test_a_network_that_is_narrower_than_usual_is_finetuned_and_compared(folder: Path, call: Call) -> None:
    narrow = ("--min-channels", "1", "--searcher", "uniform", "--study", "narrow.db", "--out", "narrow.safetensors")
    searched = call(*SEARCH[:-1], "macs=0.5%", *narrow)
    assert searched.returncode == 0, searched.stderr
    _, *words = shlex.split(searched.stdout.splitlines()[-1].removeprefix("Next: "))
    for command in ((*words, "--epochs", "1"), ("compare", *NETWORK, "--pruned", "narrow.safetensors")):
        run = call(*command)
        assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_the_whole_job_is_a_command_that_goes_on(folder: Path, call: Call) -> None:
    command = ("prune", *NETWORK, *BUDGET, "--n-trials", "4", "--epochs", "1", "--folder", "whole")
    first = call(*command[:4], str(folder / command[4]), *command[5:])
    assert first.returncode == 0, first.stderr
    assert (folder / "whole" / "pruned.safetensors").is_file()
    assert f"Next: prunesearch export --model zoo:resnet8 --weights {folder / 'w.safetensors'} " in first.stdout
    again = call(*command, "--json")
    assert again.returncode == 0, again.stderr
    assert '"out": "whole/pruned.safetensors"' in again.stdout
