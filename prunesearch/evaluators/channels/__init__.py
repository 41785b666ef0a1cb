"""Channel criteria: which channels of a group stay when it is narrowed. One a file; each gives a `Ranking`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from prunesearch.contracts import Contract
from prunesearch.registry import Registry, cached

if TYPE_CHECKING:
    from prunesearch.evaluators.channels.criterion import Criterion

    AnyCriterion: TypeAlias = str | Criterion | Callable[..., Criterion]

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
CRITERION = Contract(
    "Criterion",
    Registry("channel criterion", "prunesearch.criteria", CRITERIA),
    methods=("rank(network, examples)",),
    made_from="(seed=)",
)
RANKING = Contract("Ranking", CRITERION.names, methods=("keep(group, units)",))
"""What a criterion gives, and what may be given in its place."""


def make_criterion(given: AnyCriterion, *, seed: int = 0, cache: str | Path | None = None, **options: Any) -> Criterion:
    """Build a channel criterion by name.

    Args:
        given: One of `CRITERIA`, or a name that an installed package adds (entry points, `prunesearch.criteria`);
            `"package.module:attribute"`; a class or function that takes (seed=); or an object, which is returned.
        seed: Decides every random draw.
        cache: Folder where those that gather statistics of layers keep them.
        **options: Passed on to the criterion's constructor.

    Raises:
        ValueError: No criterion has this name, and the message has the list; or options are given with an object.
        TypeError: It has no such option.
        ContractBroken: What is made cannot rank, or cannot be made from these arguments.
    """
    made: Criterion = CRITERION.make(given, seed=seed, options=options, **cached(CRITERION.found(given), cache))
    return made
