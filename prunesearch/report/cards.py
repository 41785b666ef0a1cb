"""The head of a page: of each study what it found against the unpruned network and against uniform widths."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prunesearch.plain_text import counted
from prunesearch.question import in_words, limits_of
from prunesearch.report.contents import StudyContents
from prunesearch.report.measure import measure_of
from prunesearch.shares import error_of_difference, is_share
from prunesearch.study.told import shown
from prunesearch.trial import Trial

_SHARE = re.compile(r"(macs|params)=([\d.]+%)")
_COUNTED = {"macs": "MACs", "params": "parameters"}
_WHOLE = 1000
"""From which on costs are written without digits behind the point."""


@dataclass(frozen=True)
class Tile:
    """One fact about a winner.

    Attributes:
        title: What it is.
        value: Of the winner.
        beside: What it is to be compared with, a line each.
    """

    title: str
    value: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fact:
    """A sentence that helps to decide whether to use a winner.

    Attributes:
        kind: `good`, `bad` or `open`.
        said: The sentence.
    """

    kind: str
    said: str


@dataclass(frozen=True)
class Card:
    """One study.

    Attributes:
        study: Its name.
        about: Network, data, budget, searcher and trials, in a line.
        tiles: Its winner in numbers.
        facts: Whether to use it.
    """

    study: str
    about: str
    tiles: tuple[Tile, ...]
    facts: tuple[Fact, ...]


def card(study: StudyContents) -> Card | None:
    """What is known of a study's winner; None if it has none."""
    winner = study.winner
    if winner is None:
        return None
    tiles = [tile(study, winner) for tile in _TILES]
    facts = [fact for found in _FACTS for fact in found(study, winner)]
    return Card(study.name, _about(study), tuple(tile for tile in tiles if tile is not None), tuple(facts))


def title_of(studies: list[StudyContents]) -> str:
    """The title of a page that nobody gave one: the network, the data and the budgets."""
    subjects = {(study.subject.get("network"), study.subject.get("data")) for study in studies}
    known = [(network, data) for network, data in subjects if network]
    if len(subjects) != 1 or not known:
        return "Structure search"
    network, data = str(known[0][0]).rpartition(":")[2], known[0][1]
    budgets = dict.fromkeys(_SHARE.sub(_of_what, _budget(study)) for study in studies)
    named = f" on {data}" if data and len(data) <= 40 and " " not in data else ""
    return f"{network}{named}, pruned to {' and to '.join(budgets)}"


def _of_what(limit: re.Match[str]) -> str:
    return f"{limit[2]} of the {_COUNTED[limit[1]]}"


def _about(study: StudyContents) -> str:
    subject = study.subject
    where = " on ".join(filter(None, [subject.get("network"), subject.get("data")]))
    searchers = ", ".join(dict.fromkeys(trial.searcher for trial in study.trials))
    parts = [where, f"budget {_budget(study)}", f"{searchers}, {counted(len(study.trials), 'structure')} scored"]
    return "; ".join(filter(None, parts))


def _budget(study: StudyContents) -> str:
    return in_words(limits_of(study.question.get("budget", "")))


def _macs(study: StudyContents, winner: Trial) -> Tile:
    return _count(study, "macs", "MACs", winner.cost.macs, study.unpruned.macs)


def _params(study: StudyContents, winner: Trial) -> Tile:
    return _count(study, "params", "Parameters", winner.cost.params, study.unpruned.params)


def _count(study: StudyContents, resource: str, title: str, kept: int, full: int) -> Tile:
    judged = study.judged
    plain = None if judged is None or judged.uniform_is_winner else judged.uniform_cost[resource] / max(1, full)
    beside = [f"{full:,} → {kept:,}"] + ([] if plain is None else [f"uniform widths {plain:.1%}"])
    return Tile(title, f"{kept / max(1, full):.1%}", tuple(beside))


def _score(study: StudyContents, winner: Trial) -> Tile | None:
    measure, full, judged = measure_of(study), study.number("score_full"), study.judged
    assert winner.score is not None
    beside = [] if full is None else [f"unpruned {measure.text(full)}"]
    if judged is not None and judged.uniform_score is not None and not judged.uniform_is_winner:
        beside.append(f"uniform widths {measure.text(judged.uniform_score)}")
    name = f"{measure.name[:1].upper()}{measure.name[1:]}"
    return Tile(f"{name} before finetuning", measure.text(winner.score), tuple(beside))


def _metric(study: StudyContents, winner: Trial) -> Tile | None:
    judged = study.judged
    if judged is None or judged.metric == measure_of(study).name:
        return None
    beside = [f"unpruned {shown(judged.metric, judged.unpruned)}"]
    beside += [] if judged.uniform_is_winner else [f"uniform widths {shown(judged.metric, judged.uniform)}"]
    title = f"{judged.metric[:1].upper()}{judged.metric[1:]} before finetuning"
    return Tile(
        title, shown(judged.metric, judged.winner), (*beside, f"on {judged.examples:,} images that also scored")
    )


def _accuracy(study: StudyContents, winner: Trial) -> Tile | None:
    before, after = study.number("accuracy_before"), study.number("accuracy_after")
    unpruned = _noted("unpruned", study.number("accuracy_unpruned"), ".2%")
    if after is not None:
        return Tile("Test accuracy", f"{after:.2%}", (*unpruned, *_noted("before finetuning", before, ".2%")))
    return None if before is None else Tile("Test accuracy before finetuning", f"{before:.2%}", unpruned)


def _finetuned(study: StudyContents, winner: Trial) -> Tile | None:
    found = study.finetuned
    metric, epochs = str(found.get("metric")), found.get("epochs")
    for on, values in (("test", found.get("test")), ("validation", found)):
        if isinstance(values, dict) and values.get("reached") is not None:
            before, now = (shown(metric, values.get(when)) for when in ("before", "reached"))
            after = f"after {epochs} epoch{'' if epochs == 1 else 's'} of finetuning"
            unpruned = values.get("unpruned")
            beside = [] if unpruned is None else [f"unpruned {shown(metric, unpruned)}"]
            return Tile(f"{on.capitalize()} {metric} {after}", now, (*beside, f"before finetuning {before}"))
    return None


def _latency(study: StudyContents, winner: Trial) -> Tile | None:
    timed, unpruned = study.measured_of(winner), _noted("unpruned, predicted", study.full_ms, ".4g")
    limit, predicted = _noted("limit", study.limit_ms, ".4g"), study.predicted_of(winner)
    if timed is not None:
        more = (*_noted("predicted", timed.predicted_ms, ".4g"), *limit)
        return Tile("Latency, measured", f"{timed.measured_ms:.4g} ms", (*unpruned, *more))
    if predicted is None or math.isnan(predicted):
        return None
    return Tile("Latency, predicted", f"{predicted:.4g} ms", (*unpruned, *limit))


def _ms_per_image(study: StudyContents, winner: Trial) -> Tile | None:
    ms = study.number("ms_per_image")
    unpruned = _noted("unpruned", study.number("ms_per_image_unpruned"), ".4g")
    batch = _noted("in batches of", study.number("latency_batch_size"), "g")
    return None if ms is None else Tile("Measured per image", f"{ms:.4g} ms", (*unpruned, *batch))


def _memory(study: StudyContents, winner: Trial) -> Tile | None:
    peak, full = study.number("peak_bytes"), study.number("peak_bytes_unpruned")
    unpruned = _noted("unpruned", None if full is None else full / 2**20, ",.2f")
    batch = _noted("in batches of", study.number("peak_batch_size"), "g")
    return None if peak is None else Tile("Peak memory", f"{peak / 2**20:,.2f} MiB", (*unpruned, *batch))


def _within_the_budget(study: StudyContents, winner: Trial) -> list[Fact]:
    known = [(name, winner.cost.amounts[name], limit) for name, limit in study.limits.items()
             if name in winner.cost.amounts]  # fmt: skip
    timed = study.measured_of(winner)
    if timed is not None:
        known = [(name, timed.measured_ms if name == "latency_ms" else cost, limit) for name, cost, limit in known]
    over = [name for name, cost, limit in known if cost > limit]
    if not known:
        return []
    said = ", ".join(f"{_COUNTED.get(name, name)} {_amount(cost)} of at most {_amount(limit)}"
                     for name, cost, limit in known)  # fmt: skip
    return [Fact("bad" if over else "good", f"{'Over' if over else 'Within'} the budget: {said}.")]


def _against_uniform(study: StudyContents, winner: Trial) -> list[Fact]:
    judged, measure = study.judged, measure_of(study)
    if judged is None:
        return []
    if judged.uniform_is_winner:
        if len(study.trials) == 1:  # it was given no other, so this says nothing of the network
            return []
        return [Fact("bad", "The winner has uniform widths: the search found nothing better than one share for all.")]
    plain, own = judged.uniform_score, winner.score
    if plain is None or own is None:
        return []
    pair = f"{measure.name} {measure.text(own)} against {measure.text(plain)}"
    if own > plain:
        return [Fact("good", f"Better than uniform widths under the same budget: {pair}.")]
    return [Fact("bad", f"No better than uniform widths under the same budget: {pair}.")]


def _after_finetuning(study: StudyContents, winner: Trial) -> list[Fact]:
    test, metric = study.finetuned.get("test"), str(study.finetuned.get("metric"))
    found: dict[str, Any] = test if isinstance(test, dict) else {}
    now, unpruned, n = found.get("reached"), found.get("unpruned"), found.get("examples")
    if now is None and study.number("accuracy_after") is not None:
        now, unpruned, metric = study.number("accuracy_after"), study.number("accuracy_unpruned"), "accuracy"
    if not isinstance(now, (int, float)):
        if study.finetuned:
            return []
        return [
            Fact("open", "Not finetuned yet, as far as this study knows. That usually wins back most of the quality.")
        ]
    if not isinstance(unpruned, (int, float)):
        return []
    text = f"{metric} {shown(metric, now)} after finetuning, {shown(metric, unpruned)} unpruned"
    if not is_share(metric) or not isinstance(n, int) or n < 1:
        return [Fact("open", f"On test examples: {text}.")]
    noise = 2 * error_of_difference((now, unpruned), n)
    kind = "bad" if now < unpruned - noise else "good"
    sure = f"Differences below {100 * noise:.1f} points can be chance (two standard errors of {n:,} examples)."
    return [Fact(kind, f"On test examples: {text}. {sure}")]


def _timed(study: StudyContents, winner: Trial) -> list[Fact]:
    if study.measured_of(winner) is not None or study.number("ms_per_image") is not None:
        return []
    return [Fact("open", "Its milliseconds were not measured. Fewer MACs do not always mean less time.")]


def _failed(study: StudyContents, winner: Trial) -> list[Fact]:
    failed = study.failures.total()
    return [Fact("bad", f"{failed:,} of {len(study.trials):,} structures failed; see Failures.")] if failed else []


_TILES: tuple[Callable[[StudyContents, Trial], Tile | None], ...] = (
    _macs,
    _params,
    _latency,
    _score,
    _metric,
    _accuracy,
    _finetuned,
    _ms_per_image,
    _memory,
)
_FACTS: tuple[Callable[[StudyContents, Trial], list[Fact]], ...] = (
    _within_the_budget,
    _against_uniform,
    _after_finetuning,
    _timed,
    _failed,
)


def _amount(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= _WHOLE else f"{cost:.4g}"


def _noted(what: str, value: float | None, form: str) -> tuple[str, ...]:
    return () if value is None else (f"{what} {value:{form}}",)
