"""For which budget and finetuning of `prunesearch demo` does a search end better than uniform widths?

    python benchmarks/demo_budget.py

Chooses both on the training images of the demo's digits alone: a quarter of them is held out and judges. Each seed
trains its own network. Then the uniform structure and that of `evolution` are finetuned, at each share of the MACs.
Writes `benchmarks/results/demo_budget.json`, a row for each seed, share, searcher and finetuning; run again, it
measures what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch import demo
from prunesearch.files import write_text
from prunesearch.training.digits import digits

RESULTS = Path(__file__).parent / "results" / "demo_budget.json"
SEEDS = (11, 12, 13)
SEARCHERS = ("uniform", "evolution")
FINETUNINGS = {"40%": ((1, 0.02), (2, 0.02), (2, 0.05)), "20%": ((1, 0.02), (2, 0.02), (2, 0.05), (8, 0.05)),
               "10%": ((8, 0.05),), "5%": ((8, 0.05),)}  # fmt: skip
"""What was tried: epochs and learning rates, by the share of the MACs."""
_SPLIT, _HELD_OUT, _BATCH = 77, 0.25, 64

Row = dict[str, Any]
Pair = tuple[Tensor, Tensor]


def parts() -> tuple[Pair, Pair]:
    """Images and labels to train with, and those that judge."""
    train: Any = digits(seed=0).train
    images, labels = train
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SPLIT))
    cut = round(len(images) * (1 - _HELD_OUT))
    kept, held = order[:cut], order[cut:]
    return (images[kept], labels[kept]), (images[held], labels[held])


def trained(data: ps.Data, seed: int) -> nn.Module:
    """The demo's network, trained as there."""
    torch.manual_seed(seed)
    model = ps.make_model(demo.MODEL, in_channels=1, image_size=8)
    return ps.finetune(model, data, recipe=demo.TRAINING, seed=seed)


def rows(seed: int, done: Sequence[Row]) -> Iterator[Row]:
    """What becomes of each structure before and after each finetuning, for those that are not done yet."""
    known = {(row["seed"], row["share"], row["searcher"], row["epochs"], row["lr"]) for row in done}
    train, (images, labels) = parts()
    data = ps.Data(train=train, calibration=512, seed=seed)
    model = trained(data, seed)
    network, unpruned = ps.trace(model, images[:2]), ps.top1(model, images, labels)
    for share, name in ((share, name) for share in FINETUNINGS for name in SEARCHERS):
        missing = [how for how in FINETUNINGS[share] if (seed, share, name, *how) not in known]
        if not missing:
            continue
        found = ps.search(
            network, data, budget=ps.Budget(macs=share), searcher=name, n_trials=128, seed=seed,
            options=demo.SEARCHERS[name],
        )  # fmt: skip
        small = found.best.build()
        for epochs, lr in missing:
            recipe = ps.Recipe(epochs=epochs, batch_size=_BATCH, lr=lr)
            tuned = ps.finetune(small, data, recipe=recipe, teacher=model, seed=seed)
            yield {
                "seed": seed, "share": share, "searcher": name, "epochs": epochs, "lr": lr, "images": len(images),
                "unpruned": unpruned, "before": ps.top1(small, images, labels), "after": ps.top1(tuned, images, labels),
            }  # fmt: skip


def main() -> None:
    """Measure what is missing."""
    torch.set_num_threads(1)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    for seed in SEEDS:
        for row in rows(seed, known["rows"]):
            known["rows"].append(row)
            write_text(RESULTS, json.dumps(known, indent=1) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
