"""Whatever forward people write, what comes of it is right: properties of forwards that are put together at random."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import prunesearch as ps
from prunesearch.models.count import count
from prunesearch.models.nested import tensors_in
from prunesearch.models.network import Network
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure
from tests.models.forwards import EVERYTHING, SIZE, Written, written
from tests.models.networks import image, random_ranking, randomised, snapshot

IMAGES = image(2, 3, SIZE, SIZE)
OTHERS = image(5, 3, SIZE, SIZE, seed=2)


@st.composite
def forwards(draw: Any) -> Written:
    segments = draw(
        st.lists(st.lists(st.sampled_from(list(EVERYTHING)), min_size=1, max_size=4), min_size=1, max_size=2)
    )
    return written(lambda *options: draw(st.sampled_from(options)), segments)


@contextmanager
def imported(source: str, folder: Path) -> Iterator[Any]:
    """A module of this source, as if somebody had written the file."""
    name = f"written_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]


def outputs(model: nn.Module, images: Tensor = IMAGES) -> Tensor:
    """Every number that a model returns, in eval mode."""
    with torch.no_grad():
        return torch.cat([tensor.flatten().double() for tensor in tensors_in(model.eval()(images.clone()))])


def same(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


def check(text: Written, folder: Path) -> None:
    tolerance = 0.05 if "bfloat16" in text.traits else 1e-4
    with imported(text.source, folder) as module:
        torch.manual_seed(0)
        model = randomised(module.Net())
        before = snapshot(model)
        network = ps.trace(model, IMAGES, min_channels=1)
        assert snapshot(model) == before
        assert not [line for line in network.notes if "training" in line] or "no gradients" in text.traits
        found = network.verify(2)
        assert found.scale > 1e-4
        assert found.largest_difference <= tolerance * found.scale
        assert found.costs_exact
        assert found.training_difference is None or found.training_difference <= 100 * tolerance
        assert found.training_difference is not None or text.traits & {"draws", "no gradients"}
        ranking = random_ranking(network)
        full = ps.slim(network, network.space.full, ranking)
        assert same(outputs(full), outputs(copy.deepcopy(model)), tolerance)
        slimmed = ps.slim(network, network.space.minimum, ranking)
        assert count(slimmed, IMAGES) == network.space.cost(network.space.minimum)
        check_copies(slimmed, model, folder / "small.safetensors", module.Net)
        check_flags(text, network, slimmed, tolerance)
        if "functional norm" not in text.traits:
            check_scoring(network, network.space.minimum, tolerance)


def check_copies(slimmed: nn.Module, model: nn.Module, path: Path, kind: type[nn.Module]) -> None:
    """It copies, pickles where the original does, and goes through a file; all to the last bit."""
    expected = outputs(slimmed)
    assert torch.equal(outputs(copy.deepcopy(slimmed)), expected)
    try:
        pickle.dumps(model)
    except (AttributeError, RuntimeError, pickle.PicklingError):  # it holds a lambda or a parametrisation
        pass
    else:
        torch.save(slimmed, path.with_suffix(".pt"))
        assert torch.equal(outputs(torch.load(path.with_suffix(".pt"), weights_only=False)), expected)
    ps.save(slimmed, path)
    fresh = kind()
    assert torch.equal(outputs(ps.load(path, fresh)), expected)


def check_flags(text: Written, network: Network, slimmed: nn.Module, tolerance: float) -> None:
    """A flag set after slimming does what it does when it is set before tracing."""
    if not text.flags:
        return
    other = copy.deepcopy(network.model)
    for model in (slimmed, other):
        for flag in text.flags:
            owner, _, name = flag.rpartition(".")
            setattr(model.get_submodule(owner), name, True)
    again = ps.trace(other, IMAGES, min_channels=1)
    assert again.space.minimum == network.space.minimum
    expected = ps.slim(again, again.space.minimum, random_ranking(again))
    assert same(outputs(slimmed), outputs(expected), tolerance)


def check_scoring(network: Network, structure: Structure, tolerance: float) -> None:
    """What scores many structures at once gives what the network built for one gives."""
    weights = InheritedWeights(network, random_ranking(network))
    ours = SharedForward(weights).run([network.space.full, structure], OTHERS)[1]
    built = weights.build(structure).eval()
    for layer in built.modules():
        if isinstance(layer, _BatchNorm):
            layer.train()
    with torch.inference_mode():
        theirs = built(OTHERS.clone())
    mine, others = (torch.cat([x.flatten().double() for x in tensors_in(value)]) for value in (ours, theirs))
    assert same(mine, others, tolerance)


@settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(text=forwards())
def test_any_forward_is_pruned_rightly(text: Written, tmp_path_factory: pytest.TempPathFactory) -> None:
    note(text.source)
    check(text, tmp_path_factory.mktemp("written"))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(text=forwards())
def test_many_more_forwards_are_pruned_rightly(text: Written, tmp_path_factory: pytest.TempPathFactory) -> None:
    note(text.source)
    check(text, tmp_path_factory.mktemp("written"))
