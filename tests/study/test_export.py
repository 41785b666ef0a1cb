"""Studies for other programs: Optuna, CSV, Parquet."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from prunesearch.errors import StudyUnwritable
from prunesearch.study.optuna_export import export_to_optuna
from prunesearch.study.store import Store
from prunesearch.study.tables import write_table
from tests.study.toy import SCORE, SPACE, Scorer, run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A study of 12 trials, of which one failed, and one more that is an estimate from 64 images."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    bad = run("sqlite://", 12, searcher="random")[4].structure
    trials = run(url, 12, searcher="random", scorer=Scorer(lambda s: math.nan if s == bad else SCORE(s)))
    with closing(Store(url)) as opened:
        last = trials[-1]
        opened.add("toy", replace(last, number=12, score=-9.0, images=64, error=0.25, parts=((3, -9.0),)))
        yield opened


def test_an_optuna_study_has_widths_as_parameters_and_the_rest_as_attributes(store: Store, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path / 'optuna.db'}"
    assert export_to_optuna(store, "toy", target) == 13
    study = optuna.load_study(study_name="toy", storage=target)
    ours = store.trials("toy")
    for theirs, trial in zip(study.trials, ours, strict=True):
        assert tuple(theirs.params.values()) == trial.structure
        assert tuple(theirs.params) == tuple(group.name for group in SPACE.groups)
        assert theirs.user_attrs["macs"] == trial.cost.macs
        assert theirs.user_attrs["seconds"] == trial.seconds
        assert theirs.duration is not None
    states = [trial.state.name for trial in study.trials]
    assert (states[4], states.count("COMPLETE")) == ("FAIL", 12)
    assert {"images": 64, "error": 0.25}.items() <= study.trials[12].user_attrs.items()
    assert study.best_value == max(trial.score for trial in ours if trial.score is not None)
    assert study.user_attrs == {"searcher": "random()", "budget": "50%", "seed": 0}
    assert study.get_trials()[0].distributions["conv0"] == optuna.distributions.IntDistribution(2, 16, step=2)


def test_a_second_export_to_the_same_place_is_refused_and_a_bad_place_is_a_sentence(
    store: Store, tmp_path: Path
) -> None:
    target = f"sqlite:///{tmp_path / 'optuna.db'}"
    export_to_optuna(store, "toy", target)
    with pytest.raises(ValueError, match="has a study 'toy' already"):
        export_to_optuna(store, "toy", target)
    with pytest.raises(StudyUnwritable, match="cannot be written"):
        export_to_optuna(store, "toy", f"sqlite:///{tmp_path / 'no' / 'optuna.db'}")
    with pytest.raises(ValueError, match="There is no study 'none'"):
        export_to_optuna(store, "none", target)


def test_a_csv_table_has_a_row_per_trial_and_a_column_per_group(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    assert write_table(store, "toy", path) == 13
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, trial in zip(rows, store.trials("toy"), strict=True):
        assert tuple(int(row[f"width {group.name}"]) for group in SPACE.groups) == trial.structure
        assert (float(row["score"]) if row["score"] else None) == trial.score  # repr of a float is exact
        assert int(row["macs"]) == trial.cost.macs
    assert rows[4]["failure"] == "The score is nan."


def test_a_parquet_table_holds_the_same(store: Store, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="no pyarrow")
    path = tmp_path / "trials.parquet"
    write_table(store, "toy", path)
    table = parquet.read_table(path).to_pydict()
    assert table["score"] == [trial.score for trial in store.trials("toy")]
    assert table["width conv1"] == [trial.structure[1] for trial in store.trials("toy")]


def test_another_kind_of_file_or_study_is_refused_and_nothing_is_left(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"NAME\.csv or NAME\.parquet"):
        write_table(store, "toy", tmp_path / "trials.xls")
    with pytest.raises(ValueError, match="There is no study 'none'"):
        write_table(store, "none", tmp_path / "trials.csv")
    assert not list(tmp_path.glob("trials*"))
