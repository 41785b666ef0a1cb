"""Metrics that are shares, which are written in per cent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

_SHARES = ("accuracy", "agreement", "mIoU", "mAP", "mAP50-95")


def is_share(metric: Any) -> bool:
    """Whether a metric of this name is a share."""
    return metric in _SHARES


def error_of_difference(shares: Iterable[float], n: int) -> float:
    """Standard error of the difference of two shares of n examples each, by that share which errs most.

    Two examples are added on either side, so that a share of 0 or 1, too, is known no better than n examples can tell.

    Source: Agresti and Coull, The American Statistician 52 (1998), 119-126.
    """
    found = [(share * n + 2) / (n + 4) for share in shares]
    return math.sqrt(2 * max(share * (1 - share) for share in found) / (n + 4))
