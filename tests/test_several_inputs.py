"""Networks with several inputs: by position, by name, or of several types; searched, trained and kept as any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import prunesearch as ps
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.models import nested
from prunesearch.models.network import Network
from prunesearch.models.saving import remembered_inputs
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.weights import InheritedWeights
from prunesearch.search.random_search import RandomSearcher
from prunesearch.structure import Structure
from prunesearch.training.data import Data
from tests.asking import asking

N = 72
PICTURES = torch.randn(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))
FACTS = torch.randn(N, 5, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(N) % 3
PACKED = torch.cat([PICTURES, F.pad(FACTS, (0, 59)).view(N, 1, 8, 8)], 1)
"""Both in one tensor."""
POSITIONAL, NAMED = (PICTURES, FACTS), {"facts": FACTS, "picture": PICTURES}


class Both(nn.Module):
    """Takes a picture and facts, and something that is left out here."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.inner = nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.Conv2d(12, 12, 3)
        self.embed, self.head = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, picture: Tensor, facts: Tensor, scale: Tensor | None = None) -> Tensor:
        features = self.inner(F.relu(self.norm(self.stem(picture)))).mean((2, 3)) + self.embed(facts)
        return self.head(F.relu(features if scale is None else features * scale))


class Packed(Both):
    """The same from one tensor, which is what this library could do from the beginning."""

    def forward(self, both: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(both[:, :1], both[:, 1, 0, :5])


class Words(nn.Module):
    """Takes numbers of words, and a mask."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.hidden, self.head = nn.Embedding(20, 16), nn.Linear(16, 24), nn.Linear(24, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        rows = F.relu(self.hidden(self.table(ids))) * mask[..., None]
        return self.head(rows.sum(1) / mask.sum(1, keepdim=True).clamp(min=1))


IDS = torch.randint(0, 20, (N, 7), generator=torch.Generator().manual_seed(2))
MASK = torch.arange(7) < 1 + torch.arange(N)[:, None] % 7

FORMS: dict[str, tuple[Any, Any]] = {
    "positional": (POSITIONAL, (POSITIONAL, LABELS)),
    "named": (NAMED, ({"picture": PICTURES, "facts": FACTS}, LABELS)),
    "items": (POSITIONAL, [((x, z), int(y)) for x, z, y in zip(PICTURES, FACTS, LABELS, strict=True)]),
    "named items": (
        NAMED,
        [({"picture": x.numpy(), "facts": z.numpy()}, y) for x, z, y in zip(PICTURES, FACTS, LABELS, strict=True)],
    ),
    "a list and labels": (
        NAMED,
        ([{"facts": z, "picture": x} for x, z in zip(PICTURES, FACTS, strict=True)], LABELS.tolist()),
    ),
    "a loader": (
        POSITIONAL,
        DataLoader([([x, z], int(y)) for x, z, y in zip(PICTURES, FACTS, LABELS, strict=True)], batch_size=8),
    ),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "sliced": {"evaluator_options": {"path": "sliced"}},
    "stacked": {"evaluator_options": {"path": "stacked"}},
    "agreement": {"metric": "agreement"},
    "compensated": {"weight_source": "compensated"},
    "reconstructed": {"weight_source": "reconstructed"},
    "adaptive_bn": {"evaluator": "adaptive_bn", "evaluator_options": {"batches": 3}},
    "precise_bn": {"evaluator": "precise_bn"},
    "taylor": {"criterion": "taylor"},
    "lfe": {"criterion": "lfe", "criterion_options": {"masks": 20, "images": 16}},
    "cap": {"criterion": "cap"},
    "convex": {"searcher": "convex"},
    "all images": {"race": False},
}


def traced(batch: Any = POSITIONAL, kind: Callable[[], nn.Module] = Both) -> Network:
    return ps.trace(kind(), nested.taken(batch, slice(2)))


def search(network: Network, data: Any, **settings: Any) -> ps.SearchResult:
    usual = {"budget": "macs=60%", "n_trials": 6, "searcher": "random"}
    return ps.search(network, Data(train=data, calibration=64), **asking(**{**usual, **settings}))


def history(result: ps.SearchResult) -> tuple[list[Structure], list[float]]:
    return [t.structure for t in result.trials], [float(t.score or 0.0) for t in result.trials]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_search_finds_what_it_finds_with_all_inputs_in_one_tensor(settings: dict[str, Any]) -> None:
    two, one = (
        search(traced(), FORMS["positional"][1], **settings),
        search(traced(PACKED, Packed), (PACKED, LABELS), **settings),
    )
    (structures, scores), (expected, others) = history(two), history(one)
    assert structures == expected
    assert scores == pytest.approx(others, abs=1e-5)
    difference = two.best.build()(*POSITIONAL) - one.best.build()(PACKED)
    assert float(difference.detach().abs().max()) < 1e-4


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_form_of_the_inputs_does_not_matter(form: tuple[Any, Any]) -> None:
    batch, data = form
    plain = search(traced(), FORMS["positional"][1])
    found = search(traced(batch), data)
    assert history(found) == history(plain)
    built, other = found.best.build(), plain.best.build()
    assert torch.equal(nested.called(built, batch), other(*POSITIONAL))
    assert ps.top1(built, batch, LABELS) == ps.top1(other, POSITIONAL, LABELS)


def test_a_module_is_traced_with_the_inputs_of_its_data() -> None:
    data = (NAMED, LABELS)
    found = ps.search(Both(), Data(train=data, calibration=64), budget="macs=60%", n_trials=6, searcher="random")
    assert history(found) == history(search(traced(NAMED), data))


@pytest.mark.parametrize("evaluator", ["accuracy", "precise_bn"])
def test_statistics_can_come_from_inputs_of_their_own(evaluator: str) -> None:
    def scores(batch: Any, network: Network, others: Any) -> list[float]:
        options = {"calibration": others}
        return history(search(network, (batch, LABELS), evaluator=evaluator, evaluator_options=options))[1]

    packed = scores(PACKED, traced(PACKED, Packed), PACKED[:40] + 1)
    others = {"picture": PICTURES[:40] + 1, "facts": FACTS[:40] + 1}
    assert scores(NAMED, traced(NAMED), others) == pytest.approx(packed, abs=1e-5)
    assert scores(NAMED, traced(NAMED), nested.taken(NAMED, slice(40))) != pytest.approx(packed, abs=1e-5)


def test_one_tensor_in_a_tuple_is_that_tensor() -> None:
    network = traced(PACKED, Packed)
    assert history(search(network, ((PACKED,), LABELS))) == history(search(network, (PACKED, LABELS)))


@pytest.mark.parametrize("path", ["sliced", "stacked"])
def test_numbers_of_words_with_a_mask_can_be_searched(path: str) -> None:
    network = traced((IDS, MASK), Words)
    result = search(network, ((IDS, MASK), LABELS), evaluator_options={"path": path}, images=64)
    assert len(result.trials) > 1
    for trial in result.trials:
        slimmed = result.best.weights.build(trial.structure).eval()
        chosen = Data(train=((IDS, MASK), LABELS), calibration=64).calibration_set()
        loss = float(F.cross_entropy(slimmed(*chosen[0]), chosen[1]).detach())
        assert -float(trial.score or 0.0) == pytest.approx(loss, abs=1e-5)


def test_structures_run_together_give_what_each_gives_alone_and_inputs_stay() -> None:
    class Writes(Both):
        def forward(self, picture: Tensor, facts: Tensor, scale: Tensor | None = None) -> Tensor:
            return super().forward(picture, facts.view(-1, 5).relu_(), scale)

    network = traced(NAMED, Writes)
    weights = InheritedWeights(network, L1Criterion().rank(network))
    forward, before = SharedForward(weights), nested.mapped(NAMED, torch.clone)
    structures = [network.space.full, network.space.minimum]
    together = forward.run(structures, NAMED)
    alone = [forward.run([structure], NAMED)[0] for structure in structures]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert all(torch.equal(before[name], NAMED[name]) for name in NAMED)
    assert all(map(torch.equal, together, forward.run(structures, dict(reversed(NAMED.items())))))


def test_training_with_a_teacher_and_held_out_images_is_that_with_all_inputs_in_one_tensor() -> None:
    recipe = ps.Recipe(epochs=2, batch_size=16, lr=0.05, ema=0.5)

    def tuned(model: nn.Module, teacher: nn.Module, images: Any) -> nn.Module:
        with torch.no_grad():
            teacher.get_parameter("head.weight").mul_(3.0)
        return ps.finetune(model, Data((images, LABELS), validation=0.25), recipe=recipe, teacher=teacher)

    packed = tuned(Packed(), Packed(), PACKED).state_dict()
    for images in (POSITIONAL, NAMED):
        found = tuned(Both(), Both(), images).state_dict()
        assert any(not torch.equal(found[name], value) for name, value in Both().state_dict().items())
        for name, value in packed.items():
            torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-3)


def test_a_network_is_kept_with_its_inputs_and_exported(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    for batch in (POSITIONAL, NAMED):
        small = search(traced(batch), (batch, LABELS), n_trials=2).best.build()
        ps.save(small, path, example_inputs=batch)
        with torch.no_grad():
            expected = nested.called(small, batch)
            assert torch.equal(nested.called(ps.load(path, Both()).eval(), batch), expected)
            remembered = remembered_inputs(path)
            shapes = {name: x.shape for name, x in nested.parts_of(remembered).items()}
            assert shapes == {name: (2, *x.shape[1:]) for name, x in nested.parts_of(batch).items()}
            program = ps.export_program(small, remembered).module()
            torch.testing.assert_close(nested.called(program, batch), expected)


def test_pruned_networks_are_compared_on_test_images_and_timed() -> None:
    for batch in (POSITIONAL, NAMED):
        network, data = traced(batch), Data(train=(batch, LABELS), test=(batch, LABELS))
        small = search(network, (batch, LABELS), n_trials=2).best.build()
        rows = ps.compare(network, {"small": small}, data=data).rows
        assert [row.metric for row in rows] == [ps.top1(model, batch, LABELS) for model in (network.model, small)]
        assert rows[1].cost.macs < rows[0].cost.macs
        assert ps.measure_latency(small, batch, repeats=2).batch_size == N


@pytest.mark.slow
def test_latency_of_a_network_with_inputs_by_name_is_measured_by_layers_and_as_a_whole() -> None:
    network = traced(NAMED)
    table = ps.LatencyTable.measure(network, points=2, threads=1)
    small = search(network, (NAMED, LABELS), n_trials=2).best.build()
    rows = ps.compare(network, {"small": small}, table=table).rows
    assert all(row.latency_ms is not None and row.latency_ms > 0 for row in rows)
    assert not table.missing


def test_a_study_of_several_inputs_goes_on_where_it_was_and_refuses_other_data(tmp_path: Path) -> None:
    settings = {"study": f"sqlite:///{tmp_path}/study.db", "searcher": RandomSearcher}
    first = search(traced(NAMED), (NAMED, LABELS), n_trials=3, **settings)
    swapped = {"picture": PICTURES, "facts": FACTS}
    again = search(traced(NAMED), (swapped, LABELS), n_trials=5, **settings)
    assert history(again)[0][:3] == history(first)[0]
    assert again.name == first.name
    with pytest.raises(ps.StudyMismatch, match="data"):
        search(traced(NAMED), ({"picture": PICTURES, "facts": FACTS + 1}, LABELS), n_trials=5, **settings)


@pytest.mark.slow
def test_other_processes_score_several_inputs_alike() -> None:
    network = traced(NAMED)
    assert history(search(network, (NAMED, LABELS), workers=2)) == history(search(network, (NAMED, LABELS)))


def test_a_pruningnet_and_attention_learn_from_several_inputs() -> None:
    network = traced(NAMED)
    net = ps.PruningNet(network)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ps.train_pruningnet(net, Data((NAMED, LABELS), calibration=24), recipe=ps.PruningNetRecipe(epochs=1, batch_size=24))
    assert any(not torch.equal(before[name], value) for name, value in net.state_dict().items())
    pruned = ps.paam(network, (NAMED, LABELS), budget=ps.Budget(macs="80%"), recipe=ps.Recipe(epochs=5, batch_size=24))
    assert nested.called(pruned.model, NAMED).shape == (N, 3)


WRONG: dict[str, tuple[Any, str]] = {
    "one is missing": (({"picture": PICTURES}, LABELS), "picture: the input facts is missing"),
    "one too many": (({**NAMED, "scale": FACTS}, LABELS), "the input scale was not there"),
    "by position": ((POSITIONAL, LABELS), r"\(facts, picture\), got 0, 1: the input facts is missing"),
    "another shape": (
        ({"picture": PICTURES, "facts": FACTS[:, :4]}, LABELS),
        r"Expected the input facts of shape \(n, 5\) and type torch.float32",
    ),
    "another type": (({"picture": PICTURES, "facts": FACTS.double()}, LABELS), r"the input facts .* torch.float64"),
    "another number": (({"picture": PICTURES, "facts": FACTS[1:]}, LABELS), "picture has 72 and facts has 71"),
    "fewer labels": ((NAMED, LABELS[1:]), "72 images and 71 labels"),
    "a number": (({"picture": PICTURES, "facts": torch.tensor(1.0)}, LABELS), "facts is a single number"),
    "not finite": (
        ({"picture": PICTURES, "facts": FACTS / 0}, LABELS),
        "Some training images hold NaN or infinite values",
    ),
    "odd items": (
        [({"picture": PICTURES[0], "facts": FACTS[0]}, 0), ({"picture": PICTURES[1]}, 1)],
        "some have facts and some do not",
    ),
    "sizes of items": (
        [({"picture": PICTURES[0], "facts": FACTS[0]}, 0), ({"picture": PICTURES[1], "facts": FACTS[1, :4]}, 1)],
        r"Expected the input facts of one size, got \(\d,\) and \(\d,\)",
    ),
}


@pytest.mark.parametrize(("data", "sentence"), WRONG.values(), ids=WRONG)
def test_inputs_that_do_not_fit_are_named_in_a_sentence(data: Any, sentence: str) -> None:
    network = traced(NAMED)
    with pytest.raises(ValueError, match=sentence):
        search(network, data)


def test_what_needs_a_single_tensor_of_images_says_so() -> None:
    recipe = ps.Recipe(epochs=1, augmentation=ps.Augmentation(flip=True))
    with pytest.raises(ValueError, match="one tensor of images to augment, got several inputs"):
        ps.finetune(Both(), (POSITIONAL, LABELS), recipe=recipe)
    with pytest.raises(ValueError, match=r"ManiDP .* takes one tensor of images"):
        ps.manidp(traced(), (POSITIONAL, LABELS), budget=ps.Budget(macs="80%"), recipe=ps.Recipe(epochs=3))


def test_tensors_of_a_dataset_that_gives_all_in_a_row_need_a_label() -> None:
    with pytest.raises(ValueError, match="Expected labels"):
        Data(train=TensorDataset(PICTURES, FACTS, LABELS))


def test_batches_are_cut_joined_and_repeated_tensor_by_tensor() -> None:
    batch = {"a": torch.arange(6), "b": (torch.arange(12).view(6, 2), None)}
    pieces = nested.cut(batch, 4)
    assert [nested.size_of(piece) for piece in pieces] == [2, 2, 1, 1]
    other_order = [{"b": piece["b"], "a": piece["a"]} for piece in pieces[1:]]
    again = nested.joined([pieces[0], *other_order])
    assert torch.equal(again["a"], batch["a"])
    assert torch.equal(again["b"][0], batch["b"][0])
    assert again["b"][1] is None
    twice = nested.repeated(batch, 2)
    assert torch.equal(twice["b"][0][6:], batch["b"][0])
    assert nested.taken(batch, torch.tensor([5, 0]))["a"].tolist() == [5, 0]
    with pytest.raises(ValueError, match="without one"):
        nested.size_of({})
