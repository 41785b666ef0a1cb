"""How to get a study's winner as a network again: lines of Python and of a shell.

Text of a database must not become code that somebody runs, so it only ever becomes a literal or a quoted word.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunesearch.question import in_words, limits_of
from prunesearch.report.contents import StudyContents


@dataclass(frozen=True)
class Loading:
    """What to type.

    Attributes:
        file: Lines of Python that read the file of the winner's network; None if nobody recorded one.
        python: Lines of Python that ask the study again.
        command: The command that searched, or, where Python did, one that does the same.
        is_exact: Whether it is the one that was given.
    """

    file: str | None
    python: str
    command: str
    is_exact: bool


def loading(study: StudyContents, url: str) -> Loading:
    """How to go on with a study, and so get its winner, without scoring anything again.

    Args:
        study: One that has trials.
        url: Of its database, as it may be shown.
    """
    arguments, scoring = _arguments(study, url), _scoring(study)
    values = "".join(f"    {name}={value!r},\n" for name, value in arguments.items())
    own = "".join(f"        {name}={value!r},\n" for name, value in scoring.items())
    python = (
        "import prunesearch as ps\n\nresult = ps.search(\n    network,\n    data,\n    budget=budget,\n"
        f"{values}    scoring=ps.Scoring(\n{own}    ),\n)\nsmall = result.best.build()  # an ordinary nn.Module\n"
        'ps.save(small, "small.safetensors", example_inputs=network.example_inputs)\n'
        '# and later: ps.load("small.safetensors", model)'
    )
    file = None if study.file is None else f"import prunesearch as ps\n\nsmall = ps.load({study.file!r}, model)"
    if study.command:
        return Loading(file, python, _in_lines(study.command), True)
    budget = study.question.get("budget")
    asked: Mapping[str, Any] = budget if isinstance(budget, Mapping) else {}
    limits = in_words(limits_of(budget)).replace(", ", ",")
    given = {"budget": limits, **arguments, **scoring}
    race = given.pop("race", True)
    words = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in given.items()]
    table = ["--table TABLE"] if asked.get("by") else []
    words = ["--model MODEL", "--weights WEIGHTS", "--data DATA", *table, *words, *([] if race else ["--no-race"])]
    command = " \\\n  ".join(["prunesearch search", *words, "--out small.safetensors"])
    return Loading(file, python, command, False)


def _in_lines(words: Sequence[str]) -> str:
    """Words of a command as a shell reads them, an option a line."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n  ".join(" ".join(line) for line in lines)


def _arguments(study: StudyContents, url: str) -> dict[str, str | int]:
    """Arguments of `search` that are known, besides the scoring."""
    plain = {
        "searcher": study.trials[0].searcher,
        "seed": study.question.get("seed"),
        "n_trials": study.rounds[0][1] if study.rounds else len(study.trials),
        "study": url,
        "study_name": study.name,
    }
    return {name: value for name, value in plain.items() if isinstance(value, (str, int))}


def _scoring(study: StudyContents) -> dict[str, str | int]:
    """Arguments of `Scoring` that are known; objects and options of the caller's own are left to the reader."""
    names = ("criterion", "weight_source", "evaluator", "metric", "images", "race")
    found = {name: study.scoring.get(name) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, (str, int))}
