"""Moments of what layers are given: right, the same in pieces, kept on disk, and gathered anew when a file is bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunesearch.evaluators import layer_inputs as module
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.hooks import watched
from prunesearch.evaluators.layer_inputs import LayerInputs, layer_inputs
from prunesearch.evaluators.recalibration import split
from prunesearch.models.nested import Batch
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.follow import fidelity
from tests.models.networks import image, randomised

IMAGES = image(100, 2, 4, 4, seed=5)


@pytest.fixture
def chain() -> Network:
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 1))
    return trace(randomised(model).eval(), image(2, 2, 4, 4))


def moments(found: list[LayerInputs]) -> list[tuple[str, list[float], list[float]]]:
    return [(one.name, one.mean.tolist(), one.covariance.flatten().tolist()) for one in found]


def test_moments_are_those_of_every_patch_where_all_positions_are_sampled(chain: Network) -> None:
    first, _ = layer_inputs(chain, IMAGES)
    with torch.no_grad():
        given = torch.relu(chain.model[0](IMAGES))  # type: ignore[index,operator]
        patches = nn.functional.unfold(given, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    np.testing.assert_allclose(first.mean, patches.mean(0), atol=1e-6)
    np.testing.assert_allclose(first.covariance, torch.cov(patches.T, correction=0), atol=1e-6)


def test_layers_that_do_not_fit_together_are_gathered_in_further_passes(
    chain: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = moments(list(layer_inputs(chain, IMAGES)))
    monkeypatch.setattr(module, "_BYTES", 1)
    assert moments(list(layer_inputs(chain, IMAGES))) == together


def test_what_was_kept_on_disk_is_not_gathered_again(
    chain: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = moments(list(layer_inputs(chain, IMAGES, cache=tmp_path)))
    runs: list[int] = []

    def counted(batch: Tensor, size: int) -> tuple[Batch, ...]:
        runs.append(len(batch))
        return split(batch, size)

    monkeypatch.setattr(module, "split", counted)
    assert moments(list(layer_inputs(chain, IMAGES, cache=tmp_path))) == fresh
    assert not runs
    list(layer_inputs(chain, IMAGES[:50], cache=tmp_path))  # other images
    list(layer_inputs(chain, IMAGES, cache=tmp_path, seed=1))
    assert runs == [50, 100]
    with torch.no_grad():
        chain.model[0].weight.mul_(2)  # type: ignore[index,operator,union-attr]
    list(layer_inputs(chain, IMAGES, cache=tmp_path))
    assert runs == [50, 100, 100]


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_file_is_gathered_again(chain: Network, tmp_path: Path, damage: str) -> None:
    fresh = moments(list(layer_inputs(chain, IMAGES, cache=tmp_path)))
    for file in tmp_path.rglob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-9] ^= 1
        file.write_bytes(content[:-5] if damage == "cut" else content)
    assert moments(list(layer_inputs(chain, IMAGES, cache=tmp_path))) == fresh
    assert moments(list(layer_inputs(chain, IMAGES, cache=tmp_path))) == fresh


@pytest.mark.parametrize("criterion", ["cap", "lasso", "genetic"])
def test_criteria_rank_the_same_from_the_cache(chain: Network, tmp_path: Path, criterion: str) -> None:
    without = make_criterion(criterion).rank(chain, Examples(IMAGES, fidelity()))
    for _ in range(2):
        cached = make_criterion(criterion, cache=tmp_path).rank(chain, Examples(IMAGES, fidelity()))
        assert all(cached.keep(g, 3).tolist() == without.keep(g, 3).tolist() for g in range(len(chain.units)))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_nobody_watches_any_more_after_an_error(chain: Network) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), watched(chain.model, [("2", fail)]):
        chain.model(IMAGES)
    chain.model(IMAGES)
