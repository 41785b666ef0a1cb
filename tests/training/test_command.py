"""The command `finetune`."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import safetensors.torch

import prunesearch as ps
from prunesearch.cli import main
from prunesearch.evaluators.channels import make_criterion
from prunesearch.models.network import Network
from prunesearch.training.watching import LossAndMetric

TRAIN = ("finetune", "--model", "zoo:resnet8", "--weights", "w.safetensors", "--data", "digits")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors.torch.save_file(network.model.state_dict(), tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_a_pruned_network_is_trained_interrupted_and_continued(
    capsys: pytest.CaptureFixture[str], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure = ps.Budget(macs="50%").check(network.space).fit([network.space.minimum])[0].tolist()
    ranking = make_criterion("l1", seed=0).rank(network)
    ps.save(ps.slim(network, tuple(structure), ranking), "small.safetensors")
    settings = ("--pruned", "small.safetensors", "--epochs", "2", "--augmentation", "crop=1", "--validation", "0.1")
    command = (*TRAIN, *settings, "--log", "log", "--out", "tuned.safetensors")

    step = LossAndMetric.step

    def interrupt(show: LossAndMetric, report: ps.StepReport) -> None:
        step(show, report)
        if report.step == 12:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LossAndMetric, "step", interrupt)
    code, _, err = run(capsys, *command)
    assert code == 130
    assert "The state is in tuned.safetensors.checkpoint; run the same command again" in err
    assert not Path("tuned.safetensors").exists()
    monkeypatch.setattr(LossAndMetric, "step", step)
    code, out, err = run(capsys, *command, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [report["epoch"] for report in found["epochs"]] == [1, 2]
    assert found["accuracy"] > found["accuracy_before"]
    trained = ps.load("tuned.safetensors", ps.make_model("resnet8", in_channels=1, image_size=8))
    assert ps.count(trained, network.example_inputs).macs == network.space.cost(structure).macs
    assert Path("log/metrics.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--lr", "0"), "lr > 0"),
        (("--augmentation", "twist"), "such as"),
        (("--optimizer", "lion"), "Expected optimizer as one of sgd, adamw"),
        (("--patience", "3"), "with --validation 0.1"),
        (("--pruned", "absent.safetensors"), "no file absent.safetensors"),
        (("--lr", "1e9", "--epochs", "1"), "The training loss became"),
    ],
)
def test_a_mistake_ends_with_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    code, _, err = run(capsys, *TRAIN, "--out", "tuned.safetensors", *arguments)
    assert code in (1, 2)
    assert sentence in err.replace("\n", " ")
    assert "Traceback" not in err
    assert not Path("tuned.safetensors").exists()
