"""What does keeping a study cost, how fast does a large one open, and what do workers gain?

    python benchmarks/studies.py [--cells bookkeeping opening reader workers optuna] [--postgres URL]

- bookkeeping: 10,000 rounds of ask, score (nothing to do), write and tell, beside the same rounds without a database;
- opening: a study of 100,000 trials, until every one is read and checked, and its `status`;
- reader: the same run with and without a process that reads the study ten times a second, by turns;
- workers: structures of a ResNet-20 per second, inline and by local workers, by turns, and whether histories are equal;
- optuna: the same number of parameters asked and told through Optuna's own SQLite storage, for comparison.

Every cell is written when it is there; a cell that is there already is not measured again (`--again` does).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from prunesearch.budget import Budget
from prunesearch.search import make_searcher
from prunesearch.structure import Group, Space, Structure, Term, Width
from prunesearch.study import schema
from prunesearch.study.executors import InlineExecutor
from prunesearch.study.store import Store
from prunesearch.study.study import Study
from prunesearch.study.workers import Workers, executor_on
from prunesearch.tasks.classify import labelled

GROUPS, ROUNDS, LARGE, REPEATS = 20, 10_000, 100_000, 5
OUT = Path(__file__).parent / "results" / "studies.json"
QUESTION = {"what": "benchmark"}


class Nothing:
    """A score that costs nothing, or a fixed time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """The sum of the widths."""
        time.sleep(self._seconds * len(structures))
        return [float(sum(structure)) for structure in structures]


def space() -> Space:
    """A chain of as many groups as a large ResNet has."""
    groups = tuple(Group(f"conv{i}", 64, 1, tuple(range(4, 65, 4)), (f"conv{i}",)) for i in range(GROUPS))
    widths = [Width(3), *(Width(0, ((i, 1),)) for i in range(GROUPS)), Width(10)]
    terms = tuple(Term(f"conv{i}", 9, widths[i], widths[i + 1]) for i in range(GROUPS + 1))
    return Space(groups, terms, terms)


def run(url: str, n: int, scorer: Nothing, name: str = "study") -> float:
    """Seconds of a whole run."""
    here = space()
    searcher = make_searcher("random", here, Budget(macs="50%"), seed=0)
    start = time.perf_counter()
    with Study(url, name, QUESTION, here) as study:
        study.run(searcher, InlineExecutor(scorer), n, searcher_name="random", evaluator_name="nothing")
    return time.perf_counter() - start


def bookkeeping(postgres: str | None) -> dict[str, Any]:
    """Milliseconds per trial, and what share that is at 10 structures per second."""
    here = space()
    searcher = make_searcher("random", here, Budget(macs="50%"), seed=0)
    start = time.perf_counter()
    for _ in range(ROUNDS // 64 + 1):
        asked = searcher.ask(64)
        Nothing().score(asked)
        searcher.tell([])
    found = {"searcher alone": 1e3 * (time.perf_counter() - start) / ROUNDS}
    with tempfile.TemporaryDirectory() as folder:
        found["SQLite"] = 1e3 * run(f"sqlite:///{folder}/study.db", ROUNDS, Nothing()) / ROUNDS
    found["in memory"] = 1e3 * run("sqlite://", ROUNDS, Nothing()) / ROUNDS
    if postgres is not None:
        found["PostgreSQL"] = 1e3 * run(postgres, ROUNDS, Nothing(), f"bench {time.time()}") / ROUNDS
    return {"rounds": ROUNDS, "groups": GROUPS, "ms": found}


def opening(postgres: str | None) -> dict[str, Any]:
    """Seconds to open a large study: read and checked, and its status."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/study.db"
        run(url, 64, Nothing())
        with closing(Store(url)) as store, store._engine.begin() as connection:
            (first, *_), last = connection.execute(sa.select(schema.trial)).mappings().all(), 64
            rows = [dict(first) | {"number": number} for number in range(last, LARGE)]
            for row in rows:
                row["checksum"] = schema.checksum(row)
            connection.execute(schema.trial.insert(), rows)
        whole, brief = [], []
        for _ in range(REPEATS):
            whole.append(_timed(lambda: _open(url)))
            brief.append(_timed(lambda: _look(url)))
        size = Path(f"{folder}/study.db").stat().st_size
    return {"trials": LARGE, "seconds": whole, "status": brief, "megabytes": size / 1e6}


def _open(url: str) -> None:
    with Study(url, "study", QUESTION, space()) as study:
        assert len(study.trials()) == LARGE


def _look(url: str) -> None:
    with closing(Store(url, create=False)) as store:
        assert store.progress("study") is not None


def _timed(what: Callable[[], None]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


_POLL = """
import sys, time
from contextlib import closing
from pathlib import Path
from prunesearch.errors import StudyUnreadable
from prunesearch.study.store import Store
while True:
    try:
        with closing(Store(sys.argv[1], create=False)) as store:
            store.progress("study")
    except StudyUnreadable:
        pass
    time.sleep(0.1)
"""


def reader(postgres: str | None) -> dict[str, Any]:
    """Seconds of a run of 200 structures at 20 ms, alone and watched, by turns."""
    alone, watched = [], []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(REPEATS):
            alone.append(run(f"sqlite:///{folder}/{repeat}a.db", 200, Nothing(0.02)))
            url = f"sqlite:///{folder}/{repeat}b.db"
            watcher = subprocess.Popen([sys.executable, "-c", _POLL, url])
            time.sleep(1.0)
            watched.append(run(url, 200, Nothing(0.02)))
            watcher.kill()
            watcher.wait()
    return {"alone": alone, "watched": watched}


def workers(postgres: str | None) -> dict[str, Any]:
    """Structures per second: a ResNet-20 on 256 images of 32 pixels, evolution, from the second batch on.

    Weights and images are random: they change no speed.
    """
    import torch

    import prunesearch as ps
    from prunesearch.evaluators import make_evaluator, make_weights
    from prunesearch.evaluators.channels import make_criterion

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.randn(256, 3, 32, 32), torch.arange(256) % 10
    network = ps.trace(ps.make_model("resnet20").eval(), images[:2])
    weights = make_weights(
        "inherited", network, make_criterion("l1", seed=0).rank(network, labelled(images, labels)), images
    )
    searcher = make_searcher("evolution", network.space, ps.Budget(macs="50%"), seed=0)
    batches = []
    for _ in range(3):
        batches.append(searcher.ask(64))
        searcher.tell([])

    def recipe() -> tuple[Any, ...]:
        torch.set_num_threads(1)
        return (make_evaluator("accuracy", weights, labelled(images, labels)),)

    kinds = {"inline": Workers(), "1 worker": Workers(1, "processes"), "2 workers": Workers(2)}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    scores: dict[str, list[float | None]] = {}
    for _ in range(3):
        for kind, where in kinds.items():
            with executor_on(where, recipe()[0], recipe) as scoring:
                list(scoring.run(batches[0][:8]))  # until the workers have started
                start = time.perf_counter()
                outcomes = [outcome for batch in batches for outcome in scoring.run(batch)]
                rates[kind].append(len(outcomes) / (time.perf_counter() - start))
                scores[kind] = [outcome.score for outcome in outcomes]
    return {"rates": rates, "structures": sum(map(len, batches)), "equal": len({str(s) for s in scores.values()}) == 1}


def optuna(postgres: str | None) -> dict[str, Any]:
    """Milliseconds per trial of Optuna's random sampler and SQLite storage with as many integers."""
    import optuna as library

    library.logging.set_verbosity(library.logging.ERROR)
    n = 100
    with tempfile.TemporaryDirectory() as folder:
        sampler = library.samplers.RandomSampler(seed=0)
        study = library.create_study(storage=f"sqlite:///{folder}/optuna.db", sampler=sampler)
        start = time.perf_counter()
        for _ in range(n):
            trial = study.ask()
            study.tell(trial, float(sum(trial.suggest_int(f"conv{i}", 4, 64, step=4) for i in range(GROUPS))))
        taken = time.perf_counter() - start
    return {"trials": n, "ms": 1e3 * taken / n, "version": library.__version__}


CELLS: dict[str, Callable[[str | None], dict[str, Any]]] = {
    "bookkeeping": bookkeeping,
    "opening": opening,
    "reader": reader,
    "optuna": optuna,
    "workers": workers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--postgres", help="URL of a database for the bookkeeping cell")
    parser.add_argument("--again", action="store_true", help="measure cells that are there already, too")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    result: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"cells": {}}
    load = os.getloadavg()[0]
    for name in arguments.cells:
        if name in result["cells"] and not arguments.again:
            continue
        result["cells"][name] = CELLS[name](arguments.postgres)
        result["facts"] = {
            "python": platform.python_version(),
            "sqlalchemy": sa.__version__,
            "processor": _processor(),
            "repeats": REPEATS,
            "load": load,
        }
        partial = arguments.out.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n")
        partial.replace(arguments.out)
        medians = {k: statistics.median(v) for k, v in result["cells"][name].items() if isinstance(v, list)}
        sys.stdout.write(f"{name}: {medians or result['cells'][name]}\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
