"""What the commands do."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Namespace

import pytest
import torch

import prunesearch as ps
from prunesearch.cli import records
from prunesearch.cli.policies import answer
from prunesearch.evaluators.latency import built, measuring, timing
from prunesearch.latency_times import Layer, Timing, combinations_of
from prunesearch.models.saving import remembered_inputs
from tests.cli.calls import LATENCY, NETWORK, SEARCH, Call
from tests.models_state import state_of
from tests.toys import chain_space, trials_of


def assert_remembers_digits(file: Path) -> None:
    """The images of the data, so that an export need not be told."""
    assert [(x.shape, x.dtype) for x in remembered_inputs(file)] == [((2, 1, 8, 8), torch.float32)]


def test_a_search_is_run_continued_shown_and_reported(call: Call, folder: Path) -> None:
    first = call(*SEARCH, "--n-trials", "6", "--study", "sqlite:///s.db")
    assert first.returncode == 0, first.stderr
    assert "best of 6 structures" in first.stdout
    more = call(*SEARCH, "--n-trials", "9", "--study", "sqlite:///s.db", "--out", "small.safetensors", "--json")
    assert more.returncode == 0, more.stderr
    found = json.loads(more.stdout)
    small = ps.load(folder / "small.safetensors", ps.make_model("resnet8", in_channels=1, image_size=8))
    assert ps.count(small, torch.zeros(2, 1, 8, 8)).amounts == found["best"]["cost"]
    assert found["trials"] == 9
    assert_remembers_digits(folder / "small.safetensors")
    status = call("status", "--study", "sqlite:///s.db")
    assert status.returncode == 0
    assert "surrogate" in status.stdout
    (line,) = json.loads(call("status", "--study", "sqlite:///s.db", "--json").stdout)
    assert (line["trials"], line["failed"]) == (9, 0)
    assert line["best"] == found["best"]
    report = call("report", "--study", "sqlite:///s.db", "--out", "r.html")
    assert report.returncode == 0, report.stderr
    assert "<html" in (folder / "r.html").read_text()[:200].lower()


def test_what_is_recorded_is_listed_shown_exported_and_deleted(call: Call, folder: Path) -> None:
    url = ("--study", "sqlite:///records.db")
    assert call(*SEARCH, "--searcher", "random", "--n-trials", "5", *url).returncode == 0
    tighter = call(*SEARCH[:-1], "macs=40%", "--searcher", "random", "--n-trials", "3", *url, "--json")
    name = json.loads(tighter.stdout)["name"]
    listed = json.loads(call("list", *url, "--json").stdout)
    assert [(line["study"], line["trials"]) for line in listed] == [("search", 5), (name, 3)]
    assert name in call("list", *url).stdout
    lines = json.loads(call("status", *url, "--json").stdout)
    assert [(line["trials"], line["wanted"], line["driver"]) for line in lines] == [(5, 5, None), (3, 3, None)]
    shown = json.loads(call("show", *url, "--study-name", name, "--json").stdout)
    assert (shown["trials"], len(shown["best"]), shown["question"]["seed"]) == (3, 3, 0)
    assert "searcher: random" in call("show", *url).stdout
    exported = call("export", *url, "--optuna", "sqlite:///optuna.db", "--csv", "t.csv", "--parquet", "t.parquet")
    assert exported.returncode == 0, exported.stderr
    assert len((folder / "t.csv").read_text().splitlines()) == 6
    assert call("delete", *url, "--study-name", "search", "--from-trial", "2", "--yes").returncode == 0
    assert json.loads(call("status", *url, "--json").stdout)[0]["trials"] == 2
    again = call(*SEARCH, "--searcher", "random", "--n-trials", "5", *url, "--json")
    assert json.loads(again.stdout)["best"] == lines[0]["best"] | {
        "seconds": json.loads(again.stdout)["best"]["seconds"]
    }
    assert call("delete", *url, "--study-name", name, "--yes").returncode == 0
    assert [line["study"] for line in json.loads(call("list", *url, "--json").stdout)] == ["search"]


def test_what_a_search_warns_of_is_shown_and_reported_afterwards(call: Call, folder: Path) -> None:
    own = ("--model", "mine.py:model", "--data", "mine.py:data", "--budget", "params=60%", "--searcher", "random")
    url = ("--study", "sqlite:///warned.db")
    searched = call("search", *own, "--n-trials", "2", *url)
    said = [line for line in searched.stderr.splitlines() if line.startswith("note: ")]
    assert len(said) == 2
    assert said[0].startswith("note: The network has no BatchNorm")
    shown = call("show", *url)
    assert [line for line in shown.stdout.splitlines() if line.startswith("note: ")] == said
    notes = json.loads(call("show", *url, "--json").stdout)["notes"]
    assert [note["said"] for note in notes] == [line.removeprefix("note: ") for line in said]
    assert call("report", *url, "--out", "warned.html").returncode == 0
    page = html.unescape((folder / "warned.html").read_text())
    assert all(line.removeprefix("note: ") in page for line in said)


def test_a_short_training_says_so_and_what_goes_on_says_where(call: Call, folder: Path) -> None:
    train = ("finetune", *NETWORK, "--out", "few.safetensors", "--epochs")
    short = call(*train, "1")
    assert short.returncode == 0, short.stderr
    assert "note: 10 steps in all are few and leave 35% of the BatchNorm" in short.stderr
    enough = call(*train, "5", "--batch-size", "64", "--checkpoint", "enough.checkpoint")
    assert "note:" not in enough.stderr
    assert "Resuming" not in enough.stderr


def test_a_table_in_a_pipe_is_whole(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a study with a name that is longer than a terminal is wide, " * 2
    url = ("--study", "sqlite:///wide.db")
    assert call(*SEARCH, "--searcher", "uniform", *url, "--study-name", name.strip()).returncode == 0
    monkeypatch.setenv("COLUMNS", "80")
    assert f" {name.strip()} " in call("status", *url).stdout


def test_watching_ends_with_an_interrupt_and_no_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(records.time, "sleep", interrupted)
    run = call("status", "--study", "sqlite:///known.db", "--watch", "0.05")
    assert (run.returncode, run.stderr) == (130, "")
    assert "search" in run.stdout


def test_a_network_of_other_images_than_the_default_asks_for_input(call: Call) -> None:
    run = call("verify", *SEARCH[1:5])
    assert run.returncode == 2
    assert "the model has (16, 3, 3, 3). Are your images 3x224x224?" in run.stderr
    assert "--input" in run.stderr


def test_a_search_stops_by_time_and_patience_and_writes_curves(call: Call, folder: Path) -> None:
    options = ("--searcher", "random", "--n-trials", "500", "--json")
    by_time = call(*SEARCH, *options, "--study", "sqlite://", "--timeout", "0.001", "--tensorboard", "curves")
    assert json.loads(by_time.stdout)["trials"] == 1
    assert list((folder / "curves").glob("events*"))
    by_patience = json.loads(call(*SEARCH, *options, "--study", "sqlite://", "--patience", "3").stdout)
    assert by_patience["trials"] == by_patience["best"]["number"] + 4


def test_a_pruningnet_is_trained_and_evolution_searches_with_it(call: Call) -> None:
    train = ("pruningnet", *NETWORK, "--epochs", "1", "--out")
    first = call(*train, "net.safetensors")
    assert first.returncode == 0, first.stderr
    assert "98,187 parameters, 1.3 times" in first.stdout
    again = call(*train, "net.safetensors", "--lr", "0.01")
    assert again.returncode == 2
    assert "the recipe's lr was 0.05, now it is 0.01" in again.stderr
    assert call(*train, "other.safetensors", "--lr", "0.01").returncode == 0
    search = (*SEARCH, "--searcher", "evolution", "--n-trials", "8", "--study", "sqlite:///g.db")
    search += ("--study-name", "generated", "--weight-source")
    run = call(*search, "generated:net.safetensors")
    assert run.returncode == 0, run.stderr
    assert "best of 8 structures" in run.stdout
    for source, message in {
        "generated:other.safetensors": "its weight_source is",
        "generated:none.safetensors": "There is no file none.safetensors",
        "generated": 'as "generated:FILE"; got no file',
        "inherited:net.safetensors": "'inherited' has no file, got 'net.safetensors'",
    }.items():
        run = call(*search, source)
        assert run.returncode == 2
        assert message in run.stderr


def test_settings_of_a_searcher_are_options(call: Call) -> None:
    evolution = (*SEARCH, "--n-trials", "8", "--study", "sqlite:///o.db", "--searcher", "evolution", "--options")
    run = call(
        *evolution, "population=4", "--options", "parents=2", "--options", "mutants=2", "--options", "crossovers=1"
    )
    assert run.returncode == 0, run.stderr
    assert "best of 8 structures" in run.stdout
    other = call(*evolution, "population=60", "--study-name", "search")
    assert other.returncode == 2
    assert "its searcher is" in other.stderr


def test_the_policy_of_a_finished_search_is_asked_for_another_share(call: Call, folder: Path) -> None:
    options = ("--searcher", "conditional", "--options", "shares=[1, 0.7]", "--options", "warmup=4", "--n-trials", "12")
    search = (*SEARCH, *options, "--study", "sqlite:///policy.db")
    assert json.loads(call(*search, "--json").stdout)["policy"] is None
    run = call(*search, "--policy-share", "0.85", "--out", "policy.safetensors", "--json")
    assert run.returncode == 0, run.stderr
    assert "Nothing to do" in run.stderr  # nothing was scored for it
    found = json.loads(run.stdout)["policy"]
    small = ps.load(folder / "policy.safetensors", ps.make_model("resnet8", in_channels=1, image_size=8))
    cost = ps.count(small, torch.zeros(2, 1, 8, 8)).amounts
    assert found["cost"] == cost
    full = ps.count(ps.make_model("resnet8", in_channels=1, image_size=8), torch.zeros(2, 1, 8, 8))
    assert 0.75 < cost["macs"] / (full.macs * 0.5) <= 0.85
    assert (found["share"], found["trial"], found["score"]) == (0.85, None, None)
    said = call(*search, "--policy-share", "0.85", "--out", "again.safetensors").stdout
    assert f"The policy for a share of 0.85 of the budget: MACs {cost['macs']:,} (" in said
    assert "It was not scored." in said
    assert "Wrote again.safetensors, the network of the policy." in said
    again = ps.load(folder / "again.safetensors", ps.make_model("resnet8", in_channels=1, image_size=8))
    assert state_of(again) == state_of(small)


def test_a_structure_of_the_policy_that_a_trial_scored_has_its_score() -> None:
    space = chain_space((8,), 2)
    trials = trials_of([(8,), (4,)], lambda structure: -0.25 * structure[0])
    result = Namespace(
        policy=lambda _: (4,), trials=trials, space=space, measures="loss", shown=lambda score: f"{-score:g}"
    )
    found = answer(result, ps.Budget(macs="100%"), 0.5)  # type: ignore[arg-type]
    assert str(found).endswith("It was scored as trial 1: loss 1.")
    assert (found.as_json()["trial"], found.as_json()["score"]) == (1, -1.0)


def test_a_model_and_data_of_the_users_own_are_taken_from_a_file(call: Call) -> None:
    run = call(
        "search", "--model", "mine.py:model", "--data", "mine.py:data", "--budget", "params=60%", "--searcher",
        "random", "--n-trials", "3", "--study", "sqlite:///own.db",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "best of 3 structures" in run.stdout


@pytest.mark.parametrize(
    ("where", "workers"),
    [
        ("roles", 1),
        ("roles.py", 1),
        pytest.param("roles", 2, marks=pytest.mark.slow),
        pytest.param("roles.py", 2, marks=pytest.mark.slow),
    ],
)
def test_whatever_a_search_takes_by_name_is_taken_from_the_working_folder(
    call: Call, where: str, workers: int, tmp_path: Path
) -> None:
    run = call(
        *SEARCH, "--searcher", f"{where}:Walker", "--criterion", f"{where}:Choice", "--weight-source",
        f"{where}:source", "--build-with", f"{where}:source", "--evaluator", f"{where}:Judge", "--images", "64",
        "--n-trials", "2", "--study", f"sqlite:///{tmp_path / 'own.db'}", "--json", "--workers", str(workers),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    named = call(*SEARCH, "--searcher", "random", "--criterion", "l2", "--images", "64", "--n-trials", "2", "--json",
                 "--study", f"sqlite:///{tmp_path / 'named.db'}")  # fmt: skip
    mine, theirs = (json.loads(each.stdout)["best"] for each in (run, named))
    assert mine["searcher"] == f"{where}:Walker"
    assert mine["structure"] == theirs["structure"]
    assert mine["score"] == pytest.approx(theirs["score"], rel=1e-5)


def test_explain_shows_groups_and_costs_as_a_table_and_as_json(call: Call) -> None:
    table = call("explain", "--model", "zoo:resnet20", "--input", "1x3x32x32")
    assert table.returncode == 0, table.stderr
    assert "40,551,040" in table.stdout
    found = json.loads(call("explain", "--model", "zoo:resnet20", "--input", "1x3x32x32", "--json").stdout)
    assert found["full"] == {"macs": 40_551_040, "params": 269_722}


def test_rules_for_some_layers_come_before_those_for_all(call: Call) -> None:
    found = call("explain", "--model", "zoo:resnet8", "--input", "1x1x8x8", "--round-to", "4", "--round-to",
                 "layer3.*=32", "--min-channels", "layer1.*=12", "--json")  # fmt: skip
    assert found.returncode == 0, found.stderr
    widths = {group["name"]: group["widths"] for group in json.loads(found.stdout)["groups"]}
    assert widths["layer1.0.conv1"] == [12, 16]
    assert widths["layer2.0.conv1"] == list(range(4, 33, 4))
    assert widths["layer3.0.conv1"] == [32, 64]


def test_verify_says_that_slimmed_networks_are_right(call: Call) -> None:
    run = call("verify", "--model", "torchvision:resnet18", "--input", "2x3x32x32", "--num-classes", "7", "--n", "2")
    assert run.returncode == 0, run.stderr
    assert "2 random structures" in run.stdout
    assert "costs are exact" in run.stdout
    assert re.search(r"in training mode by \d\.\de-\d+ of it", run.stdout)
    found = json.loads(call("verify", "--model", "zoo:resnet8", "--input", "2x1x8x8", "--n", "3", "--json").stdout)
    assert (found["structures"], found["costs_exact"]) == (3, True)


@pytest.mark.slow
def test_a_table_is_measured_searched_under_and_compared_with_the_winner(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_SECONDS_PER_VISIT", 1e-3)
    monkeypatch.setattr(measuring, "_NETWORK_VISITS", 2)
    monkeypatch.setattr(built, "_VISITS", 2)
    for _ in range(2):  # the second time there is nothing left to do
        run = call(*LATENCY, "--points", "2")
        assert run.returncode == 0, run.stderr
        assert "distinct layers; eager on" in run.stdout
    steady(ps.LatencyTable.load(folder / "cpu.json")).save(folder / "steady.json")
    limit = ("latency_ms=80%", "--table", "steady.json", "--images", "16", "--searcher", "random")
    run = call(*SEARCH[:-1], *limit, "--n-trials", "4", "--study", "sqlite:///latency.db", "--out", "fast.safetensors")
    assert run.returncode == 0, run.stderr
    assert "measured" in run.stdout
    run = call("verify", *LATENCY[1:5], "--pruned", "fast.safetensors", "--table", "steady.json", "--json")
    assert run.returncode == 0, run.stderr
    found = {row["cost"]: row for row in json.loads(run.stdout)["comparisons"]}
    assert set(found) == {"MACs", "parameters", "peak memory, bytes", "latency, ms"}


def steady(table: ps.LatencyTable) -> ps.LatencyTable:
    """The table with times that rise with the widths, whatever this machine was busy with."""

    def rising(layer: Layer) -> Layer:
        times = [0.1 * sum(widths, 1) for widths in combinations_of(layer.axes)]
        return replace(layer, timings=tuple(Timing(ms, ms, ms) for ms in times))

    return replace(table, layers=tuple(map(rising, table.layers)), networks=())


def test_what_to_time_on_another_device_is_written_once(call: Call, folder: Path) -> None:
    elsewhere = (*LATENCY[:-1], "phone.json", "--remote", "phone", "--points", "2")
    run = call(*elsewhere)
    assert run.returncode == 0, run.stderr
    assert f"{ps.LatencyTable.load(folder / 'phone.json').missing} times to fill in" in run.stdout
    run = call(*elsewhere)
    assert run.returncode == 2
    assert "phone.json exists" in run.stderr
    run = call(*SEARCH[:-1], "latency_ms=80%", "--table", "phone.json")
    assert run.returncode == 2
    assert "still lacks" in " ".join(run.stderr.split())


def test_finished_networks_and_winners_of_studies_are_put_side_by_side(call: Call, folder: Path) -> None:
    url = ("--study", "sqlite:///compared.db")
    for budget in ("macs=50%", "macs=30%"):
        run = call(*SEARCH[:-1], budget, "--n-trials", "2", "--searcher", "random", *url, "--out", f"{budget[5:7]}.st")
        assert run.returncode == 0, run.stderr
    files = ("--pruned", "50.st", "--pruned", "30.st")
    run = call("compare", *NETWORK, *files, *url, "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert [row["name"] for row in found["rows"]] == ["unpruned", "50.st", "30.st", "search", "search macs=30%"]
    assert found["test_images"] == 449
    rows = found["rows"]
    small = ps.load(folder / "30.st", ps.make_model("resnet8", in_channels=1, image_size=8))
    assert ps.count(small, torch.zeros(2, 1, 8, 8)).amounts == rows[2]["cost"]
    assert rows[0]["metric"] > 0.8
    assert (rows[1]["distance"], rows[2]["distance"]) == (0.0, rows[4]["distance"])
    assert rows[2]["structure"] == rows[4]["structure"]
    table = call("compare", *url)
    assert "widths differ by" in table.stdout
    assert "accuracy" not in table.stdout


@pytest.mark.slow
def test_paam_and_manidp_are_trained_and_their_networks_written(call: Call, folder: Path) -> None:
    budget = (*NETWORK, "--budget", "macs=60%", "--batch-size", "256", "--json")
    found = json.loads(call("paam", *budget, "--epochs", "5", "--out", "paam.st", "--every", "2").stdout)
    assert len(found["epochs"]) == 5
    small = ps.load(folder / "paam.st", ps.make_model("resnet8", in_channels=1, image_size=8))
    assert ps.count(small, torch.zeros(2, 1, 8, 8)).amounts == found["cost"]
    assert_remembers_digits(folder / "paam.st")
    run = call("manidp", *budget, "--epochs", "3", "--out", "gated.st")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["average_macs"] <= 0.6 * found["dense_macs"]
    unpruned = ps.make_model("resnet8", in_channels=1, image_size=8)
    ps.load(folder / "gated.st", ps.gated(unpruned, torch.zeros(2, 1, 8, 8)))
    assert_remembers_digits(folder / "gated.st")


@pytest.mark.slow
def test_a_network_is_pruned_layer_by_layer_and_written(call: Call, folder: Path) -> None:
    small = ("--generations", "1", "--scored", "1", "--epochs-per-layer", "0", "--epochs", "1", "--out", "layers.st")
    command = ("layerwise", *NETWORK, "--budget", "macs=60%", *small)
    run = call(*command, "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    unpruned = ps.make_model("resnet8", in_channels=1, image_size=8)
    network = ps.load(folder / "layers.st", unpruned)
    assert ps.count(network, torch.zeros(2, 1, 8, 8)).amounts == found["cost"]
    assert found["cost"]["macs"] <= 0.6 * ps.count(unpruned, torch.zeros(2, 1, 8, 8)).macs
    assert [layer["layer"] for layer in found["layers"]] == list(range(1, len(found["layers"]) + 1))
    assert_remembers_digits(folder / "layers.st")
    assert call(*command).stdout.startswith(
        "Nothing to do: this training is finished, and layers.st is what came of it"
    )


def test_a_finetuned_network_and_what_became_of_it_are_written(call: Call, folder: Path) -> None:
    run = call("finetune", *NETWORK, "--epochs", "1", "--out", "tuned.st", "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert (found["out"], found["test_images"], len(found["epochs"])) == ("tuned.st", 449, 1)
    assert not found["was_finished"]
    (folder / "tuned.st").unlink()
    again = call("finetune", *NETWORK, "--epochs", "1", "--out", "tuned.st")
    assert again.stdout.startswith("Nothing to do: this training is finished, and tuned.st is what came of it")
    assert "the network of epoch 1 of 1" in again.stdout
    assert_remembers_digits(folder / "tuned.st")
    assert (folder / "tuned.st").exists()
    longer = call("finetune", *NETWORK, "--epochs", "2", "--out", "tuned.st")
    assert longer.returncode == 2
    assert "tuned.st.checkpoint is of another training: epochs was 1, now it is 2." in longer.stderr


def test_a_training_that_does_harm_says_so_first(call: Call) -> None:
    train = ("finetune", *NETWORK, "--validation", "0.2", "--epochs", "1", "--out")
    harmed = call(*train, "worse.st", "--lr", "5")
    assert harmed.returncode == 0, harmed.stderr
    assert harmed.stdout.startswith("The network is worse than before: its validation accuracy is ")
    assert ", that of the one it was given " in harmed.stdout.splitlines()[0]
    again = json.loads(call(*train, "worse.st", "--lr", "5", "--json").stdout)
    assert again["was_finished"]
    assert again["validation"] < again["validation_before"]
    kept = call(*train, "kept.st", "--lr", "1e-9")
    assert kept.stdout.startswith("Wrote kept.st"), kept.stdout
    found = json.loads(call(*train, "kept.st", "--lr", "1e-9", "--json").stdout)
    assert found["validation"] >= found["validation_before"]


def test_a_study_that_nobody_named_takes_whatever_is_asked_and_a_named_one_refuses(
    call: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("w.safetensors", "mine.py"):
        shutil.copy(folder / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    random = ("--searcher", "random", "--n-trials", "2")
    other = ("search", "--model", "mine.py:model", "--data", "mine.py:data", "--budget", "macs=50%", *random)
    assert "Study 'search' in sqlite:///search.db." in call(*SEARCH, *random).stdout
    names = [json.loads(call(*command, "--json").stdout)["name"] for command in (
        (*SEARCH, *random, "--seed", "1"), other, (*SEARCH, *random, "--calibration", "256"), (*SEARCH, *random),
    )]  # fmt: skip
    assert names[0] == "search seed 1"
    assert names[1].startswith("search model ")
    assert names[2].startswith("search data ")
    assert names[3] == "search"
    assert len(json.loads(call("list", "--study", "search.db", "--json").stdout)) == 4
    for named in (("--study", "search.db"), ("--study", "sqlite:///search.db"), ("--study-name", "search")):
        refused = call(*other, "--seed", "9", *named)
        assert refused.returncode == 2
        assert "is of another search: its model is" in refused.stderr
    finished = call(*SEARCH, *random)
    assert "Nothing to do: study 'search' has its 2 trials." in finished.stderr


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_deleting_asks_and_without_a_yes_nothing_is_done(
    call: Call, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    url = ("--study", "sqlite:///kept.db")
    assert call(*SEARCH, "--n-trials", "2", "--searcher", "random", *url).returncode == 0
    run = call("delete", *url, "--study-name", "search")
    assert run.returncode == 1
    assert "nothing was done" in run.stderr
    assert "give --yes" in call("delete", *url, "--study-name", "search", "--json").stderr
    found = json.loads(call("delete", *url, "--study-name", "search", "--yes", "--json").stdout)
    assert found == {"study": "search", "from_trial": 0, "deleted": 2}


def test_another_question_for_a_stored_study_is_refused(call: Call) -> None:
    url = "sqlite:///question.db"
    assert call(*SEARCH, "--n-trials", "2", "--study", url).returncode == 0
    run = call(*SEARCH, "--n-trials", "2", "--study", url, "--seed", "7")
    assert run.returncode == 2
    assert "its seed is 0, not 7" in " ".join(run.stderr.split())


def test_a_process_of_its_own_exits_as_the_function_does(folder: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", "from prunesearch.cli import main; main()"]
    wrong = subprocess.run(
        [*command, "status", "--study", "s"], capture_output=True, text=True, check=False, cwd=folder
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: Expected a study URL")


@pytest.mark.slow
def test_a_first_interrupt_ends_with_a_sentence_and_the_same_command_goes_on(call: Call, folder: Path) -> None:
    import signal
    import time

    from prunesearch.study.store import Store

    url = "sqlite:///interrupted.db"
    search = (*SEARCH, "--study", url, "--n-trials")
    command = [sys.executable, "-c", "from prunesearch.cli import main; main()", *search, "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder)
    database = folder / "interrupted.db"
    try:
        while process.poll() is None and not _trials(Store, database):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "run the same command again to continue" in " ".join(errors.split())
    kept = _trials(Store, database)
    assert json.loads(call(*search, str(kept + 1), "--json").stdout)["trials"] == kept + 1


def _trials(store: type, database: Path) -> int:
    from prunesearch.errors import StudyUnreadable

    try:
        opened = store(f"sqlite:///{database}", create=False)
        count = len(opened.trials("search"))
    except StudyUnreadable:  # not there yet, or in the middle of being made
        return 0
    opened.close()
    return count


def test_what_is_reached_and_measured_afterwards_is_recorded_in_the_study_and_shown(call: Call, folder: Path) -> None:
    url = ("--study", "sqlite:///after.db")
    found = call(*SEARCH, "--searcher", "uniform", *url, "--out", "after.safetensors")
    assert found.returncode == 0, found.stderr
    network = ("--model", "zoo:resnet8", "--weights", "w.safetensors", "--pruned", "after.safetensors")
    tuned = ("--data", "digits", "--epochs", "1", "--out", "tuned-after.safetensors")
    assert call("finetune", *network, *tuned, *url).returncode == 0
    assert call("verify", *network, "--input", "2x1x8x8", *url).returncode == 0
    shown = call("show", *url).stdout
    assert "trial 0: written to after.safetensors" in shown
    assert "trial 0: finetuned for 1 epoch: test accuracy " in shown
    assert "trial 0: measured: MACs " in shown
    followed = json.loads(call("show", *url, "--json").stdout)["followed"]
    assert [fact["kind"] for fact in followed] == ["file", "finetuned", "measured"]
    wrong = call("finetune", *network[:4], *tuned, *url)
    assert (wrong.returncode, "name that network with --pruned" in wrong.stderr) == (2, True)
