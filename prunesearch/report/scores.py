"""Figures of all trials: scores against evaluations, MACs and latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from prunesearch.plain_text import shortened
from prunesearch.report.contents import StudyContents
from prunesearch.report.measure import measure_of
from prunesearch.report.plot import Axis, Mark, Plot, Polyline, Rule, axis, counted, dots, short, steps
from prunesearch.report.series import Series, first_known, legend_of
from prunesearch.trial import Trial

_SQUEEZED = 0.25
"""Share of an axis below which trials are not squeezed to get the unpruned network onto it."""


_TAIL = 4.0
"""Scores further below the median than so many times the best is above it are drawn at the foot of a figure."""


_MANY = 1500
"""Points of a figure from which on they are drawn smaller."""


_LABELLED = 4
"""Studies whose winners have their names beside them; more would be written over each other."""
_RESOURCES = {"macs": "MACs", "params": "parameters", "flops": "FLOPs", "peak_memory": "peak memory"}
_FIELDS = {"macs": "macs", "params": "params", "latency_ms": "latency"}
"""Columns of the page's trials."""


Points = list[tuple[float, float]]


def score_axis(series: Sequence[Series]) -> Axis:
    """From the best score down to the worst; a long tail of bad ones is cut off."""
    measure = measure_of(series[0].study)
    scores = sorted(score for each in series for _, score in each.study.scored)
    best, median = scores[-1], scores[len(scores) // 2]
    foot = max(scores[0], median - _TAIL * (best - median)) if best > median else scores[0]
    full = [value for each in series if (value := each.study.number("score_full")) is not None]
    near = [value for value in full if value <= best + 2 * (best - foot)]
    return axis(measure.title, [foot, best, *near], most=7, factor=measure.factor)


def history(series: Sequence[Series], score: Axis) -> Plot:
    """Score of every trial, and the best so far, against the number of evaluations."""
    most = max(len(each.study.trials) for each in series)
    plot = Plot(
        "history",
        "Score of every trial, and the best so far",
        "",
        counted("Evaluations", most),
        score,
        legend=(*legend_of(series), ("line", None, "best so far")),
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
        reached = measure_of(each.study).text(best[-1])
        ends.append(f"{each.study.name} reaches {reached} in {len(each.study.trials):,} evaluations")
        marks += [
            _winner(plot, series, each, i + 1, s) for i, (trial, s) in _scored(each.study) if trial is each.study.winner
        ]
    lines_last = sorted(paths, key=lambda path: path.kind == "line")
    reference = _unpruned_score(series, plot)
    return replace(
        plot,
        paths=tuple(lines_last),
        marks=tuple(marks),
        rules=reference,
        says=f"Best score so far against evaluations: {'; '.join(ends)}.",
        notes=(*_too_slow(series), *_below(series, score)),
    )


def score_against(resource: str, series: Sequence[Series], score: Axis) -> Plot | None:
    """Score of every trial against one of its costs, with what no other trial beats in both.

    Args:
        resource: By its name, such as `macs`; the axis is in percent of the unpruned network.
        series: The studies.
        score: The axis of scores.

    Returns:
        The figure; None if the cost of the unpruned network, or of every trial, is not known.
    """
    full = _full_cost(series, resource)
    known = [each for each in series if each.study.scored and resource in each.study.scored[0][0].cost.amounts]
    if not known or not full:
        return None
    points = [
        [(float(t.cost[resource]), s) for t, s in each.study.scored if resource in t.cost.amounts] for each in known
    ]
    limits = {limit for each in known if (limit := each.study.limits.get(resource)) is not None}
    name = _RESOURCES.get(resource, resource)
    x = _x_axis(f"{name}, % of the unpruned network", points, limits, full, factor=100 / full)
    plot = Plot(f"front-{resource}", f"{_scores(known)} against {name}", "", x, score)
    texts = {float(limit): f"budget {100 * limit / full:.4g}%" for limit in limits}
    return _cloud(plot, known, points, resource=resource, full=full, limits=texts)


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
    across = _x_axis(title, points, {*limits, *measured}, full)
    plot = _cloud(
        Plot("front-latency", f"{_scores(known)} against latency", "", across, score),
        known,
        points,
        resource="latency_ms",
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
                    f"{each.study.name}: measured {attempt.measured_ms:.4g} ms, "
                    f"{measure_of(each.study).text(scores[attempt.structure])}"
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
    resource: str,
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
        marks += [*_uniform(plot, series, each, resource), *_winners(plot, series, each, resource)]
    paths.append(Polyline("front", steps([plot.place(*point) for point in front])))
    paths.sort(key=lambda path: {"front": 1, "front-dots": 2}.get(path.kind, 0))
    reference, unpruned, notes = _reference(plot, series, resource, full)
    rules = [Rule(False, plot.x.percent(at), text) for at, text in sorted(limits.items())]
    measure = measure_of(series[0].study)
    unbeaten = f"{len(front)} of {sum(map(len, points)):,} scored structures are on the Pareto front"
    ends = f", from {measure.text(front[0][1])} to {measure.text(front[-1][1])}" if front else ""
    return replace(
        plot,
        says=f"{unbeaten}{ends}.",
        paths=tuple(paths),
        rules=(*rules, *reference),
        marks=(*unpruned, *marks),
        legend=(*legend_of(series), ("front", None, "Pareto front")),
        notes=(*_below(series, plot.y), *notes),
        fields=(_FIELDS[resource], "score") if resource in _FIELDS else None,
    )


def _reference(
    plot: Plot, series: Sequence[Series], resource: str, full: float | None
) -> tuple[tuple[Rule, ...], tuple[Mark, ...], tuple[str, ...]]:
    """The unpruned network: a line at its score, and a mark at its cost where both are within the figure."""
    score, name = _full_score(series), _full_name(series)
    if full is None:
        return _unpruned_score(series, plot), (), ()
    size = short(full) if resource != "latency_ms" else f"{full:.4g}"
    unit = {"macs": "MACs", "latency_ms": "ms"}.get(resource, resource)
    if score is None:
        return (), (), (f"The {name} network has {size} {unit}; how it scores was not recorded.",)
    if full <= plot.x.high and score <= plot.y.high:
        says = f"{name} network: {size} {unit}, {measure_of(series[0].study).text(score)}"
        mark = Mark("unpruned", *plot.place(full, score), says, label=name)
        return (Rule(True, mark.y, ""),), (mark,), ()
    return _unpruned_score(series, plot), (), (f"The {name} network, with {size} {unit}, is further to the right.",)


def _winners(plot: Plot, series: Sequence[Series], each: Series, resource: str) -> list[Mark]:
    won = each.study.winner
    if won is None or won.score is None:
        return []
    x = each.study.predicted_of(won) if resource == "latency_ms" else won.cost.amounts.get(resource)
    return [] if x is None or math.isnan(x) else [_winner(plot, series, each, float(x), won.score)]


def _uniform(plot: Plot, series: Sequence[Series], each: Series, resource: str) -> list[Mark]:
    """The structure of uniform widths, where its cost is known and it is within the figure."""
    judged = each.study.judged
    if judged is None or judged.uniform_is_winner or judged.uniform_score is None:
        return []
    x = judged.uniform_cost.amounts.get(resource)
    if x is None or not plot.x.low <= x <= plot.x.high:
        return []
    says = f"{each.study.name}: uniform widths, {measure_of(each.study).text(judged.uniform_score)}"
    label = "uniform widths" if len(series) == 1 else ""
    return [Mark("uniform", *plot.place(float(x), judged.uniform_score), says, each.colour, label=label)]


def _cloud_kind(series: Sequence[Series]) -> str:
    """Thousands of points are drawn smaller and fainter, or they are a blot."""
    return "many dots" if sum(len(each.study.scored) for each in series) > _MANY else "dots"


def _x_axis(
    title: str, points: Sequence[Points], others: set[float], full: float | None, *, factor: float = 1.0
) -> Axis:
    """Over the trials and the budget; over the unpruned network only if that leaves room for the trials."""
    values = [x for each in points for x, _ in each] + [float(value) for value in others]
    if full is not None and values and max(values) - min(values) >= _SQUEEZED * (full - min(values)):
        values.append(full)
    return axis(title, values, factor=factor)


def _winner(plot: Plot, series: Sequence[Series], own: Series, x: float, score: float) -> Mark:
    says = f"{own.study.name}: winner, {measure_of(own.study).text(score)}"
    label = "found" if len(series) == 1 else own.study.name if len(series) <= _LABELLED else ""
    return Mark("winner", *plot.place(x, score), says, own.colour, label=shortened(label, 30))


def _scored(study: StudyContents) -> list[tuple[int, tuple[Trial, float]]]:
    """The trials that succeeded, with their positions in the search and their scores."""
    return [(i, (trial, trial.score)) for i, trial in enumerate(study.trials) if trial.score is not None]


def _with_latency(study: StudyContents) -> list[tuple[Trial, float]]:
    return [(t, ms) for t, ms in zip(study.trials, study.predicted_ms, strict=False) if not math.isnan(ms)]


def _scores(series: Sequence[Series]) -> str:
    """What scores are of, as a word of a title."""
    name = measure_of(series[0].study).name
    return f"{name[:1].upper()}{name[1:]}"


def _full_cost(series: Sequence[Series], resource: str) -> float | None:
    """What the unpruned network costs of a resource."""
    study = series[0].study
    return study.unpruned.amounts.get(resource) or study.full.get(resource)


def _full_score(series: Sequence[Series]) -> float | None:
    """Score of the network at full width, recorded by the search or as a trial."""
    recorded = first_known(series, "score_full")
    tried = (s for each in series for trial, s in each.study.scored if trial.structure == each.study.space.full)
    return next(tried, None) if recorded is None else recorded


def _full_name(series: Sequence[Series]) -> str:
    """Generated weights at full width are not those of the unpruned network."""
    generated = str(series[0].study.question.get("weight_source", "")).startswith("generated")
    return "full-width" if generated else "unpruned"


def _unpruned_score(series: Sequence[Series], plot: Plot) -> tuple[Rule, ...]:
    score = _full_score(series)
    if score is None or not plot.y.low <= score <= plot.y.high:
        return ()
    return (Rule(True, plot.place(plot.x.low, score)[1], f"{_full_name(series)} network"),)


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
    what = "1 structure is" if below == 1 else f"{below:,} structures are"
    return (f"{what} worse than the figure shows, and drawn at the bottom.",)
