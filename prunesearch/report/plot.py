"""A plot as plain values: axes with their ticks, and what is drawn, in percent of the area.

`templates/plot.html` writes it as SVG. Texts and marks keep their size whatever the width of the page, lines and clouds
of points stretch with it; colours are the style sheet's. So one drawing serves a phone, a screen and paper, in both
themes, and needs no script.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

_STRETCHED = 1000
"""Units of a path's coordinates across the area, in both directions."""


@dataclass(frozen=True)
class Axis:
    """One axis: linear, or of numbers from 1 in steps.

    Attributes:
        title: What it shows, with its unit.
        low: Value at its start.
        high: Value at its end.
        ticks: Pairs (percent of its length, text).
    """

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def percent(self, value: float) -> float:
        """Where a value is, in percent of its length; what lies beyond is at the end."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 3)


@dataclass(frozen=True)
class Polyline:
    """A line or a cloud of points, which stretches with the area.

    Attributes:
        kind: Class for the style sheet: `dots`, `many dots`, `front-dots`, `line`, `front`, `diagonal`
            or `band`.
        data: SVG path data.
        colour: Which of the series' colours; None for that of the text.
    """

    kind: str
    data: str
    colour: int | None = None


@dataclass(frozen=True)
class Mark:
    """A symbol of constant size.

    Attributes:
        shape: `winner`, `before`, `after`, `timed`, `uniform` or `unpruned`.
        x: Percent from the left.
        y: Percent from the top.
        says: What it is, for whoever points at it or hears the page.
        colour: Which of the series' colours; None for that of the text.
        span: Percent from the top of the ends of a whisker.
        label: Written beside it.
    """

    shape: str
    x: float
    y: float
    says: str
    colour: int | None = None
    span: tuple[float, float] | None = None
    label: str = ""


@dataclass(frozen=True)
class Rule:
    """A straight line across the area, with a text at its end.

    Attributes:
        across: Whether it is horizontal.
        at: Percent from the left, or from the top.
        text: What it is.
    """

    across: bool
    at: float
    text: str


@dataclass(frozen=True)
class Plot:
    """A figure.

    Attributes:
        name: Unique on the page.
        title: One line.
        says: What it shows in a sentence, for whoever cannot see it.
        x: The axis below.
        y: The axis to the left.
        paths: Drawn first, in order.
        rules: Reference lines.
        marks: Drawn last.
        legend: Triples (symbol, colour, text).
        notes: What has to be known to read it.
        fields: Names of the trials' columns on the axes, with which the page's script finds the trial under a pointer.
        group: Whose trials, for the same script.
    """

    name: str
    title: str
    says: str
    x: Axis
    y: Axis
    paths: tuple[Polyline, ...] = ()
    rules: tuple[Rule, ...] = ()
    marks: tuple[Mark, ...] = ()
    legend: tuple[tuple[str, int | None, str], ...] = ()
    notes: tuple[str, ...] = ()
    fields: tuple[str, str] | None = field(default=None)
    group: int = 0

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Percent from the left and from the top."""
        return self.x.percent(x), round(100 - self.y.percent(y), 3)


def axis(
    title: str,
    values: Iterable[float],
    *,
    most: int = 6,
    least_step: float = 0.0,
    text: Callable[[float], str] | None = None,
    factor: float = 1.0,
) -> Axis:
    """An axis over values with a little room at both ends, and at most so many ticks at round numbers.

    Args:
        title: What it shows.
        values: What must be on it.
        most: Ticks.
        least_step: Between two ticks.
        text: Writes the number at a tick.
        factor: What values are multiplied by to be shown; ticks are at round numbers of these. Below 0 the larger
            numbers are at the start.

    Example:
        >>> axis("MACs", [200.0, 1000.0]).ticks
        ((4.545, '200'), (27.273, '400'), (50.0, '600'), (72.727, '800'), (95.455, '1,000'))
    """
    size, sign = abs(factor), math.copysign(1.0, factor)
    known = sorted(size * value for value in values) or [0.0, 1.0]
    low, high = known[0], known[-1]
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    below_zero = sign < 0 and low < 0 and high <= 0 < high + room  # no loss is below 0
    low, high = (0.0 if low >= 0 and low - room < 0 else low - room), 0.0 if below_zero else high + room
    step = max(least_step, _step((high - low) / max(1, most - 1)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    empty = Axis(title, low, high, ())

    def default(value: float) -> str:
        return f"{sign * value + 0.0:,.{digits}f}"

    numbers = [round(i * step, 12) + 0.0 for i in range(first, last + 1)]  # + 0.0: never "-0"
    return Axis(title, low / size, high / size, tuple((empty.percent(n), (text or default)(n)) for n in numbers))


def counted(title: str, highest: int) -> Axis:
    """An axis of whole numbers from 0."""
    return axis(title, [0.0, float(max(2, highest))], least_step=1.0, text=lambda value: f"{value:,.0f}")


def dots(points: Iterable[tuple[float, float]]) -> str:
    """Polyline data of a cloud: each point a line of no length, which round ends make a dot; equal ones are there once.

    Args:
        points: Percent from the left and from the top.
    """
    units = dict.fromkeys((_unit(x), _unit(y)) for x, y in points)
    return "".join(f"M{x} {y}h0" for x, y in units)


def line(points: Sequence[tuple[float, float]]) -> str:
    """Polyline data of a straight line through points."""
    return "".join(f"{'L' if i else 'M'}{_unit(x)} {_unit(y)}" for i, (x, y) in enumerate(points))


def steps(points: Sequence[tuple[float, float]], *, until: float | None = None) -> str:
    """Polyline data of a staircase: across to the next point, then up or down to it.

    Args:
        points: In order from the left.
        until: How far the last step goes, in percent.
    """
    if not points:
        return ""
    data = f"M{_unit(points[0][0])} {_unit(points[0][1])}"
    data += "".join(f"H{_unit(x)}V{_unit(y)}" for x, y in points[1:])
    return data if until is None else f"{data}H{_unit(until)}"


def short(value: float) -> str:
    """A count with a letter for its magnitude.

    Example:
        >>> short(1_004_562), short(500_000), short(96)
        ('1.005M', '500k', '96')
    """
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{letter}"
    return f"{value:.4g}"


def _unit(percent: float) -> int:
    return round(percent * _STRETCHED / 100)


def _step(rough: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
