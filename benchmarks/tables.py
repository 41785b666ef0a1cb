"""Write the measured tables of the documentation anew from the committed results.

    python benchmarks/tables.py           # rewrite
    python benchmarks/tables.py --check   # only say whether something is out of date (exit status 1)

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and comes from `benchmarks/results/NAME.json` through
the function of the same name (`SOURCES` has the exceptions); `<!-- table: NAME of ROW -->` takes what concerns one row
through that in `EXCERPTS`. Nothing between the marks is typed by hand.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import evidence_tables
import paper_page

ROOT = Path(__file__).resolve().parent.parent


RESULTS = ROOT / "benchmarks" / "results"


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


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


def latency(result: Mapping[str, Any]) -> str:
    """How far predicted latencies are from measured ones, then winners under limits on latency and on MACs."""
    lines = [
        "| network, backend | structures | table: error, median and 95th percentile | tau | proportional to MACs | tau "
        "| measured again | tau |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    met = {"median error under 5%": 0, "95th percentile under 10%": 0, "tau at least 0.95": 0}
    for name, row in result["predict"].items():
        one, other = row["rounds"][-2:]
        truth = [statistics.median(times) for times in zip(*row["rounds"], strict=True)]
        cells = [
            f"{_errors(values, known)} | {_tau(values, known):.2f}"
            for values, known in ((row["predicted"], truth), (row["by macs"], truth), (one, other))
        ]
        lines.append(f"| {name} | {len(truth)} | {' | '.join(cells)} |")
        median, most = _median_and_most(row["predicted"], truth)
        reached = (median < 0.05, most < 0.1, _tau(row["predicted"], truth) >= 0.95)
        met = {aim: n + yes for (aim, n), yes in zip(met.items(), reached, strict=True)}
    facts, rows = result["facts"], list(result["predict"].values())
    low, high = min(row["drift"][0] for row in rows), max(row["drift"][2] for row in rows)
    note = (
        f"One table and one set of structures per row, timed in {len(rows[0]['rounds'])} rounds; the median counts. "
        "Batch size 1, one thread of "
        f"{rows[0]['conditions']['processor']}, torch {facts['torch']}. Between the 5th and the 95th percentile the "
        f"reference kernel took {low:.2f} to {high:.2f} times its median while the tables were measured: the machine "
        "was not at rest."
    )
    aims = "; ".join(f"{aim} in {n} of {len(rows)} rows" for aim, n in met.items())
    note += f" Aims met: {aims}."
    timed = [
        (name, row) for name, row in result["search"].items() if all("ms" in cell for cell in row["cells"].values())
    ]
    return "\n\n".join(["\n".join([*lines, "", note]), *map(_limits, timed)])


def _limits(search: tuple[str, Mapping[str, Any]]) -> str:
    name, row = search
    lines = [
        f"**{name}**, unpruned {row['unpruned ms']:.2f} ms",
        "",
        "| limit on | measured ms | MACs | loss | test accuracy | after a short finetune | seeds | within the limit |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for key, cell in row["cells"].items():
        kinds.setdefault(key.rpartition(" ")[0], []).append(cell)
    for kind, cells in kinds.items():
        columns = ("ms", "macs", "loss", "accuracy", "finetuned")
        means = {what: statistics.mean(cell[what] for cell in cells) for what in columns}
        lines.append(
            f"| {kind} | {means['ms']:.2f} | {means['macs'] / 1e6:.1f} M | {means['loss']:.3f} "
            f"| {means['accuracy']:.2%} | {means['finetuned']:.2%} | {len(cells)} "
            f"| {sum(cell['holds'] for cell in cells)} of {len(cells)} |"
        )
    return "\n".join(lines)


def _errors(values: Sequence[float], truth: Sequence[float]) -> str:
    median, most = _median_and_most(values, truth)
    return f"{median:.1%}, {most:.1%}"


def _median_and_most(values: Sequence[float], truth: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile of relative errors."""
    off = [abs(value / known - 1) for value, known in zip(values, truth, strict=True)]
    return statistics.median(off), statistics.quantiles(off, n=20, method="inclusive")[-1]


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
        f"{_seeds_in_words(len(seeds))} (pretrained weights and order of images). {facts['model']} "
        f"on {facts['train_images']:,} images of {facts['data']} of {'x'.join(map(str, facts['image'][1:]))} pixels, "
        f"pruned to {statistics.mean(seed['macs'] for seed in seeds):.1%} of its MACs: test accuracy "
        f"{_spread_of(before)} unpruned, {_spread_of(after)} pruned and not yet finetuned. Seconds of one core of "
        f"{facts['machine']}, whose speed varied, torch {facts['torch']}, CPU only."
    )
    return "\n".join([*lines, "", *changes, "", note])


def _seeds_in_words(n: int) -> str:
    return "One seed" if n == 1 else f"Mean ± standard deviation over {n} seeds"


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
    hits = statistics.mean(row["accuracy"] for row in rows["unpruned"])
    note = (
        f"{facts['model']} on {facts['train_images']:,} images of {facts['data']} of "
        f"{'x'.join(map(str, facts['image'][1:]))} pixels, {facts['test_images']:,} test images; budget "
        f"{facts['budget']} of the MACs. ManiDP meets it for the average training image; its MACs here are the average "
        "of the test images. Several seeds: mean ± standard deviation. By the number of test images alone, differences "
        f"below {2 * (2 * hits * (1 - hits) / facts['test_images']) ** 0.5:.1%} between two runs say nothing (two "
        "standard errors). What starts from trained weights had "
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


def pruningnet(result: Mapping[str, Any]) -> str:
    """How scores with generated weights rank structures, and what searches with them end with."""
    facts, blocks = result["facts"], []
    shares = [f"{keep:.0%}" for keep in facts["keep"]]
    n, seeds = facts["structures"], facts["seeds"]
    for network, row in result["rows"].items():
        cells = row["cells"]
        truth = {share: [cells[f"truth {share} {i}"] for i in range(n)] for share in shares}
        head = " | ".join(f"{share}: finetuned | from scratch" for share in shares)
        lines = [
            f"**{network}**, unpruned {row['unpruned']:.1%}. Kendall's tau of the score with the accuracy, at shares "
            f"of the MACs; n = {n} structures each.",
            "",
            f"| weights | parameters | trainings | seconds each | {head} | ms per score |",
            f"|---|---:|---:|---:|{'---:|' * 2 * len(shares)}---:|",
        ]
        sources = ["inherited", "supernet", "compact, sandwich", "compact", "published", "published, scratch"]
        for source in (source for source in sources if f"scores {source} 0" in cells):
            lines.append(f"| {source} | {_ranking(cells, source, truth, seeds)} |")
        lines += [
            "",
            f"Test accuracy of the winner after {facts['winner_epochs']} epochs of finetuning, in percent.",
            "",
        ]
        lines += [f"| structure and weights | {' | '.join(shares)} | seeds |", f"|---|{'---:|' * len(shares)}---:|"]
        for source in ("uniform", *sources):
            lines.append(_winners(cells, source, shares, seeds, "accuracy", source))
        longer = " and ".join(
            f"{cells[f'winner inherited {share} 0']['epochs at equal compute']} (at {share})" for share in shares
        )
        named = f"inherited, finetuned at equal total compute: {longer} epochs"
        lines.append(_winners(cells, "inherited", shares, seeds, "accuracy at equal compute", named))
        blocks.append("\n".join(lines))
    error = (2 * (2 * n + 5) / (9 * n * (n - 1))) ** 0.5
    note = (
        f"Mean ± standard deviation over seeds, of training and search. {facts['data']}, images averaged over "
        f"{facts['pool']}x{facts['pool']} pixels, {facts['train_images']:,} for training, of which "
        f"{facts['calibration']:,} only score; 10,000 test images. Scores: minus the loss on those. A structure's "
        f"accuracy: {facts['finetune_epochs']} epochs from inherited weights, or {facts['scratch_epochs']} from "
        f"scratch, one seed. With {n} structures the standard error of a tau of 0 is {error:.2f}. PruningNets: "
        f"{facts['pruningnet_epochs']} epochs; the supernet as many as cost about as many MACs. Searches: evolution, "
        f"{facts['trials']} structures, {facts['scoring_images']} images. {facts['threads']} thread of a machine that "
        f"others shared, torch {facts['torch']}, CPU only."
    )
    return "\n\n".join([*blocks, note])


def _ranking(cells: Mapping[str, Any], source: str, truth: Mapping[str, Any], seeds: int) -> str:
    """Size, training time, the taus and the time of a score."""
    scored = [cells[f"scores {source} {seed}"] for seed in range(seeds) if f"scores {source} {seed}" in cells]
    trained = [cells[f"train {source} {seed}"] for seed in range(seeds) if f"train {source} {seed}" in cells]
    taus = []
    for share, entries in truth.items():
        for kind in ("finetuned", "scratch"):
            accuracies = [entry[kind] for entry in entries]
            found = [_tau(cell["scores"][share][: len(accuracies)], accuracies) for cell in scored]
            taus.append(f"{statistics.mean(found):.2f}" + (f" ± {statistics.stdev(found):.2f}" if found[1:] else ""))
    size = f"{trained[0]['params']:,}" if trained else ""
    timed = [cell["seconds"] for cell in trained if cell["seconds"] is not None]
    seconds = f"{statistics.median(timed):.0f}" if timed else ""
    each = f"{1e3 * statistics.median(cell['seconds per structure'] for cell in scored):.0f}"
    return " | ".join([size, str(len(trained) or ""), seconds, *taus, each])


def _winners(cells: Mapping[str, Any], source: str, shares: Sequence[str], seeds: int, kind: str, named: str) -> str:
    """A line of accuracies."""
    columns = [
        [cells[name][kind] for seed in range(seeds) if (name := f"winner {source} {share} {seed}") in cells]
        for share in shares
    ]
    runs = " and ".join(dict.fromkeys(str(len(column)) for column in columns))
    return f"| {named} | {' | '.join(_mean(column) if column else '' for column in columns)} | {runs} |"


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


def studies(result: Mapping[str, Any]) -> str:
    """Bookkeeping, opening, readers and workers, a line each."""
    facts, cells = result["facts"], result["cells"]
    lines = ["| what | measured |", "|---|---:|"]
    book = cells["bookkeeping"]
    own = book["ms"]["searcher alone"]
    for kind, ms in book["ms"].items():
        if kind != "searcher alone":
            what = f"{kind}: a round of ask, write, tell ({book['rounds']:,} rounds, {book['groups']} groups)"
            lines.append(f"| {what} | {ms:.2f} ms, of which {own:.2f} ms are the searcher's |")
            lines.append(f"| {kind}: share of the time at 10 structures per second | {ms / 100:.1%} |")
    if "optuna" in cells:
        other = cells["optuna"]
        what = f"Optuna {other['version']}, SQLite, {book['groups']} integers: the same ({other['trials']} rounds)"
        lines.append(f"| {what} | {other['ms']:.0f} ms |")
    if "opening" in cells:
        cell = cells["opening"]
        lines.append(f"| open {cell['trials']:,} trials, every one read and checked | {_seconds(cell['seconds'])} |")
        lines.append(f"| `status` of them | {_seconds(cell['status'])} |")
    if "reader" in cells:
        alone, watched = (statistics.median(cells["reader"][kind]) for kind in ("alone", "watched"))
        pairs = zip(cells["reader"]["alone"], cells["reader"]["watched"], strict=True)
        extra = [after / before - 1 for before, after in pairs]
        what = f"a reader at 10 Hz: time of a run of {alone:.1f} s becomes"
        lines.append(f"| {what} | {watched:.1f} s ({min(extra):+.1%} to {max(extra):+.1%}) |")
    if "workers" in cells:
        cell = cells["workers"]
        one = statistics.median(cell["rates"]["1 worker"])
        for kind, rates in cell["rates"].items():
            rate = statistics.median(rates)
            what = f"{kind}: structures of a ResNet-20 per second ({cell['structures']} each, n = {len(rates)})"
            lines.append(
                f"| {what} | {rate:.1f} ({min(rates):.1f} to {max(rates):.1f}), {rate / one:.2f} of 1 worker |"
            )
        lines.append(f"| scores of all of them equal, bit by bit | {'yes' if cell['equal'] else '**no**'} |")
    note = (
        f"Median (range) of {facts['repeats']} unless said otherwise; {facts['processor']}, two cores, Python "
        f"{facts['python']}, SQLAlchemy {facts['sqlalchemy']}; one run of benchmarks/studies.py, one thread, "
        "with other programs on both cores: upper bounds."
    )
    return "\n".join([*lines, "", note])


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


def faults(result: Mapping[str, Any]) -> str:
    """What the fault suite did, and what it cost."""
    facts = result["facts"]
    lines = ["| | fault | how | tries | recorded trials lost | scored again |", "|---|---|---|---:|---:|---:|"]
    for name, fault in result["faults"].items():
        rows: dict[str, list[int]] = {}
        for line in fault["lines"]:
            sums = rows.setdefault(line["how"], [0, 0, 0])
            rows[line["how"]] = [sums[0] + line["tries"], sums[1] + line["lost"], sums[2] + line["repeated"]]
        if not rows:
            lines.append(f"| {name} | {fault['what']} | not counted yet | | | |")
        for place, (how, (tries, lost, repeated)) in enumerate(rows.items()):
            head = f"{name} | {fault['what']}" if place == 0 else " | "
            lines.append(f"| {head} | {how} | {tries:,} | {lost} | {repeated} |")
    note = (
        f"Counted by tests/faults, file by file, on {facts['cores']} core(s), {facts['system']}, "
        f"Python {facts['python']}."
    )
    return "\n".join([*lines, "", note])


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


def searchers_excerpt(result: Mapping[str, Any], searcher: str) -> str:
    """One searcher's regret on every landscape, with random structures and the best searcher beside."""
    lines = [
        "| landscape | regret after 50 | 100 | 200 | random, 200 | lowest of all, 200 | seconds per proposal |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for place, row in result["rows"].items():
        for name, cells in row["searchers"].items():
            if name == searcher or name.startswith(f"{searcher}-"):
                at = {other: _median_regret(found, 2) for other, found in row["searchers"].items()}
                best = min(at.values())
                first = [other for other in at if at[other] - best < 5e-4]
                who = first[0] if len(first) == 1 else f"{len(first)} searchers"
                own = statistics.median(cell["seconds per proposal"] for cell in cells)
                regrets = " | ".join(f"{_median_regret(cells, i):.3f}" for i in range(3))
                where = place if name == searcher else f"{place}, `{name}`"
                lines.append(f"| {where} | {regrets} | {at['random']:.3f} | {best:.3f} ({who}) | {own:.3f} |")
    if len(lines) == 2:
        return f"`{searcher}` is not in these measurements yet."
    note = (
        "Medians over the seeds of `python benchmarks/searchers.py`: 0 is the best structure within the budget, 1 no "
        "better than the median one. A searcher that ended before has the regret that it ended with."
    )
    return "\n".join([*lines, "", note])


def criteria_excerpt(result: Mapping[str, Any], row: str) -> str:
    """One criterion, or one weight source, on every network: accuracy before and after finetuning, and seconds."""
    sources = ("inherited", "compensated", "reconstructed")
    wanted = {"criterion": "l1", "weights": row} if row in sources else {"criterion": row, "weights": "inherited"}
    other = "`l1`, inherited" if row in sources else "`l1`, the same weights"
    lines = [
        f"| network | kept MACs | weights | before finetuning | after | {other}: before | after | ranking |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for network, found in result["rows"].items():
        for keep in ("50%", "30%"):
            for weights in sources if row not in sources else (row,):
                own = _accuracies(found["cells"], wanted["criterion"], weights, keep)
                base = _accuracies(found["cells"], "l1", "inherited" if row in sources else weights, keep)
                if own is not None and base is not None:
                    shown = f"{own[0]:.1f} | {own[1]:.1f} | {base[0]:.1f} | {base[1]:.1f} | {own[2]:.1f} s"
                    lines.append(f"| {network} | {keep} | {weights} | {shown} |")
    if len(lines) == 2:
        return f"`{row}` is not in these measurements yet."
    note = "Per cent of test images, means; conditions as in the table of all criteria (docs/criteria.md)."
    return "\n".join([*lines, "", note])


def _median_regret(cells: Sequence[Mapping[str, Any]], at: int) -> float:
    return float(statistics.median(cell["regret"][at] for cell in cells))


def _accuracies(
    cells: Sequence[Mapping[str, Any]], criterion: str, weights: str, keep: str
) -> tuple[float, float, float] | None:
    """Mean accuracy before and after finetuning in per cent, and the median seconds that ranking takes."""
    mine = [cell for cell in cells if (cell["criterion"], cell["weights"], cell["keep"]) == (criterion, weights, keep)]
    after = [cell["after"] for cell in mine if cell["after"] is not None]
    if not after:
        return None
    before = statistics.mean(cell["before"] for cell in mine)
    return 100 * before, 100 * statistics.mean(after), statistics.median(cell["seconds"]["rank"] for cell in mine)


TABLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "coverage": coverage,
    "criteria": criteria,
    "demo": demo,
    "dynamic_speed": dynamic_speed,
    "end_to_end": evidence_tables.end_to_end,
    "evaluator": evaluator,
    "evidence": evidence_tables.evidence,
    "latency": latency,
    "faults": faults,
    "finetune": finetune,
    "papers": paper_page.papers,
    "pruningnet": pruningnet,
    "searchers": searchers,
    "studies": studies,
    "training_methods": training_methods,
}


SOURCES: Mapping[str, str] = {"evidence": "end_to_end"}
"""Results of tables that do not have their own."""

EXCERPTS: Mapping[str, Callable[[Mapping[str, Any], str], str]] = {
    "criteria": criteria_excerpt,
    "searchers": searchers_excerpt,
}


def render(text: str) -> str:
    """Return a page with every table between its marks written anew."""

    def replace(match: re.Match[str]) -> str:
        name, row = match[1], match[2]
        file = RESULTS / f"{SOURCES.get(name, name)}.json"
        if not file.exists():
            table = "Not measured yet."
        else:
            result = json.loads(file.read_text())
            table = TABLES[name](result) if row is None else EXCERPTS[name](result, row)
        return f"<!-- table: {name}{'' if row is None else f' of {row}'} -->\n\n{table}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+)(?: of (\w+))? -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


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
