"""For which budget of `prunesearch demo` does a search end better than uniform widths, also after finetuning?

    python benchmarks/demo_budget.py [--test]

Chooses the demo's budget on the training images of its digits alone: a quarter of them is held out and judges. Each
seed trains its own network. Then the uniform structure and that of `evolution` are finetuned, as in the demo, at each
share of the MACs. With `--test` it looks at the demo's own budget, with other seeds, on the demo's test images. Writes
`benchmarks/results/demo_budget.json`, a row for each seed, share and searcher; run again, it measures what is missing.
"""

from __future__ import annotations

import argparse
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
CHOOSING, TESTING = (11, 12, 13), (1, 2, 3)
"""Seeds of the trainings and searches that choose the budget, and of those that are looked at on test images."""
SHARES = ("20%", "10%", "5%")
SEARCHERS = ("uniform", "evolution")
_SPLIT, _HELD_OUT = 77, 0.25

Row = dict[str, Any]
Pair = tuple[Tensor, Tensor]


def parts(*, test: bool) -> tuple[Pair, Pair]:
    """Images and labels to train with, and those that judge."""
    data = digits(seed=0)
    images, labels = data.train
    if test:
        return (images, labels), data.test_set()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SPLIT))
    cut = round(len(images) * (1 - _HELD_OUT))
    kept, held = order[:cut], order[cut:]
    return (images[kept], labels[kept]), (images[held], labels[held])


def trained(data: ps.Data, seed: int) -> nn.Module:
    """The demo's network, trained as there."""
    torch.manual_seed(seed)
    model = ps.make_model(demo.MODEL, in_channels=1, image_size=8)
    return ps.finetune(model, data, recipe=demo.TRAINING, seed=seed)


def rows(seed: int, shares: Sequence[str], done: Sequence[Row], *, test: bool) -> Iterator[Row]:
    """What becomes of each structure before and after finetuning, for those that are not done yet."""
    known = {(row["seed"], row["share"], row["searcher"], row["test"]) for row in done}
    missing = [(share, name) for share in shares for name in SEARCHERS if (seed, share, name, test) not in known]
    if not missing:
        return
    train, (images, labels) = parts(test=test)
    data = ps.Data(train=train, calibration=512, seed=seed)
    model = trained(data, seed)
    network = ps.trace(model, images[:2])
    for share, name in missing:
        found = ps.search(
            network, data, budget=ps.Budget(macs=share), searcher=name, n_trials=128, seed=seed,
            options=demo.SEARCHERS[name],
        )  # fmt: skip
        small = found.best.build()
        tuned = ps.finetune(small, data, recipe=demo.FINETUNING, teacher=model, seed=seed)
        accuracies = (ps.top1(each, images, labels) for each in (model, small, tuned))
        unpruned, before, after = accuracies
        yield {
            "seed": seed, "share": share, "searcher": name, "test": test, "images": len(images), "unpruned": unpruned,
            "before": before, "after": after,
        }  # fmt: skip


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", action="store_true", help="look at the demo's budget on test images")
    test = parser.parse_args().test
    torch.set_num_threads(1)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    for seed in TESTING if test else CHOOSING:
        shares = (dict(demo.BUDGET.limits)["macs"],) if test else SHARES
        for row in rows(seed, shares, known["rows"], test=test):
            known["rows"].append(row)
            known["versions"] = {"prunesearch": ps.__version__, "torch": torch.__version__}
            write_text(RESULTS, json.dumps(known, indent=1) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
