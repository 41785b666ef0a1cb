"""Sources of weights are compared only where the pilot's truth is reliable, and at equal CPU-seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cells
import generated
import pilot
import pytest
import torch
from tabulated.generated import table

import prunesearch as ps
from prunesearch.training.settings import PruningNetRecipe

ONE = ps.Recipe(epochs=1, batch_size=32)
SMALL = generated.Settings(
    base=ONE,
    source=PruningNetRecipe(epochs=1, batch_size=32, sampling="sandwich", macs_from=0.08, macs_to=0.25),
    finetuning=ONE,
    scratch=replace(ONE, from_scratch=True),
    searching=0.0,
)
STRUCTURES = ("20-even-0", "20-front-4", "20-back-4")


def bench() -> pilot.Bench:
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    part = images, torch.arange(64) % 10
    return pilot.Bench(ps.trace(pilot.thin().eval(), images[:2]), part, part, part)


@pytest.mark.slow
def test_a_supernet_ranks_and_its_winner_is_trained(tmp_path: Path) -> None:
    truth = {20: dict(zip(STRUCTURES, (0.5, 0.4, 0.3), strict=True))}
    place = generated.place_of(bench(), truth, tmp_path / "cache", SMALL)
    generated.run(place, ["rank-supernet.0", "20-supernet.0"], tmp_path)
    ranked, won = (json.loads((tmp_path / f"{name}.0.json").read_text()) for name in ("rank-supernet", "20-supernet"))
    assert ranked["ranked"]["20"]["structures"] == list(STRUCTURES)
    assert ranked["seconds"]["training"] > 0
    assert won["macs"] <= 0.2 * won["facts"]["full macs"]
    assert won["evaluations"] >= 1
    assert place.allowance(0) >= place.trained_source("supernet", 0)[1] / 4
    assert "| supernet |" in table({"cells": {"a": ranked, "b": won}})
    with pytest.raises(SystemExit, match="not reliable enough"):
        generated.run(place, ["10-supernet.0"], tmp_path)


def test_a_trained_source_knows_its_recipe_and_its_seconds(tmp_path: Path) -> None:
    place = generated.place_of(bench(), {}, tmp_path, SMALL)
    named, seconds = place.trained_source("supernet", 0)
    assert seconds > 0
    assert place.trained_source("supernet", 2) == (named, seconds)  # seeds 0 and 2 share it
    other = replace(place, settings=replace(SMALL, source=replace(SMALL.source, lr=0.01)))
    with pytest.raises(SystemExit, match=r"supernet-0\.safetensors was trained with another lr\. Move it away"):
        other.trained_source("supernet", 0)
    with pytest.raises(
        SystemExit, match=r"Expected weights of Recipe\(epochs=2, .* but generated-base\.safetensors is"
    ):
        generated.place_of(bench(), {}, tmp_path, replace(SMALL, base=replace(ONE, epochs=2)))


def test_a_kill_after_a_training_does_not_make_it_free(tmp_path: Path) -> None:
    """Its seconds were to be written down, and are not: they are asked for, and are never zero."""
    place = generated.place_of(bench(), {}, tmp_path, SMALL)
    place.trained_source("supernet", 0)
    (tmp_path / "generated-supernet-0.seconds").unlink()
    with pytest.raises(SystemExit, match="which says how long the training took"):
        place.trained_source("supernet", 0)
    (tmp_path / "generated-supernet-0.clock").write_text(json.dumps({"seconds": 3.0, "steps": place.steps}))
    assert place.trained_source("supernet", 0)[1] == 3.0


def test_the_committed_sources_are_of_the_recipe() -> None:
    for source in generated.TRAINED:
        file = generated.tasks.TRAINED / f"generated-{source}-0.safetensors"
        generated.check_trained(file, generated.SOURCE)
        assert json.loads(file.with_suffix(".seconds").read_text()) > 1000
    cells.check_recipe(generated.tasks.TRAINED / "generated-base.safetensors", generated.BASE)


def write_pilot(folder: Path, noise: float) -> None:
    """Thirty structures a point apart, and seeds that differ by so much."""
    for i, arm in enumerate(arm for arm, (share, _, _) in pilot.ARMS.items() if share == 20):
        for seed in range(pilot.SEEDS):
            cell = {"arm": arm, "seed": seed, "share": 20, "accuracy": 0.01 * i + noise * ((i * 7 + seed * 11) % 13)}
            (folder / f"{arm}.{seed}.json").write_text(json.dumps(cell))


def test_shares_without_a_reliable_truth_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="it is not known yet"):
        generated.reliable(tmp_path)
    write_pilot(tmp_path, noise=0.001)
    truth = generated.reliable(tmp_path)
    assert list(truth) == [20]
    mean = sum((7 + seed * 11) % 13 for seed in range(pilot.SEEDS)) / pilot.SEEDS
    assert truth[20]["20-even-1"] == pytest.approx(0.01 + 0.001 * mean)
    write_pilot(tmp_path, noise=1.0)
    with pytest.raises(SystemExit, match=r"must be above 0\.6; it is "):
        generated.reliable(tmp_path)


def test_only_cells_of_reliable_shares_and_of_trainings_are_due() -> None:
    cells = generated.cells_of(list(generated.ARMS))
    due = [cell for cell in cells if generated.is_due(cell, {10})]
    assert {cell.partition("-")[0] for cell in due} == {"rank", "10"}
    assert sum(cell.startswith("rank-") for cell in due) == len(generated.SOURCES) * generated.TRAININGS
    assert sum(cell.startswith("10-") for cell in due) == 6 * generated.SEEDS


def winner(source: str, seed: int, accuracy: float) -> dict[str, Any]:
    facts = {
        "unpruned": 0.5, "steps": 1, "shares": [20], "train images": 1, "search images": 1, "test images": 1,
        "machine": "m", "versions": {"prunesearch": "0", "torch": "2"},
    }  # fmt: skip
    return {
        "source": source, "seed": seed, "share": 20, "evaluations": 1, "before": 0.1, "finetuned": accuracy,
        "scratch": accuracy, "seconds": {"training": 80.0, "search": 20.0}, "facts": facts,
    }  # fmt: skip


def test_winners_are_compared_seed_by_seed() -> None:
    """Seed 2 of the one has no partner; each difference is one point."""
    cells = [
        *(winner("inherited-longer", seed, 0.4 + 0.1 * seed) for seed in range(2)),
        *(winner("supernet", seed, 0.41 + 0.1 * seed) for seed in range(3)),
    ]
    assert "| 51.0 ± 10.0 | +1.00 ± 0.00 |" in table({"cells": dict(enumerate(cells))})


def test_seeds_that_share_a_training_are_no_trainings_of_their_own() -> None:
    """There are two trainings, which seeds have in turn; what is not trained has none."""
    cells = [*(winner("supernet", seed, 0.4) for seed in (0, 2)), winner("compact", 0, 0.4), winner("compact", 1, 0.4)]
    page = table({"cells": dict(enumerate([*cells, winner("uniform", 0, 0.4)]))})
    ends = {line.split(" | ")[1]: line.split(" | ")[-4:] for line in page.splitlines() if line.startswith("| 20%")}
    assert ends == {
        "supernet": ["80", "20", "1", "2 |"],
        "compact": ["80", "20", "2", "2 |"],
        "uniform": ["80", "20", "", "1 |"],
    }
    assert "Not measured yet: rank-inherited" in page


def test_a_source_is_ahead_by_the_mean_of_its_trainings_and_not_by_their_mean_scores() -> None:
    """One training ranks as the truth and the other the other way round, with scores that are small: tau 1 and -1."""
    truth = [1.0, 2.0, 3.0, 4.0]

    def ranking(source: str, seed: int, scores: list[float]) -> dict[str, Any]:
        row = {"structures": list("abcd"), "truth": truth, "scores": scores}
        facts = {**winner(source, seed, 0.4)["facts"]}
        return {"source": source, "seed": seed, "ranked": {"20": row}, "seconds": {"training": 1.0}, "facts": facts}

    cells = [
        ranking("inherited", 0, [1.0, 2.0, 3.0, 4.0]),
        ranking("supernet", 0, [10.0, 20.0, 30.0, 40.0]),
        ranking("supernet", 1, [0.4, 0.3, 0.2, 0.1]),
    ]
    page = table({"cells": dict(enumerate(cells))})
    assert "| supernet | 0.00 ± 1.41 | -1.00 ± 0.00 (1.41 between trainings) | 1 | 2 |" in page
