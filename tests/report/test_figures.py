"""The figures: what they draw, where, and what they leave out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prunesearch.report.contents import StudyContents
from prunesearch.report.figures import colours, figures
from prunesearch.report.plot import Plot, axis, counted, dots, short, steps
from prunesearch.report.scores import non_dominated, score_axis
from prunesearch.report.sensitivity import sensitivity
from prunesearch.report.series import Series
from prunesearch.report.winners import accuracy_against
from prunesearch.structure import Cost
from prunesearch.trial import Trial, pareto_front
from tests.toys import chain_space

SCORES = (0.2, None, 0.5, 0.4)


def contents(
    scores: Sequence[float | None] = SCORES, name: str = "search", summary: dict[str, Any] | None = None, **facts: Any
) -> StudyContents:
    trials = tuple(
        Trial(
            i,
            (2, 3 * (1 + i % 4), 4),
            Cost(100 + i, 10),
            score,
            None if score is not None else "It broke.",
            0.1,
            "toy",
            "toy",
            "here",
        )
        for i, score in enumerate(scores)
    )
    return StudyContents(name, {}, chain_space(), trials, summary or {}, **facts)


def drawn(*studies: StudyContents) -> dict[str, list[Plot]]:
    return figures(studies, colours(studies))


def by_name(plots: Sequence[Plot], name: str) -> Plot:
    return next(plot for plot in plots if plot.name == f"{name}-0")


def values(plot: Plot, data: str) -> list[tuple[float, float]]:
    """Points of a cloud, back from path data to what the axes say."""
    points = [(int(x) / 10, int(y) / 10) for x, y in re.findall(r"M(\d+) (\d+)h0", data)]
    x, y = plot.x, plot.y
    return [(x.low + a / 100 * (x.high - x.low), y.high - b / 100 * (y.high - y.low)) for a, b in points]


def test_every_scored_trial_is_drawn_at_its_macs_and_score() -> None:
    plot = by_name(drawn(contents())["front"], "front-macs")
    (cloud,) = [path.data for path in plot.paths if path.kind == "dots"]
    found = values(plot, cloud)
    assert [round(x) for x, _ in found] == [100, 102, 103]
    assert [y for _, y in found] == pytest.approx([0.2, 0.5, 0.4], abs=1e-3)


def test_costs_are_in_percent_of_the_unpruned_network_and_losses_are_losses() -> None:
    study = contents([-0.5, -0.75, -1.0], summary={"scoring": {"measures": "loss"}})
    plot = by_name(drawn(study)["front"], "front-macs")
    full = chain_space().cost(chain_space().full).macs
    for at, text in plot.x.ticks:
        macs = plot.x.low + at / 100 * (plot.x.high - plot.x.low)
        assert 100 * macs / full == pytest.approx(float(text), abs=0.06)
    assert {text for _, text in plot.y.ticks} >= {"0.5", "1.0"} or {text for _, text in plot.y.ticks} >= {
        "0.50",
        "1.00",
    }
    assert plot.y.title == "Loss (lower is better, and further up)"
    shares = by_name(drawn(contents(summary={"scoring": {"measures": "accuracy"}}))["front"], "front-macs")
    assert shares.y.title == "Accuracy, % (higher is better)"
    assert all(15 <= float(text) <= 55 for _, text in shares.y.ticks)


def test_every_limited_cost_has_a_panel() -> None:
    study = contents(summary={"limits": {"macs": 500, "params": 60}, "unpruned": {"params": 100}})
    assert [plot.name for plot in drawn(study)["front"]] == ["front-macs-0", "front-params-0"]


def test_the_winner_and_uniform_widths_have_their_names_beside_them() -> None:
    space = chain_space()
    judged = {"structure": [2, 9, 4], "uniform_structure": [2, 3, 4], "uniform_score": 0.3, "metric": "accuracy"}
    study = contents(summary={"judged": {**judged, "winner": 0.5, "unpruned": 0.9, "uniform": 0.4, "examples": 64}})
    trials = tuple(replace(trial, cost=space.cost(trial.structure)) for trial in study.trials)
    plot = by_name(drawn(replace(study, trials=trials))["front"], "front-macs")
    assert [(mark.shape, mark.label) for mark in plot.marks] == [("uniform", "uniform widths"), ("winner", "found")]


def test_sensitivity_finds_the_group_that_matters() -> None:
    space = chain_space()
    rng = np.random.default_rng(0)
    structures = [tuple(int(rng.choice(group.widths)) for group in space.groups) for _ in range(60)]
    trials = tuple(
        Trial(i, each, space.cost(each), each[1] / space.full[1], None, 0.1, "toy", "toy", "here")
        for i, each in enumerate(structures)
    )
    found = sensitivity(StudyContents("s", {}, space, trials, {}))
    assert found is not None
    assert found[1] == pytest.approx(0.5, abs=0.1)
    assert max(abs(found[0]), abs(found[2])) < 0.1
    assert sensitivity(StudyContents("s", {}, space, trials[:5], {})) is None


def test_the_front_is_what_no_other_point_beats() -> None:
    plot = by_name(drawn(contents())["front"], "front-macs")
    (front,) = [path.data for path in plot.paths if path.kind == "front-dots"]
    assert [round(x) for x, _ in values(plot, front)] == [100, 102]
    assert plot.says.startswith("2 of 3 scored structures are on the Pareto front")


def test_non_dominated_points_are_those_of_the_pareto_front_of_trials() -> None:
    study = contents([((7 * i) % 13) / 13 for i in range(40)])
    points = [(float(trial.cost.macs), score) for trial, score in study.scored]
    assert non_dominated(points) == [(t.cost.macs, t.score) for t in pareto_front(study.trials)]


def test_the_history_climbs_with_the_best_score_and_goes_on_to_the_last_trial() -> None:
    study = contents()
    (plot,) = drawn(study)["history"]
    (line,) = [path.data for path in plot.paths if path.kind == "line"]
    climbs = [(round(10 * x), round(10 * y)) for x, y in (plot.place(1, 0.2), plot.place(3, 0.5))]
    until = round(10 * plot.x.percent(4))
    assert line == f"M{climbs[0][0]} {climbs[0][1]}H{climbs[1][0]}V{climbs[1][1]}H{until}"
    (winner,) = plot.marks
    assert (winner.x, winner.y) == plot.place(3, 0.5)


def test_studies_of_one_network_share_a_history() -> None:
    (plot,) = drawn(contents(name="first"), contents(name="second"))["history"]
    assert [path.colour for path in plot.paths if path.kind == "line"] == [0, 1]
    assert [text for symbol, _, text in plot.legend if symbol == "dot"] == ["first", "second"]


def test_the_budget_is_a_line_and_the_unpruned_network_a_point_when_their_values_are_known() -> None:
    full = chain_space().cost(chain_space().full)
    near = [replace(t, cost=Cost(full.macs * (4 + i) // 10, 10)) for i, t in enumerate(contents().trials)]
    facts = {"score_full": 0.6, "limits": {"macs": full.macs // 2}}
    study = replace(contents(summary=facts), trials=tuple(near))
    plot = by_name(drawn(study)["front"], "front-macs")
    rule, reference = plot.rules
    assert rule.at == plot.x.percent(full.macs // 2)
    assert (reference.across, reference.at) == (True, plot.place(full.macs, 0.6)[1])
    assert [(mark.x, mark.y) for mark in plot.marks if mark.shape == "unpruned"] == [plot.place(full.macs, 0.6)]


def test_an_unpruned_network_that_would_squeeze_the_trials_is_a_line_at_its_score() -> None:
    plot = by_name(drawn(contents(summary={"score_full": 0.6}))["front"], "front-macs")
    assert plot.x.high < chain_space().cost(chain_space().full).macs
    (rule,) = plot.rules
    assert rule.across
    assert rule.text == "unpruned network"  # which is short enough for a phone
    assert any(note.startswith("The unpruned network, with ") and "to the right" in note for note in plot.notes)


def test_an_unpruned_network_without_a_score_is_said_not_drawn() -> None:
    plot = by_name(drawn(contents())["front"], "front-macs")
    assert not [mark for mark in plot.marks if mark.shape == "unpruned"]
    assert any("was not recorded" in note for note in plot.notes)


def test_a_long_tail_of_bad_scores_is_drawn_at_the_foot_and_counted() -> None:
    study = contents([-0.1 - i / 100 for i in range(30)] + [-1e6, -1e9])
    plot = by_name(drawn(study)["front"], "front-macs")
    assert plot.y.low > -10
    assert any(note.startswith("2 structures are worse than the figure shows") for note in plot.notes)


def test_a_score_is_drawn_even_when_all_are_the_same() -> None:
    series = [Series(contents([0.5, 0.5]), 0)]
    y = score_axis(series)
    assert y.low < 0.5 < y.high


def test_latency_has_figures_only_where_it_is_known() -> None:
    assert not [plot for plot in drawn(contents())["front"] if "latency" in plot.name]
    assert drawn(contents())["latency"] == []
    study = contents(predicted_ms=(1.0, 2.0, 3.0, 4.0), limit_ms=3.5)
    plot = by_name(drawn(study)["front"], "front-latency")
    (cloud,) = [path.data for path in plot.paths if path.kind == "dots"]
    assert [round(x, 1) for x, _ in values(plot, cloud)] == [1.0, 3.0, 4.0]
    assert [rule.at for rule in plot.rules] == [plot.x.percent(3.5)]


def test_every_timed_winner_is_at_its_predicted_and_measured_milliseconds() -> None:
    attempts = [
        {"structure": [2, 9, 4], "predicted_ms": 3.0, "measured_ms": 3.6, "low_ms": 3.5, "high_ms": 3.8},
        {"structure": [2, 12, 4], "predicted_ms": 2.0, "measured_ms": 2.1},
        {"structure": "2 3 4", "predicted_ms": 2.0, "measured_ms": 2.1},
        {"structure": [2, 3, 4], "predicted_ms": None, "measured_ms": 2.1},
    ]
    verdicts = [
        {"verifier": "latency", "structure": each.pop("structure"), "facts": {**each, "expected_error": 0.05}}
        for each in attempts
    ]
    study = contents(summary={"verdicts": [*verdicts, 7, {"facts": 3}], "winner": [2, 12, 4]})
    assert study.winner is study.trials[3]
    (plot,) = drawn(study)["latency"]
    assert [(m.x, m.y) for m in plot.marks] == [plot.place(3.0, 3.6), plot.place(2.0, 2.1)]
    assert plot.marks[0].span == (plot.place(0, 3.5)[1], plot.place(0, 3.8)[1])
    assert {path.kind for path in plot.paths} == {"band", "diagonal"}
    (history,) = drawn(study)["history"]
    assert any("too slow when timed" in note for note in history.notes)


def test_accuracies_are_drawn_as_far_as_they_are_known() -> None:
    series = [Series(contents(summary={"accuracy_after": 0.9}), 0)]
    plot = accuracy_against(series, "macs")
    assert plot is not None
    assert [mark.shape for mark in plot.marks] == ["after"]
    assert accuracy_against(series, "ms") is None
    assert accuracy_against([Series(contents(), 0)], "macs") is None


@pytest.mark.parametrize(
    "ends", [(0.0, 1.0), (-3.2e-9, 5e-9), (2.5e6, 2.6e6), (7.0, 7.0), (0.0, 0.0), (-1e12, 3.0), (0.999, 1.0)]
)
def test_axes_have_a_few_round_ticks_and_all_values_within(ends: tuple[float, float]) -> None:
    found = axis("x", ends)
    assert found.low <= ends[0] <= ends[1] <= found.high
    assert found.low < found.high
    assert 1 <= len(found.ticks) <= 8
    assert len({text for _, text in found.ticks}) == len(found.ticks)
    assert all(0 <= at <= 100 for at, _ in found.ticks)


def test_ten_thousand_points_are_one_short_path() -> None:
    cloud = dots((i % 100 + 0.001, i // 100) for i in range(10_000))
    assert cloud.count("M") == 10_000
    assert len(cloud) < 150_000
    assert dots([(1.0, 1.0), (1.01, 1.01)]) == "M10 10h0"


def test_counts_and_steps_are_written_as_people_and_browsers_read_them() -> None:
    assert [short(n) for n in (12, 1_500, 2_516_608, 4.1e9)] == ["12", "1.5k", "2.517M", "4.1G"]
    assert steps([], until=50) == ""
    assert steps([(0, 50), (10, 20)], until=30) == "M0 500H100V200H300"
    assert all("." not in text for _, text in counted("n", 3).ticks)
