"""The few numbers at the head of a page: the winner against the unpruned network."""

from __future__ import annotations

from dataclasses import dataclass

from prunesearch.report.contents import StudyContents


@dataclass(frozen=True)
class Tile:
    """One fact about the best winner, before and after.

    Attributes:
        title: What it is, with its unit.
        value: Of the winner.
        note: What it is to be compared with.
    """

    title: str
    value: str
    note: str


def tiles(study: StudyContents) -> list[Tile]:
    """What is known of a study's winner against the unpruned network; nothing that is not known."""
    winner = study.winner
    if winner is None:
        return []
    found = []
    for title, kept, full in (
        ("MACs", winner.cost.macs, study.unpruned.macs),
        ("Parameters", winner.cost.params, study.unpruned.params),
    ):
        found.append(Tile(title, f"{kept / max(1, full):.1%}", f"{full:,} → {kept:,}"))
    full_score = study.number("score_full")
    note = "before finetuning" + ("" if full_score is None else f"; unpruned {full_score:.4f}")
    found.append(Tile("Score", f"{winner.score:.4f}", note))
    before, after = study.number("accuracy_before"), study.number("accuracy_after")
    unpruned = study.number("accuracy_unpruned")
    if before is not None or after is not None:
        ends = [("unpruned", unpruned), ("before finetuning", before if after is not None else None)]
        notes = [f"{text} {value:.2%}" for text, value in ends if value is not None]
        title = "Test accuracy" + (" before finetuning" if after is None else "")
        found.append(Tile(title, f"{before if after is None else after:.2%}", "; ".join(notes)))
    timed = study.measured_of(winner)
    if timed is not None:
        limit = "" if study.limit_ms is None else f"; limit {study.limit_ms:.4g} ms"
        found.append(Tile("Latency, measured", f"{timed.measured_ms:.4g} ms", f"predicted {timed.predicted_ms:.4g}{limit}"))
    ms, full_ms = study.number("ms_per_image"), study.number("ms_per_image_unpruned")
    if ms is not None:
        batch = study.number("latency_batch_size")
        ends = [f"unpruned {full_ms:.4g} ms"] if full_ms is not None else []
        ends += [f"in batches of {batch:g}"] if batch is not None else []
        found.append(Tile("Measured per image", f"{ms:.4g} ms", "; ".join(ends)))
    peak, full_peak = study.number("peak_bytes"), study.number("peak_bytes_unpruned")
    if peak is not None:
        note = "" if full_peak is None else f"unpruned {full_peak / 2**20:,.2f} MiB"
        found.append(Tile("Peak memory", f"{peak / 2**20:,.2f} MiB", note))
    return found
