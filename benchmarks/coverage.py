"""Which networks can be traced and pruned, how much of them, and how fast? Torch-Pruning runs on the same list beside.

    pip install timm torch-pruning onnx onnxscript onnxruntime
    python benchmarks/coverage.py [--networks torchvision:resnet18 ...] [--out benchmarks/results/coverage.json]

One row per network, each column written when it is done; run again to fill in what is missing, or only some of it with
`--columns prunesearch`.

For ours: groups, the share of the MACs that pruning can remove, seconds of tracing on one thread, the largest
difference between slimmed and masked network over two random structures (relative to the largest output), whether costs
are exact, whether a half-MACs network trains a step, and how far ONNX Runtime's outputs are from its own. For
Torch-Pruning (`BasePruner`, pruning_ratio=0.5, the classifier ignored, as in its README): whether the pruned network
runs forward, and the share of MACs left. A column that takes longer than five minutes has failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tasks
import torch
from torch import Tensor, nn
from torchvision import models

import prunesearch as ps
from prunesearch.models.ranking import NestedRanking

TOO_LARGE = {"convnext_large", "regnet_x_32gf", "regnet_y_32gf", "regnet_y_128gf", "vit_h_14", "vit_l_16", "vit_l_32"}
"""More than 100 million parameters of families that are here in smaller sizes; name them with --networks."""

TORCHVISION = tuple(name for name in models.list_models(module=models) if name not in TOO_LARGE)
TIMM = (
    "cspdarknet53", "cspresnet50", "darknet53", "densenet121", "dla34", "ecaresnet50t", "edgenext_xx_small",
    "efficientnet_b0", "efficientnetv2_rw_t", "ese_vovnet19b_dw", "fbnetc_100", "gernet_s", "ghostnet_100",
    "hardcorenas_a", "hgnet_tiny", "hrnet_w18_small", "inception_v4", "lcnet_050", "mixnet_s", "mnasnet_100",
    "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_small", "mobileone_s0", "nf_resnet26",
    "poolformer_s12", "rdnet_tiny", "regnetx_002", "regnety_002", "regnetz_b16", "repvgg_a0", "res2net50_26w_4s",
    "resnest14d", "resnet18", "resnet50d", "resnetv2_50", "resnext50_32x4d", "rexnet_100", "selecsls42", "seresnet50",
    "skresnet18", "spnasnet_100", "starnet_s1", "tf_efficientnet_lite0", "tinynet_a", "tresnet_m", "vgg16_bn",
    "convnext_atto", "convnextv2_atto", "dpn68", "efficientvit_b0", "xception41",
)  # fmt: skip
NETWORKS = (
    *(
        f"zoo:{name}"
        for name in ("resnet20", "resnet20b", "resnet56", "vgg16", "mobilenet_v1", "mobilenet_v2", "densenet40")
    ),
    *(f"torchvision:{name}" for name in TORCHVISION),
    *(f"timm:{name}" for name in TIMM),
)
LIMIT = 300
SIZES = {"vit": 224, "maxvit": 224, "inception": 299, "edgenext": 160, "tresnet": 160, "xception": 160}


MEMORY = 16 * 2**30
"""Bytes of address space."""


def make(name: str) -> tuple[nn.Module, Tensor]:
    """The network with random weights, BatchNorm statistics included, and two images."""
    kind, _, short = name.partition(":")
    size = 32 if kind == "zoo" else next((s for prefix, s in SIZES.items() if short.startswith(prefix)), 64)
    torch.manual_seed(0)
    model: nn.Module
    if kind == "zoo":
        model = ps.make_model(short)
    elif kind == "timm":
        import timm

        model = timm.create_model(short)
    else:
        model = models.get_model(short, weights=None)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.normal_(module.running_mean, 0, 0.1)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval(), torch.randn(2, 3, size, size)


def ours(model: nn.Module, images: Tensor) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        network = ps.trace(model, images)
    except ps.TraceError as error:
        return {"traced": False, "reason": without_paths(str(error))[:300]}
    finally:
        seconds = round(time.perf_counter() - start, 2)
        torch.set_num_threads(threads)
    row: dict[str, Any] = {"traced": True, "seconds": seconds}
    space = network.space
    full, least = space.cost(space.full).macs, space.cost(space.minimum).macs
    row |= {"groups": len(space.groups), "removable": 1 - least / full, "frozen": len(network.frozen)}
    found = network.verify(2)
    row |= {"difference": found.largest_difference / max(found.scale, 1e-30), "exact": found.costs_exact}
    slimmed = half(network).train()
    output = slimmed(images)
    output = output if isinstance(output, Tensor) else output[0]
    output.float().sum().backward()
    return row | {"kept": ps.count(slimmed, images).macs / full, "trains": True}


def half(network: ps.Network) -> nn.Module:
    """A random structure with half the MACs, or as near as it gets, and random channels."""
    space, rng = network.space, np.random.default_rng(0)
    limit = max(space.cost(space.minimum).macs, space.cost(space.full).macs // 2)
    structure = space.check(ps.Budget(macs=limit).check(space).fit(space.sample(rng, 1))[0].tolist())
    ranking = NestedRanking.by_importance([rng.random(len(units)) for units in network.units])
    return ps.slim(network, structure, ranking)


def onnx(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Export a half-MACs network; the largest difference in ONNX Runtime, on another number of images."""
    import onnxruntime

    try:
        slimmed = half(ps.trace(model, images)).eval()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            ps.export_onnx(slimmed, file, images)
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            more = torch.cat([images, images.flip(0)[:1]])
            (theirs, *_) = session.run(None, {session.get_inputs()[0].name: more.numpy()})
        with torch.no_grad():
            mine = slimmed(more)
        mine = mine if isinstance(mine, Tensor) else mine[0]
        return {"ok": True, "difference": float((mine - torch.from_numpy(theirs)).abs().max() / mine.abs().max())}
    except Exception as error:  # whatever torch.onnx or the runtime raises is the result
        return {"ok": False, "reason": reason(error)}


def torch_pruning(model: nn.Module, images: Tensor) -> dict[str, Any]:
    import torch_pruning as tp

    start = time.perf_counter()
    try:
        with torch.no_grad():
            classes = model(images).shape[-1]
        before = ps.count(model, images).macs
        ignored = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
        pruner = tp.pruner.BasePruner(
            model, images, importance=tp.importance.MagnitudeImportance(p=1), pruning_ratio=0.5, ignored_layers=ignored
        )
        pruner.step()
        with torch.no_grad():
            output = model(images)
        assert output.shape[-1] == classes, f"{tuple(output.shape)} outputs"
        return {
            "runs": True,
            "kept": ps.count(model, images).macs / before,
            "seconds": round(time.perf_counter() - start, 2),
        }
    except Exception as error:  # whatever it raises is the result
        return {"runs": False, "reason": reason(error)}


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {without_paths(str(error))[:200]}"


def without_paths(message: str) -> str:
    """A message without the folders of this machine."""
    return re.sub(r"/\S*/(?=[^/\s]+)", "", message)


def limited(measure: Callable[[nn.Module, Tensor], dict[str, Any]], model: nn.Module, images: Tensor) -> dict[str, Any]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {LIMIT} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        return measure(model, images)
    finally:
        signal.alarm(0)


COLUMNS = {"prunesearch": ours, "onnx": onnx, "torch_pruning": torch_pruning}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--columns", nargs="*", default=list(COLUMNS), choices=COLUMNS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "coverage.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # a column that wants more fails, and the next one runs
    rows: dict[str, Any] = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else {}
    for name in arguments.networks:
        row = rows.setdefault(name, {})
        for column in arguments.columns:
            if column not in row:
                model, images = make(name)
                row["image"], row[column] = images.shape[-1], limited(COLUMNS[column], model, images)
                print(name, column, json.dumps(row[column]), flush=True)
                save(arguments.out, rows)


def save(out: Path, rows: dict[str, Any]) -> None:
    from importlib.metadata import version

    packages = ("prunesearch", "torch", "torchvision", "timm", "torch-pruning", "onnxruntime")
    facts = {
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        **{name: version(name) for name in packages},
    }
    tasks.save({"facts": facts, "rows": rows}, out)


if __name__ == "__main__":
    main()
