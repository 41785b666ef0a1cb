"""Pruned networks side by side: those in files, and the winners of studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from prunesearch.contracts import kind_of
from prunesearch.evaluators.built_costs import measure_costs
from prunesearch.html_table import html_table
from prunesearch.latency_model import LatencyModel
from prunesearch.latency_table import LatencyTable, as_table
from prunesearch.models.network import Network
from prunesearch.models.wrappers import unwrapped
from prunesearch.plain_text import shortened
from prunesearch.report.contents import StudyContents, read
from prunesearch.shares import error_of_difference
from prunesearch.structure import Cost, Space, Structure
from prunesearch.study.database import as_url
from prunesearch.study.store import Store
from prunesearch.tasks.examples import judged_as
from prunesearch.tasks.metric import as_text, name_of
from prunesearch.training.data import Data
from prunesearch.training.evaluation import metric_on_test

UNPRUNED = "unpruned"
_SHOWN = 8


@dataclass(frozen=True)
class Compared:
    """One network.

    Attributes:
        name: What it was called, of a study its name; `"unpruned"` for what the following rows were pruned from.
        structure: Kept channels per group.
        cost: MACs and parameters, exact; latency as the table predicts it, if there is one.
        macs_share: Of the unpruned network's.
        params_share: Likewise.
        score: Of a study's winner, before any finetuning; by another evaluator, another scale.
        evaluator: What gave that score.
        metric: That of the task on the test examples (`Comparison.metric`); None without such.
        latency_ms: Measured, at the speed that the machine had when the table was measured; None if it cannot be built,
            or there is no table of this machine.
        distance: How far its widths are from those of the first pruned network: the mean over groups of the difference
            in the share kept, from 0 to 1. None for networks of other groups.
    """

    name: str
    structure: Structure
    cost: Cost
    macs_share: float
    params_share: float
    score: float | None = None
    evaluator: str | None = None
    metric: float | None = None
    latency_ms: float | None = None
    distance: float | None = None


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` found.

    Attributes:
        rows: The unpruned network, what was pruned from it in the order given, then likewise for the next.
        test_images: How many examples the metrics are of; 0 without.
        metric: What they are, such as `"accuracy"`.
        notes: What should be known before the rows are compared.
    """

    rows: tuple[Compared, ...]
    test_images: int
    notes: tuple[str, ...]
    metric: str = "accuracy"

    def __repr__(self) -> str:
        shown = self.rows if len(self.rows) <= _SHOWN else self.rows[: _SHOWN - 1]
        lines = [f"Comparison of {len(self.rows)} networks:", *(_line(row, self.metric) for row in shown)]
        more = len(self.rows) - len(shown)
        return "\n".join(lines) + (f"\n  and {more} more" if more else "")

    def _repr_html_(self) -> str:
        headings = ["network", "MACs", "parameters", self.metric, "ms", "score"]
        rows = [
            (
                row.name,
                f"{row.cost.macs:,} ({row.macs_share:.1%})",
                f"{row.cost.params:,} ({row.params_share:.1%})",
                "" if row.metric is None else as_text(self.metric, row.metric),
                "" if row.latency_ms is None else f"{row.latency_ms:.3g}",
                "" if row.score is None else f"{row.score:.4g}",
            )
            for row in self.rows
        ]
        known = [heading for heading, *cells in zip(headings, *rows, strict=True) if any(cells)]
        cells = [[cell for heading, cell in zip(headings, row, strict=True) if heading in known] for row in rows]
        return html_table(known, cells, self.notes)


def compare(
    network: Network | None = None,
    models: Mapping[str, nn.Module] | None = None,
    *,
    study: str | Path | None = None,
    study_names: Sequence[str] | None = None,
    data: Data | None = None,
    table: LatencyTable | str | Path | None = None,
    device: str | None = None,
) -> Comparison:
    """Put pruned networks, and winners of studies, side by side. Nothing is changed, and studies are only read.

    Args:
        network: What the models were pruned from, traced.
        models: Pruned forms of it by name, finetuned or not. Of a wrapped or compiled one, the network inside is taken.
        study: URL of a database of studies, or the path of its file.
        study_names: Which of its studies; by default all.
        data: Its test examples say how good the network and the models are.
        table: Predicts latency, and, if it was measured on this machine, says how that of the models is measured; or
            the path of its file.
        device: Where the test examples are run; by default on the GPU where there is one.

    Raises:
        TypeError: The network, a model, the data, the table or the names are something else.
        ValueError: There is nothing to compare, a model is called "unpruned" or is no pruned form of the network, there
            is no study of a name, or the table is of another network or cannot be measured against here.
        StudyUnreadable: The database cannot be read.
    """
    if network is None and study is None:
        raise ValueError("Expected a network with models pruned from it, or a database of studies; got neither.")
    _check(network, models, data)
    study, table = None if study is None else as_url(study), as_table(table)
    rows: list[tuple[Space, Compared]] = []
    test_images = 0
    if network is not None:
        for name, model in {UNPRUNED: network.model, **(models or {})}.items():
            row, test_images = _of_model(name, unwrapped(model), network, data, table, device)
            rows.append((network.space, row))
    of_studies, notes = _of_studies(_studies(study, study_names), None if network is None else network.space, table)
    compared = _with_distances([*rows, *of_studies])
    evaluators = {row.evaluator for row in compared if row.evaluator is not None}
    if len(evaluators) > 1:
        notes.append(f"Scores of different evaluators cannot be compared: {'; '.join(sorted(evaluators))}.")
    metric = "accuracy"
    if data is not None:
        metric = name_of(judged_as(data.goal))
    if test_images and metric == "accuracy":
        notes.append(_certainty(compared, test_images))
    return Comparison(compared, test_images, tuple(notes), metric)


def _check(network: Network | None, models: Mapping[str, nn.Module] | None, data: Data | None) -> None:
    """Make sure that models and data are what they should be.

    Raises:
        TypeError, ValueError: As `compare`.
    """
    if network is None and (models or data is not None):
        raise ValueError("Models, and test data, are compared with what they were pruned from; give that network, too.")
    if not isinstance(network, Network | None):
        raise TypeError(f"Expected network as trace(model, example_inputs) gives it, got {type(network).__name__}.")
    if not isinstance(data, Data | None):
        raise TypeError(f"Expected data as Data(train=..., test=...), got {type(data).__name__}.")
    if not isinstance(models, Mapping | None):
        raise TypeError(f'Expected models by name, such as {{"small": small}}, got {kind_of(models)}.')
    for name, model in (models or {}).items():
        if not isinstance(model, nn.Module):
            raise TypeError(f"Expected models as modules by name, got {type(model).__name__} under {name!r}.")
        if not isinstance(name, str):
            raise TypeError(f"Expected models by names, which are texts; got {kind_of(name)}.")
    if UNPRUNED in (models or {}):
        raise ValueError(f"{UNPRUNED!r} is what the network itself is called; give the model another name.")


def _of_studies(
    studies: Sequence[StudyContents], own: Space | None, table: LatencyTable | None
) -> tuple[list[tuple[Space, Compared]], list[str]]:
    """Rows of the winners of studies, with the unpruned networks of other spaces than `own`; and notes."""
    rows: list[tuple[Space, Compared]] = []
    notes: list[str] = []
    for group in sorted(_by_network(studies), key=lambda group: group[0].space != own):
        space = group[0].space
        if space != own:
            rows.append((space, _row(UNPRUNED, space, space.full, table)))
        for contents in group:
            if contents.winner is None:
                notes.append(f"Study {contents.name!r} has no structure with a score, so it is left out.")
            else:
                rows.append((space, _of_study(contents, table)))
    return rows, notes


def _line(row: Compared, metric: str) -> str:
    facts = [f"MACs {row.cost.macs:,} ({row.macs_share:.1%})", f"parameters {row.cost.params:,}"]
    if row.metric is not None:
        facts.append(f"{metric} {as_text(metric, row.metric)}")
    if row.latency_ms is not None:
        facts.append(f"{row.latency_ms:.3g} ms")
    return f"  {shortened(row.name, 60)}: {', '.join(facts)}"


def _of_model(
    name: str,
    model: nn.Module,
    network: Network,
    data: Data | None,
    table: LatencyTable | None,
    device: str | None,
) -> tuple[Compared, int]:
    measures = None if table is None or table.is_remote else table
    found = measure_costs(network, model, measures)
    if not found.exact:
        raise ValueError(f"{name} does not cost what its structure says: {found}")
    row = _row(name, network.space, found.structure, table)
    latency = next((entry.measured for entry in found.comparisons if entry.cost == "latency, ms"), None)
    metric: float | None = None
    n = 0
    if data is not None and data.test is not None:
        metric, n = metric_on_test(model, data, network.model, device=device)
    return replace(row, metric=metric, latency_ms=latency), n


def _of_study(contents: StudyContents, table: LatencyTable | None) -> Compared:
    winner = contents.winner
    assert winner is not None  # or it is left out
    row = _row(contents.name, contents.space, winner.structure, table)
    return replace(row, score=winner.score, evaluator=winner.evaluator)


def _row(name: str, space: Space, structure: Structure, table: LatencyTable | None) -> Compared:
    cost, full = space.cost_as_built(structure), space.cost(space.full)
    if table is not None:
        cost = replace(cost, more={"latency_ms": float(LatencyModel(table, space).predict([structure])[0])})
    return Compared(name, structure, cost, cost.macs / full.macs, cost.params / full.params)


def _studies(url: str | None, names: Sequence[str] | None) -> list[StudyContents]:
    if url is None:
        return []
    with closing(Store(url, create=False)) as store:
        found = read(store, names)
        if not found:
            raise ValueError(f"There are no studies in {store.url} yet; run a search first.")
    return found


def _by_network(studies: Sequence[StudyContents]) -> list[list[StudyContents]]:
    """Studies of the same unpruned network together, in the order of their first one."""
    groups: dict[str, list[StudyContents]] = {}
    for study in studies:
        groups.setdefault(f"{study.question.get('model')} {study.space.fingerprint}", []).append(study)
    return list(groups.values())


def _with_distances(rows: Sequence[tuple[Space, Compared]]) -> tuple[Compared, ...]:
    """Each row with how far its widths are from the first pruned one's, where it is of the same space."""
    origin = next(((space, row.structure) for space, row in rows if row.name != UNPRUNED), None)
    if origin is None:
        return tuple(row for _, row in rows)
    widths, first = np.array(origin[0].full), np.array(origin[1])
    return tuple(
        replace(row, distance=float((np.abs(np.array(row.structure) - first) / widths).mean()))
        if space == origin[0]
        else row
        for space, row in rows
    )


def _certainty(rows: Sequence[Compared], n: int) -> str:
    accuracies = [row.metric for row in rows if row.metric is not None]
    error = 2 * error_of_difference(accuracies, n)
    return (
        f"With {n:,} test images, accuracies that differ by less than {error:.2%} cannot be told apart (two standard "
        "errors of a difference)."
    )
