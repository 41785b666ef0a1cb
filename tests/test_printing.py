"""What a notebook shows of a value: what it is in a few lines, never what is in its tensors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch

import prunesearch as ps
from prunesearch.training.finetune import train
from tests.test_given import IMAGES, LABELS, Net, network, search
from tests.toys import chain_space, toy_table

LARGE = re.compile(
    r"Tensor|Module|Network|Array|Ranking|WeightSource|Space|Source|LatencyTable|tuple\[(Compared|Group|Layer)"
)
PRINTED_ELSEWHERE = {"Network"}
LARGE_INSIDE = {"Budget"}  # though its fields do not say so


def finished() -> ps.Training:
    return train(Net(), ps.Data(train=(IMAGES, LABELS), validation=0.5), recipe=ps.Recipe(epochs=1, batch_size=8))


@pytest.fixture(scope="module")
def examples() -> Mapping[str, Any]:
    """One of each public dataclass that holds tensors, modules or the like."""
    net, training = network(), finished()
    result = search(net)
    ranking = ps.search(net, (IMAGES, LABELS), budget="macs=50%", n_trials=1).best.weights.ranking
    scores = tuple(torch.rand(1000).numpy() for _ in net.space.groups)
    return {
        "AttentionPruned": ps.AttentionPruned(
            net.space.minimum,
            ranking,
            scores,
            net,
            training.best,
            training.reports,  # type: ignore[arg-type]
        ),
        "Budget": ps.Budget(latency_ms="60%", table=toy_table(chain_space())),
        "Comparison": ps.compare(net, {f"model {i}": net.model for i in range(20)}),
        "Data": ps.Data(train=(IMAGES, LABELS)),
        "DynamicallyPruned": ps.DynamicallyPruned(training.best, 1e6, 2_000_000, training.reports),
        "LatencyTable": toy_table(chain_space()),
        "LayerwisePruned": ps.LayerwisePruned(net.space.minimum, ranking, (), training.best, training.reports),
        "Scoring": ps.Scoring(criterion=ranking, evaluator_options={"calibration": IMAGES}),
        "SearchResult": result,
        "Space": net.space,
        "Task": ps.tasks.segmentation(),
        "Training": training,
        "Trial": result.best.trial,
        "Winner": result.best,
    }


def test_every_public_dataclass_with_much_inside_prints_in_a_few_lines(examples: Mapping[str, Any]) -> None:
    public = [(name, getattr(ps, name)) for name in ps.__all__]
    large = {
        name
        for name, kind in public
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and any(LARGE.search(str(field.type)) for field in dataclasses.fields(kind))
    }
    assert large - PRINTED_ELSEWHERE | LARGE_INSIDE == examples.keys()
    for name, example in examples.items():
        printed = repr(example)
        assert name in printed
        assert printed.count("\n") < 10, name
        assert len(printed) < 1500, name
        assert "tensor(" not in printed
        assert "Conv2d(" not in printed


def test_a_result_prints_in_ten_lines_and_a_long_study_no_longer(examples: Mapping[str, Any]) -> None:
    result = examples["SearchResult"]
    long = dataclasses.replace(result, trials=result.trials * 1000, notes=("A note. " * 100,) * 100)
    assert repr(long).count("\n") < 10
    assert len(repr(long)) < len(repr(result)) + 600
    assert str(result) in repr(result)
    assert result.next_call in repr(result)


def test_what_public_functions_and_methods_return_prints_in_ten_lines(examples: Mapping[str, Any]) -> None:
    net, result = examples["SearchResult"].best.weights.network, examples["SearchResult"]
    assert f"groups: {len(net.space.groups)}, frozen layers: {len(net.frozen)}, " in repr(net)
    found = [net, net.explain(), net.verify(1), result.follow_up, result.judged, examples["Comparison"].rows[0]]
    found += [ps.PruningNet(net), ps.Recipe(), ps.Running(), ps.Workers(), ps.measure_latency(Net(), IMAGES)]
    for each in [*found, *result.top(1), *result.front()]:
        printed = repr(each)
        assert printed.count("\n") < 10, type(each)
        assert len(printed) < 1500, type(each)


def test_what_a_notebook_shows_is_a_table_in_which_text_stays_text(examples: Mapping[str, Any]) -> None:
    evil = "<img src=x onerror=alert(1)>"
    result = dataclasses.replace(examples["SearchResult"], notes=(evil,))
    comparison = dataclasses.replace(
        examples["Comparison"], rows=(dataclasses.replace(examples["Comparison"].rows[0], name=evil),)
    )
    explanation = dataclasses.replace(result.best.weights.network.explain(), frozen={evil: evil}, notes=(evil,))
    for each in (result, comparison, explanation):
        page = each._repr_html_()
        assert "<table>" in page
        assert "&lt;img" in page
        assert "<img" not in page


def test_figures_and_a_table_of_all_trials(examples: Mapping[str, Any]) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("pandas")
    pyplot.switch_backend("agg")
    result = examples["SearchResult"]
    front, history, widths = result.plot_front(), result.plot_history(), result.plot_widths()
    assert "loss" in front.get_ylabel()
    assert len(history.collections[0].get_offsets()) == len(result.trials)
    assert [tick.get_text() for tick in widths.get_yticklabels()] == [group.name for group in result.space.groups]
    assert widths.get_xticks().tolist() == [0, 20, 40, 60, 80, 100]
    assert result.plot_history(front) is front
    frame = result.trials_dataframe()
    assert list(frame["macs"]) == [trial.cost.macs for trial in result.trials]
    pyplot.close("all")
