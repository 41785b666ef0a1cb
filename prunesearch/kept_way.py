"""In which way the structures of a study are run: chosen once, and kept for whoever goes on with it.

Scores depend on the precision, so that is part of a study's question; the rest is a fact beside its trials.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from prunesearch.budget import FeasibleSet
from prunesearch.evaluators.ways import AT_ONCE, Way
from prunesearch.preparation import Prepared
from prunesearch.structure import Structure
from prunesearch.study.events import Event
from prunesearch.study.store import reading
from prunesearch.study.study import Study, lasting, up_to_date

KEY = "way"
"""What it is called in a study's summary."""
_BESIDE = ("seed",)  # those of another seed run in the same way


def settled(prepared: Prepared, url: str, name: str | None, asked: Mapping[str, Any], limits: FeasibleSet) -> Prepared:
    """What scores, in the way of the studies that have these very scores; if there are none, in the fastest here.

    Args:
        prepared: What scores.
        url: The database.
        name: The study, if somebody named it; else any with these scores counts, that which answers the question first.
        asked: The question of the study, as far as it is known before the precision is.
        limits: Structures at these are timed.

    Raises:
        StudyUnreadable: The database cannot be read.
    """
    return prepared.settled(_kept(prepared, url, name, asked), partial(typical, limits))


def typical(limits: FeasibleSet) -> list[Structure]:
    """Structures as a search will score them: random ones that use the budget up, or at least meet it."""
    drawn = limits.space.sample(np.random.default_rng(0), 2 * AT_ONCE[0])
    rows = [*limits.fit(drawn).tolist(), *limits.repair(drawn).tolist()]  # small networks have few of the former
    return list(dict.fromkeys(tuple(row) for row in rows))


class Keeping:
    """A callback that records the way of a study whenever it has changed, as after memory ran out.

    Args:
        opened: The study.
        prepared: What scores.
    """

    def __init__(self, opened: Study, prepared: Prepared) -> None:
        self._opened, self._prepared = opened, prepared
        self._last: Way | None = None
        self.record()

    def __call__(self, event: Event) -> None:
        """After a trial."""
        self.record()

    def record(self) -> None:
        """Record it, if there is something new to say."""
        way = self._prepared.way
        if way is not None and way != self._last:
            self._opened.record({KEY: asdict(way)})
            self._last = way


def _kept(prepared: Prepared, url: str, name: str | None, asked: Mapping[str, Any]) -> Way | None:
    """The way of a study with the same scores."""
    questions = json.loads(json.dumps({name: {**asked, **each} for name, each in prepared.questions().items()}))
    found: list[tuple[bool, Way]] = []
    with reading(url) as store:
        if store is None:
            return None
        for study in store.studies() if name is None else [name]:
            stored = store.question(study) or {}
            for precision, question in questions.items():
                if lasting(up_to_date(stored, question), without=_BESIDE) == lasting(question, without=_BESIDE):
                    way = _read((store.summary(study) or {}).get(KEY), precision)
                    found.append((stored == question, way))
    return max(found, key=lambda each: each[0])[1] if found else None


def _read(stored: Any, precision: str) -> Way:
    """A way as it was recorded; of a study that has none, or another form of it, the precision alone."""
    known = stored if isinstance(stored, Mapping) else {}
    path, at_once, device = (known.get(field) for field in ("path", "at_once", "device"))
    if not isinstance(path, str) or not isinstance(device, str) or not isinstance(at_once, int) or at_once < 1:
        return Way("sliced", precision=precision)
    return Way(path, at_once, precision, device, _pairs(known.get("seconds")), _pairs(known.get("left_out")))


def _pairs(stored: Any) -> tuple[tuple[str, Any], ...]:
    pairs = stored if isinstance(stored, list) else []
    return tuple((str(pair[0]), pair[1]) for pair in pairs if isinstance(pair, list) and len(pair) == 2)
