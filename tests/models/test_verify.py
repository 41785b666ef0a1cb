"""The proof itself: it must notice a network that is cut wrongly, and costs that are off by one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.models.verify import Verification
from prunesearch.models.zoo import make_model
from prunesearch.structure import Space, Term, Width
from tests.models.networks import SMALL, image, prove, randomised


@pytest.fixture(scope="module")
def network() -> Network:
    return trace(randomised(make_model("resnet8", image_size=6)), SMALL)


def test_a_right_network_passes_up_to_rounding(network: Network) -> None:
    found = network.verify(3)
    assert found.structures == 3
    assert found.costs_exact
    assert 0 < found.largest_difference < 1e-5 * found.scale


def test_the_same_seed_verifies_the_same_structures_and_another_seed_others(network: Network) -> None:
    assert network.verify(2, seed=1) == network.verify(2, seed=1)
    assert network.verify(2, seed=1) != network.verify(2, seed=2)


@pytest.mark.parametrize("tensor", ["layer1.0.bn1.running_mean", "layer2.0.bn2.weight", "layer3.0.conv2.weight"])
def test_entries_cut_in_the_wrong_order_are_noticed(network: Network, tensor: str) -> None:
    turned = [replace(cut, units=cut.units[::-1]) if cut.tensor == tensor else cut for cut in network.cuts]
    found = replace(network, cuts=tuple(turned)).verify(3)
    assert found.largest_difference > 1e-3 * found.scale


def test_padding_that_is_not_narrowed_with_its_stream_is_noticed(network: Network) -> None:
    counts = [c for c in network.counts if not (c.module == "layer2.0.shortcut" and c.attribute == "before")]
    with pytest.raises(ValueError, match=r"cannot run on .* must match the size"):
        replace(network, counts=tuple(counts)).verify(3)


@pytest.mark.parametrize("kind", ["macs_terms", "params_terms"])
def test_costs_that_are_off_by_one_are_noticed(network: Network, kind: str) -> None:
    terms: tuple[Term, ...] = getattr(network.space, kind)
    extra = Term("one", 1, Width(1), Width(1))
    space: Space = replace(network.space, **{kind: (*terms, extra)})
    assert not replace(network, space=space).verify(1).costs_exact


def test_outputs_that_are_not_numbers_are_reported_as_such() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    model[2].bias.data[0] = math.nan
    assert math.isnan(trace(model, image(2, 4)).verify(2).largest_difference)


@pytest.mark.parametrize("output", [lambda y: y > 0, lambda y: {"a": [y.argmax(1)]}, lambda y: (None, 3, y)])
def test_outputs_of_any_kind_of_tensor_in_any_container_are_compared(output: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

        def forward(self, x: Tensor) -> Any:
            return output(self.layers(x))

    found = trace(randomised(Net()), image(64, 4)).verify(4)
    assert found.scale > 0
    assert found.largest_difference <= 1e-5 * found.scale


def test_a_network_that_returns_no_tensor_cannot_be_verified() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

        def forward(self, x: Tensor) -> int:
            return self.layers(x).dim()

    with pytest.raises(TypeError, match="returns tensors, got int"):
        trace(Net(), image(2, 4)).verify(1)


class Picky(nn.Module):
    """Looks at the rows of the larger half of values only; how many these are is decided by the data."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Linear(6, 4)

    def forward(self, h: Tensor) -> Tensor:
        rows = h.permute(0, 2, 3, 1).reshape(-1, 6)
        if float(h.abs().max()) == 0.0:
            return rows.sum()
        return self.look(rows[rows[:, 0] > 0]).sum()


class Detecting(nn.Module):
    """A list of images, features of them, and a part that looks at what it picks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.neck, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1), Picky()

    def forward(self, images: list[Tensor]) -> Tensor:
        return self.head(self.neck(self.stem(torch.stack(images)).relu()))


def test_a_part_whose_cost_data_decide_is_counted_on_what_the_unpruned_network_gives_it() -> None:
    images = [*image(2, 3, 6, 6)]
    network = trace(randomised(Detecting()), (images,))
    assert list(network.leaves) == ["head"]
    prove(network, n=4)


def test_a_verification_prints_in_numbers_that_people_read() -> None:
    found = Verification(3, 1.1920928955078125e-07, 1.3500887155532837, True, 1.4119981955020528e-06)
    said = "largest difference: 1.2e-07 of 1.35, a share of 1.4e-06 in training mode, costs: exact"
    assert repr(found) == f"Verification(structures: 3, {said})"
