"""A search on a toy whose every evaluation leaves a line in a file, in a process that faults can be done to.

python -m tests.faults.toy URL N_TRIALS LOG [options as JSON]
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prunesearch.budget import Budget
from prunesearch.search import make_searcher
from prunesearch.structure import Structure
from prunesearch.study.study import Study
from prunesearch.study.workers import Workers, executor_on, open_pool
from prunesearch.trial import Trial
from tests.toys import bowl, chain_space

SPACE = chain_space((16, 24, 32), 8)
BUDGET = Budget(macs="50%")
SCORE = bowl(SPACE, (0.4, 0.6, 0.5))
QUESTION = {"budget": "50%", "seed": 0}
NAME = "toy"


class Scorer:
    """Takes a little while, and notes what it scores.

    Args:
        log: Where to note; None for nowhere.
        seconds: How long it takes.
        faults: What befalls it, by structure (as text): "kill", "kill once", "hang", "hang with the lock" (of the
            interpreter), "hang with children", "stop", "raise", "exit", "nan".
    """

    def __init__(self, log: str | None, seconds: float, faults: dict[str, str]) -> None:
        self._log = log
        self._seconds = seconds
        self._faults = faults

    def score(self, structures: Sequence[Structure]) -> list[float]:
        return [self._score(structure) for structure in structures]

    def _score(self, structure: Structure) -> float:
        before = 0
        if self._log is not None:
            text = str(structure)
            before = Path(self._log).read_text().count(text) if Path(self._log).exists() else 0
            with open(self._log, "a") as file:
                file.write(text + "\n")
        time.sleep(self._seconds)
        fault = self._faults.get(str(structure))
        if fault == "kill" or (fault == "kill once" and not before):
            os.kill(os.getpid(), 9)
        if fault == "hang":
            time.sleep(3600)
        if fault == "hang with the lock":
            ctypes.PyDLL(None).sleep(3600)
        if fault == "hang with children":
            subprocess.run(["sleep", "3600"], check=False)
        if fault == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fault == "raise":
            raise RuntimeError("raised on purpose")
        if fault == "exit":
            sys.exit(3)
        return float("nan") if fault == "nan" else SCORE(structure)


def run(
    url: str,
    n_trials: int,
    *,
    log: str | None = None,
    seconds: float = 0.0,
    faults: dict[str, str] | None = None,
    searcher: str = "evolution",
    as_finished: bool = False,
    **workers: Any,
) -> list[Trial]:
    """Search; what is recorded is kept."""

    def recipe() -> tuple[Scorer, ...]:
        return (Scorer(log, seconds, faults or {}),)

    proposer = make_searcher(searcher, SPACE, BUDGET, seed=0)
    names = {"searcher_name": searcher, "evaluator_name": "toy"}
    with ExitStack() as stack:
        study = stack.enter_context(Study(url, NAME, QUESTION, SPACE))
        if as_finished:
            pool = stack.enter_context(open_pool(Workers(**workers), recipe))
            return study.run_as_finished(proposer, pool, n_trials, **names)
        executor = stack.enter_context(executor_on(Workers(**workers), recipe()[0], recipe))
        return study.run(proposer, executor, n_trials, **names)


def history(trials: Sequence[Trial]) -> list[tuple[int, Structure, float | None]]:
    return [(trial.number, trial.structure, trial.score) for trial in trials]


if __name__ == "__main__":
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    run(sys.argv[1], int(sys.argv[2]), log=sys.argv[3] or None, **options)
