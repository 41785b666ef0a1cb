"""The methods under their own protocols, for whoever has the data and the hours; published numbers beside.

    python benchmarks/paper_tables.py --list
    python benchmarks/paper_tables.py --datasets cifar10 --data-root D [--methods CACP] [--weights resnet56=FILE]
    python benchmarks/paper_tables.py --datasets cifar10 --data-root D --scale 0.01 --train-images 10000 --seeds 3
    python benchmarks/paper_tables.py --datasets imagenet --data-root D      # D/train and D/val, a folder per class
    python benchmarks/paper_tables.py --smoke        # every protocol for a step on noise: does it run?

A cell is a protocol at a scale and a seed. With `--scale` every training, of unpruned networks too, has that share of
its epochs, and at least as many as its method can do with: five from random weights, the first of which warms up, as at
the full rate ResNet-56 was still at chance after three. Searches have that share of their structures and images, but at
least 50 and 512; criteria that measure in rounds have that share of them. Each cell says how many. Without `--weights`
an unpruned network is first trained here (`protocols.BASE`) and kept in benchmarks/cache. CIFAR-10 is the folder that
torchvision makes, or the archive of `realdata.py`, normalised as the public networks expect. Every cell is written when
it is there, and its finetuning has a checkpoint: run again to go on. What the protocols are, and where each fact was
read, is in protocols.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import realdata
import tasks
import torch
from protocols import BASE, PROTOCOLS, Dataset, Network, Protocol
from torch import Tensor, nn
from torch.utils.data import DataLoader

import prunesearch as ps
from prunesearch.models.hypernet import PruningNet
from prunesearch.models.zoo.bottleneck import resnet50
from prunesearch.models.zoo.metapruning import metapruning
from prunesearch.models.zoo.mobilenet import mobilenet_v1, mobilenet_v2

NETWORKS: Mapping[Network, Callable[..., nn.Module]] = {
    "resnet56": partial(ps.make_model, "resnet56"),
    "vgg16": partial(ps.make_model, "vgg16"),
    "resnet50": resnet50,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
}
GENES: Mapping[Network, str] = {
    "mobilenet_v1": "mobilenet_v1",
    "mobilenet_v2_14": "mobilenet_v2",
    "resnet50": "resnet50",
}
"""MetaPruning's own networks and widths."""

SMOKE: Mapping[Network, Callable[..., nn.Module]] = {
    "resnet56": partial(ps.make_model, "resnet8"),
    "vgg16": tasks.NETWORKS["vgg11_025"],
    "resnet50": partial(ps.make_model, "resnet8b"),
    "mobilenet_v1": partial(mobilenet_v1, width=0.25),
    "mobilenet_v2": partial(mobilenet_v2, width=0.25),
    "mobilenet_v2_14": partial(mobilenet_v2, width=0.25),
}
"""Small stand-ins of the same families."""

LEAST: Mapping[str, int] = {"paam": 5, "manidp": 3}
"""Epochs without which a method cannot do, by kind."""

LEAST_FROM_SCRATCH = 5
"""Epochs of a shortened training from random weights."""

LEAST_STRUCTURES, LEAST_IMAGES = 50, 512
"""Of searches at a scale, where the protocol has more."""

SMOKE_BUDGET = ps.Budget(macs="50%")
DATA = ("cifar10", "imagenet")


@dataclass(frozen=True)
class Bench:
    """What protocols of one data set share.

    Attributes:
        data: Images; `test` is looked at at the end.
        shape: Of one image.
        classes: How many.
        weights: Files of trained networks, by name.
        smoke: Whether everything is tiny.
        scale: Share of the epochs of every training.
        images: How many train; None if that is all that there are.
        seed: Decides everything random.
    """

    data: ps.Data
    shape: tuple[int, ...]
    classes: int
    weights: Mapping[str, Path]
    smoke: bool
    scale: float = 1.0
    images: int | None = None
    seed: int = 0

    @property
    def run(self) -> str:
        """What tells the cells and files of a protocol apart."""
        images = "" if self.images is None else f" of {self.images} images"
        return f"{self.scale:g}{images} | {self.seed}"

    def scaled(self, count: int, least: int = 1) -> int:
        """So many epochs, structures or images at this scale."""
        return min(count, max(least, round(self.scale * count)))

    def kept(self, what: str, ending: str) -> Path:
        """A file in the cache, whose folder is made if need be."""
        tasks.CACHE.mkdir(exist_ok=True)
        return tasks.CACHE / f"paper-{what.replace(' | ', '-')}-{self.run.replace(' | ', '-')}.{ending}"

    def fresh(self, network: Network) -> nn.Module:
        """With random weights."""
        torch.manual_seed(self.seed)
        make = (SMOKE if self.smoke else NETWORKS)[network]
        return make(num_classes=self.classes, in_channels=self.shape[0], image_size=self.shape[1])

    def trained(self, protocol: Protocol) -> ps.Network:
        """With those of the file given, of the cache, or trained now; traced."""
        model = self.fresh(protocol.network)
        kept = self.kept(f"{protocol.network}-{protocol.dataset}", "safetensors")
        file = self.weights.get(protocol.network, kept)
        if not self.smoke:
            if not file.exists():
                recipe = self.base(protocol)
                checkpoint = Path(f"{file}.training")
                ps.save(ps.finetune(model, self.data, recipe=recipe, checkpoint=checkpoint, seed=self.seed), file)
            ps.load_weights(model, file)
        return self.traced(model)

    def traced(self, model: nn.Module) -> ps.Network:
        """On the device that is there."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return ps.trace(model.to(device).eval(), torch.zeros(2, *self.shape, device=device))

    def budget(self, protocol: Protocol) -> ps.Budget:
        """The protocol's; small networks have other MACs."""
        return SMOKE_BUDGET if self.smoke else protocol.budget

    def scoring(self, protocol: Protocol) -> ps.Data:
        """The data, with as many images to score structures by as the protocol has."""
        if self.smoke or protocol.calibration is None:
            return self.data
        return replace(self.data, calibration=self.scaled(protocol.calibration, LEAST_IMAGES))

    def trials(self, protocol: Protocol) -> dict[str, Any]:
        """How many structures a search scores, as it is told; nothing where the searcher decides."""
        wanted = protocol.search.get("n_trials")
        if wanted is None:
            return {}
        return {"n_trials": min(4, wanted) if self.smoke else self.scaled(wanted, LEAST_STRUCTURES)}

    def rounds(self, protocol: Protocol) -> dict[str, int]:
        """How often a criterion measures anew, as it is told; nothing where it measures once."""
        scoring = protocol.search.get("scoring", ps.Scoring())
        wanted = scoring.criterion_options.get("rounds")
        return {} if wanted is None else {"rounds": self.scaled(wanted)}

    def base(self, protocol: Protocol) -> ps.Recipe:
        """Of the unpruned network."""
        return self.shortened(BASE[protocol.dataset])

    def recipe(self, protocol: Protocol) -> ps.Recipe | None:
        """The protocol's at this scale, or as short as can be."""
        recipe, least = protocol.recipe, LEAST.get(protocol.kind, 1)
        if recipe is None:
            return None
        if self.smoke:
            return replace(recipe, epochs=least, batch_size=16)
        if recipe.from_scratch or protocol.kind == "paam":
            return self.shortened(recipe)
        return replace(recipe, epochs=self.scaled(recipe.epochs, least))

    def shortened(self, recipe: ps.Recipe) -> ps.Recipe:
        """A training from random weights at this scale."""
        epochs = self.scaled(recipe.epochs, LEAST_FROM_SCRATCH)
        warmup = recipe.warmup if epochs == recipe.epochs else max(recipe.warmup, 1 / epochs)
        return replace(recipe, epochs=epochs, warmup=warmup)

    def epochs(self, protocol: Protocol) -> dict[str, int]:
        """How long everything is trained that is trained here."""
        own = self.recipe(protocol)
        starts = protocol.kind not in ("paam", "pruningnet") and protocol.network not in self.weights
        return {
            **({"unpruned": self.base(protocol).epochs} if starts else {}),
            **{f"criterion's {name}": count for name, count in self.rounds(protocol).items()},
            **({"PruningNet": self.scaled(protocol.pruningnet.epochs)} if protocol.pruningnet is not None else {}),
            **({"after each layer": 1} if protocol.kind == "layerwise" else {}),
            **({"pruned": own.epochs} if own is not None else {}),
        }

    def checkpoint(self, protocol: Protocol) -> Path:
        """Of what trains."""
        return self.kept(protocol.name, "training")

    def accuracy(self, model: nn.Module) -> float:
        """On the test images."""
        source = self.data.test
        assert source is not None
        if isinstance(source, tuple):
            device = next(model.parameters()).device
            return ps.top1(model, source[0].to(device), source[1].to(device))
        return _streamed_accuracy(model, source)


def _streamed_accuracy(model: nn.Module, source: Any) -> float:
    device, right, seen = next(model.parameters()).device, 0, 0
    model.eval()
    with torch.inference_mode():
        for images, labels in DataLoader(source, batch_size=256, num_workers=4):
            right += int((model(images.to(device)).argmax(1).cpu() == labels).sum())
            seen += len(labels)
    return right / seen


def search(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    network = bench.trained(protocol)
    options = {**protocol.search, **bench.trials(protocol)}
    if rounds := bench.rounds(protocol):
        scoring = options["scoring"]
        options["scoring"] = replace(scoring, criterion_options={**scoring.criterion_options, **rounds})
    if bench.smoke:
        scoring = replace(options.get("scoring", ps.Scoring()), images=16, criterion_options={})
        options = {"n_trials": 4, **options, "scoring": scoring}
    found = ps.search(network, bench.scoring(protocol), budget=bench.budget(protocol), seed=bench.seed, **options)
    before = found.best.build()
    teacher = network.model if protocol.taught else None
    return {**_finished(bench, protocol, network, before, teacher), **_told(bench, protocol, found)}


def pruningnet(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    """MetaPruning: train weights for all structures from nothing, search with them, train the winner from nothing."""
    assert protocol.pruningnet is not None
    if bench.smoke:
        network = bench.traced(bench.fresh(protocol.network))
        net = PruningNet(network, start="scratch", seed=bench.seed)
        recipe = replace(protocol.pruningnet, epochs=1, batch_size=16)
    else:
        torch.manual_seed(bench.seed)
        network = metapruning(
            GENES[protocol.network], num_classes=bench.classes, in_channels=bench.shape[0], image_size=bench.shape[1]
        ).network
        net = PruningNet(network, form="published", start="scratch", seed=bench.seed)
        recipe = replace(protocol.pruningnet, epochs=bench.scaled(protocol.pruningnet.epochs))
    file = bench.kept(f"pruningnet-{protocol.network}{'-smoke' if bench.smoke else ''}", "safetensors")
    ps.train_pruningnet(net, bench.data, recipe=recipe, file=file, seed=bench.seed)
    found = ps.search(
        network,
        bench.data,
        budget=bench.budget(protocol),
        searcher=protocol.search["searcher"],
        seed=bench.seed,
        scoring=ps.Scoring(weight_source=f"generated:{file}"),
        **bench.trials(protocol),
    )
    if bench.smoke:
        file.unlink()
    return {**_finished(bench, protocol, network, found.best.build(), None), **_told(bench, protocol, found)}


def paam(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    network = bench.traced(bench.fresh(protocol.network))
    recipe = bench.recipe(protocol)
    result = ps.paam(network, bench.data, budget=bench.budget(protocol), recipe=recipe, seed=bench.seed)
    return _judged(bench, network, result.model)


def manidp(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    network = bench.trained(protocol)
    recipe = bench.recipe(protocol)
    result = ps.manidp(network, bench.data, budget=bench.budget(protocol), recipe=recipe, seed=bench.seed)
    judged = _judged(bench, network, result.model)
    return {**judged, "macs": result.average_macs, "baseline": bench.accuracy(network.model)}


def layerwise(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    network = bench.trained(protocol)
    settings = ps.LayerwiseSettings(generations=1, scored=1) if bench.smoke else None
    checkpoint = None if bench.smoke else bench.checkpoint(protocol)
    result = ps.layerwise(
        network,
        bench.scoring(protocol),
        budget=bench.budget(protocol),
        recipe=bench.recipe(protocol),
        settings=settings,
        checkpoint=checkpoint,
        seed=bench.seed,
    )
    return {**_judged(bench, network, result.model), "before": None, "baseline": bench.accuracy(network.model)}


def _finished(
    bench: Bench, protocol: Protocol, network: ps.Network, model: nn.Module, teacher: nn.Module | None
) -> dict[str, Any]:
    """Finetune and judge."""
    recipe = bench.recipe(protocol)
    checkpoint = None if bench.smoke else bench.checkpoint(protocol)
    before = None if recipe is not None and recipe.from_scratch else bench.accuracy(model)
    if recipe is not None:
        data = bench.data
        model = ps.finetune(model, data, recipe=recipe, teacher=teacher, checkpoint=checkpoint, seed=bench.seed)
    own = None if protocol.kind == "pruningnet" else bench.accuracy(network.model)
    return {**_judged(bench, network, model), "before": before, "baseline": own}


def _told(bench: Bench, protocol: Protocol, found: ps.SearchResult) -> dict[str, int]:
    """How long a search was."""
    return {"structures": len(found.trials), "images": bench.scoring(protocol).calibration}


def _judged(bench: Bench, network: ps.Network, model: nn.Module) -> dict[str, Any]:
    cost = ps.count(model, torch.zeros(1, *bench.shape, device=next(model.parameters()).device))
    full = network.space.cost(network.space.full)
    return {"accuracy": bench.accuracy(model), "macs": cost.macs, "params": cost.params, "full macs": full.macs}


KINDS = {"search": search, "pruningnet": pruningnet, "paam": paam, "manidp": manidp, "layerwise": layerwise}


def cifar10(root: Path | None, images: int) -> tuple[realdata.Pair, realdata.Pair]:
    """So many training images, and all test images, with their labels."""
    if root is None or not (root / "cifar10.npz").exists():
        task = tasks.load("cifar10", root, images)
        return task.train, task.test
    (every, labels), test = realdata.whole_cifar10(root, realdata.KEPT)
    chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:images]
    return (realdata.normalised(every[chosen]), labels[chosen]), (realdata.normalised(test[0]), test[1])


def bench_of(dataset: Dataset, arguments: argparse.Namespace) -> Bench:
    """The real data."""
    root, images = arguments.data_root, arguments.train_images
    weights = {name: Path(file) for name, _, file in (given.partition("=") for given in arguments.weights)}
    if dataset == "cifar10":
        train, test = cifar10(root, images or 50_000)
        return Bench(ps.Data(train, test), tuple(train[0].shape[1:]), 10, weights, smoke=False, images=images)
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    if root is None:
        raise SystemExit("ImageNet needs --data-root D, with D/train and D/val and a folder per class in each.")
    ending = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    changing = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *ending]
    steady = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *ending])
    train = ImageFolder(str(root / "train"), transforms.Compose(changing))
    if images is not None:
        raise SystemExit("--train-images is for CIFAR-10; give ImageNet a smaller folder.")
    workers = arguments.data_workers
    data = ps.Data(
        train=DataLoader(train, num_workers=workers) if workers else train,
        test=ImageFolder(str(root / "val"), steady),
        calibrate_on=ImageFolder(str(root / "train"), steady),
    )
    return Bench(data, (3, 224, 224), len(train.classes), weights, smoke=False)


def smoke_bench() -> Bench:
    """Noise."""
    generator = torch.Generator().manual_seed(0)

    def noise(n: int) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 3, 16, 16, generator=generator), torch.arange(n) % 4

    return Bench(ps.Data(train=noise(48), test=noise(16), calibration=16), (3, 16, 16), 4, {}, smoke=True)


def chosen(arguments: argparse.Namespace) -> list[Protocol]:
    return [
        protocol
        for protocol in PROTOCOLS
        if protocol.dataset in arguments.datasets
        and (not arguments.methods or protocol.method in arguments.methods)
        and (not arguments.networks or protocol.network in arguments.networks)
    ]


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="*", default=list(DATA), choices=DATA)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--methods", nargs="*", choices=sorted({protocol.method for protocol in PROTOCOLS}))
    parser.add_argument("--networks", nargs="*", choices=sorted({protocol.network for protocol in PROTOCOLS}))
    parser.add_argument("--weights", nargs="*", default=[], help="NETWORK=FILE of trained networks")
    parser.add_argument("--scale", type=float, default=1.0, help="share of all epochs; default: 1")
    parser.add_argument("--train-images", type=int, help="of CIFAR-10; default: all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data-workers", type=int, default=4, help="processes that read ImageNet; default: 4")
    parser.add_argument("--list", action="store_true", help="print the protocols, and end")
    parser.add_argument("--smoke", action="store_true", help="every protocol on noise, small networks, nothing is kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "papers.json")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    rows = chosen(arguments)
    if arguments.list:
        for protocol in rows:
            print(f"{protocol.name}\n  {protocol.paper}")
            print(f"  published: {protocol.published.text} {protocol.published.source}")
            print(f"  {protocol.facts}\n  we: {protocol.departures}")
        return
    if arguments.smoke:
        bench = smoke_bench()
        for protocol in rows:
            start = time.perf_counter()
            cell = KINDS[protocol.kind](bench, protocol)
            print(f"{protocol.name}: {json.dumps(cell)}, {time.perf_counter() - start:.1f} s", flush=True)
        return
    stored: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"cells": {}}
    benches: dict[str, Bench] = {}
    for seed in range(arguments.seeds):
        for protocol in rows:
            if protocol.dataset not in benches:
                benches[protocol.dataset] = bench_of(protocol.dataset, arguments)
            bench = replace(benches[protocol.dataset], scale=arguments.scale, seed=seed)
            name = f"{protocol.name} | {bench.run}"
            if name not in stored["cells"]:
                stored["cells"][name] = measured(bench, protocol)
                tasks.save(stored, arguments.out)
                print(name, json.dumps(stored["cells"][name]), flush=True)


def measured(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    """A cell: what came of a protocol, and how it was run."""
    start = time.perf_counter()
    cell = KINDS[protocol.kind](bench, protocol)
    return {
        "protocol": protocol.name,
        **cell,
        "seed": bench.seed,
        "scale": bench.scale,
        "train images": bench.images,
        "epochs": bench.epochs(protocol),
        "weights given": protocol.network in bench.weights,
        "seconds": time.perf_counter() - start,
        **{"prunesearch": ps.__version__, "torch": torch.__version__},
    }


if __name__ == "__main__":
    main()
