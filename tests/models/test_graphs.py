"""CUDA graphs, of which the capture is pretended: what is captured once serves later inputs, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import prunesearch as ps
from prunesearch.models import graphs
from prunesearch.models.graphs import Graphs, Work
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.weights import InheritedWeights
from tests.models.networks import image, random_ranking
from tests.models.test_many_forwards import some_structures


def pretended(work: Work, inputs: Sequence[Tensor]) -> Work:
    """As a graph: the work of the first time, from tensors of its own that later inputs are copied to."""
    given = [x.clone() for x in inputs]

    def replay(*others: Tensor) -> Any:
        for mine, other in zip(given, others, strict=True):
            mine.copy_(other)
        return work(*given)

    return replay


def test_what_was_captured_of_some_structures_serves_others() -> None:
    images = image(6, 3, 16, 16)
    weights = InheritedWeights(network := ps.trace(ps.make_model("resnet8"), images), random_ranking(network))
    structures = some_structures(network)[:6]
    forward = StackedForward(weights)
    expected = forward.run(structures, images)
    forward.graphs = Graphs(pretended)
    found = [out for k in (0, 3) for out in forward.run(structures[k : k + 3], images, graphed=True)]
    assert len(forward.graphs._kept) == 1
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))
    assert torch.equal(forward.run(structures[3:], images)[0], found[3])
    forward.run(structures[:3], images, 4, graphed=True)
    assert len(forward.graphs._kept) == 2
    forward.lay_out(torch.channels_last)
    assert not forward.graphs._kept


def test_a_graph_is_captured_for_each_of_the_first_few_shapes_and_the_rest_runs_as_ever() -> None:
    captured: list[tuple[int, ...]] = []

    def capture(work: Work, inputs: Sequence[Tensor]) -> Work:
        captured.append(tuple(inputs[0].shape))
        return pretended(work, inputs)

    kept = Graphs(capture)
    for n in (1, 2, 1, 3, 4, 5, 5):
        assert kept.run("", lambda x: x + 1, [torch.zeros(n)]).tolist() == [1.0] * n
    assert captured == [(1,), (2,), (3,), (4,)]


def test_what_cannot_be_captured_runs_as_ever_and_the_reason_is_kept() -> None:
    def refuse(work: Work, inputs: Sequence[Tensor]) -> Work:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    kept = Graphs(refuse)
    assert kept.run("", torch.neg, [torch.ones(2)]).tolist() == [-1.0, -1.0]
    assert kept.trouble == "operation not permitted when stream is capturing"


def test_that_memory_ran_out_is_passed_on() -> None:
    def refuse(work: Work, inputs: Sequence[Tensor]) -> Work:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Graphs(refuse).run("", torch.neg, [torch.ones(2)])


def test_it_is_captured_after_a_warm_up_in_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = str(name)

        def wait_stream(self, other: Any) -> None:
            happened.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self) -> None:
            happened.append("replay")

    @contextmanager
    def within(what: Any) -> Iterator[None]:
        happened.append(f"in {getattr(what, 'name', 'graph')}")
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "graph", within)

    def work(x: Tensor) -> Tensor:
        happened.append(f"work, cached casts: {torch.is_autocast_cache_enabled()}")
        return x.view(-1)  # of the very memory that replays copy to

    replay = graphs.captured(work, [torch.zeros(2)])
    done = "work, cached casts: False"
    assert happened == ["side waits for main", "in side", done, done, "main waits for side", "in graph", done]
    first, second = replay(torch.ones(2)), replay(torch.zeros(2))
    assert (first.tolist(), second.tolist()) == ([1.0, 1.0], [0.0, 0.0])
    assert happened[-2:] == ["replay", "replay"]
