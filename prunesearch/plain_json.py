"""JSON from files that anybody may have written: numbers are finite, and nothing is nested without end."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def parse(text: str | bytes) -> Any:
    """What a text in JSON says.

    Raises:
        ValueError: It is not JSON, is nested too deep, or has a number that is infinite, none, or of too many digits.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is beyond every number")
    return value
