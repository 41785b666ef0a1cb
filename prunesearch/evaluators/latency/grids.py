"""At which widths layers are timed, and which whole networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from prunesearch.latency_model import alignment
from prunesearch.structure import Space, Structure

_SHARES = (1.0, 0.75, 0.5, 0.25)
_RANDOM_NETWORKS = 8


def grid_of(widths: Sequence[int], points: int) -> tuple[int, ...]:
    """At most about `points` of the allowed widths, ascending, the narrowest and the widest among them.

    Multiples of 16, of 8 and other widths run at different speeds; each kind gets an equal share, evenly spread.
    """
    if len(widths) <= points:
        return tuple(widths)
    kinds: dict[int, list[int]] = {}
    for width in widths:
        kinds.setdefault(alignment(width), []).append(width)
    share = max(2, points // len(kinds))
    chosen = {widths[0], widths[-1]}
    for kind in kinds.values():
        at = np.unique(np.linspace(0, len(kind) - 1, min(share, len(kind))).round().astype(int))
        chosen |= {kind[i] for i in at}
    return tuple(sorted(chosen))


def levels(grids: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Widths of several groups that move together, from the narrowest to the widest."""
    steps = max(len(grid) for grid in grids)
    return [tuple(grid[round(k * (len(grid) - 1) / max(steps - 1, 1))] for grid in grids) for k in range(steps)]


def packed(demands: Iterable[Mapping[int, int]], space: Space) -> Iterator[tuple[Structure, list[int]]]:
    """Structures that meet every demand, each as many as possible at once: widths of some groups, by index.

    Yields:
        A structure, and the positions of the demands that it meets and no earlier one did.
    """
    waiting = list(enumerate(demands))
    while waiting:
        fixed: dict[int, int] = {}
        met: list[int] = []
        left = []
        for position, demand in waiting:
            if all(fixed.get(group, width) == width for group, width in demand.items()):
                fixed.update(demand)
                met.append(position)
            else:
                left.append((position, demand))
        yield tuple(fixed.get(g, group.widths[0]) for g, group in enumerate(space.groups)), met
        waiting = left


def networks_to_time(space: Space, seed: int = 0) -> list[Structure]:
    """Whole networks for the calibration: some with equal shares everywhere, some with random ones of every size."""
    rng = np.random.default_rng([seed, 7])
    full = np.array(space.full)
    kept = [np.full(len(full), share) for share in _SHARES]
    for size in np.linspace(0.3, 0.95, _RANDOM_NETWORKS):
        kept.append(np.clip(size + rng.uniform(-0.3, 0.3, len(full)), 0.0, 1.0))
    rows = space.from_indices(space.indices(np.array(kept) * full))
    return list(dict.fromkeys(tuple(row) for row in rows.tolist()))
