"""Several measurements in a cell of a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


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


def tau(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Kendall's."""
    from scipy.stats import kendalltau

    return float(kendalltau(scores, truth).statistic)
