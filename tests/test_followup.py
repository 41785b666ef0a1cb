"""What follows a search is recorded in its study, and shown."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

import prunesearch as ps
from prunesearch.report.contents import read
from prunesearch.study.database import parse
from prunesearch.study.locks import drive
from prunesearch.study.store import Fact, Store
from prunesearch.study.told import told
from prunesearch.training import finetune as finetuning
from tests.test_given import IMAGES, LABELS, Net, network, search

DATA = ps.Data(train=(IMAGES, LABELS), validation=(IMAGES[:16], LABELS[:16]), test=(IMAGES[16:], LABELS[16:]))
RECIPE = ps.Recipe(epochs=2, batch_size=16)


def facts_of(url: str, name: str = "search") -> list[Fact]:
    with closing(Store(url, create=False)) as store:
        return store.facts(name)


def test_what_a_finetuning_reached_stands_in_the_study_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    net = network()
    result = search(net, study=url)
    built = result.best.build()
    tuned = ps.finetune(built, DATA, recipe=RECIPE, teacher=net.model, study=result)
    (fact,) = facts_of(url)
    expected = ps.train(built, DATA, recipe=RECIPE, teacher=net.model)
    assert (fact.kind, fact.value["structure"]) == ("finetuned", list(result.best.structure))
    assert (fact.value["before"], fact.value["reached"]) == (expected.validation_before, expected.validation_after)
    assert fact.value["test"] == {
        "before": ps.top1(built, IMAGES[16:], LABELS[16:]),
        "reached": ps.top1(tuned, IMAGES[16:], LABELS[16:]),
        "examples": 32,
        "unpruned": ps.top1(net.model, IMAGES[16:], LABELS[16:]),
    }
    ps.finetune(built, DATA, recipe=RECIPE, teacher=net.model, study=result)  # the same again
    assert len(facts_of(url)) == 1
    with closing(Store(url, create=False)) as store:
        (study,) = read(store, None)
    assert study.finetuned == fact.value


def test_another_network_is_refused_before_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    result = search()
    monkeypatch.setattr(finetuning, "train", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match="not pruned from it"):
        ps.finetune(ps.make_model("resnet8", in_channels=1, image_size=8), DATA, study=result)


def test_of_a_study_in_memory_nothing_is_kept_and_nothing_fails() -> None:
    result = search()
    assert isinstance(ps.finetune(result.best.build(), DATA, recipe=RECIPE, study=result), Net)


def test_a_study_that_somebody_else_drives_by_then_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    result = search(study=url)
    monkeypatch.setattr("prunesearch.study.study._PATIENCE", 0.1)
    release = drive(parse(url), url, "search")
    try:
        with pytest.warns(UserWarning, match="What the training reached is not recorded in the study"):
            ps.finetune(result.best.build(), DATA, recipe=RECIPE, study=result)
    finally:
        getattr(release, "release", release)()
    assert facts_of(url) == []


def test_facts_of_any_kind_can_be_recorded_and_go_with_the_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    result = search(study=url)
    result.record("phone", {"structure": list(result.best.structure), "ms": 3.2})
    (fact,) = facts_of(url)
    assert told(fact) == "phone: ms 3.2"
    with closing(Store(url)) as store:
        store.delete("search")
    search(study=url)
    assert facts_of(url) == []


def test_a_trial_knows_its_costs_its_status_and_whose_score_it_is(tmp_path: Path) -> None:
    url, net = f"sqlite:///{tmp_path / 's.db'}", network()
    first = search(net, budget="macs=60%", study=url)
    assert {trial.status for trial in first.trials} == {"scored"}
    second = search(net, budget="macs=60%,peak_memory=99%", study=url)
    wanted = ps.Budget(macs="60%", peak_memory="99%").check(net)
    taken = [trial for trial in second.trials if trial.source is not None]
    assert taken
    for trial in second.trials:
        assert trial.cost == wanted.cost(trial.structure)
        assert trial.facts()["cost"].keys() == {"macs", "params", "peak_memory"}
    for trial in taken:
        assert trial.source is not None
        assert trial.source.study == first.name
        assert first.trials[trial.source.trial].structure == trial.structure
        assert trial.status == "taken over"
    with closing(Store(url, create=False)) as store:
        assert store.trials(second.name) == list(second.trials)
        summary = store.summary(second.name) or {}
    assert summary["limits"] == dict(wanted.limits)
    assert summary["unpruned"] == wanted.cost(net.space.full).amounts
    json.dumps([trial.facts() for trial in second.trials])


def test_facts_in_words() -> None:
    value = {"metric": "loss", "before": 1.25, "reached": 0.5, "epochs": 1, "test": {"before": 1.5, "reached": 0.75}}
    assert told(Fact("finetuned", "", value)) == (
        "finetuned for 1 epoch: validation loss 1.25 before, 0.5 now; test loss 1.5 before, 0.75 now"
    )
    costs = {"MACs": {"predicted": 1200, "measured": 1200}, "latency, ms": {"predicted": 1.5, "measured": 1.75}}
    assert told(Fact("measured", "", {"costs": costs})) == "measured: MACs 1,200, latency, ms 1.75 (predicted 1.5)"
    assert told(Fact("finetuned", "", {"epochs": 3})) == "finetuned for 3 epochs"
    assert told(Fact("file", "", {"file": "small.safetensors"})) == "written to small.safetensors"
