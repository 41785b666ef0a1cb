"""How to get a study's winner as a network again: lines of Python and of a shell.

Text of a database must not become code that somebody runs, so it only ever becomes a literal or a quoted word.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

from prunesearch.report.contents import StudyContents

_NAME = re.compile(r"[a-z0-9_]+")
_METRIC = re.compile(r"accuracy\(metric=([a-z]+), images=(\d+)")


@dataclass(frozen=True)
class Loading:
    """What to type.

    Attributes:
        python: Lines of Python.
        command: Lines for a shell.
    """

    python: str
    command: str


def loading(study: StudyContents, url: str) -> Loading:
    """How to go on with a study, and so get its winner, without scoring anything again.

    Args:
        study: One that has trials.
        url: Of its database, as it may be shown.
    """
    arguments = _arguments(study, url)
    literals = "".join(f"    {name}={value!r},\n" for name, value in arguments.items())
    python = (
        "import prunesearch as ps\n\nresult = ps.search(\n    network,\n    data,\n    budget=budget,\n"
        f"{literals})\nsmall = result.best.build()  # an ordinary nn.Module\n"
        'ps.save(small, "small.safetensors", example_inputs=network.example_inputs)\n'
        '# and later: ps.load("small.safetensors", model)'
    )
    budget, _, table = str(study.question.get("budget", "")).partition(" by table ")
    given: dict[str, Any] = {"budget": budget.replace(", ", ","), **arguments}
    words = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in given.items()]
    words = ["--model MODEL", "--weights WEIGHTS", "--data DATA", *(["--table TABLE"] if table else []), *words]
    command = " \\\n  ".join(["prunesearch search", *words, "--out small.safetensors"])
    return Loading(python, command)


def _arguments(study: StudyContents, url: str) -> dict[str, str | int]:
    """Arguments of `search` that are known; one with options of its own is not a name, and is left to the reader."""
    evaluator = str(study.question.get("evaluator", ""))
    metric = _METRIC.match(evaluator)
    names = {name: study.question.get(name) for name in ("criterion", "weight_source")}
    plain = {
        "searcher": study.trials[0].searcher,
        "seed": study.question.get("seed"),
        **{name: value for name, value in names.items() if isinstance(value, str) and _NAME.fullmatch(value)},
        "evaluator": evaluator.partition("(")[0] if metric is None and _NAME.match(evaluator) else None,
        "metric": metric[1] if metric else None,
        "images": int(metric[2]) if metric else None,
        "n_trials": study.rounds[0][1] if study.rounds else len(study.trials),
        "study": url,
        "study_name": study.name,
    }
    return {name: value for name, value in plain.items() if isinstance(value, (str, int))}
