"""What version 4 kept as sentences or in other places becomes facts."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import prunesearch as ps
from prunesearch.report.contents import read
from prunesearch.study.store import Store
from prunesearch.study.upgrades import facts_of, question_of, source_of
from tests.report.studies import toy_space
from tests.test_given import search

FIXTURE = Path(__file__).parent / "fixtures" / "schema-4.db"
SPACE = toy_space()
FULL = SPACE.cost(SPACE.full)
LATENCY = {
    "table": "12ab",
    "conditions": {"device": "cpu", "threads": 1},
    "limit_ms": 2.0,
    "expected_error": 0.04,
    "full_ms": 5.0,
    "narrowest_ms": None,
    "winner": [8, 16],
    "rounds": ["toy", "toy, predictions times 1.08"],
    "predicted_ms": {"toy": [1.9, 1.8], "toy, predictions times 1.08": [1.7]},
    "attempts": [
        {
            "structure": [16, 32],
            "predicted_ms": 1.9,
            "measured_ms": 2.5,
            "low_ms": 2.4,
            "high_ms": 2.6,
            "slowdown": 1.0,
        },
        {"structure": [8, 16], "predicted_ms": 1.7, "measured_ms": 1.8, "low_ms": 1.7, "high_ms": 1.9, "slowdown": 1.1},
    ],
}


def test_a_score_that_was_taken_over_has_a_source() -> None:
    assert json.loads(source_of("trial 12 of study 'search macs=40%'") or "") == {
        "study": "search macs=40%",
        "trial": 12,
    }
    assert json.loads(source_of('trial 3 of study "it\'s"') or "") == {"study": "it's", "trial": 3}
    assert source_of("host:123") is None


@pytest.mark.parametrize(
    ("field", "sentence", "nested"),
    [
        ("budget", "macs=50%, params=1k", {"limits": {"macs": "50%", "params": "1k"}}),
        ("budget", "latency_ms=4 by table 12ab", {"limits": {"latency_ms": "4"}, "by": ["table 12ab"]}),
        ("budget", "half", "half"),
        ("searcher", "random()", {"name": "random"}),
        (
            "searcher",
            "conditional(shares=[1, 0.7], warmup=4, form=linear)",
            {"name": "conditional", "options": {"form": "linear", "shares": [1, 0.7], "warmup": 4}},
        ),
        ("criterion", "l1", {"name": "l1"}),
        ("criterion", "lfe(masks=20)", {"name": "lfe", "options": {"masks": 20}}),
        ("criterion", "first 0123456789abcdef", {"name": "first", "kept": "0123456789abcdef"}),
        (
            "evaluator",
            "accuracy(metric=loss, images=512, batch_size=256), race=8 parts",
            {"description": "accuracy(metric=loss, images=512, batch_size=256)", "parts": 8},
        ),
        ("evaluator", "by width", {"description": "by width"}),
        ("task", "segmentation, loss 0.12, metric 0.5", {"name": "segmentation", "loss": "0.12", "metric": "0.5"}),
        ("weight_source", "inherited", "inherited"),
        ("versions", {"torch": "2"}, {"torch": "2"}),
    ],
)
def test_sentences_of_a_question_become_nested_values(field: str, sentence: Any, nested: Any) -> None:
    assert question_of({field: sentence}) == {field: nested} == question_of({field: nested})


def test_a_study_of_version_4_goes_on(tmp_path: Path) -> None:
    """Its question, upgraded, is the one that the same search asks today."""
    url = f"sqlite:///{tmp_path / 's.db'}"
    scoring = ps.Scoring(criterion="lfe", criterion_options={"masks": 20, "images": 16})
    settings: dict[str, Any] = {"scoring": scoring, "study": url}
    part = search(n_trials=3, **settings)
    with closing(Store(url, create=False)) as store:
        asked = store.question("search") or {}
    old = {
        **asked,
        "budget": "macs=50%",
        "searcher": "random()",
        "criterion": "lfe(images=16, masks=20)",
        "evaluator": asked["evaluator"]["description"],
    }
    assert question_of(old) == asked
    assert search(n_trials=4, **settings).trials[:3] == part.trials


def test_limits_become_numbers() -> None:
    summary, _ = facts_of(json.dumps({"budget": "macs=50%, params=1k"}), json.dumps(dataclasses.asdict(SPACE)), None)
    facts = json.loads(summary)
    assert facts.pop("scoring") == {}
    assert facts == {
        "limits": {"macs": FULL.macs // 2, "params": 1000},
        "unpruned": {"macs": FULL.macs, "params": FULL.params},
    }


@pytest.mark.parametrize("question", ["{", '{"budget": 3}', '{"budget": "magic"}', "[]"])
def test_what_cannot_be_read_stays_as_it_is(question: str) -> None:
    summary, costs = facts_of(question, json.dumps(dataclasses.asdict(SPACE)), '{"score_full": 0.5}')
    assert json.loads(summary)["score_full"] == 0.5
    assert costs == {}


@pytest.mark.parametrize("upgrades", [False, True])
def test_a_search_under_a_latency_budget_keeps_all_that_was_known_of_it(tmp_path: Path, upgrades: bool) -> None:
    """Whether a reader finds the old file, or a driver has upgraded it."""
    path = tmp_path / "studies.db"
    shutil.copy(FIXTURE, path)
    question = json.dumps({"budget": "macs=90%, latency_ms=40% by table 12ab"})
    rows = [("toy", [(16, 32), (4, 16)]), ("toy, predictions times 1.08", [(8, 16)])]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("delete from trial")
        connection.execute("delete from study")
        connection.commit()
    with closing(sqlite3.connect(path)) as connection:
        _write(connection, rows, question)
    url = f"sqlite:///{path}"
    if upgrades:
        Store(url).close()
    with closing(Store(url, create=False)) as store:
        (study,) = read(store, None)
    assert study.rounds == (("toy", 2), ("toy, predictions times 1.08", 1))
    assert study.predicted_ms == (1.9, 1.8, 1.7)
    assert (study.limit_ms, study.full_ms, study.limits["macs"]) == (2.0, 5.0, FULL.macs * 9 // 10)
    assert [(each.structure, each.measured_ms) for each in study.attempts] == [((16, 32), 2.5), ((8, 16), 1.8)]
    assert study.winner is not None
    assert study.winner.structure == (8, 16)
    assert (study.expected_error, study.conditions) == (0.04, LATENCY["conditions"])


def _write(connection: sqlite3.Connection, rows: list[tuple[str, list[tuple[int, int]]]], question: str) -> None:
    """Two rounds as version 4 wrote them."""
    from prunesearch.study.schema import checksum

    for number, (name, structures) in enumerate(rows, 1):
        summary = json.dumps({"latency": LATENCY, "score_full": -0.1}) if number == 1 else None
        connection.execute(
            "insert into study (id, name, created, question, space, summary) values (?, ?, '2026', ?, ?, ?)",
            (number, name, question, json.dumps(dataclasses.asdict(SPACE)), summary),
        )
        for place, structure in enumerate(structures):
            cost = SPACE.cost(structure)
            row = {
                "number": place, "structure": json.dumps(structure), "macs": cost.macs, "params": cost.params,
                "score": -0.5, "failure": None, "seconds": 0.1, "searcher": "random", "evaluator": "toy",
                "worker": "here", "images": None, "error": 0.0, "parts": "[]",
            }  # fmt: skip
            sealed = {**row, "study_id": number, "checksum": checksum(row, 4)}
            names = ", ".join(sealed)
            connection.execute(
                f"insert into trial ({names}) values ({', '.join('?' * len(sealed))})", tuple(sealed.values())
            )
    connection.commit()
