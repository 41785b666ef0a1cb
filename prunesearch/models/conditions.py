"""What forwards found when they compared numbers of channels must hold in every structure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from torch import nn

from prunesearch.models.amounts import Condition, attribute_key, attribute_value, channels_of, is_linear
from prunesearch.models.coupling import Labels, Units
from prunesearch.models.forms import RELATIONS, Form, Remainder
from prunesearch.models.numbers import Attribute
from prunesearch.structure import IntArray

Widths = Sequence[tuple[int, ...]]
_STEPS = 16
"""In how many steps narrow widths are left out for the sake of a comparison."""


class Conditions:
    """Checks conditions against groups and their widths.

    Args:
        model: The module whose forward compared them.
        counts: The channels that attributes of modules count.
        units: Channels in groups.
    """

    def __init__(self, model: nn.Module, counts: Mapping[tuple[str, str], IntArray], units: Units) -> None:
        self._model = model
        self._counts = counts
        self._units = units

    def arranged(self, conditions: Sequence[Condition], widths: Widths) -> list[tuple[int, ...]]:
        """Widths with which numbers that were found unequal stay so, where that needs no more than leaving some out.

        Of groups that must never be equally wide, each may take widths that no other of them takes.
        """
        pairs = {
            pair
            for condition in conditions
            if condition.relation == "ne" and not self._holds(condition, widths)
            if (pair := self._pair(condition)) is not None
        }
        others: dict[int, set[int]] = {}
        for one, other in pairs:
            others.setdefault(one, set()).add(other)
            others.setdefault(other, set()).add(one)
        found = list(widths)
        colours: dict[int, int] = {}
        for group in sorted(others):
            taken = {colours[other] for other in others[group] if other in colours}
            colours[group] = next(colour for colour in range(len(others)) if colour not in taken)
        n = max(colours.values(), default=0) + 1
        step = math.gcd(*(width for group in others for width in widths[group])) if others else 1
        for group, colour in colours.items():
            full = widths[group][-1]
            kept = {w for w in widths[group] if w // step % n == colour} - {
                widths[other][-1] for other in others[group]
            }
            found[group] = tuple(sorted(kept | {full}))
        for condition in conditions:
            alone = self._alone(condition) if condition.relation == "ne" else None
            if alone is not None:
                group, width = alone
                found[group] = tuple(w for w in found[group] if w != width)
        for condition in conditions:
            found = self._wide_enough(condition, found)
        return found

    def _wide_enough(self, condition: Condition, widths: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Without the narrowest widths of what is on the larger side, as many as it takes for a comparison to hold."""
        if condition.relation == "eq" or not is_linear(condition.difference) or self._holds(condition, widths):
            return widths
        constant, slopes, _ = self._line(condition.difference)
        now = constant + sum(
            slope * (widths[group][-1] // self._units.groups[group].per_unit) for group, slope in slopes.items()
        )
        larger = {group for group, slope in slopes.items() if slope * now > 0}
        for step in range(1, _STEPS):
            kept = [
                tuple(w for w in some if group not in larger or w * _STEPS >= some[-1] * step)
                for group, some in enumerate(widths)
            ]
            if self._holds(condition, kept):
                return kept if all(len(kept[group]) > 1 for group in larger) else widths
        return widths

    def freeze(self, conditions: Sequence[Condition], widths: Widths, labels: Labels) -> list[Condition]:
        """Let channels stay whose conditions do not hold in every structure; returns those that do."""
        held = []
        for condition in conditions:
            if self._holds(condition, widths):
                held.append(condition)
                continue
            for channels in channels_of(condition.difference, self._counts, self._model):
                labels.freeze(channels, condition.why)
        return held

    def _holds(self, condition: Condition, widths: Widths) -> bool:
        channels = channels_of(condition.difference, self._counts, self._model)
        if not any(self._units.groups_of(some) for some in channels):
            return True  # nothing in it varies
        if not is_linear(condition.difference):
            if condition.relation == "eq" and self._is_without_remainder(condition.difference):
                return True
            fixed = self._fixed_remainder(condition.difference)
            return fixed is not None and RELATIONS[condition.relation](fixed, fixed)
        pair = self._pair(condition) if condition.relation == "ne" else None
        if pair is not None and set(widths[pair[0]]).isdisjoint(widths[pair[1]]):
            return True
        alone = self._alone(condition) if condition.relation == "ne" else None
        if alone is not None and alone[1] not in widths[alone[0]]:
            return True
        return RELATIONS[condition.relation](*self._bounds(condition, widths))

    def _bounds(self, condition: Condition, widths: Widths) -> tuple[Fraction, Fraction]:
        """Between what the difference lies in every structure."""
        constant, slopes, slack = self._line(condition.difference)
        ends = [
            sorted(
                slope * (width // self._units.groups[group].per_unit) for width in (widths[group][0], widths[group][-1])
            )
            for group, slope in slopes.items()
        ]
        return constant + sum(low for low, _ in ends) - slack, constant + sum(high for _, high in ends) + slack

    def _is_without_remainder(self, form: Form) -> bool:
        """Whether a remainder is 0 in every structure: one number is a multiple of the other, whatever goes."""
        source = None if form.only is None else form.only[0]
        if not isinstance(source, Remainder) or not (is_linear(source.dividend) and is_linear(source.divisor)):
            return False
        constant, slopes, slack = self._line(source.dividend)
        divisor, others, more = self._line(source.divisor)
        if slack or more:
            return False
        if not others:
            return all(part % divisor == 0 for part in (constant, *slopes.values()))
        if divisor or constant or slopes.keys() != others.keys():
            return False
        ratios = {slopes[group] / others[group] for group in others}
        return len(ratios) == 1 and all(ratio.denominator == 1 for ratio in ratios)

    def _fixed_remainder(self, form: Form) -> Fraction | None:
        """What a remainder and a constant come to, where that is the same in every structure; else None."""
        source = form.terms[0][0] if len(form.terms) == 1 else None
        if not isinstance(source, Remainder) or not (is_linear(source.dividend) and is_linear(source.divisor)):
            return None
        constant, slopes, slack = self._line(source.dividend)
        divisor, others, more = self._line(source.divisor)
        if slack or more or others or divisor <= 0 or any(slope % divisor for slope in slopes.values()):
            return None
        return form.terms[0][1].ratio * (constant % divisor) + form.constant

    def _line(self, form: Form) -> tuple[Fraction, dict[int, Fraction], int]:
        """The difference as a constant and multiples of kept units, and by how much it may not come out even."""
        constant, slack = Fraction(form.constant), 0
        slopes: dict[int, Fraction] = {}
        for source, share in form.terms:
            labels = self._counts.get(attribute_key(source)) if isinstance(source, Attribute) else source
            if labels is None:
                constant += share.ratio * attribute_value(self._model, source)
                continue
            width = self._units.width(self._units.ids(np.asarray(labels)))
            constant += share.ratio * width.constant
            slack += any(part % share.down for part in (width.constant, *(channels for _, channels in width.terms)))
            for group, channels in width.terms:
                slopes[group] = slopes.get(group, Fraction(0)) + share.ratio * channels
        return constant, {group: slope for group, slope in slopes.items() if slope}, slack

    def _alone(self, condition: Condition) -> tuple[int, int] | None:
        """The only group that the difference depends on, and the width at which it is 0; None if there is none such."""
        if not is_linear(condition.difference):
            return None
        constant, slopes, slack = self._line(condition.difference)
        if slack or len(slopes) != 1:
            return None
        ((group, slope),) = slopes.items()
        units = -constant / slope
        width = units * self._units.groups[group].per_unit
        return (group, int(width)) if units > 0 and units.denominator == 1 else None

    def _pair(self, condition: Condition) -> tuple[int, int] | None:
        """The two groups whose widths the difference is that of; None if it is of something else."""
        if not is_linear(condition.difference):
            return None
        constant, slopes, slack = self._line(condition.difference)
        if constant or slack or len(slopes) != 2:
            return None
        (one, first), (other, second) = sorted(slopes.items())
        is_plain = abs(first) == self._units.groups[one].per_unit and abs(second) == self._units.groups[other].per_unit
        return (one, other) if is_plain and first * second < 0 else None
