"""The protocols of the methods that we implement, on their own networks, as data; paper_tables.py runs them.

Facts carry the tag of where they were read: [code] the authors' code, [readme] their README, [paper] the paper,
[abstract], [figure] a table in their repository, [other] another paper's or repository's table, [ours] our choice where
the source could not be had. A published figure is here only if it was read somewhere; "not found" is said as it is.
MACs are what the source counts as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from released import ITPRUNER

import prunesearch as ps
from prunesearch.training.settings import PruningNetRecipe

Network = Literal["resnet56", "vgg16", "resnet50", "mobilenet_v1", "mobilenet_v2", "mobilenet_v2_14"]
Dataset = Literal["cifar10", "imagenet"]


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        text: Accuracy before and after, and the cost; "not found" where it could not be read.
        source: Where, with its tag.
    """

    text: str
    source: str


@dataclass(frozen=True)
class Protocol:
    """One row.

    Attributes:
        method: Its name.
        paper: Authors, venue, arXiv number.
        network: What is pruned.
        dataset: On what.
        budget: The limit on MACs or parameters.
        published: What it is to be compared with.
        facts: Settings and where they come from.
        departures: Where we do otherwise, knowingly.
        kind: How it is run: a search, one with a PruningNet, PAAM, ManiDP, or layer by layer.
        search: Arguments of `ps.search`.
        calibration: How many training images score structures; None: as many as `ps.Data` takes by default.
        recipe: Of finetuning; None if the method does not finetune.
        taught: Whether the unpruned network teaches.
        pruningnet: How the PruningNet is trained.
    """

    method: str
    paper: str
    network: Network
    dataset: Dataset
    budget: ps.Budget
    published: Published
    facts: str
    departures: str
    kind: Literal["search", "pruningnet", "paam", "manidp", "layerwise"] = "search"
    search: Mapping[str, Any] = field(default_factory=dict)
    calibration: int | None = None
    recipe: ps.Recipe | None = None
    taught: bool = False
    pruningnet: PruningNetRecipe | None = None

    @property
    def name(self) -> str:
        """Of its cell."""
        return f"{self.method} | {self.network} | {self.dataset} | {self.budget}"


CROPS = ps.Augmentation(flip=True, crop=4)
BASE: Mapping[Dataset, ps.Recipe] = {
    "cifar10": ps.Recipe(epochs=200, lr=0.1, augmentation=CROPS),
    "imagenet": ps.Recipe(epochs=90, batch_size=256, lr=0.1, weight_decay=1e-4),
}
"""Of the unpruned networks where no weights are given. [ours]"""

META = "Liu et al., MetaPruning, ICCV 2019, arXiv:1903.10258"
IT = "Zheng et al., An Information Theory-inspired Strategy (ITPruner), arXiv:2108.08532"
EAGLE = "Li et al., EagleEye, ECCV 2020, arXiv:2007.02491"
HE = "He, Zhang, Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, arXiv:1707.06168"
CAP = "CaP: compensation-aware pruning, authors' code"
CACP = "Conditional Automated Channel Pruning, IEEE SPL 2021"
LFE = "Sandor, Pavel, Csato, Pruning with linear filter ensembles, arXiv:2001.08142"
CPMC = "Yan et al., multi-criteria channel pruning by weight dependency, arXiv:2011.03240"
PAAM = "PAAM: Pruning by Active Attention Manipulation"
MANIDP = "ManiDP: Manifold Regularized Dynamic Network Pruning"
GA = "Hu et al., GA channel selection with two-step fitness, arXiv:1805.11394"

_META_FACTS = "1,000 structures scored, population 50, BatchNorm re-estimated; winner trained from scratch [code]"
_META_DEPARTURES = "cosine instead of linear or stepped rates; structures are scored on our calibration set"
_MOBILE = ps.Recipe(
    epochs=256, batch_size=1024, lr=0.5, weight_decay=4e-5, warmup=0.0, label_smoothing=0.1, from_scratch=True
)
_RESNET = replace(_MOBILE, epochs=128, batch_size=512, lr=0.2, weight_decay=1e-4)
_MOBILE_NET = PruningNetRecipe(epochs=64, batch_size=512, lr=0.25, weight_decay=4e-5)
_RESNET_NET = PruningNetRecipe(epochs=32, batch_size=256, lr=0.1, weight_decay=1e-4)
_V2_NET = replace(_MOBILE_NET, weight_decay=0.0)


def _meta(network: Network, macs: str, text: str, recipe: ps.Recipe, net: PruningNetRecipe) -> Protocol:
    return Protocol(
        "MetaPruning", META, network, "imagenet", ps.Budget(macs=macs), Published(text, "[readme]"),
        _META_FACTS, _META_DEPARTURES, kind="pruningnet", search={"searcher": "evolution", "n_trials": 1000},
        recipe=recipe, pruningnet=net,
    )  # fmt: skip


_IT_LARGE = ps.Recipe(epochs=250, batch_size=1024, lr=0.4, weight_decay=4e-5, warmup=1 / 250, label_smoothing=0.1)
_IT_SMALL = ps.Recipe(epochs=300, lr=0.1, warmup=0.0, augmentation=CROPS, from_scratch=True)


def _it(network: Network, dataset: Dataset, macs: str, published: Published, recipe: ps.Recipe) -> Protocol:
    released = ITPRUNER[network, macs]
    facts = (
        f"widths from a linear objective over HSIC importances under one quadratic limit; beta {released.beta} over "
        f"{released.layers} layers, a strength of {released.strength:.1f}; recipe [code]"
    )
    departures = (
        "similarity of what our layers are given, theirs of what blocks give; solved to a local optimum with a bound; "
        "the released widths are another thing: form='gradient'"
    )
    options = {"form": "linear", "strengths": (released.strength,)}
    return Protocol(
        "ITPruner", IT, network, dataset, ps.Budget(macs=macs), published, facts, departures,
        search={"searcher": "convex", "n_trials": 1, "options": options, "scoring": ps.Scoring(criterion="l1")},
        recipe=recipe,
    )  # fmt: skip


_EAGLE_FACTS = (
    "random structures, L1 channels, exponential averages as statistics, accuracy on 10,000 training images, "
    "120 epochs at 0.01, weight decay 1e-4 [code]; 1,000 structures [paper]"
)
_EAGLE_DEPARTURES = (
    "structures are scaled to the budget, not drawn until they fit, and have no lowest width; statistics come from the "
    "images that score, theirs from 13,056 others; Nesterov"
)
_EAGLE_SCORING = ps.Scoring(criterion="l1", evaluator="adaptive_bn")
_EAGLE_RECIPE = ps.Recipe(epochs=120, lr=0.01, weight_decay=1e-4, warmup=0.0)


def _eagle(network: Network, macs: str, text: str, batch_size: int = 128) -> Protocol:
    return Protocol(
        "EagleEye", EAGLE, network, "imagenet", ps.Budget(macs=macs),
        Published(text, "[readme]; baseline [authors, in an issue]"), _EAGLE_FACTS, _EAGLE_DEPARTURES,
        search={"searcher": "random", "n_trials": 1000, "scoring": _EAGLE_SCORING},
        calibration=10_000,
        recipe=replace(_EAGLE_RECIPE, batch_size=batch_size),
    )  # fmt: skip


_EAGLE_SMALL = replace(
    _eagle("resnet56", "62.23M", ""),
    dataset="cifar10",
    published=Published("94.66; called ResNet-50, in an earlier revision ResNet-56; baseline not found", "[readme]"),
    facts=f"{_EAGLE_FACTS}; for ImageNet, nothing was found for CIFAR-10",
    recipe=replace(_EAGLE_RECIPE, augmentation=CROPS),
)


_LFE = ps.Scoring(criterion="lfe", criterion_options={"rounds": 5})
_LASSO_SEARCH = {
    "searcher": "uniform",
    "n_trials": 1,
    "scoring": ps.Scoring(criterion="lasso", weight_source="reconstructed"),
}
_CACP_SEARCH = {
    "searcher": "conditional",
    "n_trials": 800,
    "scoring": ps.Scoring(criterion="l1", weight_source="reconstructed"),
}
_CACP_RECIPE = ps.Recipe(epochs=200, batch_size=256, lr=0.01, weight_decay=4e-5, warmup=0.0, augmentation=CROPS)
_CACP_FACTS = "300 + 500 episodes, L1 channels, least squares [paper]; finetuning of the second release for VGG [code]"
_CACP_DEPARTURES = (
    "rewards come from our evaluator; the first release's finetuning (400 epochs in steps of 20) is not used"
)
_NOTHING = Published("not found", "")


def _cacp(network: Network, dataset: Dataset, budget: str, published: Published) -> Protocol:
    recipe = _CACP_RECIPE if dataset == "cifar10" else replace(_CACP_RECIPE, epochs=120, augmentation=ps.Augmentation())
    return Protocol(
        "CACP", CACP, network, dataset, ps.Budget(macs=budget), published, _CACP_FACTS, _CACP_DEPARTURES,
        search=_CACP_SEARCH, recipe=recipe,
    )  # fmt: skip


def _cpmc(network: Network) -> Protocol:
    return Protocol(
        "CPMC", CPMC, network, "cifar10", ps.Budget(macs="50%"), _NOTHING,
        "norm, mixture, ratios and finetuning were not found: 160 epochs, rate 0.05 [ours]",
        "whole method beyond the abstract is our design; cosine",
        search={"searcher": "global", "n_trials": 1, "scoring": ps.Scoring(criterion="cpmc")},
        recipe=ps.Recipe(epochs=160, lr=0.05, weight_decay=1e-4, augmentation=CROPS),
    )  # fmt: skip


def _paam(network: Network, dataset: Dataset, params: str, text: str) -> Protocol:
    recipe = (
        ps.Recipe(epochs=300, lr=0.1, augmentation=CROPS)
        if dataset == "cifar10"
        else replace(BASE["imagenet"], epochs=120)
    )
    return Protocol(
        "PAAM", PAAM, network, dataset, ps.Budget(params=params), Published(text, "[abstract]"),
        "one stage from scratch [abstract]; epochs, rates and the form of attention [ours]",
        "beyond the abstract our design; the published gain is over others' baselines, not the authors' own",
        kind="paam", recipe=recipe,
    )  # fmt: skip


PROTOCOLS: tuple[Protocol, ...] = (
    _meta("mobilenet_v1", "316M", "uniform 0.75x 68.4 at 325M; 70.9 at 316M", _MOBILE, _MOBILE_NET),
    _meta("mobilenet_v1", "142M", "uniform 0.5x 63.7 at 149M; 66.1 at 142M", _MOBILE, _MOBILE_NET),
    _meta("mobilenet_v1", "41M", "uniform 0.25x 50.6 at 41M; 57.2 at 41M", _MOBILE, _MOBILE_NET),
    _meta("mobilenet_v2_14", "303M", "uniform 1.0x 72.0 at 313M; 72.7 at 303M, from 1.4x", _MOBILE, _V2_NET),
    _meta("mobilenet_v2_14", "140M", "uniform 67.2 at 140M; 68.2 at 140M, from 1.4x", _MOBILE, _V2_NET),
    _meta("mobilenet_v2_14", "43M", "uniform 54.6 at 43M; 58.3 at 43M, from 1.4x", _MOBILE, _V2_NET),
    _meta("resnet50", "2.0G", "uniform 1x 76.6 at 4.1G; 75.4 at 2.0G", _RESNET, _RESNET_NET),
    _meta("resnet50", "1.0G", "uniform 0.5x 72.0 at 1.1G; 73.4 at 1.0G", _RESNET, _RESNET_NET),
    _it(
        "resnet50", "imagenet", "54.7%", Published("75.75 at -45.3% FLOPs", "[abstract]"),
        replace(_IT_LARGE, epochs=120, warmup=1 / 120),
    ),
    _it("mobilenet_v1", "imagenet", "285M", _NOTHING, _IT_LARGE),
    _it("mobilenet_v2", "imagenet", "220M", _NOTHING, _IT_LARGE),
    _it("resnet56", "cifar10", "60M", _NOTHING, _IT_SMALL),
    _it(
        "vgg16", "cifar10", "100M", _NOTHING,
        ps.Recipe(epochs=300, lr=0.1, warmup=1 / 300, augmentation=replace(CROPS, erase=16)),
    ),
    _eagle("resnet50", "75%", "77.2, 77.1 at 3G"),
    _eagle("resnet50", "50%", "77.2, 76.4 at 2G"),
    _eagle("resnet50", "25%", "77.2, 74.2 at 1G"),
    _eagle("mobilenet_v1", "50%", "72.62, 70.9 at 284M", batch_size=512),
    _EAGLE_SMALL,
    Protocol(
        "LASSO", HE, "resnet56", "cifar10", ps.Budget(macs="50%"),
        Published("92.80, 91.80 at 2.00x", "[other] Torch-Pruning's table"),
        "layer by layer, LASSO then least squares [paper]; finetuned for a tenth of the epochs [authors, in an issue]",
        "uniform shares instead of the hand-made ones per layer; rate of the finetuning [ours]",
        search=_LASSO_SEARCH, recipe=ps.Recipe(epochs=20, lr=0.01, augmentation=CROPS),
    ),
    Protocol(
        "LASSO", HE, "resnet50", "imagenet", ps.Budget(macs="50%"),
        Published("75.3, 72.3 at 2x; the same widths from scratch 74.58", "[readme]; from scratch [other] Rethinking"),
        "SGD at 1e-5 without decay, batch 128, 20 epochs [code]",
        "uniform shares instead of the hand-made ones per layer; no channel samplers",
        search=_LASSO_SEARCH,
        recipe=ps.Recipe(epochs=20, lr=1e-5, weight_decay=0.0, schedule="constant", warmup=0.0),
    ),
    Protocol(
        "CaP", CAP, "resnet56", "cifar10", ps.Budget(macs="50%"), _NOTHING,
        "greedy explained variance, compensation, bisection with limited steps, no retraining [code]",
        "a hard limit on MACs, where theirs is on accuracy",
        search={"searcher": "binary", "scoring": ps.Scoring(criterion="cap", weight_source="compensated")},
    ),
    _cacp("vgg16", "cifar10", "50%", Published("93.02, 93.08 at 157.29M", "[paper] table A")),
    _cacp("vgg16", "cifar10", "30%", Published("93.02, 92.89 at 94.37M", "[paper] table A")),
    _cacp("resnet56", "cifar10", "50%", Published("93.84 at 63.25M; baseline not found", "[readme], earlier revision")),
    _cacp("resnet50", "imagenet", "50%", Published("76.01, 73.84 at 1.93G (table B) or 2.05G (C)", "[paper]")),
    Protocol(
        "LFE", LFE, "resnet56", "cifar10", ps.Budget(macs="36%"),
        Published("drop below 0.6 points at -64% FLOPs; depth of the ResNet not found", "[abstract]"),
        "sampled masks and a linear model [abstract]; samples, schedule and finetuning [ours]",
        "beyond the abstract our design",
        search={"searcher": "global", "n_trials": 1, "scoring": _LFE},
        recipe=ps.Recipe(epochs=60, lr=0.01, augmentation=CROPS),
    ),
    _cpmc("resnet56"),
    _cpmc("vgg16"),
    _paam("resnet56", "cifar10", "47.7%", "+1.02 over a reference baseline at -52.3% parameters; absolute not found"),
    _paam("resnet50", "imagenet", "48.9%", "+1.06 over a reference baseline at -51.1% parameters; absolute not found"),
    Protocol(
        "ManiDP", MANIDP, "resnet56", "cifar10", ps.Budget(macs="37.6%"),
        Published("93.70, 93.64 at -62.4%", "[figure] errors 6.30 and 6.36"),
        "trained network; 400 epochs, rate 0.05 cosine, batch 128, weights 5e-3 and 1.0 [code]",
        "the budget is measured for the average training image",
        kind="manidp", recipe=ps.Recipe(epochs=400, lr=0.05, warmup=0.0, augmentation=CROPS),
    ),
    Protocol(
        "GA, two-step", GA, "vgg16", "cifar10", ps.Budget(macs="33%"),
        Published("better than the original at 3x fewer FLOPs; accuracies not found", "[abstract]"),
        "layer by layer in the order of sensitivity, 0/1 chromosomes, distillation in between [abstract]; epochs, "
        "widths and constants [ours]",
        "equations are ours: only the abstract could be had; widths follow from the budget, theirs are given",
        kind="layerwise", recipe=ps.Recipe(epochs=40, lr=0.01, augmentation=CROPS), taught=True,
    ),
)  # fmt: skip
