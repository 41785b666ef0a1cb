"""Figures of all trials: scores against evaluations, MACs and latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from prunesearch.report.contents import StudyContents
from prunesearch.report.plot import Axis, Mark, Plot, Polyline, Rule, axis, counted, dots, short, steps
from prunesearch.report.series import Series, first_known, legend_of
from prunesearch.trial import Trial

_SQUEEZED = 0.25
"""Share of an axis below which trials are not squeezed to get the unpruned network onto it."""


_TAIL = 4.0
"""Scores further below the median than so many times the best is above it are drawn at the foot of a figure."""


_MANY = 1500
"""Points of a figure from which on they are drawn smaller."""


Points = list[tuple[float, float]]


def score_axis(series: Sequence[Series]) -> Axis:
    """From the best score down to the worst; a long tail of bad ones is cut off."""
    scores = sorted(score for each in series for _, score in each.study.scored)
    best, median = scores[-1], scores[len(scores) // 2]
    foot = max(scores[0], median - _TAIL * (best - median)) if best > median else scores[0]
    full = [value for each in series if (value := each.study.number("score_full")) is not None]
    near = [value for value in full if value <= best + 2 * (best - foot)]
    metric = _metric(series[0].study)
    return axis(f"Score: {metric}" if metric else "Score (higher is better)", [foot, best, *near], most=7)


def history(series: Sequence[Series], score: Axis) -> Plot:
    """Score of every trial, and the best so far, against the number of evaluations."""
    most = max(len(each.study.trials) for each in series)
    plot = Plot(
        "history",
        "Score of every trial, and the best so far",
        "",
        counted("Evaluations", most),
        score,
        legend=(*legend_of(series), ("line", None, "best so far"), ("winner", None, "winner")),
        fields=("position", "score"),
    )
    paths, marks, ends = [], [], []
    for each in series:
        scored = [(i + 1, s) for i, (_, s) in _scored(each.study)]
        paths.append(Polyline(_cloud_kind(series), dots(plot.place(x, y) for x, y in scored), each.colour))
        best = list(accumulate((s for _, s in scored), max))
        raised = [(x, y) for (x, _), y, before in zip(scored, best, [-math.inf, *best], strict=False) if y > before]
        until = plot.x.percent(len(each.study.trials))
        paths.append(Polyline("line", steps([plot.place(x, y) for x, y in raised], until=until), each.colour))
        ends.append(f"{each.study.name} reaches {best[-1]:.4g} in {len(each.study.trials):,} evaluations")
        marks += [_winner(plot, each, i + 1, s) for i, (trial, s) in _scored(each.study) if trial is each.study.winner]
    lines_last = sorted(paths, key=lambda path: path.kind == "line")
    reference = _unpruned_score(series, plot, "")
    return replace(
        plot,
        paths=tuple(lines_last),
        marks=tuple(marks),
        rules=reference,
        says=f"Best score so far against evaluations: {'; '.join(ends)}.",
        notes=(*_too_slow(series), *_below(series, score)),
    )


def score_against_macs(series: Sequence[Series], score: Axis) -> Plot:
    """Score of every trial against its MACs, with what no other trial beats in both."""
    points = [[(float(trial.cost.macs), s) for trial, s in each.study.scored] for each in series]
    limits = {limit for each in series if (limit := each.study.limits.get("macs")) is not None}
    full = float(series[0].study.unpruned.macs)
    return _cloud(
        Plot("front-macs", "Score against MACs", "", _x_axis("MACs of one image", points, limits, full), score),
        series,
        points,
        field="macs",
        full=full,
        limits={float(limit): f"budget {short(limit)}" for limit in limits},
    )


def score_against_latency(series: Sequence[Series], score: Axis) -> Plot | None:
    """The same against predicted latency; winners that were timed are there as measured, too."""
    known = [each for each in series if each.study.predicted_ms]
    if not known:
        return None
    points = [
        [(ms, trial.score) for trial, ms in _with_latency(each.study) if trial.score is not None] for each in known
    ]
    limits = {limit for each in known if (limit := each.study.limit_ms) is not None}
    measured = [attempt.measured_ms for each in known for attempt in each.study.attempts]
    title = "Predicted latency of one forward, ms"
    full = _full_ms(known)
    plot = _cloud(
        Plot("front-latency", "Score against latency", "", _x_axis(title, points, {*limits, *measured}, full), score),
        known,
        points,
        field="latency",
        full=full,
        limits={limit: f"budget {limit:.4g} ms" for limit in limits},
    )
    timed = []
    for each in known:
        scores = {trial.structure: s for trial, s in each.study.scored}
        for attempt in each.study.attempts:
            if attempt.structure in scores:
                x, y = plot.place(attempt.measured_ms, scores[attempt.structure])
                says = (
                    f"{each.study.name}: measured {attempt.measured_ms:.4g} ms, score {scores[attempt.structure]:.5g}"
                )
                timed.append(Mark("timed", x, y, says, each.colour))
    legend = (*plot.legend, ("timed", None, "winner as measured")) if timed else plot.legend
    return replace(plot, marks=(*plot.marks, *timed), legend=legend)


def non_dominated(points: Points) -> Points:
    """Points to which no other is preferable both to the left and upwards, from the left."""
    front: Points = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def _cloud(
    plot: Plot,
    series: Sequence[Series],
    points: Sequence[Points],
    *,
    field: str,
    full: float | None,
    limits: Mapping[float, str],
) -> Plot:
    """Fill a plot of score against a cost: points, front, winners, budget, and the unpruned network."""
    front = non_dominated([point for each in points for point in each])
    best = set(front)
    paths, marks = [], []
    for each, mine in zip(series, points, strict=True):
        paths.append(Polyline(_cloud_kind(series), dots(plot.place(*p) for p in mine), each.colour))
        paths.append(Polyline("front-dots", dots(plot.place(*p) for p in mine if p in best), each.colour))
        won = each.study.winner
        x = None if won is None else float(won.cost.macs) if field == "macs" else each.study.predicted_of(won)
        if won is not None and won.score is not None and x is not None and not math.isnan(x):
            marks.append(_winner(plot, each, x, won.score))
    paths.append(Polyline("front", steps([plot.place(*point) for point in front])))
    paths.sort(key=lambda path: {"front": 1, "front-dots": 2}.get(path.kind, 0))
    rules = [Rule(False, plot.x.percent(at), text) for at, text in sorted(limits.items())]
    legend = (*legend_of(series), ("front", None, "Pareto front"), ("winner", None, "winner"))
    notes = list(_below(series, plot.y))
    reference = _full_score(series)
    if full is not None:
        unit = "MACs" if field == "macs" else "ms"
        size = short(full) if field == "macs" else f"{full:.4g}"
        name = _full_name(series)
        if reference is None:
            notes.append(f"The {name} network has {size} {unit}; how it scores was not recorded.")
        elif full <= plot.x.high and reference <= plot.y.high:
            marks.append(
                Mark("unpruned", *plot.place(full, reference), f"{name} network: {size} {unit}, {reference:.5g}")
            )
            legend = (*legend, ("unpruned", None, f"{name} network"))
        else:
            rules += _unpruned_score(series, plot, f", {size} {unit} to the right")
    unbeaten = f"{len(front)} of {sum(map(len, points)):,} scored structures are on the Pareto front"
    ends = f", from {front[0][1]:.4g} to {front[-1][1]:.4g}" if front else ""
    return replace(
        plot,
        says=f"{unbeaten}{ends}.",
        paths=tuple(paths),
        rules=tuple(rules),
        marks=tuple(marks),
        legend=legend,
        notes=tuple(notes),
        fields=(field, "score"),
    )


def _cloud_kind(series: Sequence[Series]) -> str:
    """Thousands of points are drawn smaller and fainter, or they are a blot."""
    return "many dots" if sum(len(each.study.scored) for each in series) > _MANY else "dots"


def _x_axis(title: str, points: Sequence[Points], others: set[float] | set[int], full: float | None) -> Axis:
    """Over the trials and the budget; over the unpruned network only if that leaves room for the trials."""
    values = [x for each in points for x, _ in each] + [float(value) for value in others]
    if full is not None and values and max(values) - min(values) >= _SQUEEZED * (full - min(values)):
        values.append(full)
    return axis(title, values, text=short if title.startswith("MACs") else None)


def _winner(plot: Plot, series: Series, x: float, score: float) -> Mark:
    return Mark("winner", *plot.place(x, score), f"{series.study.name}: winner, score {score:.5g}", series.colour)


def _scored(study: StudyContents) -> list[tuple[int, tuple[Trial, float]]]:
    """The trials that succeeded, with their positions in the search and their scores."""
    return [(i, (trial, trial.score)) for i, trial in enumerate(study.trials) if trial.score is not None]


def _with_latency(study: StudyContents) -> list[tuple[Trial, float]]:
    return [(t, ms) for t, ms in zip(study.trials, study.predicted_ms, strict=False) if not math.isnan(ms)]


def _metric(study: StudyContents) -> str:
    """What scores are, in words, if the evaluator says so."""
    names = {
        "loss": "negative cross-entropy",
        "accuracy": "accuracy",
        "agreement": "agreement with the unpruned network",
    }
    return names.get(str(study.scoring.get("measures")), "")


def _full_score(series: Sequence[Series]) -> float | None:
    """Score of the network at full width, recorded by the search or as a trial."""
    recorded = first_known(series, "score_full")
    tried = (s for each in series for trial, s in each.study.scored if trial.structure == each.study.space.full)
    return next(tried, None) if recorded is None else recorded


def _full_name(series: Sequence[Series]) -> str:
    """Generated weights at full width are not those of the unpruned network."""
    generated = str(series[0].study.question.get("weight_source", "")).startswith("generated")
    return "full-width" if generated else "unpruned"


def _unpruned_score(series: Sequence[Series], plot: Plot, where: str) -> tuple[Rule, ...]:
    score = _full_score(series)
    if score is None or not plot.y.low <= score <= plot.y.high:
        return ()
    return (Rule(True, plot.place(plot.x.low, score)[1], f"{_full_name(series)} network{where}"),)


def _full_ms(series: Sequence[Series]) -> float | None:
    """Predicted latency of the unpruned network."""
    return next((each.study.full_ms for each in series if each.study.full_ms is not None), None)


def _too_slow(series: Sequence[Series]) -> tuple[str, ...]:
    """Why a winner may lie below its study's line."""
    won = [(each.study.winner, max(s for _, s in each.study.scored)) for each in series if each.study.attempts]
    if not any(winner is not None and winner.score is not None and winner.score < most for winner, most in won):
        return ()
    return ("A winner below its line has the best score of those in time; better ones were too slow when timed.",)


def _below(series: Sequence[Series], score: Axis) -> tuple[str, ...]:
    below = sum(s < score.low for each in series for _, s in each.study.scored)
    if not below:
        return ()
    return (f"{below:,} scored lower than the figure shows; they are drawn at the bottom.",)
