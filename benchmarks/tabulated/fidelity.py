"""The table of fidelity.py: how scores with and without labels order structures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulated.summaries import tau, tau_ahead

_SHOWN = {
    "loss": "`loss`, of labels",
    "fidelity": "`fidelity`, without labels",
    "agreement": "`agreement`, without labels",
    "metric": "`{metric}`, of labels",
}


def _epochs(n: int) -> str:
    return f"{n} epoch{'s' * (n > 1)}"


def table(result: Mapping[str, Any]) -> str:
    """Tau of each score with the accuracy after finetuning, and by how much it is ahead of the loss's."""
    facts, cells = result["facts"], list(result["cells"].values())
    truth = [cell["finetuned"] for cell in cells]
    scores = {metric: [cell["scores"][metric] for cell in cells] for metric in _SHOWN}
    judge = facts["metric"]
    lines = [f"| scored by | Kendall's tau with the {judge} after finetuning | ahead of the loss |", "|---|---:|---:|"]
    for metric, name in _SHOWN.items():
        difference, error = tau_ahead(scores[metric], scores["loss"], truth)
        ahead = "" if metric == "loss" else f"{difference:+.2f} ± {error:.2f}"
        lines.append(f"| {name.format(metric=judge)} | {tau(scores[metric], truth):.2f} | {ahead} |")
    note = (
        f"{len(cells)} random structures at {facts['macs']} of the MACs of {facts['network']} (unpruned "
        f"{judge} {facts['unpruned']:.1%} on test images), scored on {facts['images']} images with inherited "
        f"weights; then finetuned for {_epochs(facts['epochs'])} of {facts['trained']:,} images with the teacher, "
        f"which ends at {min(truth):.1%} to {max(truth):.1%} on {facts['tested']:,} test images. One trained network, "
        "one seed; errors of differences are jackknifed over the structures. One thread of "
        f"{facts['machine']}; prunesearch {facts['prunesearch']}, torch {facts['torch']}."
    )
    return "\n\n".join(["\n".join(lines), note])
