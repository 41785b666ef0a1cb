"""A slimmed network runs the caller's own code: only numbers of channels differ in it."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import random
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunesearch as ps
from tests.models.networks import image, names, proven, random_ranking

IMAGES = image(4, 3, 8, 8)


class Base(nn.Module):
    """Two convolutions and a classifier; a literal in `flat` counts channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1), nn.Linear(1024, 4)

    def flat(self, h: Tensor) -> Tensor:
        return self.f(h.view(-1, 1024))


class Flagged(Base):
    """What the code of a forward may hold besides operators."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax, self.drop, self.step, self.last = False, 0.0, 0, None

    def forward(self, x: Tensor, scale: float = 1.0, *, features: bool = False) -> Any:
        with torch.no_grad():
            h = self.a(x).relu()
        if self.training:
            self.step += 1
        h = self.b(h).relu() * scale
        h = h * (random.choice([0.5, 1.0, 2.0]) if self.training else 1.0)
        self.last = h
        out = self.f(F.dropout(h.view(-1, 1024), self.drop, self.training))
        if features:
            return out, h
        return out.softmax(1) if self.softmax else out


class Rounded(Base):
    """Half of it in 16 bits."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = self.b(self.a(x).relu()).relu()
        return self.f(h.float().view(-1, 1024))


class Inherited(Base):
    """A literal in a method of the parent, and one that is reached through `super`."""

    def flat(self, h: Tensor) -> Tensor:
        return super().flat(h) * 2

    def forward(self, x: Tensor) -> Tensor:
        return self.flat(self.b(self.a(x)))


class Own(Base):
    """Literals in a property's neighbour, a nested function, a comprehension, keywords and expressions."""

    def forward(self, x: Tensor) -> Tensor:
        channels = 8 * 2

        def flat(h: Tensor) -> Tensor:
            return h.reshape(shape=(len(x), channels * 64))

        parts = [part * 1.0 for part in self.b(self.a(x)).split(split_size=[12, 4], dim=1)]
        return self.f(flat(torch.cat(parts, 1)))


class Decorated(Base):
    """A forward beneath a decorator of torch."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.b(self.a(x)).view(-1, 1024))


class Scripted(Base):
    """Plain enough for TorchScript."""

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.b(self.a(x).relu()).relu().view(-1, 16 * 8 * 8))


def smallest(model: nn.Module) -> nn.Module:
    network = proven(model, IMAGES)
    return ps.slim(network, network.space.minimum, random_ranking(network)).eval()


def test_flags_that_are_set_later_do_what_they_do_in_the_callers_code() -> None:
    small: Any = smallest(Flagged())
    small.softmax = True
    assert torch.allclose(small(IMAGES).sum(1), torch.ones(4))
    small.softmax, small.drop = False, 0.9
    small.train()
    assert not torch.equal(small(IMAGES), small(IMAGES))


def test_contexts_random_draws_stored_features_and_counters_are_kept() -> None:
    small: Any = smallest(Flagged()).train()
    before = small.step
    small(IMAGES).sum().backward()
    assert small.a.weight.grad is None
    assert small.b.weight.grad is not None
    assert len({small(IMAGES).sum().item() for _ in range(40)}) == 3
    assert small.step == before + 41
    assert isinstance(small.last, Tensor)
    assert small.last.requires_grad


def test_arguments_with_defaults_may_be_given_later() -> None:
    small: Any = smallest(Flagged())
    out, features = small(IMAGES, 2.0, features=True)
    assert features.shape[1] == small.b.out_channels
    assert not torch.equal(out, small(IMAGES))


def test_autocast_is_at_work_in_the_slimmed_network_and_in_scores() -> None:
    network = ps.trace(Rounded().eval(), IMAGES)
    assert names(network) == ["a", "b"]
    small = ps.slim(network, network.space.minimum, random_ranking(network))
    seen: list[torch.dtype] = []
    small.b.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    small(IMAGES)
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize("kind", [Own, Decorated])
def test_numbers_in_any_corner_of_a_method_are_followed(kind: type[nn.Module]) -> None:
    assert names(proven(kind(), IMAGES)) == ["a", "b"] if kind is Decorated else names(proven(kind(), IMAGES))[0] == "a"


def test_a_number_in_a_method_that_was_overridden_is_left_alone() -> None:
    network = proven(Inherited(), IMAGES)
    assert names(network) == ["a"]
    assert "cannot be changed" in network.frozen["b"]


@pytest.mark.parametrize("kind", [Flagged, Scripted, Decorated])
def test_a_slimmed_network_is_pickled_saved_and_copied_as_the_unpruned_one(kind: type[nn.Module]) -> None:
    small = smallest(kind())
    file = io.BytesIO()
    torch.save(small, file)
    file.seek(0)
    with torch.no_grad():
        expected = small(IMAGES)
        assert torch.equal(torch.load(file, weights_only=False)(IMAGES), expected)
        assert torch.equal(pickle.loads(pickle.dumps(small))(IMAGES), expected)
        assert torch.equal(copy.deepcopy(small)(IMAGES), expected)
        assert torch.equal(pickle.loads(pickle.dumps(copy.deepcopy(small)))(IMAGES), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_a_slimmed_network_is_scripted_as_the_unpruned_one() -> None:
    small = smallest(Scripted())
    with torch.no_grad():
        assert torch.allclose(torch.jit.script(small)(IMAGES), small(IMAGES))


def outputs_of(model: nn.Module, images: Tensor, results: Any) -> None:
    with torch.no_grad():
        results.put(model(images).tolist())


@pytest.mark.slow
def test_a_slimmed_network_goes_to_a_process_that_is_spawned() -> None:
    small = smallest(Scripted())
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=outputs_of, args=(small, IMAGES, results))
    process.start()
    received = torch.tensor(results.get(timeout=120))
    process.join()
    with torch.no_grad():
        assert torch.allclose(received, small(IMAGES))


def test_a_traceback_of_rewritten_code_shows_the_line_with_its_number() -> None:
    small = smallest(Scripted())
    with pytest.raises(RuntimeError) as caught:
        small(IMAGES[:, :, :5])
    shown = str(caught.getrepr())
    assert f"view(-1, {small.f.in_features})" in shown


class Warns(Base):
    """Warns once in a process, as torch does of some operators."""

    has_warned = False

    def forward(self, x: Tensor) -> Tensor:
        if not Warns.has_warned:
            Warns.has_warned = True
            warnings.warn("an operator of tomorrow", UserWarning, stacklevel=2)
        return self.f(torch.flatten(F.relu(self.b(F.relu(self.a(x)))), 1))


def test_a_warning_is_no_failure_to_a_caller_who_turned_warnings_into_errors() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("error")
        network = ps.trace(Warns(), IMAGES)
    assert [str(one.message) for one in shown] == ["an operator of tomorrow"]
    assert network.notes == ()
    assert not network.way.as_given
