"""The page of a report: complete, exact, offline, and safe whatever the database holds."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import shlex
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from prunesearch.errors import StudyUnreadable
from prunesearch.latency_model import LatencyModel
from prunesearch.report import write_report
from prunesearch.report.contents import StudyContents, read
from prunesearch.report.page import render
from prunesearch.structure import Group, Space, Term, Width, space_from_dict
from prunesearch.study.store import Store
from tests.report.studies import HOSTILE, add_study, question, toy_space, trial
from tests.toys import chain_space, every_structure, toy_table

Add = Callable[..., None]
Report = Callable[..., "Page"]
LOADING = {"src", "href", "srcset", "action", "data", "poster"}


class Page(HTMLParser):
    """What a browser makes of a page: its elements, its text by element, its blob of trials."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = (tag, dict(attrs))
        self.elements.append(self._open)

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None and self._open[0] == "script":
            self.scripts.append((self._open[1], data))
        else:
            self.text += data

    @property
    def trials(self) -> list[dict[str, Any]]:
        blobs = [json.loads(text) for attributes, text in self.scripts if attributes.get("id") == "trials-data"]
        assert len(blobs) == 1
        rows = [dict(zip(blobs[0]["columns"], row, strict=True)) for row in blobs[0]["trials"]]
        names = [source["name"] for source in blobs[0]["sources"]]
        searchers = blobs[0]["searchers"]
        return [{**row, "study": names[row["study"]], "searcher": searchers[row["searcher"]]} for row in rows]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'search.db'}"


@pytest.fixture
def add(url: str) -> Add:
    """Return a function that adds a study to the database."""
    Store(url).close()
    return partial(add_study, url)


@pytest.fixture
def report(url: str, tmp_path: Path) -> Report:
    """Return a function that writes a report and reads it back."""

    def written(names: Sequence[str] | None = None) -> Page:
        path = write_report(url, tmp_path / "report.html", names)
        assert path == tmp_path / "report.html"
        return Page(path.read_text(encoding="utf-8"))

    return written


def test_the_page_loads_nothing_and_forbids_the_browser_to(add: Add, report: Report) -> None:
    add("search", [trial(0, (8, 32), -0.5)])
    page = report()
    assert not [(tag, a) for tag, a in page.elements for name in LOADING & set(a) if "//" in (a[name] or "")]
    assert not [tag for tag, _ in page.elements if tag in {"iframe", "object", "embed", "base"}]
    assert [a["href"] for tag, a in page.elements if tag == "link"] == ["data:,"]
    policy = [str(a["content"]) for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1
    assert policy[0].startswith("default-src 'none'")
    assert "unsafe" not in policy[0]


def test_the_only_script_and_style_are_those_the_policy_names(add: Add, report: Report) -> None:
    add("search", [trial(0, (8, 32), -0.5)])
    page = report()
    (policy,) = [str(a["content"]) for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = [text for attributes, text in page.scripts if "type" not in attributes]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not [(tag, name) for tag, a in page.elements for name in a if name == "style" or name.startswith("on")]


def test_the_page_is_small(add: Add, report: Report, tmp_path: Path) -> None:
    add("search", [trial(i, (8, 32), -0.5 - i / 1000) for i in range(100)])
    report()
    assert (tmp_path / "report.html").stat().st_size < 200_000


def test_exact_costs_of_the_winner_and_of_the_unpruned_network_appear(add: Add, report: Report) -> None:
    add("search", [trial(0, (4, 16), -0.9), trial(1, (8, 32), -0.5), trial(2, (8, 16), -0.7)])
    text = report().text
    # 9*1024*3*16 + 9*256*16*64 + 64*10, and the same at (8, 32)
    assert "2,802,304" in text
    assert "811,328 (29.0%)" in text
    assert "-0.5" in text


JUDGED = {
    "structure": [8, 32],
    "uniform_structure": [8, 16],
    "uniform_score": -0.8,
    "metric": "accuracy",
    "winner": 0.81,
    "unpruned": 0.97,
    "uniform": 0.75,
    "examples": 512,
}
DECIDED = {
    "scoring": {"measures": "loss"},
    "score_full": -0.05,
    "judged": JUDGED,
    "limits": {"macs": 1_401_152},
    "subject": {"network": "zoo:resnet20", "data": "digits"},
    "command": ["prunesearch", "search", "--model", "zoo:resnet20", "--budget", "macs=50%", "--study", "it's.db"],
}


def test_the_page_leads_with_what_was_found_against_the_unpruned_network_and_uniform_widths(
    add: Add, report: Report, url: str
) -> None:
    add("search", [trial(0, (8, 32), -0.5), trial(1, (8, 16), -0.8)], summary=DECIDED)
    store = Store(url)
    store.add_fact("search", "file", {"file": "small.safetensors", "structure": [8, 32]})
    test = {"before": 0.8, "reached": 0.96, "unpruned": 0.97, "examples": 1000}
    store.add_fact("search", "finetuned", {"structure": [8, 32], "metric": "accuracy", "epochs": 2, "test": test})
    store.close()
    text = " ".join(report().text.split())
    assert "resnet20 on digits, pruned to 50% of the MACs" in text
    head = text.partition("Scores and costs")[0]
    for said in (
        "zoo:resnet20 on digits; budget macs=50%",
        "Loss before finetuning0.5unpruned 0.05uniform widths 0.8",
        "Accuracy before finetuning81.00%unpruned 97.00%uniform widths 75.00%on 512 images",
        "Test accuracy after 2 epochs of finetuning96.00%unpruned 97.00%before finetuning 80.00%",
        "✓ Within the budget: MACs 811,328 of at most 1,401,152.",
        "✓ Better than uniform widths under the same budget: loss 0.5 against 0.8.",
        "accuracy 96.00% after finetuning, 97.00% unpruned. Differences below 1.8 points can be chance",
        "? Its milliseconds were not measured.",
    ):
        assert said in head, said
    assert (
        text.index("ps.load('small.safetensors', model)") < text.index("prunesearch search") < text.index("ps.search(")
    )
    assert "--study 'it'\"'\"'s.db'" in text


def test_a_search_in_python_is_shown_in_python_first(add: Add, report: Report) -> None:
    add("search", [trial(0, (8, 32), -0.5)], summary={**DECIDED, "command": None})
    text = report().text
    assert text.index("ps.search(") < text.index("prunesearch search \\")
    assert "--model MODEL" in text


def test_what_speaks_against_a_winner_is_said_too(add: Add, report: Report) -> None:
    worse = {**DECIDED, "judged": {**JUDGED, "uniform_score": -0.4}, "limits": {"macs": 800_000}}
    add("search", [trial(0, (8, 32), -0.5)], summary=worse)
    text = report().text
    assert "! Over the budget" in text
    assert "! No better than uniform widths" in text
    assert "? Not finetuned yet" in text


@pytest.mark.parametrize(("n", "said"), [(1, False), (2, True)])
def test_uniform_widths_speak_against_a_search_only_if_it_tried_others(
    add: Add, report: Report, n: int, said: bool
) -> None:
    same = {**DECIDED, "judged": {**JUDGED, "structure": [8, 16], "uniform": 0.81}}
    add("search", [trial(0, (8, 16), -0.5), trial(1, (8, 32), -0.8)][:n], summary=same)
    assert ("the search found nothing better than one share for all" in report().text) == said


def test_every_study_has_a_card_and_none_is_the_best_of_all(add: Add, report: Report) -> None:
    add("half", [trial(0, (8, 32), -0.5)], budget="macs=50%")
    add("third", [trial(0, (4, 16), -0.9)], budget="macs=30%")
    page = report()
    assert [a["class"] for tag, a in page.elements if tag == "section" and "class" in a] == ["card", "card"]
    assert "Winner" not in page.text.partition("Scores and costs")[0]


@pytest.mark.parametrize(
    "judged", [3, {"structure": [8, 32]}, {**JUDGED, "uniform_structure": [1]}, {**JUDGED, "winner": "x"}]
)
def test_what_somebody_wrote_as_a_judgement_does_no_harm(add: Add, report: Report, judged: Any) -> None:
    add("search", [trial(0, (8, 32), -0.5)], summary={"judged": judged, "subject": 3, "command": "rm"})
    assert "uniform widths" not in report().text


def test_only_what_is_known_has_a_column(add: Add, report: Report) -> None:
    add("bare", [trial(0, (8, 32), -0.5)])
    assert "ms per image" not in report().text
    assert "Accuracy" not in report().text
    add(
        "full",
        [trial(0, (8, 32), -0.4)],
        summary={
            "accuracy_unpruned": 0.9512,
            "accuracy_before": 0.4,
            "accuracy_after": 0.9433,
            "ms_per_image": 1.25,
            "latency_batch_size": 8,
            "search_seconds": 61.5,
        },
    )
    text = report().text
    for cell in ("95.12%", "40.00% → 94.33%", "1.25 (batch of 8)", "61.5"):
        assert cell in text


def test_a_field_of_the_question_that_studies_share_is_there_once(add: Add, report: Report) -> None:
    add("first", [trial(0, (8, 32), -0.5)], seed=11)
    add("second", [trial(0, (8, 32), -0.5)], seed=12)
    text = report().text
    assert "macs=50%" in text
    assert "11 (first)" in text
    assert "12 (second)" in text


def test_what_a_search_said_of_its_result_is_there_with_the_studies_it_is_about(add: Add, report: Report) -> None:
    add("alone", [trial(0, (8, 32), -0.5)], summary={"notes": ["Scores mean nothing."]})
    assert "Scores mean nothing. (" not in report().text
    assert "Scores mean nothing." in report().text
    add("a, b", [trial(0, (8, 32), -0.5)], summary={"notes": ["Scores mean nothing.", "It has no BatchNorm."]})
    text = report().text
    assert text.count("Scores mean nothing.") == 1
    assert "Scores mean nothing. (“alone”, “a, b”)" in text
    assert "It has no BatchNorm. (a, b)" not in text
    assert "It has no BatchNorm. (“a, b”)" in text


def test_the_blob_holds_every_trial(add: Add, report: Report) -> None:
    add("search", [trial(i, (8, 32), -1.0 / (i + 1)) for i in range(60)])
    add("other", [trial(0, (4, 16), None, "Out of memory.")])
    trials = report().trials
    assert [(t["study"], t["number"]) for t in trials] == [*(("search", i) for i in range(60)), ("other", 0)]
    assert trials[59]["structure"] == [8, 32]
    assert trials[59]["macs"] == 811_328
    assert trials[59]["score"] == -1.0 / 60
    assert (trials[60]["score"], trials[60]["failure"]) == (None, "Out of memory.")


def test_text_of_the_database_is_never_markup(add: Add, report: Report) -> None:
    hostile = [trial(0, (8, 32), -0.5, searcher=HOSTILE), trial(1, (4, 16), None, HOSTILE)]
    add(HOSTILE, hostile, space=toy_space(HOSTILE), model=HOSTILE, **{HOSTILE: HOSTILE})
    add("other", [trial(0, (8, 32), -0.5)], summary={"accuracy_after": HOSTILE, "notes": [HOSTILE, 3]})
    page = report()
    assert not [tag for tag, a in page.elements if tag == "img" or "onerror" in a]
    assert not [text for _, text in page.scripts if "alert(1)</" in text or text.startswith("alert(")]
    assert page.trials[1]["failure"] == HOSTILE
    assert HOSTILE in page.text


def test_the_code_to_rebuild_the_winner_holds_literals_only(add: Add, report: Report) -> None:
    add("it's\n", [trial(0, (8, 32), -0.5)], budget="__import__('os')", seed="print('seed')")
    add("worse", [trial(0, (8, 32), -0.6)])
    text = report().text
    code = text[text.index("import prunesearch as ps") : text.index("small = result.best.build()")]
    assert 'study_name="it\'s\\n"' in code
    assert '''seed="print('seed')"''' in code
    assert "__import__" not in code
    assert "study='sqlite:///search.db'" in code


def test_a_study_without_trials_is_said_to_have_none(add: Add, report: Report) -> None:
    add("search")
    text = report().text
    assert "Study search has no trials yet." in text
    assert "Search history" not in text


def test_failures_appear_with_their_sentences(add: Add, report: Report) -> None:
    add("search", [trial(i, (8, 32), None, "Out of memory.") for i in range(3)])
    text = report().text
    assert "None of the 3 structures of study search could be scored." in text
    assert "Out of memory. (3 trials)" in text


def test_a_database_without_studies_gets_a_page_that_says_so(add: Add, report: Report) -> None:
    assert "holds no studies yet" in report().text


def test_networks_with_different_groups_are_compared_each_with_its_own_unpruned_one(add: Add, report: Report) -> None:
    small = Space((Group("stem", 4, 1, (2, 4), ("stem",)),), (Term("stem", 7, Width(3), Width(0, ((0, 1),))),), ())
    add("resnet", [trial(0, (8, 32), -0.5)])
    add("tiny", [dataclasses.replace(trial(0, (8, 32), -0.5), structure=(2,), cost=small.cost((2,)))], space=small)
    text = report().text
    assert "2,802,304" in text
    assert "42 (50.0%)" in text
    assert text.count("Layers of the winner") == 2


def test_studies_can_be_chosen_by_name(add: Add, report: Report) -> None:
    add("first", [trial(0, (8, 32), -0.5)])
    add("second", [trial(0, (4, 16), -0.7)])
    assert [t["study"] for t in report(["second"]).trials] == ["second"]


def test_an_unknown_name_is_refused_with_the_list_of_those_there_are(add: Add, url: str, tmp_path: Path) -> None:
    add("first")
    add("second")
    with pytest.raises(ValueError, match=r"no study 'third' in .*; there are first, second\."):
        write_report(url, tmp_path / "report.html", ["first", "third"])


def test_a_folder_that_does_not_exist_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Make the folder .*nowhere first"):
        write_report("sqlite:///missing.db", tmp_path / "nowhere" / "report.html")
    with pytest.raises(ValueError, match="got the folder"):
        write_report("sqlite:///missing.db", tmp_path)


def test_a_failed_write_leaves_the_old_page_and_nothing_else(
    add: Add, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("search", [trial(0, (8, 32), -0.5)])
    folder = tmp_path / "out"
    folder.mkdir()
    page = folder / "report.html"
    page.write_text("old")

    def full(*paths: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(url, page)
    assert page.read_text() == "old"
    assert list(folder.iterdir()) == [page]


def test_the_page_names_the_database_but_not_its_folder(add: Add, url: str, tmp_path: Path) -> None:
    add("search", [trial(0, (8, 32), -0.5)])
    html = write_report(url, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "search.db" in html
    assert str(tmp_path) not in html


def test_trials_that_do_not_fit_their_space_are_an_error_that_says_so(add: Add, url: str, tmp_path: Path) -> None:
    odd = dataclasses.replace(trial(0, (8, 32), -0.5), structure=(8,))
    add("search", [odd])
    with pytest.raises(StudyUnreadable, match="trial 0 of study 'search' has 1 widths"):
        write_report(url, tmp_path / "report.html")


def test_a_space_that_cannot_be_read_is_an_error_that_names_the_study(url: str, tmp_path: Path) -> None:
    store = Store(url)
    store.create("search", question(), {"groups": 3})
    store.close()
    with pytest.raises(StudyUnreadable, match="space of study 'search'"):
        write_report(url, tmp_path / "report.html")


def test_a_space_survives_the_database() -> None:
    space = toy_space()
    assert space_from_dict(json.loads(json.dumps(dataclasses.asdict(space)))) == space


def test_the_same_contents_give_the_same_page() -> None:
    studies = [StudyContents("search", question(), toy_space(), (trial(0, (8, 32), -0.5),), {})]
    written = datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc)
    assert render(studies, "search.db", written) == render(studies, "search.db", written)


def test_only_fields_that_differ_name_their_studies(add: Add, report: Report) -> None:
    add("first", [trial(0, (8, 32), -0.5)], seed=11)
    add("second", [trial(0, (8, 32), -0.5)], seed=12)
    facts = report().text.split("What was asked")[1]
    assert facts.count("macs=50%") == 1
    assert facts.count("(first)") == facts.count("(second)") == 1


def test_the_command_to_load_the_winner_quotes_what_the_database_says(add: Add, report: Report) -> None:
    add("x; rm -rf ~", [trial(0, (8, 32), -0.5)], budget="$(reboot)", criterion="l1(a=`b`)")
    code = report().text.partition("prunesearch search")[2].partition("--out")[0]
    assert shlex.split(code.replace("\\\n", " "))[6:] == [
        *("--budget", "$(reboot)", "--searcher", "evolution", "--seed", "0", "--n-trials", "1"),
        *("--study", "sqlite:///search.db", "--study-name", "x; rm -rf ~"),
    ]


def latency(**facts: Any) -> dict[str, Any]:
    attempts = [
        {"structure": [16, 32], "predicted_ms": 1.9, "measured_ms": 2.6},
        {"structure": [8, 16], "predicted_ms": 1.7, "measured_ms": 1.8},
    ]
    return {
        "latency": {"limit_ms": 2.0, "rounds": ["search", "again"], "winner": [8, 16], "attempts": attempts} | facts
    }


def test_rounds_of_a_search_under_a_latency_budget_are_one_study_with_the_winner_in_time(
    add: Add, report: Report, url: str
) -> None:
    add("search", [trial(0, (16, 32), -0.1, ms=1.9)], summary=latency())
    add("again", [trial(0, (8, 16), -0.5, ms=1.7), trial(1, (4, 16), -0.7)])
    page = report()
    assert "1 study with 3 trials" in page.text
    assert [(t["study"], t["number"], t["latency"]) for t in page.trials] == [
        *(("search", 0, 1.9), ("again", 0, 1.7), ("again", 1, None))
    ]
    assert "1.7 → 1.8" in page.text
    (study,) = read(Store(url, create=False), None)
    assert study.winner is not None
    assert study.winner.structure == (8, 16)
    assert "n_trials=1," in page.text


def test_a_round_that_is_asked_for_by_name_stands_alone(add: Add, report: Report) -> None:
    add("search", [trial(0, (16, 32), -0.1)], summary=latency())
    add("again", [trial(0, (8, 16), -0.5)])
    assert [t["study"] for t in report(["again"]).trials] == ["again"]
    assert [t["study"] for t in report(["again", "search"]).trials] == ["search", "again"]


def test_what_somebody_wrote_into_a_summary_by_hand_does_no_harm(add: Add, report: Report) -> None:
    odd = {"rounds": 3, "winner": "x", "attempts": [7, {"structure": [1]}], "predicted_ms": [1], "limit_ms": "2"}
    add("search", [trial(0, (8, 32), -0.5)], summary={"latency": odd, "score_full": True, "accuracy_after": None})
    add("other", [trial(0, (8, 32), -0.5)], summary={"latency": 3})
    assert "Predicted against measured" not in report().text


def test_a_latency_table_predicts_every_trial_of_its_network(url: str, add: Add, tmp_path: Path) -> None:
    space = chain_space()
    table = toy_table(space)
    structures = every_structure(space)[:5]
    trials = [dataclasses.replace(trial(0, (8, 32), -float(i)), number=i, structure=s, cost=space.cost(s))
              for i, s in enumerate(structures)]  # fmt: skip
    add("chain", trials, space=space, budget=f"latency_ms=80% by table {table.fingerprint}")
    add("other", [trial(0, (8, 32), -0.5)])
    page = Page(write_report(url, tmp_path / "report.html", table=table).read_text(encoding="utf-8"))
    expected = LatencyModel(table, space).predict(structures)
    assert [t["latency"] for t in page.trials] == [*expected.round(6).tolist(), None]
    full = float(LatencyModel(table, space).predict([space.full])[0])
    assert f"budget {0.8 * full:.4g} ms" in page.text
    with pytest.raises(ValueError, match="none of the studies' networks"):
        write_report(url, tmp_path / "report.html", ["other"], table=table)


def test_scores_that_do_not_mean_the_same_are_not_drawn_in_one_figure(add: Add, report: Report) -> None:
    add("loss", [trial(0, (8, 32), -0.5)], evaluator="accuracy(metric=loss, images=64)")
    add("accuracy", [trial(0, (8, 32), 0.9)], evaluator="accuracy(metric=accuracy, images=64)")
    page = report()
    figures = [a["id"] for tag, a in page.elements if tag == "figure"]
    assert figures == ["front-macs-0", "front-macs-1", "history-0", "history-1"]


def test_the_title_is_the_callers(add: Add, url: str, tmp_path: Path) -> None:
    add("search", [trial(0, (8, 32), -0.5)])
    page = write_report(url, tmp_path / "report.html", title="ResNet <20>").read_text(encoding="utf-8")
    assert "<title>ResNet &lt;20&gt;</title>" in page
