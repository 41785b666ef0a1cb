"""Whole numbers as sums of parts of others: `c // 2`, `planes - x.size(1)`. What others count, such a sum follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class Share:
    """`up` of every `down`; not in lowest terms, as `c // 4 * 2` is half of `c` for multiples of 4 alone."""

    up: int = 1
    down: int = 1

    @property
    def ratio(self) -> Fraction:
        """As a number."""
        return Fraction(self.up, self.down)

    def plus(self, other: Share) -> Share:
        """Both together."""
        down = math.lcm(self.down, other.down)
        return Share(self.up * (down // self.down) + other.up * (down // other.down), down)


@dataclass(frozen=True, eq=False)
class Form:
    """A sum of shares of other numbers, and a constant.

    Attributes:
        terms: What it is a sum of, each with its share: attributes of modules, or the channels that are counted.
        constant: What is added to them.
    """

    terms: tuple[tuple[Any, Share], ...]
    constant: int = 0

    @classmethod
    def of(cls, source: Any, up: int = 1) -> Form:
        """So many times one number."""
        return cls(((source, Share(up)),))

    @property
    def only(self) -> tuple[Any, Share] | None:
        """The only term; None if there are others, or a constant."""
        return self.terms[0] if len(self.terms) == 1 and not self.constant else None

    def __eq__(self, other: object) -> bool:
        """Whether it has the same terms."""
        if not isinstance(other, Form) or len(self.terms) != len(other.terms) or self.constant != other.constant:
            return False
        pairs = zip(self.terms, other.terms, strict=True)
        return all(_is_same(a, b) and mine == theirs for (a, mine), (b, theirs) in pairs)

    def __hash__(self) -> int:
        """Of the shares alone, as what they are of need not have one."""
        return hash((tuple(share for _, share in self.terms), self.constant))

    def plus(self, other: Form, sign: int = 1) -> Form:
        """The sum, or with a sign of -1 the difference."""
        terms = list(self.terms)
        for source, share in other.terms:
            signed = Share(sign * share.up, share.down)
            at = next((i for i, (mine, _) in enumerate(terms) if _is_same(mine, source)), None)
            if at is None:
                terms.append((source, signed))
            else:
                terms[at] = (source, terms[at][1].plus(signed))
        return Form(tuple(term for term in terms if term[1].up), self.constant + sign * other.constant)

    def times(self, factor: int) -> Form:
        """A multiple."""
        if not factor:
            return Form(())
        return Form(tuple((s, Share(share.up * factor, share.down)) for s, share in self.terms), self.constant * factor)

    def over(self, divisor: int) -> Form | None:
        """A part, where it comes out even; None if that cannot be."""
        if divisor <= 0 or self.constant % divisor:
            return None
        terms = tuple((source, Share(share.up, share.down * divisor)) for source, share in self.terms)
        return Form(terms, self.constant // divisor)

    def reduced(self) -> Form:
        """The same with shares in lowest terms, which it is of what all of its divisors divide."""
        ratios = ((source, share.ratio) for source, share in self.terms)
        terms = tuple((source, Share(ratio.numerator, ratio.denominator)) for source, ratio in ratios)
        return Form(terms, self.constant)

    def value(self, of: Callable[[Any], int]) -> Fraction:
        """What it comes to, where `of` says what its sources are."""
        return sum((share.ratio * of(source) for source, share in self.terms), Fraction(self.constant))


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, type(other)) and not hasattr(one, "__array__") and bool(one == other))


@dataclass(frozen=True)
class Quotient:
    """A form over a number that a module holds, as in `c // self.heads`: a source of forms, too."""

    dividend: Form
    divisor: Any


@dataclass(frozen=True)
class Product:
    """Two numbers that modules hold, as in `self.heads * self.head_size`: a source of forms, too."""

    one: Any
    other: Any


@dataclass(frozen=True)
class Remainder:
    """What is left of a form divided by another, as in `c % 4`: a source of forms, too."""

    dividend: Form
    divisor: Form


def _is_multiple(form: Form) -> bool:
    """Whether a form is so many times a single number that a module holds."""
    if form.only is None or isinstance(form.only[0], (Quotient, Product, Remainder)):
        return False
    return form.only[1].down == 1 and form.only[1].up > 0


def combined(function: str, one: Form, other: Form) -> Form | None:
    """What an operator of Python's makes of two numbers; None if that is no such sum.

    Of two that have terms, the second one of a quotient and both of a product must be a number that a module holds.
    """
    if function == "mod" and (other.terms or other.constant > 0):
        return Form.of(Remainder(one, other))
    if function == "floordiv" and _is_multiple(other):
        assert other.only is not None
        part = one.over(other.only[1].up)
        return None if part is None else Form.of(Quotient(part, other.only[0]))
    if function == "mul" and one.only is not None and other.only is not None:
        is_plain = _is_multiple(one) and _is_multiple(other) and one.only[1] == other.only[1] == Share()
        return Form.of(Product(one.only[0], other.only[0])) if is_plain else None
    if function in ("add", "sub"):
        return one.plus(other, 1 if function == "add" else -1)
    if function == "mul" and not other.terms:
        return one.times(other.constant)
    if function == "mul" and not one.terms:
        return other.times(one.constant)
    return one.over(other.constant) if function == "floordiv" and not other.terms else None


RELATIONS: Mapping[str, Callable[[Fraction, Fraction], bool]] = {
    "eq": lambda low, high: low == high == 0,
    "ne": lambda low, high: low > 0 or high < 0,
    "lt": lambda low, high: high < 0,
    "le": lambda low, high: high <= 0,
    "gt": lambda low, high: low > 0,
    "ge": lambda low, high: low >= 0,
}
"""Whether a difference between `low` and `high` is surely equal to 0, unequal, less and so on."""
OPPOSITES: Mapping[str, str] = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}
