"""A study's trials as a table for other programs: CSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesearch.errors import StudyUnreadable
from prunesearch.files import whole
from prunesearch.study.store import Store
from prunesearch.trial import Trial

if TYPE_CHECKING:
    from pandas import DataFrame

_COLUMNS = ("number", "score", "failure", "macs", "params", "seconds", "searcher", "evaluator", "worker")


def write_table(store: Store, name: str, path: str | Path) -> int:
    """Write a row per trial, with a column per group of channels; the file appears whole or not at all.

    Args:
        store: The database.
        name: A study in it.
        path: `NAME.csv` or `NAME.parquet`.

    Returns:
        How many rows.

    Raises:
        StudyUnreadable: What is stored of the space does not fit the trials.
        ValueError: Another kind of file, no such study, or a package is missing.
    """
    path = Path(path)
    write = {".csv": _write_csv, ".parquet": _write_parquet}.get(path.suffix)
    if write is None:
        raise ValueError(f"Expected a file NAME.csv or NAME.parquet, got {path.name!r}.")
    check_name(store, name)
    trials, groups = store.trials(name), group_names(store, name)
    if any(len(trial.structure) != len(groups) for trial in trials):
        raise StudyUnreadable(f"{store.url}: trials of study {name!r} have other numbers of widths than its space.")
    columns = columns_of(trials, groups)
    with whole(path) as draft:
        write(columns, draft)
    return len(columns["number"])


def as_dataframe(trials: Sequence[Trial], groups: Sequence[str]) -> DataFrame:
    """The trials as a pandas DataFrame, with the columns of `columns_of`.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(f"A DataFrame needs one more package: pip install pandas ({error}).") from None
    return pd.DataFrame(columns_of(trials, groups))


def columns_of(trials: Sequence[Trial], groups: Sequence[str]) -> dict[str, list[Any]]:
    """The trials column by column; the kept widths come last, as `width GROUP`."""
    getters: dict[str, Callable[[Trial], Any]] = {name: _getter(name) for name in _COLUMNS}
    columns = {name: [get(trial) for trial in trials] for name, get in getters.items()}
    return columns | {f"width {group}": [trial.structure[i] for trial in trials] for i, group in enumerate(groups)}


def group_names(store: Store, name: str) -> list[str]:
    """Names of the groups of a study's space, in the order of a structure."""
    try:
        return [str(group["name"]) for group in store.space(name).get("groups", ())]
    except (KeyError, TypeError) as error:
        raise StudyUnreadable(
            f"{store.url}: the space of study {name!r} cannot be read ({type(error).__name__})."
        ) from None


def check_name(store: Store, name: str) -> None:
    """Make sure that there is a study of this name.

    Raises:
        ValueError: There is none; the message has those that there are.
    """
    names = store.studies()
    if name not in names:
        raise ValueError(f"There is no study {name!r} in {store.url}; there are {listed(names) or 'none yet'}.")


def listed(names: Iterable[str]) -> str:
    """Names in a line, in quotes where one of them has a comma, so that it is clear where each ends.

    Example:
        >>> print(listed(["search", "mine"]))
        search, mine
        >>> print(listed(["search", "search macs=50%, params=1M"]))
        “search”, “search macs=50%, params=1M”
    """
    names = list(names)
    quoted = [f"“{name}”" for name in names] if any("," in name for name in names) else names
    return ", ".join(quoted)


def _getter(name: str) -> Callable[[Trial], Any]:
    if name in ("macs", "params"):
        return lambda trial: getattr(trial.cost, name)
    return lambda trial: getattr(trial, name)


def _write_csv(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _write_parquet(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"Parquet needs one more package: pip install 'prunesearch[parquet]' ({error}).") from None
    types = {"score": pa.float64(), "failure": pa.string(), "seconds": pa.float64()}  # also of a column without values
    arrays = [pa.array(list(values), type=types.get(name)) for name, values in columns.items()]
    parquet.write_table(pa.table(arrays, names=list(columns)), path)
