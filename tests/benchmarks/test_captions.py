"""What a caption says of a spread is what its table shows: one seed has none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import tables
from tabulated.summaries import over_seeds, percent

Result = dict[str, Any]


def first_races(result: Result) -> Result:
    return {"cells": {name: cell for name, cell in result["cells"].items() if cell["seed"] == 0}}


def first_recoveries(result: Result) -> Result:
    """Of recovery.py, the cells of the first seed of each network and share."""
    return {place: first_races(cells) for place, cells in result.items()}


def first_rows(result: Result) -> Result:
    return {**result, "rows": {name: runs[:1] for name, runs in result["rows"].items()}}


def first_seeds(result: Result) -> Result:
    return {**result, "seeds": result["seeds"][:1]}


def first_trained(result: Result) -> Result:
    """Of pruningnet.py, the cells of the first seed."""
    return {**result, "facts": {**result["facts"], "seeds": 1}}


def first_searches(result: Result) -> Result:
    searches = {
        network: {name: runs[:1] for name, runs in cells.items()} for network, cells in result["searches"].items()
    }
    rows = {
        place: {**row, "searchers": {name: cells[:1] for name, cells in row["searchers"].items()}}
        for place, row in result["rows"].items()
    }
    return {**result, "rows": rows, "searches": searches}


def first_drawn(result: Result) -> Result:
    """Of policies.py and actors.py, the cells of the first seed."""
    first = min(cell["seed"] for cell in result["cells"].values())
    return {**result, "cells": {name: cell for name, cell in result["cells"].items() if cell["seed"] == first}}


ONE_SEED: Mapping[str, Callable[[Result], Result]] = {
    "actors": first_drawn,
    "finetune": first_seeds,
    "policies": first_drawn,
    "pruningnet": first_trained,
    "racing": first_races,
    "recovery": first_recoveries,
    "recovery_summary": first_recoveries,
    "searchers": first_searches,
    "training_methods": first_rows,
}


def measured(name: str) -> Result:
    result = tables.measured(name)
    assert result is not None
    return dict(result)


def rows_of_numbers(page: str) -> list[str]:
    """The rows of all tables without their headings, each of which stands above a rule."""
    lines = [*page.splitlines(), ""]
    return [line for line, below in itertools.pairwise(lines) if line.startswith("|") and not below.startswith("|---")]


def spreads_shown(page: str) -> bool:
    return any("±" in row for row in rows_of_numbers(page))


def spreads_promised(page: str) -> bool:
    """In headings and captions."""
    rows = rows_of_numbers(page)
    return any("mean ±" in line for line in page.splitlines() if line not in rows)


@pytest.mark.parametrize("name", ONE_SEED)
def test_a_caption_promises_a_spread_where_rows_have_one(name: str) -> None:
    page = tables.TABLES[name](measured(name))
    assert spreads_promised(page) == spreads_shown(page)


@pytest.mark.parametrize("name", ONE_SEED)
def test_a_table_of_one_seed_neither_shows_nor_promises_a_spread(name: str) -> None:
    page = tables.TABLES[name](ONE_SEED[name](measured(name)))
    assert "one seed" in page.lower()
    assert not spreads_shown(page)
    assert not spreads_promised(page)


def criteria_of(seeds: int) -> Result:
    """One network and criterion, measured with so many seeds, two structures each."""
    cells = [
        {
            "criterion": criterion, "weights": "inherited", "seed": seed, "keep": "50%", "structure": [place],
            "before": 0.5 + 0.1 * place, "after": 0.8 + 0.01 * seed * (criterion == "l2") if place == 0 else None,
            "seconds": {"rank": 1.0, "gather": 1.0, "build": 1.0},
        }
        for criterion in ("l1", "l2") for seed in range(seeds) for place in (0, 1)
    ]  # fmt: skip
    row = {"unpruned": {str(seed): 0.9 for seed in range(seeds)}, "cells": cells}
    return {"facts": measured("criteria")["facts"], "rows": {"net": row}}


@pytest.mark.parametrize("seeds", [1, 3])
def test_differences_between_criteria_have_an_error_only_with_several_trained_networks(seeds: int) -> None:
    caption = tables.TABLES["criteria"](criteria_of(seeds)).splitlines()[-1]
    against = caption.partition("*Against l1*")[2]
    assert ("standard error" in against) == (seeds > 1)
    assert ("one seed" in against) == (seeds == 1)


def test_seeds_are_counted_in_words() -> None:
    assert over_seeds([1, 1], "standard error") == "one seed"
    assert over_seeds([1, 3], "standard error") == "mean ± standard error where a row has several seeds (at most 3)"
    assert over_seeds([2, 3], "standard error") == "mean ± standard error of 2 to 3 seeds"
    assert over_seeds([3, 3], "standard error") == "mean ± standard error of 3 seeds"
    assert "±" not in percent([0.5])
