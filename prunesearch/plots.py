"""Figures of a search for a notebook or a paper, by matplotlib (the extra `plots`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from prunesearch.structure import Space, Structure
from prunesearch.trial import Trial, pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Scale:
    """What scores are shown as.

    Attributes:
        name: On the axis, such as `loss`.
        value: Of a score.
        unpruned: Of the unpruned network; None if it is not known.
    """

    name: str
    value: Callable[[float], float]
    unpruned: float | None


def front(trials: Sequence[Trial], space: Space, winner: Trial, scale: Scale, axes: Axes | None) -> Axes:
    """Every trial by its share of the MACs, the Pareto front, the winner, and the unpruned network as a line."""
    axes, full = axes or _new_axes(), space.cost(space.full).macs
    scored = [trial for trial in trials if trial.score is not None]
    axes.scatter(*_points(scored, full, scale), s=12, alpha=0.5, label="trials")
    axes.plot(*_points(pareto_front(trials), full, scale), drawstyle="steps-post", label="Pareto front")
    axes.scatter(*_points([winner], full, scale), marker="D", color="black", zorder=3, label="winner")
    axes.set_xlabel("MACs, % of the unpruned network")
    return _finished(axes, scale)


def history(trials: Sequence[Trial], scale: Scale, axes: Axes | None) -> Axes:
    """Every trial in the order of the search, and the best so far."""
    axes = axes or _new_axes()
    scored = [(trial.number + 1, trial.score) for trial in trials if trial.score is not None]
    numbers, scores = [number for number, _ in scored], [score for _, score in scored]
    axes.scatter(numbers, [scale.value(score) for score in scores], s=12, alpha=0.5, label="trials")
    best = [scale.value(score) for score in accumulate(scores, max)]
    axes.plot(numbers, best, drawstyle="steps-post", label="best so far")
    axes.set_xlabel("trial")
    return _finished(axes, scale)


def widths(space: Space, structure: Structure, axes: Axes | None) -> Axes:
    """The share of its channels that each group keeps, by the name of its first layer."""
    axes = axes or _new_axes(height=max(2.0, 0.25 * len(space.groups)))
    names = [group.name for group in space.groups]
    bars = axes.barh(names, [100 * kept / full for kept, full in zip(structure, space.full, strict=True)])
    axes.bar_label(bars, [f"{kept} of {full}" for kept, full in zip(structure, space.full, strict=True)], padding=3)
    axes.set(xlim=(0, 125), xticks=range(0, 101, 20), xlabel="channels kept, %")  # the rest is for the labels
    axes.invert_yaxis()
    return axes


def _points(trials: Sequence[Trial], full: int, scale: Scale) -> tuple[list[float], list[float]]:
    kept = [(trial.cost.macs, trial.score) for trial in trials if trial.score is not None]
    return [100 * macs / full for macs, _ in kept], [scale.value(score) for _, score in kept]


def _finished(axes: Axes, scale: Scale) -> Axes:
    if scale.unpruned is not None:
        axes.axhline(scale.unpruned, linestyle="--", color="gray", label="unpruned")
    axes.set_ylabel(scale.name)
    axes.legend()
    return axes


def _new_axes(height: float = 4.0) -> Axes:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(f"Figures need one more package: pip install 'prunesearch[plots]' ({error}).") from None
    return pyplot.subplots(figsize=(7, height), layout="constrained")[1]
