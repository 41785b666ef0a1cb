"""What becomes of bytes and of JSON in the hands of somebody who means harm."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

_NUMBERS = (0, -1, 1, 2, 3, 1.5, -0.0, 1e308, 10**18, 10**30, 2**31, 2**63, -(2**63), float("inf"), float("nan"))
_OTHERS: tuple[Any, ...] = (None, True, False, "", "x", "1", "../../x", [], {}, [[]], [0] * 1000, {"a": {}}, "é\x00")


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes flipped, lost, doubled, exchanged or made up."""
    content = bytearray(content)  # type: ignore[assignment]
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        kind, place = rng.randrange(6), rng.randrange(len(content) + 1)
        length = min(rng.choice((1, 1, 4, 8, 64, 1000)), len(content) - place)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << rng.randrange(8)  # type: ignore[index]
        elif kind == 1:
            del content[place : place + length]  # type: ignore[attr-defined]
        elif kind == 2:
            content[place:place] = content[place : place + length]  # type: ignore[index]
        elif kind == 3:
            content[place : place + length] = rng.randbytes(length)  # type: ignore[index]
        elif kind == 4:
            content = content[:place]
        else:
            content[place : place + 8] = rng.choice((0, 1, 2**31, 2**40, 2**63, 2**64 - 1)).to_bytes(8, "little")  # type: ignore[index]
    return bytes(content)


def changed(rng: random.Random, value: Any) -> Any:
    """A copy of what JSON says with a few of its values exchanged, lost, doubled or moved."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _changed(rng, value)
    return value


def _changed(rng: random.Random, value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    if not keys or rng.random() < 0.05:
        return copy.deepcopy(rng.choice((*_NUMBERS, *_OTHERS, value, [value], {"x": value})))
    key = rng.choice(list(keys))
    kind = rng.random()
    if kind < 0.1:
        del value[key]
    elif kind < 0.15 and isinstance(value, dict):
        value[rng.choice(("", "x", "-1", "__class__", key + "x"))] = value.pop(key)
    elif kind < 0.2 and isinstance(value, list):
        value.insert(key, copy.deepcopy(rng.choice(value)))
    elif kind < 0.25:
        other = rng.choice(list(keys))
        value[key], value[other] = value[other], value[key]
    else:
        value[key] = _changed(rng, value[key])
    return value


def text_of(rng: random.Random, value: Any) -> str:
    """As JSON, now and then with what JSON has no numbers or no end for."""
    text = json.dumps(value)
    kind = rng.random()
    if kind < 0.02:
        depth = rng.choice((900, 5_000, 200_000))
        return text[:-1] + ', "deep": ' + "[" * depth + "]" * depth + text[-1:]
    if kind < 0.04:
        digits = [place for place, letter in enumerate(text) if letter.isdigit()]
        place = rng.choice(digits) if digits else 0
        return text[:place] + rng.choice(("1e400", "-1e999", "9" * 5000, "Infinity", "NaN")) + text[place + 1 :]
    return text
