"""The file of a latency table: JSON that a person can read, compare and fill in. docs/latency.md describes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from prunesearch.errors import InvalidInput
from prunesearch.files import write_text
from prunesearch.latency_times import (
    FORMAT,
    FORMERLY_REMOTE,
    REMOTE,
    VERSION,
    Built,
    Conditions,
    LatencyTimes,
    Layer,
    Timing,
    Use,
    combinations_of,
)
from prunesearch.plain_json import parse
from prunesearch.structure import Width

_MOST_AXES = 2
_LARGEST = 2**31  # of any width


def write(table: LatencyTimes, path: Path) -> None:
    """Write the file, whole or not at all; one line per timing."""
    write_text(path, _text(as_plain(table)) + "\n")


def read(path: Path) -> LatencyTimes:
    """Read a file.

    Raises:
        InvalidInput: It is not a latency table, is damaged, or of a newer version.
        FileNotFoundError: There is none.
    """
    content = path.read_bytes()
    try:
        plain = parse(content.decode())
    except ValueError as error:
        raise InvalidInput(f"{path} is not a latency table: it is not JSON ({error}).") from None
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise InvalidInput(
            f'{path} is not a latency table: expected "format": "{FORMAT}". prunesearch latency makes one.'
        )
    if plain.get("version") != VERSION:
        raise InvalidInput(
            f"{path} is of version {plain.get('version')!r} of the format; this release reads version {VERSION}. "
            "Measure again, or use the release that wrote it."
        )
    return from_plain(plain, str(path))


def as_plain(table: LatencyTimes) -> dict[str, Any]:
    """The table as JSON has it."""
    names = [name for name, _, _ in table.groups]
    return {
        "format": FORMAT,
        "version": VERSION,
        "conditions": {**vars(table.conditions), "versions": dict(table.conditions.versions)},
        "network": table.network,
        "reference_ms": table.reference_ms,
        "drift": table.drift,
        "correction": table.correction,
        "groups": [{"name": name, "width": width, "unit": unit} for name, width, unit in table.groups],
        "layers": [
            {
                "computes": layer.computes,
                "axes": layer.axes,
                "times": {
                    _key(widths): _timing(t)
                    for widths, t in zip(combinations_of(layer.axes), layer.timings, strict=True)
                },
            }
            for layer in table.layers
        ],
        "uses": [
            {
                "place": use.place,
                "layer": use.layer,
                "widths": [{names[g]: per_unit for g, per_unit in width.terms} for width in use.widths],
            }
            for use in table.uses
        ],
        "networks": [{"structure": b.structure, "time": _timing(b.timing)} for b in table.networks],
    }


def from_plain(plain: Mapping[str, Any], where: str) -> LatencyTimes:
    """The table that JSON describes.

    Raises:
        InvalidInput: Something is missing or makes no sense; the message says what, and where it was read.
    """
    try:
        groups = tuple((str(g["name"]), int(g["width"]), int(g["unit"])) for g in plain["groups"])
        index = {name: i for i, (name, _, _) in enumerate(groups)}
        conditions = _conditions(plain["conditions"])
        table = LatencyTimes(
            conditions=conditions,
            groups=groups,
            network=str(plain["network"]),
            layers=tuple(_layer(layer, i) for i, layer in enumerate(plain["layers"])),
            uses=tuple(_use(use, index) for use in plain["uses"]),
            networks=tuple(
                Built(tuple(int(w) for w in b["structure"]), _read_timing(b["time"], f"network {i}"))
                for i, b in enumerate(plain["networks"])
            ),
            reference_ms=plain.get("reference_ms"),
            drift=None if plain.get("drift") is None else tuple(plain["drift"]),
            correction=float(plain.get("correction", 1.0)),
        )
        _check(table)
    except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError) as error:
        raise InvalidInput(f"{where} is damaged: {type(error).__name__} {error}. Measure again.") from error
    except ValueError as error:
        raise InvalidInput(f"{where} cannot be used: {error}") from error
    return table


def _conditions(plain: Mapping[str, Any]) -> Conditions:
    backend = REMOTE if plain["backend"] == FORMERLY_REMOTE else plain["backend"]
    return Conditions(**{**plain, "backend": backend, "versions": tuple(sorted(plain["versions"].items()))})


def _layer(plain: Mapping[str, Any], index: int) -> Layer:
    axes = tuple(tuple(int(width) for width in axis) for axis in plain["axes"])
    times = plain["times"]
    if len(axes) > _MOST_AXES:
        raise ValueError(f"layer {index} has {len(axes)} axes; at most {_MOST_AXES} are known")
    count = math.prod(map(len, axes))
    if count != len(times):  # found out before the combinations are made, of which there may be too many
        raise ValueError(f"layer {index} has times for {len(times)} combinations of widths, expected {count}")
    wanted = [_key(widths) for widths in combinations_of(axes)]
    if set(times) != set(wanted):
        raise ValueError(f"layer {index} has times for other combinations of widths than those of its axes")
    return Layer(
        str(plain["computes"]), axes, tuple(_read_timing(times[key], f"layer {index}, widths {key}") for key in wanted)
    )


def _use(plain: Mapping[str, Any], index: Mapping[str, int]) -> Use:
    widths = tuple(Width(0, tuple((index[name], int(n)) for name, n in width.items())) for width in plain["widths"])
    return Use(str(plain["place"]), int(plain["layer"]), widths)


def _check(table: LatencyTimes) -> None:
    for use in table.uses:
        if not 0 <= use.layer < len(table.layers) or len(use.widths) != len(table.layers[use.layer].axes):
            raise ValueError(f"{use.place} names layer {use.layer}, which does not fit it.")
        if not all(0 <= count <= _LARGEST for width in use.widths for _, count in width.terms):
            raise ValueError(f"the widths of {use.place} do not follow from those of the network.")
    if not table.uses:
        raise ValueError("it says of no place in the network what is computed there.")
    for number, layer in enumerate(table.layers):
        if any(not axis or axis[0] < 0 or any(a >= b for a, b in pairwise(axis)) for axis in layer.axes):
            raise ValueError(f"the widths of layer {number} do not ascend.")
    if not table.groups or any(width < 1 or unit < 1 for _, width, unit in table.groups):
        raise ValueError("it needs groups, each of some channels.")
    numbers = (table.correction, *(table.drift or ()), *(() if table.reference_ms is None else (table.reference_ms,)))
    if not all(type(number) in (int, float) and number > 0 for number in numbers):
        raise ValueError("its correction, drift and reference_ms must be above 0.")
    if any(len(built.structure) != len(table.groups) for built in table.networks):
        raise ValueError(f"a network does not have {len(table.groups)} widths.")


def _key(widths: Sequence[int]) -> str:
    return "x".join(map(str, widths)) or "fixed"


def _timing(timing: Timing | None) -> list[float] | None:
    return None if timing is None else [timing.ms, timing.low, timing.high]


def _read_timing(plain: Any, where: str) -> Timing | None:
    """`null`, a number of milliseconds, or such with its quartiles."""
    if plain is None:
        return None
    values = [float(value) for value in (plain if isinstance(plain, list) else [plain] * 3)]
    values = values * 3 if len(values) == 1 else values
    if len(values) != 3 or not all(0 < value < float("inf") for value in values):
        raise ValueError(f"{where}: expected milliseconds above 0, or [median, lower, upper quartile], got {plain!r}.")
    return Timing(*values)


def _text(value: Any, indent: str = "") -> str:
    """JSON with lists of numbers on one line."""
    inner = indent + " "
    if isinstance(value, Mapping) and value:
        lines = [f"{inner}{json.dumps(key)}: {_text(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        return "[\n" + ",\n".join(inner + _text(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value)
