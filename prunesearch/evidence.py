"""What a searcher is told of a network before it proposes: found once, and kept in the study for those who resume it.

A searcher that is asked again must propose the same. Evidence that another processor computes anew is the same to six
digits only, so a resumed search is given what the study has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prunesearch.errors import StudyUnreadable
from prunesearch.preparation import Prepared
from prunesearch.search import evidence_needed, evidence_welcome
from prunesearch.search.searcher import Searcher
from prunesearch.structure import FloatArray
from prunesearch.study.database import parse
from prunesearch.study.store import reading
from prunesearch.trial import Note

KEY = "evidence"
"""What it is called in a study's summary."""

Evidence = Mapping[str, tuple[FloatArray, ...]]


def evidence_of(
    given: str | Callable[..., Searcher], options: Mapping[str, Any], prepared: Prepared, kept: Evidence | None
) -> tuple[Evidence, tuple[Note, ...]]:
    """What a searcher needs to know, and what it can do without where that costs little.

    It costs little where structures race, as few images do then. How many will be scored must not count: a search that
    goes on has the history of one that was asked for all at once.

    Args:
        given: The searcher, by name or as what makes one.
        options: Arguments that it is given anyway.
        prepared: What scores.
        kept: What the study has of an earlier run; None where none has begun.

    Returns:
        What there is, and what the caller should know of the rest.
    """
    needed, welcome = (
        [name for name in names if name not in options] for names in (evidence_needed(given), evidence_welcome(given))
    )
    known = kept or {}
    found = {name: known[name] if name in known else prepared.evidence(name) for name in needed}
    if kept is not None:
        return {**found, **{name: known[name] for name in welcome if name in known}}, ()
    if not prepared.parts:
        return found, ()
    notes: list[Note] = []
    for name in welcome:
        try:
            found[name] = prepared.evidence(name, on_few=True)
        except Exception as error:  # what cannot be scored is a failed trial, and no reason to stop here
            notes.append(Note("evidence", f"The search began without the {name} that its searcher asks for: {error}"))
    return found, tuple(notes)


def kept_evidence(url: str, name: str) -> Evidence | None:
    """What a study has of an earlier run; None if it has no trial yet, and nothing was kept.

    Raises:
        StudyUnreadable: It is not as it was written.
    """
    with reading(url) as store:
        if store is None:
            return None
        found = (store.summary(name) or {}).get(KEY)
        progress = store.progress(name)
    if found is None and (progress is None or progress.trials == 0):
        return None
    try:
        return {
            kind: tuple(np.array(values, dtype=np.float64) for values in part)
            for kind, part in dict(found or {}).items()
        }
    except (TypeError, ValueError) as error:
        raise StudyUnreadable(f"{parse(url).shown}: the evidence of study {name!r} cannot be read: {error}.") from None


def as_facts(evidence: Evidence) -> dict[str, list[list[float]]]:
    """The same as plain values."""
    return {kind: [np.asarray(values).tolist() for values in part] for kind, part in evidence.items()}
