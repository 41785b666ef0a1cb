"""The tables of a page as plain values; the template only sets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prunesearch.report.contents import StudyContents, by_network

_UNKNOWN = ""
_TRIAL_COLUMNS = ("study", "number", "structure", "macs", "params", "score", "failure", "seconds", "searcher")

_FIELDS = {
    "model": "network (fingerprint)",
    "space": "space (fingerprint)",
    "data": "data (fingerprint)",
    "criterion": "channel criterion",
}


@dataclass(frozen=True)
class Answer:
    """One value of a field of the question.

    Attributes:
        value: As it is shown.
        studies: Names of the studies that have it; empty if all do.
    """

    value: str
    studies: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """One row per study, below one for the unpruned network that they narrow.

    Attributes:
        titles: Of the columns; those about which nothing is known are left out.
        networks: Rows by network, its unpruned row first.
    """

    titles: tuple[str, ...]
    networks: tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True)
class _Column:
    """A column of the comparison: what it says of a study, and of the unpruned network of some studies."""

    title: str
    of_study: Callable[[StudyContents], str]
    of_unpruned: Callable[[Sequence[StudyContents]], str] = lambda studies: _UNKNOWN


def question(studies: Sequence[StudyContents]) -> dict[str, list[Answer]]:
    """Every field of the question with its values; one that all studies share is there once."""
    fields = dict.fromkeys(field for study in studies for field in study.question)
    return {_FIELDS.get(field, field.replace("_", " ")): _answers(field, studies) for field in fields}


def comparison(studies: Sequence[StudyContents]) -> Comparison:
    """Compare what the studies found."""
    networks = [
        [
            [column.of_unpruned(group) for column in _COLUMNS],
            *([column.of_study(study) for column in _COLUMNS] for study in group),
        ]
        for group in by_network(studies)
    ]
    known = [any(row[i] for rows in networks for row in rows) for i in range(len(_COLUMNS))]
    return Comparison(
        titles=tuple(column.title for column, keep in zip(_COLUMNS, known, strict=True) if keep),
        networks=tuple(
            tuple(tuple(cell for cell, keep in zip(row, known, strict=True) if keep) for row in rows)
            for rows in networks
        ),
    )


def widths(studies: Sequence[StudyContents]) -> list[tuple[str, int, list[int]]]:
    """(group, unpruned width, width in each study's winner) of studies of one network that have a winner."""
    winners = [study.winner.structure for study in studies if study.winner is not None]
    return [
        (group.name, group.width, [structure[i] for structure in winners])
        for i, group in enumerate(studies[0].space.groups)
    ]


def trials(studies: Sequence[StudyContents]) -> dict[str, list[Any]]:
    """Every trial, in the form in which the page's script reads it."""
    rows = [
        [
            study.name,
            trial.number,
            trial.structure,
            trial.cost.macs,
            trial.cost.params,
            trial.score,
            trial.failure,
            trial.seconds,
            trial.searcher,
        ]
        for study in studies
        for trial in study.trials
    ]
    return {"columns": list(_TRIAL_COLUMNS), "trials": rows}


def arguments(study: StudyContents, database: str) -> dict[str, str]:
    """Arguments of `search`, as Python writes them, that go on with a study and so return its winner.

    Only literals: text of a database must not become code that somebody runs.
    """
    plain = {
        "searcher": study.trials[0].searcher,
        "seed": study.question.get("seed"),
        "criterion": study.question.get("criterion"),
        "n_trials": len(study.trials),
        "study": f"sqlite:///{database}",
        "study_name": study.name,
    }
    return {name: repr(value) for name, value in plain.items() if isinstance(value, (str, int))}


def _answers(field: str, studies: Sequence[StudyContents]) -> list[Answer]:
    names: dict[str, list[str]] = {}
    for study in studies:
        names.setdefault(_text(study.question.get(field)), []).append(study.name)
    return [Answer(value, () if len(names) == 1 else tuple(who)) for value, who in names.items()]


def _text(value: Any) -> str:
    if value is None:
        return "not recorded"
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return str(value)


def _searchers(study: StudyContents) -> str:
    return ", ".join(dict.fromkeys(trial.searcher for trial in study.trials))


def _evaluations(study: StudyContents) -> str:
    failed = study.failures.total()
    return f"{len(study.trials):,}" + (f" ({failed:,} failed)" if failed else "")


def _cost(resource: str) -> Callable[[StudyContents], str]:
    def cost(study: StudyContents) -> str:
        if study.winner is None:
            return _UNKNOWN
        kept, full = getattr(study.winner.cost, resource), getattr(study.unpruned, resource)
        return f"{kept:,} ({kept / max(1, full):.1%})"

    return cost


def _score(study: StudyContents) -> str:
    return f"{study.winner.score:.4f}" if study.winner else _UNKNOWN


def _accuracy(study: StudyContents) -> str:
    ends = [study.number("accuracy_before"), study.number("accuracy_after")]
    if ends == [None, None]:
        return _UNKNOWN
    return " → ".join("not measured" if end is None else f"{end:.2%}" for end in ends)


def _number(key: str, form: str) -> Callable[[StudyContents], str]:
    def number(study: StudyContents) -> str:
        value = study.number(key)
        return _UNKNOWN if value is None else format(value, form)

    return number


def _ms_per_image(key: str) -> Callable[[StudyContents], str]:
    def ms(study: StudyContents) -> str:
        value, batch_size = study.number(key), study.number("latency_batch_size")
        if value is None:
            return _UNKNOWN
        return f"{value:.4g}" + (f" (batch of {batch_size:g})" if batch_size is not None else "")

    return ms


def _first_known(of_study: Callable[[StudyContents], str]) -> Callable[[Sequence[StudyContents]], str]:
    """Say of the unpruned network what the first study says that knows it."""
    return lambda studies: next(filter(None, map(of_study, studies)), _UNKNOWN)


_COLUMNS = (
    _Column("Study", lambda study: study.name, lambda studies: "unpruned"),
    _Column("Searcher", _searchers),
    _Column("Evaluations", _evaluations),
    _Column("MACs (of unpruned)", _cost("macs"), lambda studies: f"{studies[0].unpruned.macs:,}"),
    _Column("Parameters (of unpruned)", _cost("params"), lambda studies: f"{studies[0].unpruned.params:,}"),
    _Column("Score", _score),
    _Column("Accuracy before → after finetuning", _accuracy, _first_known(_number("accuracy_unpruned", ".2%"))),
    _Column("Search seconds", lambda study: f"{study.seconds:,.1f}" if study.trials else _UNKNOWN),
    _Column("Finetuning seconds", _number("finetune_seconds", ",.1f")),
    _Column("ms per image", _ms_per_image("ms_per_image"), _first_known(_ms_per_image("ms_per_image_unpruned"))),
)
