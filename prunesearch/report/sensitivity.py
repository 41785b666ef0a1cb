"""How much the score depends on each group: a linear fit over the trials of a study."""

from __future__ import annotations

import numpy as np

from prunesearch.report.contents import StudyContents

_ENOUGH = 3
"""Scored trials per group."""
_RIDGE = 0.1
"""Share of the mean variance that is added to each, as widths of one budget are correlated."""


def sensitivity(study: StudyContents) -> tuple[float, ...] | None:
    """How much the score falls, by a linear fit, if a group alone keeps half as many channels; None if unknown.

    The worst tenth of the trials is left out: structures that break the network say little of those that do not.

    Returns:
        One number per group, in units of the score; negative where narrower ones scored better.
    """
    scored = sorted(study.scored, key=lambda pair: -pair[1])
    scored = scored[: max(1, len(scored) - len(scored) // 10)]
    groups = study.space.groups
    if len(scored) < _ENOUGH * len(groups) + 1:
        return None
    structures, scores = [trial.structure for trial, _ in scored], [score for _, score in scored]
    unpruned = study.number("score_full")
    if unpruned is not None:  # all others use one budget up, so without it nothing tells what more of everything gives
        structures, scores = [*structures, study.space.full], [*scores, unpruned]
    kept = np.array(structures) / np.array(study.space.full)
    centred = kept - kept.mean(0)
    square = centred.T @ centred
    added = _RIDGE * np.trace(square) / len(groups)
    if added <= 0:
        return None
    slopes = np.linalg.solve(square + added * np.eye(len(groups)), centred.T @ (np.array(scores) - np.mean(scores)))
    return tuple((0.5 * slopes).tolist())
