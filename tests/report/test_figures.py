"""The figures: their numbers, and that text of the database stays text."""

from __future__ import annotations

import pytest

from prunesearch.report.contents import StudyContents
from prunesearch.report.figures import colours, history, kept_widths, label, score_against_macs
from prunesearch.structure import Cost, Space
from prunesearch.trial import Trial
from tests.toys import chain_space

SCORES = (0.2, None, 0.5, 0.4)


def contents(space: Space, name: str = "search") -> StudyContents:
    trials = tuple(
        Trial(i, (4, 6 + 3 * i, 16)[: len(space.groups)], Cost(100 + i, 10), score, None, 0.1, "toy", "toy", "here")
        for i, score in enumerate(SCORES)
    )
    return StudyContents(name, {}, space, trials, {})


def test_the_history_is_the_best_score_so_far_over_the_scored_trials() -> None:
    study = contents(chain_space())
    line, points = history([study], colours([study])).data
    assert line.x == points.x == (0, 2, 3)
    assert line.y == (0.2, 0.5, 0.5)
    assert points.y == (0.2, 0.5, 0.4)
    assert points.marker.symbol == ("circle", "diamond", "circle")


def test_score_is_drawn_against_exact_macs() -> None:
    study = contents(chain_space())
    (points,) = score_against_macs([study], colours([study])).data
    assert points.x == (100, 102, 103)


def test_bars_are_percent_of_the_unpruned_width_of_each_group() -> None:
    study = contents(chain_space(full=(8, 12, 16)))
    (bars,) = kept_widths([study], colours([study])).data
    assert bars.y == pytest.approx((50.0, 100.0, 100.0))
    assert [tuple(entry[:2]) for entry in bars.customdata] == [(4, 8), (12, 12), (16, 16)]


def test_text_in_a_figure_is_never_markup() -> None:
    assert label("<a href='x'>&</a>") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&lt;/a&gt;"
    study = contents(chain_space(), name="<b>bold</b>")
    drawn = [history, score_against_macs, kept_widths]
    names = {trace.name for draw in drawn for trace in draw([study], colours([study])).data}
    assert names == {"&lt;b&gt;bold&lt;/b&gt;"}


def test_long_text_leaves_room_for_the_figure() -> None:
    assert len(label("x" * 500)) == 32
