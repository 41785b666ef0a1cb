"""Figures of what studies ended with: accuracy of the winners, and their latency, predicted and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prunesearch.report.plot import Mark, Plot, Polyline, Rule, axis, line
from prunesearch.report.series import Series, first_known, legend_of

_SHAPES = {"before": "before finetuning", "after": "after finetuning", "unpruned": "unpruned network"}


def accuracy_against(series: Sequence[Series], resource: str) -> Plot | None:
    """Test accuracy of the winners before and after finetuning against MACs, or against measured milliseconds."""
    points: list[tuple[str, float, float, str, int | None]] = []
    for each in series:
        study = each.study
        winner, x = study.winner, study.number("ms_per_image")
        if resource == "macs":
            x = None if winner is None else float(winner.cost.macs)
        for shape in ("before", "after"):
            accuracy = study.number(f"accuracy_{shape}")
            if x is not None and accuracy is not None:
                says = f"{study.name}, {shape} finetuning: {accuracy:.2%} at {_with_unit(x, resource)}"
                points.append((shape, x, 100 * accuracy, says, each.colour))
    if not points:
        return None
    full = first_known(series, "ms_per_image_unpruned") if resource == "ms" else float(series[0].study.unpruned.macs)
    accuracy = first_known(series, "accuracy_unpruned")
    if full is not None and accuracy is not None:
        says = f"unpruned network: {accuracy:.2%} at {_with_unit(full, resource)}"
        points.append(("unpruned", full, 100 * accuracy, says, None))
    of_macs = resource == "macs"
    title = "MACs, % of the unpruned network" if of_macs else f"Measured latency, ms per image{_batch(series)}"
    factor = 100 / max(1, series[0].study.unpruned.macs) if of_macs else 1.0
    plot = Plot(
        f"accuracy-{resource}",
        "Test accuracy of the winners against " + ("MACs" if resource == "macs" else "measured latency"),
        f"{'; '.join(says for *_, says, _ in points)}.",
        axis(title, [x for _, x, *_ in points], factor=factor),
        axis("Test accuracy, %", [y for _, _, y, *_ in points]),
        legend=(
            *legend_of(series),
            *((shape, None, text) for shape, text in _SHAPES.items() if shape in {p[0] for p in points}),
        ),
    )
    return replace(plot, marks=tuple(Mark(shape, *plot.place(x, y), says, c) for shape, x, y, says, c in points))


def predicted_against_measured(series: Sequence[Series]) -> Plot | None:
    """Every winner that was timed, against what was predicted of it; on the diagonal the two are equal."""
    timed = [(each, attempt) for each in series for attempt in each.study.attempts]
    if not timed:
        return None
    ends = [ms for _, a in timed for ms in (a.predicted_ms, a.measured_ms, a.low_ms, a.high_ms)]
    limits = sorted({limit for each in series if each.study.attempts and (limit := each.study.limit_ms) is not None})
    x, y = (axis(f"{title} latency of one forward, ms", [*ends, *limits]) for title in ("Predicted", "Measured"))
    errors = [abs(a.measured_ms / a.predicted_ms - 1) for _, a in timed]
    says = f"{len(timed)} winners timed; measured and predicted differ by at most {max(errors):.1%}."
    plot = Plot("latency", "Winners that were built and timed", says, x, y)
    marks = []
    for each, a in timed:
        text = f"{each.study.name}: predicted {a.predicted_ms:.4g} ms, measured {a.measured_ms:.4g} ms"
        left, top = plot.place(a.predicted_ms, a.measured_ms)
        whisker = (plot.place(0, a.low_ms)[1], plot.place(0, a.high_ms)[1])
        marks.append(Mark("timed", left, top, text, each.colour, whisker))
    paths = [Polyline("diagonal", line([plot.place(v, v) for v in (x.low, x.high)]))]
    known = [error for each in series if each.study.attempts and (error := each.study.expected_error) is not None]
    if known:
        wide = 1 + max(known)
        band = [(x.low, x.low * wide), (x.high, x.high * wide), (x.high, x.high / wide), (x.low, x.low / wide)]
        paths.insert(0, Polyline("band", line([plot.place(*corner) for corner in band])))
    legend = (*legend_of([s for s in series if s.study.attempts]), ("diagonal", None, "measured as predicted"))
    legend = (*legend, ("band", None, f"expected error, {max(known):.1%}")) if known else legend
    rules = tuple(Rule(True, plot.place(0, limit)[1], f"budget {limit:.4g} ms") for limit in limits)
    return replace(plot, marks=tuple(marks), paths=tuple(paths), rules=rules, legend=legend)


def _batch(series: Sequence[Series]) -> str:
    size = first_known(series, "latency_batch_size")
    return "" if size is None else f" in batches of {size:g}"


def _with_unit(x: float, resource: str) -> str:
    return f"{x:,.0f} MACs" if resource == "macs" else f"{x:.4g} ms"
