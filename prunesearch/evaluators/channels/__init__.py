"""Channel criteria: which channels of a group stay when it is narrowed. One a file; each gives a `Ranking`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesearch.registry import cached, resolve

if TYPE_CHECKING:
    from prunesearch.evaluators.channels.criterion import Criterion

CRITERIA: Mapping[str, str] = {
    "l1": "prunesearch.evaluators.channels.l1:L1Criterion",
    "l2": "prunesearch.evaluators.channels.l2:L2Criterion",
    "bn_scale": "prunesearch.evaluators.channels.bn_scale:BNScaleCriterion",
    "fpgm": "prunesearch.evaluators.channels.fpgm:FPGMCriterion",
    "cpmc": "prunesearch.evaluators.channels.cpmc:CPMCCriterion",
    "taylor": "prunesearch.evaluators.channels.taylor:TaylorCriterion",
    "lfe": "prunesearch.evaluators.channels.lfe:LFECriterion",
    "lasso": "prunesearch.evaluators.channels.lasso:LassoCriterion",
    "cap": "prunesearch.evaluators.channels.cap:CaPCriterion",
    "genetic": "prunesearch.evaluators.channels.genetic:GeneticCriterion",
    "random": "prunesearch.evaluators.channels.random_order:RandomCriterion",
}


def make_criterion(name: str, *, seed: int = 0, cache: str | Path | None = None, **options: Any) -> Criterion:
    """Build a channel criterion by name.

    Args:
        name: One of `CRITERIA`.
        seed: Decides every random draw.
        cache: Folder where those that gather statistics of layers keep them.
        **options: Passed on to the criterion's constructor.

    Raises:
        ValueError: No criterion has this name; the message has the list.
    """
    kind = resolve(CRITERIA, name, "channel criterion")
    criterion: Criterion = kind(seed=seed, **options, **cached(kind, cache))
    return criterion
