"""The few numbers at the head of a page: the winner against the unpruned network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prunesearch.report.contents import StudyContents
from prunesearch.study.told import shown
from prunesearch.trial import Trial


@dataclass(frozen=True)
class Tile:
    """One fact about a winner, before and after.

    Attributes:
        title: What it is.
        value: Of the winner.
        note: What it is to be compared with; may be empty.
    """

    title: str
    value: str
    note: str


def tiles(study: StudyContents) -> list[Tile]:
    """What is known of a study's winner against the unpruned network; nothing that is not known."""
    if study.winner is None:
        return []
    found = [tile(study, study.winner) for tile in _TILES]
    return [tile for tile in found if tile is not None]


def _macs(study: StudyContents, winner: Trial) -> Tile:
    return _share("MACs", winner.cost.macs, study.unpruned.macs)


def _params(study: StudyContents, winner: Trial) -> Tile:
    return _share("Parameters", winner.cost.params, study.unpruned.params)


def _share(title: str, kept: int, full: int) -> Tile:
    return Tile(title, f"{kept / max(1, full):.1%}", f"{full:,} → {kept:,}")


def _score(study: StudyContents, winner: Trial) -> Tile:
    full = _noted("unpruned", study.number("score_full"), ".4f")
    return Tile("Score", f"{winner.score:.4f}", _together("before finetuning", full))


def _accuracy(study: StudyContents, winner: Trial) -> Tile | None:
    before, after = study.number("accuracy_before"), study.number("accuracy_after")
    unpruned = _noted("unpruned", study.number("accuracy_unpruned"), ".2%")
    if after is not None:
        return Tile("Test accuracy", f"{after:.2%}", _together(unpruned, _noted("before finetuning", before, ".2%")))
    return None if before is None else Tile("Test accuracy before finetuning", f"{before:.2%}", unpruned)


def _finetuned(study: StudyContents, winner: Trial) -> Tile | None:
    found = study.finetuned
    metric, epochs = str(found.get("metric")), found.get("epochs")
    for on, values in (("test", found.get("test")), ("validation", found)):
        if isinstance(values, dict) and values.get("reached") is not None:
            before, now = (shown(metric, values.get(when)) for when in ("before", "reached"))
            after = f"after {epochs} epoch{'' if epochs == 1 else 's'} of finetuning"
            return Tile(f"{on.capitalize()} {metric} {after}", now, f"before finetuning {before}")
    return None


def _latency(study: StudyContents, winner: Trial) -> Tile | None:
    timed = study.measured_of(winner)
    if timed is None:
        return None
    predicted, limit = _noted("predicted", timed.predicted_ms, ".4g"), _noted("limit", study.limit_ms, ".4g")
    return Tile("Latency, measured", f"{timed.measured_ms:.4g} ms", _together(predicted, limit))


def _ms_per_image(study: StudyContents, winner: Trial) -> Tile | None:
    ms = study.number("ms_per_image")
    unpruned = _noted("unpruned", study.number("ms_per_image_unpruned"), ".4g")
    batch = _noted("in batches of", study.number("latency_batch_size"), "g")
    return None if ms is None else Tile("Measured per image", f"{ms:.4g} ms", _together(unpruned, batch))


def _memory(study: StudyContents, winner: Trial) -> Tile | None:
    peak, full = study.number("peak_bytes"), study.number("peak_bytes_unpruned")
    unpruned = _noted("unpruned", None if full is None else full / 2**20, ",.2f")
    batch = _noted("in batches of", study.number("peak_batch_size"), "g")
    return None if peak is None else Tile("Peak memory", f"{peak / 2**20:,.2f} MiB", _together(unpruned, batch))


_TILES: tuple[Callable[[StudyContents, Trial], Tile | None], ...] = (
    _macs,
    _params,
    _score,
    _accuracy,
    _finetuned,
    _latency,
    _ms_per_image,
    _memory,
)


def _noted(what: str, value: float | None, form: str) -> str:
    return "" if value is None else f"{what} {value:{form}}"


def _together(*notes: str) -> str:
    return "; ".join(filter(None, notes))
