"""Numbers of a forward while labels run through it: which channels they count, and how they are made to follow."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from torch import fx, nn

from prunesearch.models.coupling import Labels
from prunesearch.models.forms import Form, Product, Quotient, Remainder, Share, combined
from prunesearch.models.numbers import Attribute, Origin, Size
from prunesearch.models.operators.values import Number, Tracked
from prunesearch.structure import IntArray


@dataclass(frozen=True)
class Condition:
    """What a forward found when it compared two numbers, and must find again in every narrower network.

    Attributes:
        difference: Of the two, a sum of shares of arrays of labels and of attributes of modules.
        relation: How it compares with 0: `"eq"`, `"ne"`, `"lt"`, `"le"`, `"gt"` or `"ge"`.
        why: Words for what must stay if it cannot be shown.
    """

    difference: Form
    relation: str
    why: str


def attribute_key(attribute: Attribute) -> tuple[str, str]:
    """An attribute as counts have it; of LayerNorm's shape the last number stands for all."""
    if attribute.path[0] == "normalized_shape":
        return attribute.module, "normalized_shape"
    return attribute.module, ".".join(map(str, attribute.path))


def attribute_value(model: nn.Module, attribute: Attribute) -> int:
    """What a module holds."""
    value: Any = model.get_submodule(attribute.module)
    first, *rest = attribute.path
    value = getattr(value, str(first))
    for step in rest:
        value = value[step]
    return int(value)


class Amounts:
    """What is known of the numbers of one recorded forward.

    Args:
        model: The module whose forward it is.
        labels: Of every channel.
        count: Records that an attribute counts some channels; says whether it can.
        counted: Which channels an attribute counts; None if it counts none, or none yet.
        told: What a plain number is that a node adds or takes away, by its place among the arguments; None if it is a
            constant.
    """

    def __init__(
        self,
        model: nn.Module,
        labels: Labels,
        count: Callable[[tuple[str, str], IntArray], bool],
        counted: Callable[[tuple[str, str]], IntArray | None],
        told: Callable[[fx.Node, int, int], Form | None],
    ) -> None:
        self._told = told
        self._model = model
        self._labels = labels
        self._count = count
        self._counted = counted
        self._kept: list[tuple[Number, str]] = []
        self._numbers: dict[fx.Node, Number] = {}
        self._balances: list[tuple[IntArray, IntArray, str]] = []
        self.used_as_it_is: dict[tuple[str, str], str] = {}

    def get(self, node: Any) -> Number | None:
        """What a node of the graph that gives a number depends on; None for what no channels decide."""
        return self._numbers.get(node) if isinstance(node, fx.Node) else None

    def value_of(self, source: Any) -> int:
        """What a source of a form is now."""
        if isinstance(source, Quotient):
            return int(source.dividend.value(self.value_of)) // self.value_of(source.divisor)
        if isinstance(source, Remainder):
            return int(source.dividend.value(self.value_of)) % int(source.divisor.value(self.value_of))
        if isinstance(source, Product):
            return self.value_of(source.one) * self.value_of(source.other)
        return attribute_value(self._model, source) if isinstance(source, Attribute) else len(source)

    def pin(self, form: Form | None, by: str) -> None:
        """Say that something takes attributes as they are, which then may count no channels that go."""
        for attribute in _attributes(form):
            self.used_as_it_is.setdefault(attribute_key(attribute), by)

    # --- computing

    def note(self, node: fx.Node, tensor: Tracked | None) -> None:
        """Find out what a number depends on; `tensor` is known of the one whose size it is."""
        number = self._of(node, tensor)
        if number is not None:
            self._numbers[node] = number

    def _of(self, node: fx.Node, tensor: Tracked | None) -> Number | None:
        if node.target == "size" and node.op == "call_method":
            labels = None if tensor is None else tensor.at(int(str(node.args[1])))
            return None if labels is None else Number(labels, Form.of(labels))
        if node.target == "numel":
            axes = {} if tensor is None else tensor.axes
            if not axes:
                return None
            rest = node.meta["value"] // math.prod(map(len, axes.values()))
            ((_, labels),) = [*axes.items()][:1]
            return Number(np.concatenate([*axes.values()]), Form.of(labels, rest) if len(axes) == 1 else None)
        known = [number for argument in node.args if (number := self.get(argument)) is not None]
        held: Mapping[Any, Form] = node.meta.get("numbers", {})
        if not known and not held:
            return None
        form = self._form_of(node, held)
        if form is None or not known:
            for made_of in held.values():
                self.pin(made_of, f"function {getattr(node.target, '__name__', node.target)!r}")
        if not known:  # of an attribute and of what no channels decide
            return None
        return Number(np.concatenate([number.labels for number in known]), form, () if form else tuple(known))

    def _form_of(self, node: fx.Node, held: Mapping[Any, Form]) -> Form | None:
        if node.target is operator.mul:
            scaled = self._scaled(node.args)
            if scaled is not None:
                return scaled if scaled.value(self.value_of) == node.meta["value"] else None
        operands = [self._operand(argument, held.get((i,))) for i, argument in enumerate(node.args)]
        if len(operands) != 2 or None in operands:
            return None
        one, other = operands
        assert one is not None
        assert other is not None
        if node.target in (operator.add, operator.sub):
            one, other = (
                form if form.terms else self._told(node, i, form.constant) or form
                for i, form in enumerate((one, other))
            )
        if node.target is operator.mul:  # attributes as constants
            one, other = (self._constant(form) for form in (one, other))
        if node.target is operator.mul and one.terms and arrays_of(other):
            return None  # of two numbers that both vary by themselves
        if node.target in (operator.floordiv, operator.truediv) and arrays_of(other):
            return None  # by a number that varies by itself
        name = getattr(node.target, "__name__", "").replace("truediv", "floordiv")  # the same where it comes out even
        form = combined(name, one, other)
        return form if form is not None and form.value(self.value_of) == node.meta["value"] else None

    def _scaled(self, operands: Sequence[Any]) -> Form | None:
        """A number times a simple fraction, as in `c * 0.5`."""
        fractions = [x for x in operands if type(x) is float]
        numbers = [number for x in operands if (number := self.get(x)) is not None]
        if len(fractions) != 1 or len(numbers) != 1 or numbers[0].form is None:
            return None
        ratio = Fraction(fractions[0])
        return numbers[0].form.times(ratio.numerator).over(ratio.denominator) if ratio.denominator <= 64 else None

    def _operand(self, argument: Any, held: Form | None) -> Form | None:
        number = self.get(argument)
        if number is not None:
            return number.form
        plain = argument.meta.get("value") if isinstance(argument, fx.Node) else argument
        return held or (Form((), plain) if type(plain) is int else None)

    def _constant(self, form: Form) -> Form:
        """A form of attributes alone as the number that it is, which it then stays."""
        if not form.terms or not all(isinstance(source, Attribute) for source, _ in form.terms):
            return form
        self.pin(form, "a product or quotient in a forward")
        return Form((), int(form.value(self.value_of)))

    # --- following

    def follow(self, form: Form | None, labels: IntArray) -> bool:
        """Let a number be that of the kept channels among `labels`, at any width; False if it cannot."""
        form = self._without_quotients(form)
        if form is None or form.constant or form.value(self.value_of) != len(labels):
            return False
        if form.only is not None and not isinstance(form.only[0], Attribute):
            return self._follow_share(*form.only, labels)
        held = [(source, share) for source, share in form.terms if isinstance(source, Attribute)]
        if len(held) > 1:
            return False
        more, less = self._sides(form)
        less = np.concatenate([labels, less])
        if not held:
            self._balances.append((more, less, "has a size that cannot be changed"))
            return True
        ((attribute, share),) = held
        counted = _minus(less, more) if share.up > 0 else _minus(more, less)
        return counted is not None and self._follow_attribute(attribute, Share(abs(share.up), share.down), counted)

    def _without_quotients(self, form: Form | None) -> Form | None:
        """The same with one number of each product and each divisor as a constant, which it then stays."""
        if form is None or form.only is None or not isinstance(form.only[0], (Quotient, Product)):
            return form if form is not None and is_linear(form) else None
        source, share = form.only
        if isinstance(source, Quotient):
            self.pin(Form.of(source.divisor), "a quotient in a forward")
            made = source.dividend.over(self.value_of(source.divisor))
            return None if made is None or share != Share() else made
        counting, other = source.one, source.other
        if self._counted(attribute_key(other)) is not None:
            counting, other = other, counting
        self.pin(Form.of(other), "a product in a forward")
        return Form.of(counting, self.value_of(other) * share.up) if share.down == 1 else None

    def _sides(self, form: Form) -> tuple[IntArray, IntArray]:
        """The channels that are added, and those that are taken away."""
        sides: tuple[list[IntArray], list[IntArray]] = ([], [])
        for source, share in form.terms:
            if not isinstance(source, Attribute):
                sides[share.up < 0].append(np.repeat(self._part(source, share.down), abs(share.up)))
        more, less = (np.concatenate([*side, np.empty(0, np.int64)]).astype(np.int64) for side in sides)
        return more, less

    def _part(self, labels: IntArray, down: int) -> IntArray:
        """One of several equal parts: the same channels go from each."""
        if down == 1:
            return labels
        whole = labels.reshape(down, -1)
        self._labels.tie(labels, np.tile(whole[0], down))
        return whole[0]

    def _follow_share(self, source: IntArray, share: Share, labels: IntArray) -> bool:
        if share.up <= 0:
            return False
        mine, theirs = np.repeat(source, share.up), np.repeat(labels, share.down)
        is_exact = 1 in (share.up, share.down)
        if np.array_equal(mine, theirs) or (is_exact and self._labels.count_alike(mine, theirs)):
            return True
        scaled = np.repeat(self._part(source, share.down), share.up)
        if not self._labels.count_alike(scaled, labels):
            self._labels.tie(scaled, labels)
        return True

    def _follow_attribute(self, attribute: Attribute, share: Share, labels: IntArray) -> bool:
        if share.up <= 0 or len(labels) % share.up:
            return False
        few = labels[:: share.up]
        self._labels.tie(labels, np.repeat(few, share.up))
        counted = np.tile(few, share.down)
        if len(counted) != attribute_value(self._model, attribute):
            return False
        return self._count(attribute_key(attribute), counted)

    def keep(self, number: Number, why: str) -> None:
        """Let a number stay what it is, for this reason; of a quotient both sides may shrink alike."""
        if number.form is None and number.sources:
            for source in number.sources:
                self.keep(source, why)
        else:
            self._kept.append((number, why))

    def pin_number(self, number: Number | None, by: str) -> None:
        """Say that something takes a number as it is, however its channels are looked after."""
        if number is not None:
            self.pin(number.form, by)
            for source in number.sources:
                self.pin_number(source, by)

    def _settle_kept(self, number: Number, why: str) -> None:
        source: Any = None if number.form is None or number.form.only is None else number.form.only[0]
        counted = None
        if isinstance(source, Quotient):
            counted = self._counted(attribute_key(source.divisor))
        if counted is not None and self.follow(source.dividend, np.repeat(counted, self.value_of(source))):
            return
        self.pin(number.form, why)
        for labels in (number.labels, *([] if counted is None else [counted])):
            self._labels.freeze(labels, why)

    # --- what must hold in the end

    def form_of(self, origin: Origin | float) -> Form | None:
        """A number that was compared, as a form; None if it depends on channels in another way."""
        if isinstance(origin, Form):
            return origin
        if isinstance(origin, fx.Node):
            number = self.get(origin)
            if number is not None:
                return number.form
            origin = origin.meta.get("value", 0.5)
        assert not isinstance(origin, Size)
        return Form((), origin) if isinstance(origin, (int, float)) else None  # type: ignore[arg-type]

    def settle(self) -> None:
        """Keep what must stay, and freeze the channels of sums that came out even by chance."""
        for number, why in self._kept:
            self._settle_kept(number, why)
        for more, less, why in self._balances:
            if len(more) != len(less) or not self._labels.count_alike(more, less):
                for labels in (more, less):
                    self._labels.freeze(labels, why)


def _minus(whole: IntArray, part: IntArray) -> IntArray | None:
    """What is left of some labels without others; None if they do not hold these."""
    if not len(part):
        return whole
    rest = Counter(part.tolist())
    left = []
    for label in whole.tolist():
        if rest[label]:
            rest[label] -= 1
        else:
            left.append(label)
    return np.array(left, dtype=np.int64) if len(left) == len(whole) - len(part) else None


def _attributes(form: Form | None) -> list[Attribute]:
    """Every number that a module holds of which a form is made."""
    found: list[Attribute] = []
    for source, _ in () if form is None else form.terms:
        if isinstance(source, Attribute):
            found.append(source)
        elif isinstance(source, Quotient):
            found += [*_attributes(source.dividend), source.divisor]
        elif isinstance(source, Remainder):
            found += [*_attributes(source.dividend), *_attributes(source.divisor)]
        elif isinstance(source, Product):
            found += [source.one, source.other]
    return found


def counted_by(
    form: Form, counts: Mapping[tuple[str, str], IntArray], model: nn.Module
) -> tuple[list[tuple[IntArray, Share]], int] | None:
    """A form as shares of the channels that it counts, and a constant; None if it is no such sum."""
    if not is_linear(form):
        return None
    terms, constant = list[tuple[IntArray, Share]](), Fraction(form.constant)
    for source, share in form.terms:
        labels = counts.get(attribute_key(source)) if isinstance(source, Attribute) else source
        if labels is None:
            constant += share.ratio * attribute_value(model, source)
        else:
            terms.append((labels, share))
    return (terms, int(constant)) if constant.denominator == 1 else None


def channels_of(form: Form, counts: Mapping[tuple[str, str], IntArray], model: nn.Module) -> tuple[IntArray, ...]:
    """The arrays of labels that a form depends on; attributes that count channels stand for these."""
    counted = [counts.get(attribute_key(attribute)) for attribute in _attributes(form)]
    return (*(labels for labels in counted if labels is not None), *arrays_of(form))


def arrays_of(form: Form) -> list[IntArray]:
    """The arrays of labels that a form is made of."""
    found: list[IntArray] = []
    for source, _ in form.terms:
        if isinstance(source, np.ndarray):
            found.append(source)
        elif isinstance(source, Quotient):
            found += arrays_of(source.dividend)
        elif isinstance(source, Remainder):
            found += [*arrays_of(source.dividend), *arrays_of(source.divisor)]
    return found


def is_linear(form: Form) -> bool:
    """Whether it is a sum of shares of channels and of single attributes."""
    return not any(isinstance(source, (Quotient, Product, Remainder)) for source, _ in form.terms)
