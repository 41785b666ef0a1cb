"""Networks whose state is more than dense tensors: extra state of modules, and sparse buffers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.models.fingerprint import model_fingerprint
from prunesearch.models.finite import first_not_finite
from prunesearch.training.averaging import Average
from prunesearch.training.reports import StepReport

RECIPE = ps.Recipe(epochs=2, batch_size=16)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.first(x).relu()).mean((2, 3)))


class Extra(Net):
    """Counts its forwards in training mode, among other things."""

    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        if self.training and isinstance(self.extra, dict) and "runs" in self.extra:
            self.extra["runs"] += 1
        return super().forward(x)

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


class Sparse(Net):
    """Adds what a sparse matrix gives to its outputs."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (self.get_buffer("matrix") @ torch.ones(2, 1)).T


def compressed(values: list[list[float]], kind: str = "to_sparse_csr") -> Tensor:
    return getattr(torch.tensor(values), kind)()


def data() -> ps.Data:
    torch.manual_seed(0)
    return ps.Data(train=(torch.randn(32, 1, 4, 4), torch.arange(32) % 2), validation=0.5)


STATES: dict[str, Callable[[], Net]] = {
    "plain values": lambda: Extra({"runs": 0, "names": ["a", None], "scale": 0.5}),
    "tensors among plain values": lambda: Extra({"runs": 0, "scales": (torch.ones(2), 3)}),
    "a tensor": lambda: Extra(torch.ones(2)),
    "a sparse buffer": lambda: Sparse(torch.tensor([[0.0, 2.0], [0.0, 0.0]]).to_sparse()),
    "a sparse buffer by rows": lambda: Sparse(compressed([[0.0, 2.0], [0.0, 0.0]])),
}
pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch's own, of what it calls beta


@pytest.mark.parametrize("state", STATES)
def test_a_network_is_known_again_by_all_of_its_state(state: str) -> None:
    def told(network: nn.Module) -> str:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        return model_fingerprint(network)

    found = {told(make()) for make in STATES.values()}
    assert len(found) == len(STATES)
    assert told(STATES[state]()) in found


def test_one_number_or_place_more_is_another_network() -> None:
    def told(network: nn.Module, *odd: Any) -> set[str]:
        networks = []
        for each in odd:
            networks.append(each)
            each.load_state_dict(network.state_dict(), strict=False)
        return {model_fingerprint(each) for each in networks}

    assert len(told(Net(), *(Extra(extra) for extra in ({"a": 1}, {"a": 2}, {"b": 1}, [1], [None]) for _ in "12"))) == 5
    transposed = [[0.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 0.0]]
    rows, columns = compressed(transposed[0]), compressed(transposed[1], "to_sparse_csc")
    assert len(told(Net(), *(Sparse(matrix) for matrix in (rows, columns, rows.to_sparse_coo())))) == 3


def test_what_nobody_could_know_again_is_refused_with_its_name() -> None:
    network = nn.Sequential(Extra({"made": object()}))
    said = r"0\._extra_state\.made is a object\. Let get_extra_state give"
    with pytest.raises(ValueError, match=said):
        ps.search(network, data(), budget="macs=50%", n_trials=1, progress=False)
    with pytest.raises(ValueError, match=said):
        ps.finetune(network, data(), recipe=RECIPE, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_it_is_searched_built_and_trained(state: str) -> None:
    model = STATES[state]()
    found = ps.search(model, data(), budget="macs=60%", n_trials=2, progress=False)
    small = found.best.build()
    assert sum(x.numel() for x in small.parameters()) < sum(x.numel() for x in model.parameters())
    for recipe in (RECIPE, ps.Recipe(epochs=2, batch_size=16, ema=0.5)):
        tuned = ps.finetune(small, data(), recipe=recipe, progress=False)
        assert tuned.state_dict().keys() == model.state_dict().keys()
        if isinstance(tuned, Extra) and isinstance(tuned.extra, dict):
            assert tuned.extra["runs"] in (1, 2)  # one step of each epoch, and the best epoch may be the first


def test_a_moving_average_takes_extra_state_and_sparse_buffers_as_they_are() -> None:
    network = nn.Sequential(Extra({"runs": 0}), Extra(torch.ones(2)), STATES["a sparse buffer"]())
    average = Average(network, 0.9)
    network[0].extra["runs"] = 7
    network[1].extra = torch.full((2,), 5.0)
    network[2].matrix = torch.eye(2).to_sparse()
    average.update(network, 1000)
    first, second, third = average.network.children()
    assert first.extra == {"runs": 7}
    assert first.extra is not network[0].extra
    assert second.extra.tolist() == [5.0, 5.0]
    assert torch.equal(third.get_buffer("matrix").to_dense(), torch.eye(2))


def trained(checkpoint: Path | None, model: nn.Module, stop: int | None = None) -> nn.Module:
    def on_step(report: StepReport) -> None:
        if report.step == stop:
            raise KeyboardInterrupt

    recipe = ps.Recipe(epochs=3, batch_size=8)
    everything = ps.Data(train=data().train)
    return ps.finetune(model, everything, recipe=recipe, checkpoint=checkpoint, on_step=on_step, progress=False)


@pytest.mark.parametrize("state", ["plain values", "a tensor"])
def test_a_training_goes_on_with_the_extra_state_that_it_had(state: str, tmp_path: Path) -> None:
    model = STATES[state]()
    whole = trained(None, model)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "state", model, stop=6)
    again = trained(tmp_path / "state", model)
    assert model_fingerprint(again) == model_fingerprint(whole)
    if state == "plain values":
        assert again.extra == {"runs": 12, "names": ["a", None], "scale": 0.5}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (STATES["tensors among plain values"], "learner.network._extra_state, which is a dict: only tensors, and what"),
        (lambda: Extra((1, 2)), "learner.network._extra_state, which is a tuple"),
        (lambda: Extra({1: 2}), "learner.network._extra_state, which is a dict"),
        (lambda: Extra(float("inf")), "learner.network._extra_state, which is a float"),
        (STATES["a sparse buffer"], "learner.network.matrix has no plain values"),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_said_before_the_first_step(
    make: Callable[[], Net], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ps.CheckpointError, match=said):
        trained(tmp_path / "state", make(), stop=1)
    assert not (tmp_path / "state").exists()


class Half(Net):
    def get_extra_state(self) -> Any:
        return 1


def test_extra_state_that_cannot_be_put_back_is_said_before_the_first_step() -> None:
    with pytest.raises(ValueError, match="0 of Sequential has get_extra_state, and no set_extra_state"):
        trained(None, nn.Sequential(Half()), stop=1)


def test_numbers_of_sparse_buffers_are_looked_at() -> None:
    assert first_not_finite(STATES["a sparse buffer by rows"]()) is None
    assert first_not_finite(Sparse(compressed([[0.0, torch.nan], [0.0, 0.0]]))) == "matrix"
    with pytest.raises(ValueError, match="matrix of Sparse holds NaN"):
        ps.finetune(Sparse(compressed([[0.0, torch.nan], [0.0, 0.0]])), data(), recipe=RECIPE, progress=False)
