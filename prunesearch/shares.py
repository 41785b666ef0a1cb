"""Metrics that are shares, which are written in per cent."""

from __future__ import annotations

from typing import Any

_SHARES = ("accuracy", "agreement", "mIoU", "mAP", "mAP50-95")


def is_share(metric: Any) -> bool:
    """Whether a metric of this name is a share."""
    return metric in _SHARES
