"""What was asked, and what the studies found, as tables of text; the template only sets them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunesearch.question import in_words as words_of
from prunesearch.question import limits_of
from prunesearch.report.contents import StudyContents, comparable
from prunesearch.report.measure import measure_of
from prunesearch.study.told import told

_UNKNOWN = ""
_SCORE = "score"
_FIELDS = {
    "model": "network (fingerprint)",
    "space": "space (fingerprint)",
    "data": "data (fingerprint)",
    "criterion": "channel criterion",
    "weight_source": "weights of candidates",
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
class CostTable:
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
    is_needed: Callable[[Sequence[StudyContents]], bool] = lambda studies: True


def question(studies: Sequence[StudyContents]) -> dict[str, list[Answer]]:
    """Every field of the question with its values; one that all studies share is there once."""
    fields = dict.fromkeys(field for study in studies for field in study.question)
    return {_FIELDS.get(field, field.replace("_", " ")): _answers(field, studies) for field in fields}


def notes(studies: Sequence[StudyContents]) -> list[Answer]:
    """What searches said of their results, each sentence once with the studies it is about."""
    about: dict[str, list[str]] = {}
    for study in studies:
        for note in study.notes:
            about.setdefault(note, []).append(study.name)
    return [Answer(note, tuple(names) if len(studies) > 1 else ()) for note, names in about.items()]


def followed(studies: Sequence[StudyContents]) -> list[Answer]:
    """What was recorded after the searches, in words."""
    found = []
    for study in studies:
        numbers = {trial.structure: trial.number for trial in reversed(study.trials)}
        for fact in study.followed:
            kept = fact.value.get("structure")
            number = numbers.get(tuple(kept)) if isinstance(kept, list) else None
            about = "" if number is None else f"Trial {number}: "
            found.append(Answer(about + told(fact), (study.name,) if len(studies) > 1 else ()))
    return found


def comparison(studies: Sequence[StudyContents]) -> CostTable:
    """Compare what the studies found."""
    networks = [
        [
            [column.of_unpruned(group) for column in _COLUMNS],
            *([column.of_study(study) for column in _COLUMNS] for study in group),
        ]
        for group in comparable(studies)
    ]
    known = [
        any(row[i] for rows in networks for row in rows) and column.is_needed(studies)
        for i, column in enumerate(_COLUMNS)
    ]
    return CostTable(
        titles=tuple(
            _scores(studies) if column.title is _SCORE else column.title
            for column, keep in zip(_COLUMNS, known, strict=True)
            if keep
        ),
        networks=tuple(
            tuple(tuple(cell for cell, keep in zip(row, known, strict=True) if keep) for row in rows)
            for rows in networks
        ),
    )


def _scores(studies: Sequence[StudyContents]) -> str:
    """What scores are of; where studies differ, all of them."""
    names = dict.fromkeys(measure_of(study).name for study in studies if study.trials)
    return " or ".join(names).capitalize()


def in_words(facts: Mapping[str, Any]) -> str:
    """Plain values in a line, such as `torch 2.9, threads 1`."""
    said = [in_words(v) if isinstance(v, dict) else f"{key.replace('_', ' ')} {v}" for key, v in facts.items()]
    return ", ".join(filter(None, said))


def _answers(field: str, studies: Sequence[StudyContents]) -> list[Answer]:
    names: dict[str, list[str]] = {}
    for study in studies:
        names.setdefault(_text(study.question.get(field)), []).append(study.name)
    return [Answer(value, () if len(names) == 1 else tuple(who)) for value, who in names.items()]


def _text(value: Any) -> str:
    if value is None:
        return "not recorded"
    return words_of(value)


def _searchers(study: StudyContents) -> str:
    return ", ".join(dict.fromkeys(trial.searcher for trial in study.trials))


def _budget(study: StudyContents) -> str:
    return words_of(limits_of(study.question.get("budget", _UNKNOWN), "lowered"))


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
    winner = study.winner
    return _UNKNOWN if winner is None or winner.score is None else measure_of(study).text(winner.score)


def _full_score(study: StudyContents) -> str:
    full = study.number("score_full")
    return _UNKNOWN if full is None else measure_of(study).text(full)


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


def _of_a_batch(key: str, size: str, shown: Callable[[float], str]) -> Callable[[StudyContents], str]:
    """A number that was measured on a batch, with the images in it where that is known."""

    def cell(study: StudyContents) -> str:
        value, batch_size = study.number(key), study.number(size)
        if value is None:
            return _UNKNOWN
        return shown(value) + (f" (batch of {batch_size:g})" if batch_size is not None else "")

    return cell


def _ms_per_image(key: str) -> Callable[[StudyContents], str]:
    return _of_a_batch(key, "latency_batch_size", "{:.4g}".format)


def _first_known(of_study: Callable[[StudyContents], str]) -> Callable[[Sequence[StudyContents]], str]:
    """Say of the unpruned network what the first study says that knows it."""
    return lambda studies: next(filter(None, map(of_study, studies)), _UNKNOWN)


def _latency(study: StudyContents) -> str:
    if study.winner is None:
        return _UNKNOWN
    predicted, timed = study.predicted_of(study.winner), study.measured_of(study.winner)
    if timed is not None:
        return f"{timed.predicted_ms:.4g} → {timed.measured_ms:.4g}"
    return _UNKNOWN if predicted is None or math.isnan(predicted) else f"{predicted:.4g} → not measured"


def _predicted_unpruned(studies: Sequence[StudyContents]) -> str:
    return next((f"{study.full_ms:.4g}" for study in studies if study.full_ms is not None), _UNKNOWN)


def _peak(key: str) -> Callable[[StudyContents], str]:
    return _of_a_batch(key, "peak_batch_size", lambda size: f"{size / 2**20:,.2f} MiB")


_COLUMNS = (
    _Column("Study", lambda study: study.name, lambda studies: "unpruned"),
    _Column("Searcher", _searchers, is_needed=lambda studies: any(_searchers(s) not in ("", s.name) for s in studies)),
    _Column("Budget", _budget, is_needed=lambda studies: len(set(map(_budget, studies))) > 1),
    _Column("Evaluations", _evaluations),
    _Column("MACs (of unpruned)", _cost("macs"), lambda studies: f"{studies[0].unpruned.macs:,}"),
    _Column("Parameters (of unpruned)", _cost("params"), lambda studies: f"{studies[0].unpruned.params:,}"),
    _Column(_SCORE, _score, _first_known(_full_score)),
    _Column("Accuracy before → after finetuning", _accuracy, _first_known(_number("accuracy_unpruned", ".2%"))),
    _Column("Latency, ms, predicted → measured", _latency, _predicted_unpruned),
    _Column("ms per image", _ms_per_image("ms_per_image"), _first_known(_ms_per_image("ms_per_image_unpruned"))),
    _Column("Peak memory", _peak("peak_bytes"), _first_known(_peak("peak_bytes_unpruned"))),
    _Column("Search seconds", lambda study: f"{study.seconds:,.1f}" if study.trials else _UNKNOWN),
    _Column("Finetuning seconds", _number("finetune_seconds", ",.1f")),
)
