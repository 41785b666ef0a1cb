"""Write the measured tables of the documentation anew from the committed results.

    python benchmarks/tables.py           # rewrite
    python benchmarks/tables.py --check   # only say whether something is out of date (exit status 1)

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and comes from `benchmarks/results/NAME.json` through
the function of the same name. Nothing between the marks is typed by hand.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    ROOT / "docs" / "criteria.md",
    ROOT / "README.md",
    ROOT / "docs" / "coverage.md",
    ROOT / "docs" / "evaluator.md",
    ROOT / "docs" / "finetune.md",
    ROOT / "docs" / "manidp.md",
    ROOT / "docs" / "paam.md",
    ROOT / "docs" / "searchers.md",
)


def demo(result: Mapping[str, Any]) -> str:
    """The table of `prunesearch demo`: one row per searcher, under the unpruned network."""
    facts, rows = result["facts"], result["rows"]
    full = rows[0]
    lines = [
        "| searcher | evaluations | MACs | parameters | accuracy before | after finetuning | search | per image |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        after = "" if row["accuracy_after"] is None else f"{row['accuracy_after']:.2%}"
        seconds = f"{row['search_seconds']:.1f} s" if row["evaluations"] else ""
        costs = " | ".join(f"{row[cost]:,} ({row[cost] / full[cost]:.1%})" for cost in ("macs", "params"))
        lines.append(
            f"| {row['searcher']} | {row['evaluations'] or ''} | {costs} | {row['accuracy_before']:.2%} | {after} "
            f"| {seconds} | {row['ms_per_image']:.3f} ms |"
        )
    note = (
        f"One run (n = 1, seed {facts['seed']}) of `prunesearch demo`: {facts['model']} on {facts['data']}; budget "
        f"{facts['budget']}; up to {facts['n_trials']} evaluations each (`uniform` has a single structure to propose, "
        f"`evolution` runs with a population of {facts['population']}); "
        f"{facts['finetuning']['epochs']} epochs of finetuning. With {facts['test_images']} test images one image is "
        f"{1 / facts['test_images']:.2%}, so the accuracies after finetuning are not told apart by this run. "
        f"{facts['seconds']} s in all on {facts['threads']} threads of {facts['processor']}, CPU only, torch "
        f"{facts['torch']}; times per image in batches of {facts['latency_batch_size']}."
    )
    return "\n".join([*lines, "", note])


def coverage(result: Mapping[str, Any]) -> str:
    """What can be traced and pruned of each network, with Torch-Pruning on the same ones beside."""
    rows = {name: row for name, row in result["rows"].items() if "prunesearch" in row}
    facts = result["facts"]
    lines = [
        "| network | groups | removable MACs | traced in | slimmed = masked | cost exact | ONNX | Torch-Pruning, 0.5 |",
        "|---|---:|---:|---:|---:|---|---|---|",
    ]
    for name, row in rows.items():
        ours, file, theirs = row["prunesearch"], row.get("onnx"), row.get("torch_pruning")
        exported = "not run" if file is None else format(file["difference"], ".0e") if file["ok"] else "fails"
        if ours["traced"]:
            cells = (
                f"{ours['groups']} | {ours['removable']:.1%} | {ours['seconds']:.1f} s | {ours['difference']:.0e} "
                f"| {'yes' if ours['exact'] else '**no**'} | {exported}"
            )
        else:
            cells = f"refused | | | | | {ours['reason'].split('. ')[0].replace('|', '/')[:90]}"
        if theirs is None:
            other = "not run"
        elif theirs["runs"]:
            other = f"{theirs['kept']:.0%} of MACs left"
        else:
            other = f"fails: {theirs['reason'].split(':')[0]}"
        lines.append(f"| {name} | {cells} | {other} |")
    traced = [row["prunesearch"] for row in rows.values() if row["prunesearch"]["traced"]]
    others = [row["torch_pruning"] for row in rows.values() if "torch_pruning" in row]
    most = sum(ours["removable"] > 0.9 for ours in traced)
    note = (
        f"{len(traced)} of {len(rows)} networks traced, {most} of them with more than 90% of the MACs removable; "
        f"largest difference {max(ours['difference'] for ours in traced):.0e}, slowest trace "
        f"{max(ours['seconds'] for ours in traced):.1f} s; Torch-Pruning {facts['torch-pruning']}: "
        f"{sum(theirs['runs'] for theirs in others)} of {len(others)} run after pruning (of those tried within 300 s "
        "and 16 GB). One run, "
        f"tracing on one thread; torch {facts['torch']}, torchvision {facts['torchvision']}, "
        f"timm {facts['timm']}; random weights."
    )
    return "\n".join([note, "", *lines])


def evaluator(result: Mapping[str, Any]) -> str:
    """What scores cost, and how they rank structures compared with the classic protocol."""
    facts, blocks = result["facts"], []
    for name, row in result["rows"].items():
        n = min(len(row.get("scored", ())), len(row.get("finetuned", ())))
        if n == 0:
            continue
        truth = [entry["accuracy"] for entry in row["finetuned"][:n]]
        scored = row["scored"][:n]
        classic = statistics.median(entry["classic"]["seconds"] for entry in scored)
        lines = [
            "| score | seconds per structure | times cheaper | tau by loss | by accuracy | by agreement |",
            "|---|---:|---:|---:|---:|---:|",
            f"| classic | {classic:.2f} | 1 | | {_tau([e['classic']['accuracy'] for e in scored], truth):.2f} | |",
        ]
        for images in (key for key in scored[0] if key != "classic"):
            seconds = statistics.median(entry[images]["seconds"] for entry in scored)
            taus = [_tau([e[images][m] for e in scored], truth) for m in ("loss", "accuracy", "agreement")]
            cells = " | ".join(f"{tau:.2f}" for tau in taus)
            lines.append(f"| {images} images | {seconds:.3f} | {classic / seconds:.0f} | {cells} |")
        blocks.append("\n".join([f"**{name}** (n = {n} structures)", "", *lines, "", _costs(row)]))
    note = (
        f"Kendall's tau with the test accuracy after the same short finetune ({facts['finetune_epochs']} epoch of "
        f"{facts['finetune_images']:,} images). {facts['data']}, networks trained for {facts['epochs']} epochs of "
        f"{facts['train_images']:,} images; classic: {facts['calibration']:,} images to re-estimate and "
        f"{facts['validation']:,} to validate. One run, {facts['threads']} threads, torch {facts['torch']}, CPU only."
    )
    return "\n\n".join([*blocks, note])


def searchers(result: Mapping[str, Any]) -> str:
    """Regret after 50, 100 and 200 evaluations, on landscapes whose best structure is known; then whole searches."""
    facts, blocks = result["facts"], []
    for place, row in result["rows"].items():
        about = row["landscape"]
        lines = [
            "| searcher | regret after 50 | 100 | 200 | a top 0.5% structure in 100 | evaluations | ms per proposal |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for name, cells in row["searchers"].items():
            regrets = [_spread([cell["regret"][i] for cell in cells]) for i in range(3)]
            hits = sum(cell["top after"] is not None and cell["top after"] <= 100 for cell in cells)
            taken = statistics.median(cell["evaluations"] for cell in cells)
            own = 1e3 * statistics.median(cell["seconds per proposal"] for cell in cells)
            lines.append(f"| {name} | {' | '.join(regrets)} | {hits} of {len(cells)} | {taken:.0f} | {own:.1f} |")
        head = f"**{place}**: {about['within the budget']:,} of {about['structures']:,} structures within the budget"
        blocks.append("\n".join([head, "", *lines]))
    note = (
        "Median (quartiles) over the seeds; deterministic searchers give the same for all. Tables: every structure "
        f"scored once, {facts['images']} images of {facts['data']}, networks trained for {facts['epochs']} epochs of "
        f"{facts['train_images']:,} images; budgets are shares of the MACs, of the synthetic ones 40%."
    )
    blocks.append(note)
    for network, cells in result.get("searches", {}).items():
        blocks.append(_searches(network, cells))
    return "\n\n".join(blocks)


def _searches(network: str, cells: Mapping[str, Any]) -> str:
    lines = [
        f"**Whole searches of {network}**, all widths, 50% of the MACs: loss of the winner on 2,048 images that had no "
        "part in the search, with statistics re-estimated on them.",
        "",
        "| searcher | loss, mean ± standard deviation | seeds | evaluations | seconds |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, runs in cells.items():
        if runs:
            losses = [run["loss"] for run in runs]
            deviation = f" ± {statistics.stdev(losses):.3f}" if len(losses) > 1 else ""
            seconds = statistics.median(run["seconds"] for run in runs)
            taken = statistics.median(run["evaluations"] for run in runs)
            mean = f"{statistics.mean(losses):.3f}{deviation}"
            lines.append(f"| {name} | {mean} | {len(runs)} | {taken:.0f} | {seconds:.0f} |")
    return "\n".join(lines)


def criteria(result: Mapping[str, Any]) -> str:
    """Accuracy of the same structures, by which channels stay and with what weights."""
    facts, blocks = result["facts"], []
    for network, row in result["rows"].items():
        cells = {_place(cell): cell for cell in row["cells"]}
        shares, seeds = (list(dict.fromkeys(cell[key] for cell in row["cells"])) for key in ("keep", "seed"))
        lines = [
            "| criterion | weights | "
            + " | ".join(f"{share}: before | after | against l1" for share in shares)
            + " | rank | build |",
            f"|---|---|{'---:|---:|---:|' * len(shares)}---:|---:|",
        ]
        for criterion, weights in dict.fromkeys((cell["criterion"], cell["weights"]) for cell in row["cells"]):
            own = [cell for cell in row["cells"] if (cell["criterion"], cell["weights"]) == (criterion, weights)]
            columns = [_at_share([cell for cell in own if cell["keep"] == share], cells) for share in shares]
            rank, build = (statistics.median(cell["seconds"][part] for cell in own) for part in ("rank", "build"))
            lines.append(f"| {criterion} | {weights} | {' | '.join(columns)} | {rank:.1f} s | {build:.2f} s |")
        unpruned = [row["unpruned"][str(seed)] for seed in seeds]
        blocks.append(
            "\n".join(
                [f"**{network}**, unpruned {_mean(unpruned)}; n = {len(unpruned)} trained networks.", "", *lines, ""]
                + [_recovered(row, cells, share) for share in shares]
            )
        )
    note = (
        f"Accuracy on {facts['test_images']:,} test images of {facts['data']} in per cent, mean and standard deviation."
        f" Each seed trains a network of its own, {facts['epochs']} epochs of {facts['train_images']:,} images, and "
        "gives the uniform structure and a random one; BatchNorm statistics are re-estimated on 1,024 images. *Before* "
        f"any finetuning: both; *after* {facts['finetune_epochs']} epoch of {facts['finetune_images']:,} images (rate "
        f"{facts['finetune_lr']}): the uniform one. *Against l1*: the accuracy afterwards minus that of `l1` with "
        "inherited weights, in points, mean and standard error. Seconds are medians, taken beside other work."
    )
    return "\n\n".join([*blocks, note])


def finetune(result: Mapping[str, Any]) -> str:
    """Accuracy and seconds of our finetuning and of the plain loop; then what each setting changes."""
    facts, seeds = result["facts"], result["seeds"]
    contenders = {"plain": "plain SGD loop", "ours": "`ps.finetune`", "ours with teacher": "`ps.finetune`, teacher"}
    lines = [
        f"| | {' | '.join(f'{n} epochs' if n > 1 else '1 epoch' for n in facts['lengths'])} |",
        f"|---|{'---:|' * len(facts['lengths'])}",
    ]
    for key, title in contenders.items():
        cells = [_accuracy_and_seconds([seed[f"{key}, {n}"] for seed in seeds]) for n in facts["lengths"]]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    changes = ["| 4 epochs of `ps.finetune` | accuracy, seconds |", "|---|---:|"]
    for name in ("ours, 4", *facts["changes"]):
        title = "the recipe above" if name == "ours, 4" else name
        changes.append(f"| {title} | {_accuracy_and_seconds([seed[name] for seed in seeds])} |")
    before, after = ([seed[key] for seed in seeds] for key in ("unpruned", "pruned"))
    note = (
        f"Mean ± standard deviation over {len(seeds)} seeds (pretrained weights and order of images). {facts['model']} "
        f"on {facts['train_images']:,} images of {facts['data']} of {'x'.join(map(str, facts['image'][1:]))} pixels, "
        f"pruned to {statistics.mean(seed['macs'] for seed in seeds):.1%} of its MACs: test accuracy "
        f"{_spread_of(before)} unpruned, {_spread_of(after)} pruned and not yet finetuned. Seconds of one core of "
        f"{facts['machine']}, whose speed varied, torch {facts['torch']}, CPU only."
    )
    return "\n".join([*lines, "", *changes, "", note])


def _accuracy_and_seconds(cells: Sequence[Mapping[str, float]]) -> str:
    return f"{_spread_of([c['accuracy'] for c in cells])}, {statistics.mean(c['seconds'] for c in cells):.1f} s"


def _spread_of(values: Sequence[float]) -> str:
    """Mean and standard deviation of shares."""
    deviation = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{deviation}%"


_METHODS = {
    "unpruned": "unpruned, trained as long",
    "pretrained": "unpruned, where pruning starts",
    "search": "search, finetuned with teacher",
    "search, no teacher": "search, finetuned",
    "scratch": "structure of the search, from scratch",
    "paam": "PAAM, from scratch",
    "paam, from trained": "PAAM, from trained weights",
    "manidp": "ManiDP",
    "search and manidp": "search half of the way, then ManiDP",
}


def training_methods(result: Mapping[str, Any]) -> str:
    """Accuracy of every way of training at equal MACs, and what it took."""
    facts, rows = result["facts"], result["rows"]
    full = statistics.mean(row["macs"] for row in rows["unpruned"])
    size = statistics.mean(row["params"] for row in rows["unpruned"])
    lines = ["| | test accuracy | MACs | parameters | seconds | seeds |", "|---|---:|---:|---:|---:|---:|"]
    for name, title in _METHODS.items():
        done = rows.get(name, [])
        if done:
            macs, params, seconds = (statistics.mean(row[key] for row in done) for key in ("macs", "params", "seconds"))
            accuracy = _spread_of([row["accuracy"] for row in done])
            lines.append(
                f"| {title} | {accuracy} | {macs / full:.1%} | {params / size:.1%} | {seconds:.0f} | {len(done)} |"
            )
    total = facts["pretraining"] + facts["finetuning"]
    note = (
        f"{facts['model']} on {facts['train_images']:,} images of {facts['data']} of "
        f"{'x'.join(map(str, facts['image'][1:]))} pixels, {facts['test_images']:,} test images; budget "
        f"{facts['budget']} of the MACs. ManiDP meets it for the average training image; its MACs here are the average "
        "of the test images. Mean ± standard deviation over the seeds. What starts from trained weights had "
        f"{facts['pretraining']} epochs before and {facts['finetuning']} of its own, what starts from scratch {total}. "
        "Seconds of one CPU core, whose speed varied, for the row's own work: without the pretraining of what starts "
        f"from trained weights, nor the search for the structure that is trained from scratch. torch {facts['torch']}."
    )
    return "\n".join([*lines, "", note])


def dynamic_speed(result: Mapping[str, Any]) -> str:
    """Nominal against measured savings of gated networks."""
    lines = [
        "| network | images at a time | MACs | unpruned | gates multiplying | skipping | skipping against unpruned |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        ms = {name: statistics.median(row["ms"][name]) for name in ("unpruned", "gated", "skipping")}
        lines.append(
            f"| {row['network']} | {row['batch']} | {row['macs']:.1%} | {ms['unpruned']:.2f} ms | {ms['gated']:.2f} ms "
            f"| {ms['skipping']:.2f} ms | {ms['unpruned'] / ms['skipping']:.2f} times as fast |"
        )
    facts = result["facts"]
    note = (
        f"Per image, median of {facts['rounds']} rounds in turns in one process, {facts['threads']} thread of "
        f"{facts['machine']}, torch {facts['torch']}. MACs are the measured average of these images, gates included."
    )
    return "\n".join([*lines, "", note])


def _place(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return (cell["criterion"], cell["weights"], cell["seed"], cell["keep"], tuple(cell["structure"]))


def _by_l1(
    cells: Mapping[tuple[Any, ...], Mapping[str, Any]], weights: str, cell: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The same structure with the channels of `l1`."""
    return cells[_place({**cell, "criterion": "l1", "weights": weights})]


def _at_share(own: Sequence[Mapping[str, Any]], cells: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> str:
    """Before, after, and the paired difference to l1."""
    tuned = [cell for cell in own if cell["after"] is not None]
    gaps = [cell["after"] - _by_l1(cells, "inherited", cell)["after"] for cell in tuned]
    error = f" ± {100 * statistics.stdev(gaps) / len(gaps) ** 0.5:.1f}" if len(gaps) > 1 else ""
    paired = f"{100 * statistics.mean(gaps):+.1f}{error}" if any(gaps) else ""
    return " | ".join([_mean([cell["before"] for cell in own]), _mean([cell["after"] for cell in tuned]), paired])


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def _recovered(row: Mapping[str, Any], cells: Mapping[tuple[Any, ...], Mapping[str, Any]], share: str) -> str:
    """How much of what slicing loses with l1 each weight source gets back before finetuning."""
    sliced = [cell for cell in row["cells"] if _place(cell)[:2] == ("l1", "inherited") and cell["keep"] == share]
    sentences = []
    for source in dict.fromkeys(cell["weights"] for cell in row["cells"]):
        shares = [
            (_by_l1(cells, source, cell)["before"] - cell["before"])
            / (row["unpruned"][str(cell["seed"])] - cell["before"])
            for cell in sliced
        ]
        if source != "inherited":
            sentences.append(f"{source} {statistics.mean(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})")
    return f"Of the accuracy that slicing by `l1` to {share} loses, got back before finetuning: {', '.join(sentences)}."


def _spread(values: Sequence[float | None]) -> str:
    """Median and quartiles."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if len(set(known)) == 1:
        return f"{known[0]:.3f}"
    low, middle, high = statistics.quantiles(known, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def _tau(scores: Sequence[float], truth: Sequence[float]) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(scores, truth).statistic)


def _costs(row: Mapping[str, Any]) -> str:
    """Sharing, convolution and workers in a sentence each."""
    sentences = []
    if "sharing" in row:
        gains = ", ".join(f"{kind} {m['apart'] / m['together']:.2f}" for kind, m in row["sharing"].items())
        sentences.append(f"Times faster by sharing in one call: {gains}.")
    if "attained" in row:
        sentences.append(
            f"Share of the scoring time that its convolutions take alone: "
            f"{row['attained']['dense'] / row['attained']['scoring']:.2f}."
        )
    if "workers" in row:
        gain = row["workers"]["two"] / row["workers"]["one"]
        sentences.append(f"Two processes score {gain:.2f} times what one does.")
    return " ".join(sentences)


TABLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "coverage": coverage,
    "criteria": criteria,
    "demo": demo,
    "dynamic_speed": dynamic_speed,
    "evaluator": evaluator,
    "finetune": finetune,
    "searchers": searchers,
    "training_methods": training_methods,
}


def render(text: str) -> str:
    """Return a page with every table between its marks written anew."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        result = json.loads((RESULTS / f"{name}.json").read_text())
        return f"<!-- table: {name} -->\n\n{TABLES[name](result)}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main() -> int:
    """Rewrite every page, or check them."""
    stale = [page for page in PAGES if render(page.read_text()) != page.read_text()]
    if "--check" in sys.argv:
        for page in stale:
            sys.stderr.write(f"{page.name} is out of date; run: make readme\n")
        return 1 if stale else 0
    for page in stale:
        page.write_text(render(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
