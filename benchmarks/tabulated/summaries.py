"""Several measurements in a cell of a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any


def quartiles(values: Sequence[float | None]) -> str:
    """Median and quartiles."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if len(set(known)) == 1:
        return f"{known[0]:.3f}"
    low, middle, high = statistics.quantiles(known, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def percent(values: Sequence[float], digits: int = 1) -> str:
    """Mean and standard deviation of shares, in per cent."""
    deviation = f" ± {100 * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.{digits}f}{deviation}"


def over_seeds(counts: Collection[int], spread: str) -> str:
    """What the numbers of a table are, by how many seeds its rows have: one seed has no spread.

    Args:
        counts: Seeds of each row.
        spread: What stands after the plus-minus sign, such as "standard error".
    """
    few, many = min(counts, default=1), max(counts, default=1)
    if many < 2:
        return "one seed"
    if few < 2:
        return f"mean ± {spread} where a row has several seeds (at most {many})"
    return f"mean ± {spread} of {many if few == many else f'{few} to {many}'} seeds"


def with_error(differences: Sequence[float], digits: int) -> str:
    """Mean with its sign, and its standard error; one difference has no error."""
    n = len(differences)
    error = f" ± {statistics.stdev(differences) / math.sqrt(n):.{digits}f}" if n > 1 else ""
    return f"{statistics.mean(differences):+.{digits}f}{error}"


def unmeasured(names: Iterable[str]) -> str:
    """What a note says of arms that have no cell yet: a sentence, or nothing if there are none."""
    missing = ", ".join(names)
    return f" Not measured yet: {missing}." if missing else ""


def network_of(*facts: Mapping[str, Any]) -> str:
    """Which trained network cells were measured on: networks of the same kind may have other weights."""
    found = [f"`{name}`" for name in dict.fromkeys(each["network"] for each in facts)]
    if len(found) == 1:
        return f"The network has the fingerprint {found[0]}."
    return f"The networks have the fingerprints {', '.join(found)}."


def software(facts: Mapping[str, Any]) -> str:
    """On what machine, and with what, cells were measured."""
    versions = facts["versions"]
    return f"{facts['machine']}, prunesearch {versions['prunesearch']}, torch {versions['torch']}."


def tau(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Kendall's."""
    from scipy.stats import kendalltau

    return float(kendalltau(scores, truth).statistic)


def tau_ahead(scores: Sequence[float], others: Sequence[float], truth: Sequence[float]) -> tuple[float, float]:
    """By how much one ranking's tau is above another's, and the standard error of that, jackknifed over the ranked."""
    return mean_tau_ahead([scores], others, truth)


def mean_tau_ahead(
    rankings: Sequence[Sequence[float]], others: Sequence[float], truth: Sequence[float]
) -> tuple[float, float]:
    """The mean over several rankings of how far their taus are above another's, and its error, likewise jackknifed."""

    def ahead(chosen: Sequence[int]) -> float:
        *mine, theirs, real = ([values[i] for i in chosen] for values in (*rankings, others, truth))
        return statistics.mean(tau(scores, real) for scores in mine) - tau(theirs, real)

    n = len(truth)
    left_out = [ahead([i for i in range(n) if i != out]) for out in range(n)]
    return ahead(range(n)), math.sqrt((n - 1) / n * sum((x - statistics.mean(left_out)) ** 2 for x in left_out))
