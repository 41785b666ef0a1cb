"""Recurrent layers: what they read and the states that they keep get narrower, and nothing else does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from prunesearch.models.saving import load, save
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.slim import slim
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from tests.models.networks import image, names, prove, proven, random_ranking, randomised, some_structures


class Reader(nn.Module):
    """Columns of an image, read one after the other."""

    def __init__(self, recurrent: nn.Module, width: int, how: str = "last") -> None:
        super().__init__()
        self.conv, self.recurrent, self.how = nn.Conv2d(3, 6, 3, padding=1), recurrent, how
        self.head, self.hidden = nn.Linear(width, 4), 10

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).relu().mean(2)  # (n, c, w)
        if self.how == "steps first":
            outputs, _ = self.recurrent(h.permute(2, 0, 1))
            return self.head(outputs).mean(0)
        if self.how == "state":
            return self.head(self.recurrent(h.permute(0, 2, 1))[1][-1])
        if self.how == "cell state":
            _, (state, cells) = self.recurrent(h.permute(0, 2, 1))
            return self.head(torch.cat([state[0], cells[0]], 1))
        if self.how == "begun":
            state = torch.zeros(1, x.size(0), self.hidden)
            return self.head(self.recurrent(h.transpose(1, 2), state)[0][:, -1])
        return self.head(self.recurrent(h.permute(0, 2, 1))[0][:, -1])


def reader(name: str) -> nn.Module:
    return {
        "LSTM": lambda: Reader(nn.LSTM(6, 10, batch_first=True), 10),
        "two layers": lambda: Reader(nn.GRU(6, 10, 2, batch_first=True), 10),
        "both directions": lambda: Reader(nn.LSTM(6, 10, 2, batch_first=True, bidirectional=True), 20),
        "without bias": lambda: Reader(nn.RNN(6, 10, batch_first=True, bias=False, nonlinearity="relu"), 10),
        "projected": lambda: Reader(nn.LSTM(6, 10, batch_first=True, proj_size=5), 5),
        "steps first": lambda: Reader(nn.GRU(6, 10, bidirectional=True), 20, "steps first"),
        "state": lambda: Reader(nn.GRU(6, 10, batch_first=True), 10, "state"),
        "cell state": lambda: Reader(nn.LSTM(6, 10, batch_first=True), 20, "cell state"),
        "begun": lambda: Reader(nn.GRU(6, 10, batch_first=True), 10, "begun"),
    }[name]()


READERS = ["LSTM", "two layers", "both directions", "without bias", "projected", "steps first", "state", "cell state",
           "begun"]  # fmt: skip
COLUMNS = image(2, 3, 4, 5)


@pytest.mark.parametrize("name", READERS)
def test_what_a_recurrent_layer_reads_and_keeps_is_pruned(name: str) -> None:
    network = proven(reader(name), COLUMNS)
    assert {"conv", "recurrent"} <= set(names(network))
    assert list(network.frozen) == ["head"]
    slimmed: Any = slim(network, network.space.minimum, random_ranking(network))
    kept = dict(zip(names(network), network.space.minimum, strict=True))
    assert (slimmed.recurrent.input_size, slimmed.recurrent.hidden_size) == (kept["conv"], kept["recurrent"])


class Stepwise(nn.Module):
    """A cell in a loop of Python."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.conv, self.cell, self.head = nn.Conv1d(3, 6, 3, padding=1), cell, nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in self.conv(x).relu().unbind(2):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Lengths(nn.Module):
    """Sequences of several lengths, packed for a recurrent layer and unpacked afterwards."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.conv, self.recurrent, self.head = nn.Conv1d(3, 6, 3, padding=1), recurrent, nn.Linear(20, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h = self.conv(x).relu().transpose(1, 2)
        packed = pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
        outputs, _ = self.recurrent(packed)
        return self.head(pad_packed_sequence(outputs, batch_first=True)[0]).amax(1)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_packed_sequences_are_followed(kind: Any) -> None:
    model = randomised(Lengths(kind(6, 10, batch_first=True, bidirectional=True)))
    network = trace(model, (image(2, 3, 5), torch.tensor([3, 5])))
    prove(network)
    assert names(network) == ["conv", "recurrent"]


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_that_is_called_step_by_step_is_pruned(kind: Any) -> None:
    network = proven(Stepwise(kind(6, 9)), image(2, 3, 4))
    assert names(network) == ["conv", "cell"]


@pytest.mark.parametrize("name", READERS)
def test_structures_of_recurrent_networks_run_as_the_slimmed_networks_do(name: str) -> None:
    network = trace(randomised(reader(name)), COLUMNS)
    weights = InheritedWeights(network, random_ranking(network))
    structures = some_structures(network, 2)
    for structure, output in zip(structures, SharedForward(weights).run(structures, COLUMNS), strict=True):
        torch.testing.assert_close(output, weights.build(structure).eval()(COLUMNS), rtol=1e-4, atol=1e-5)


def test_recurrent_layers_cannot_be_run_stacked() -> None:
    network = trace(reader("LSTM"), COLUMNS)
    with pytest.raises(ValueError, match=r"recurrent is a recurrent layer.*sliced"):
        StackedForward(InheritedWeights(network, random_ranking(network)))


def test_a_slimmed_recurrent_network_trains_and_comes_back_from_a_file(tmp_path: Any) -> None:
    model = randomised(reader("both directions"))
    network = trace(model, COLUMNS)
    slimmed = slim(network, network.space.minimum, random_ranking(network)).train()
    slimmed(COLUMNS).square().mean().backward()
    assert all(parameter.grad is not None for parameter in slimmed.parameters())
    slimmed.eval()
    save(slimmed, tmp_path / "small.safetensors")
    expected = slimmed(COLUMNS)
    assert torch.equal(load(tmp_path / "small.safetensors", model).eval()(COLUMNS), expected)
    assert torch.equal(copy.deepcopy(slimmed)(COLUMNS), expected)
