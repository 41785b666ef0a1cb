"""Other libraries' pruned networks at a number of MACs that ours counts: Torch-Pruning and ModelOpt's FastNAS.

    pip install torch-pruning nvidia-modelopt torchprofile==0.0.4

ModelOpt counts FLOPs with torchprofile, which it does not declare; 0.0.4 is the version that its development extra
pins, and the last one that works. Each function takes a trained network and returns a new one.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunesearch as ps

STEPS = 400
"""Into how many equal ratios Torch-Pruning's way from the whole network to nothing is divided: as in its example."""

TAYLOR_IMAGES = 256
"""From which Taylor's gradients come at every step, others each time."""

BATCH = 128
QUEUE = 50
"""Batches that FastNAS wants for the BatchNorm statistics of every structure; with fewer it does not re-estimate."""

REQUESTS = 6
"""How often FastNAS is asked anew for other FLOPs, until its network has the wanted MACs."""


@dataclass(frozen=True)
class Pruned:
    """What a peer returns.

    Attributes:
        model: The pruned network.
        evaluations: How many structures were scored on data.
        notes: What should be known of it.
        seconds_again: Of asking anew, because the peer counts otherwise than we do; not the peer's fault.
    """

    model: nn.Module
    evaluations: int
    notes: tuple[str, ...] = ()
    seconds_again: float = 0.0


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for package in ("torch-pruning", "nvidia-modelopt", "torchprofile"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def torch_pruning(model: nn.Module, images: Tensor, labels: Tensor, macs: int, *, importance: str) -> Pruned:
    """Torch-Pruning's way to a speed-up, of its own CIFAR example: small global steps until it is reached.

    One threshold for all layers of equal shape in the graph (`isomorphic`, Fang et al. 2024, arXiv:2407.04616).

    Args:
        model: Stays as it is.
        images: (n, ...) images from which Taylor's gradients come.
        labels: (n,) class indices.
        macs: Upper limit.
        importance: `"taylor"` or `"norm"` (group L2 norms).

    Raises:
        RuntimeError: Nothing is left to prune above the limit.
    """
    import torch_pruning as tp

    model = copy.deepcopy(model).eval()
    ignored = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == model(images[:2]).shape[1]]
    measure = (
        tp.importance.GroupTaylorImportance() if importance == "taylor" else tp.importance.GroupMagnitudeImportance(p=2)
    )
    pruner = tp.pruner.BasePruner(
        model,
        images[:1],
        importance=measure,
        global_pruning=True,
        isomorphic=True,
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=ignored,
    )
    step = 0
    while ps.count(model, images[:1]).macs > macs:
        if step == STEPS:
            raise RuntimeError(f"Torch-Pruning cannot prune further than {ps.count(model, images[:1]).macs:,} MACs.")
        if importance == "taylor":
            model.zero_grad()
            drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(step))[:TAYLOR_IMAGES]
            for chosen in torch.split(drawn, BATCH):
                F.cross_entropy(model(images[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        pruner.step()
        step += 1
    model.zero_grad()
    return Pruned(model, 0, (f"{step} steps of 1/{STEPS}",))


def fastnas(model: nn.Module, images: Tensor, labels: Tensor, macs: int) -> Pruned:
    """FastNAS as its documentation uses it, with all widths in steps of a twentieth (its `channel_divisor` is 32).

    Its FLOPs are not our MACs, so it is asked anew for more or fewer until its network is the largest within the
    limit; its map of sensitivities, which takes nearly all the time, is kept for that.

    Args:
        model: Stays as it is.
        images: (n, ...) images that re-estimate BatchNorm statistics and score.
        labels: (n,) class indices.
        macs: Upper limit, by our count.

    Raises:
        RuntimeError: None of its networks meets the limit.
    """
    full = ps.count(model, images[:1]).macs
    low, high, request = 0.0, 1.0, macs / full
    best: tuple[int, nn.Module] | None = None
    scored = [0]

    def score(candidate: nn.Module) -> float:
        scored[0] += 1
        return ps.top1(candidate.eval(), images, labels)  # its eval() re-estimates the statistics first

    asked, ended = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(REQUESTS):
            pruned = _fastnas_once(model, images, score, f"{100 * request:.3f}%", Path(folder) / "map.pth")
            ended.append(time.process_time())
            found = ps.count(pruned, images[:1]).macs
            asked.append(f"{100 * request:.1f}% gave {found / full:.1%}")
            if found <= macs:
                low = request
                if best is None or found > best[0]:
                    best = found, pruned
                if found > 0.99 * macs:
                    break
            else:
                high = request
            request = min(max(request * macs / found, 0.75 * low + 0.25 * high), 0.25 * low + 0.75 * high)
    if best is None:
        raise RuntimeError(f"FastNAS gives no network of at most {macs:,} MACs: {', '.join(asked)}.")
    return Pruned(best[1], scored[0], (f"asked for FLOPs: {', '.join(asked)}",), ended[-1] - ended[0])


def _fastnas_once(
    model: nn.Module, images: Tensor, score: Callable[[nn.Module], float], request: str, map_file: Path
) -> nn.Module:
    import modelopt.torch.prune as mtp
    from modelopt.torch.prune.fastnas import FastNASConfig

    config = FastNASConfig().model_dump()
    for rules in config.values():
        for rule in rules.values() if isinstance(rules, Mapping) else ():
            for key in ("channel_divisor", "feature_divisor"):
                if isinstance(rule, dict) and key in rule:
                    rule[key] = 1
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="modelopt data queue not filled")
        pruned, _ = mtp.prune(
            model=copy.deepcopy(model),
            mode=[("fastnas", config)],
            constraints={"flops": request},
            dummy_input=images[:1],
            config={
                "data_loader": torch.tensor_split(images, QUEUE),
                "collect_func": lambda batch: batch,
                "score_func": score,
                "checkpoint": str(map_file),
                "verbose": False,
            },
        )
    return pruned.eval()
