"""Files and exports are of the network inside of whatever torch wraps around it, or around parts of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import prunesearch as ps
from prunesearch.models.wrappers import unwrapped
from tests.models.networks import SMALL, random_ranking, randomised
from tests.models_state import state_of

Wrap = Callable[[nn.Module], nn.Module]


class Net(nn.Module):
    """With a buffer that is not part of the state, and parts that are shared."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)
        self.shared = self.head
        self.register_buffer("scale", torch.rand(8, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shared((self.features(x) * self.scale).mean((2, 3)))


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def in_part(wrap: Wrap) -> Wrap:
    def wrapped(model: nn.Module) -> nn.Module:
        model.features[0] = wrap(model.features[0])
        model.features = wrap(model.features)
        model.head = model.shared = wrap(model.head)
        return model

    return wrapped


WRAPS: dict[str, Wrap] = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": DistributedDataParallel,
    "AveragedModel": AveragedModel,
    "compiled": compiled,
    "compiled DataParallel": lambda model: compiled(nn.DataParallel(model)),
    "DataParallel of a compiled network": lambda model: nn.DataParallel(compiled(model)),
    "with compiled parts": in_part(compiled),
    "with DataParallel parts": in_part(nn.DataParallel),
    "compiled, with DataParallel parts": lambda model: compiled(in_part(nn.DataParallel)(model)),
    "as it is": lambda model: model,
}
wraps = pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)


@pytest.fixture(autouse=True, scope="module")
def _one_process() -> Iterator[None]:
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


def small() -> nn.Module:
    network = ps.trace(randomised(Net()), SMALL)
    return ps.slim(network, network.space.minimum, random_ranking(network)).eval()


def values(model: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in model.state_dict().items()}


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(SMALL)


@wraps
def test_a_wrapped_network_is_saved_as_the_one_inside(wrap: Wrap, tmp_path: Path) -> None:
    model = small()
    expected, state = outputs(model), values(model)
    wrapped = wrap(model)
    before = state_of(wrapped)
    ps.save(wrapped, tmp_path / "small.safetensors")
    assert state_of(wrapped) == before
    loaded = ps.load(tmp_path / "small.safetensors", Net())
    assert type(loaded) is Net
    assert loaded.shared is loaded.head
    assert values(loaded) == state
    assert torch.equal(outputs(loaded), expected)


@wraps
def test_a_file_is_loaded_into_the_network_inside_of_a_wrapped_one(wrap: Wrap, tmp_path: Path) -> None:
    model = small()
    ps.save(model, tmp_path / "small.safetensors")
    fresh = wrap(Net())
    before = state_of(fresh)
    loaded = ps.load(tmp_path / "small.safetensors", fresh)
    assert state_of(fresh) == before
    assert (type(loaded), values(loaded)) == (Net, values(model))
    assert torch.equal(outputs(loaded), outputs(model))


@wraps
def test_weights_are_loaded_into_a_wrapped_network_and_from_its_state(wrap: Wrap, tmp_path: Path) -> None:
    model, fresh = randomised(Net()), wrap(Net())
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    ps.load_weights(fresh, tmp_path / "plain.pt")
    expected = values(model)
    assert values(unwrapped(fresh)) == expected
    wrapped = wrap(model)
    torch.save(
        {name: tensor for name, tensor in wrapped.state_dict().items() if name != "n_averaged"}, tmp_path / "w.pt"
    )
    again = Net()
    ps.load_weights(again, tmp_path / "w.pt")
    assert values(again) == expected


@wraps
def test_a_wrapped_network_is_exported_as_the_one_inside(wrap: Wrap) -> None:
    model = small()
    expected = outputs(model)
    program = ps.export_program(wrap(model), SMALL).module()
    torch.testing.assert_close(program(SMALL), expected)


def test_a_child_that_is_named_like_that_of_a_wrapper_is_no_wrapper(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self._orig_mod = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._orig_mod(self.module(x))

    model = randomised(Own())
    assert unwrapped(model) is model
    ps.save(model, tmp_path / "own.safetensors")
    assert state_of(ps.load(tmp_path / "own.safetensors", Own())) == state_of(model)


@wraps
def test_what_is_compared_is_the_network_inside(wrap: Wrap) -> None:
    network = ps.trace(randomised(Net()), SMALL)
    pruned = ps.slim(network, network.space.minimum, random_ranking(network)).train()
    plain, wrapped = (ps.compare(network, {"small": model}).rows[1] for model in (pruned, wrap(copy.deepcopy(pruned))))
    assert wrapped == plain
    assert pruned.training
