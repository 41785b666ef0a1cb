"""The tables of pilot.py: how reliable the truth about structures is, and which shapes are good."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tabulated.summaries import percent, software

RULE = 0.6
"""Sources of weights are compared where the truth is more reliable than this."""

_RESAMPLED = 2_000
_MEASURES = {"accuracy": "test accuracy, points", "loss": "test loss, thousandths"}
_UNITS = {"accuracy": 100.0, "loss": 1000.0}


@dataclass(frozen=True)
class Components:
    """Of a one-way model with random effects, of n structures with k seeds each.

    Attributes:
        between: Variance of structures; below 0 if their means differ less than by chance.
        within: Variance of the seeds of one structure.
        reliability: Of a mean over k seeds, ICC(1,k): the share of its variance that is due to structures. Below 0 if
            there is less variance than by chance.
        one: The same of a single seed, ICC(1,1).
    """

    between: float
    within: float
    reliability: float
    one: float


def components(scores: npt.ArrayLike) -> Components:
    """Variance components and reliabilities.

    Source: Shrout and Fleiss, Psychological Bulletin 86 (1979), case 1: with the mean squares B between structures and
    W within them, ICC(1,k) is (B - W) / B and ICC(1,1) is (B - W) / (B + (k - 1) W).

    Args:
        scores: (n, k), a row for each structure.

    Raises:
        ValueError: There are fewer than two structures or seeds, or all structures have the same mean.
    """
    array = np.asarray(scores, dtype=float)
    if array.ndim != 2 or min(array.shape) < 2:
        raise ValueError(f"Expected at least 2 structures with 2 seeds each, got an array of shape {array.shape}.")
    _, k = array.shape
    b = float(k * array.mean(1).var(ddof=1))
    w = float(array.var(axis=1, ddof=1).mean())
    if b == 0:
        raise ValueError("Expected structures whose means differ, got the same mean for all.")
    return Components((b - w) / k, w, (b - w) / b, (b - w) / (b + (k - 1) * w))


def seeds_for(one: float, wanted: float) -> int | None:
    """Seeds with which a mean is at least as reliable as wanted, by the formula of Spearman and Brown.

    Args:
        one: Reliability of one seed.
        wanted: In (0, 1).

    Returns:
        None if no number of seeds would do.
    """
    return None if one <= 0 else max(1, math.ceil(wanted * (1 - one) / (one * (1 - wanted)) - 1e-9))


def interval(scores: npt.ArrayLike, *, seed: int = 0, resampled: int = _RESAMPLED) -> tuple[float, float]:
    """2.5 and 97.5 per cent of the reliabilities of as many structures drawn again, each with all of its seeds."""
    array = np.asarray(scores, dtype=float)
    rng = np.random.default_rng([seed, 63])
    drawn = (rng.integers(0, len(array), len(array)) for _ in range(resampled))
    values = [components(array[rows]).reliability for rows in drawn if np.ptp(array[rows].mean(1)) > 0]  # two at least
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def truths(result: Mapping[str, Any], share: int, measure: str) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Structures, and (structures, seeds) of a measure; of the seeds with which all of them were trained."""
    cells: dict[int, dict[str, float]] = {}
    for cell in result["cells"].values():
        if cell["share"] == share:
            cells.setdefault(cell["seed"], {})[cell["arm"]] = cell[measure]
    every = sorted({arm for found in cells.values() for arm in found})
    whole = [found for _, found in sorted(cells.items()) if len(found) == len(every)]
    return every, np.array([[found[arm] for found in whole] for arm in every]).reshape(len(every), len(whole))


def table(result: Mapping[str, Any]) -> str:
    """How reliable the truth is at each share; then the shapes."""
    cells = list(result["cells"].values())
    shares = sorted({cell["share"] for cell in cells}, reverse=True)
    known = [share for share in shares if min(truths(result, share, "accuracy")[1].shape) >= 2]
    if not known:
        return "Too few cells are there yet."
    shown = [cell for cell in cells if cell["share"] in known]
    return "\n\n".join([_reliabilities(result, known), _verdict(result, known), _shapes(shown, known), _note(shown)])


def _verdict(result: Mapping[str, Any], shares: Sequence[int]) -> str:
    """Where the rule lets sources be compared."""
    scores = {share: truths(result, share, "accuracy")[1] for share in shares}
    needed = {share: seeds_for(components(found).one, RULE) for share, found in scores.items()}
    above = [f"{share}%" for share, found in scores.items() if components(found).reliability > RULE]
    unsure = [f"{share}%" for share in shares if interval(scores[share])[0] <= RULE < interval(scores[share])[1]]
    said = (
        f"By the rule, sources are compared at {' and '.join(above)}."
        if above
        else "At none of these shares is the rule met."
    )
    doubt = f" The interval leaves it open at {' and '.join(unsure)}." if unsure else ""
    more = [f"{n} at {share}%" for share, n in needed.items() if n is not None and n > scores[share].shape[1]]
    return (
        said + doubt + (f" If the spread stays as it is, it takes this many seeds: {', '.join(more)}." if more else "")
    )


def _reliabilities(result: Mapping[str, Any], shares: Sequence[int]) -> str:
    lines = [
        "| share of the MACs | measure | structures | seeds | mean | deviation of structures | of seeds | reliability "
        "of one seed | of the mean (95 % interval) | above the rule's limit |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for share in shares:
        for measure, named in _MEASURES.items():
            _, scores = truths(result, share, measure)
            found, (low, high), unit = components(scores), interval(scores), _UNITS[measure]
            n, k = scores.shape
            spread = f"{unit * max(found.between, 0.0) ** 0.5:.2f} | {unit * found.within**0.5:.2f}"
            says = ("yes" if found.reliability > RULE else "no") if measure == "accuracy" else ""
            lines.append(
                f"| {share}% | {named} | {n} | {k} | {unit * scores.mean():.1f} | {spread} | {found.one:.2f} | "
                f"{found.reliability:.2f} ({low:.2f} to {high:.2f}) | {says} |"
            )
    return "\n".join(lines)


def _shapes(cells: Sequence[Mapping[str, Any]], shares: Sequence[int]) -> str:
    shapes = list(dict.fromkeys(cell["shape"] for cell in sorted(cells, key=lambda cell: cell["shape"])))
    heads = " | ".join(f"{share}%: accuracy | best of them" for share in shares)
    lines = [f"| shape | {heads} |", f"|---|{'---:|' * 2 * len(shares)}"]
    for shape in shapes:
        row = []
        for share in shares:
            means: dict[str, list[float]] = {}
            for cell in cells:
                if (cell["shape"], cell["share"]) == (shape, share):
                    means.setdefault(cell["arm"], []).append(cell["accuracy"])
            values = [statistics.mean(found) for found in means.values()]
            row += [percent(values), f"{100 * max(values):.1f}"] if values else ["", ""]
        lines.append(f"| {shape} | {' | '.join(row)} |")
    return "\n".join(lines)


def _note(cells: Sequence[Mapping[str, Any]]) -> str:
    facts = cells[0]["facts"]
    seconds = statistics.median(cell["seconds"] for cell in cells)
    return (
        f"{len(cells)} cells of `python benchmarks/pilot.py`. Trained from scratch on {facts['train images']:,} images "
        f"of CIFAR-10, averaged to {facts['pixels']}x{facts['pixels']} pixels, twice each; {facts['test images']:,} "
        f"test images. The network has {facts['full macs']:,} MACs. The interval is that of {_RESAMPLED:,} draws of "
        "the structures; loss decides nothing. Shapes: mean ± standard deviation of the structures of a shape, each "
        f"the mean of its seeds. {seconds:.0f} CPU-seconds a cell in one thread, beside other work. "
        f"{software(facts)}"
    )
