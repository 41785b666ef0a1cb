"""The public calls on a device that is not the CPU: nothing is misplaced, and results are those of the CPU.

The card is pretended (`tests.pretended`), as tests have none. What it cannot show is speed, and rounding of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.evaluators import batching, gather, make_weights, ways
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.layer_inputs import layer_inputs
from prunesearch.evaluators.recalibration import Statistics
from prunesearch.evaluators.ways import Way
from prunesearch.evaluators.winner import Winner
from prunesearch.models.corrections import TrainedStatistics
from prunesearch.models.devices import device_of_module, fetched
from prunesearch.models.graphs import Graphs, Work
from prunesearch.models.hypernet_file import save_pruningnet
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Cost
from prunesearch.study.store import Store
from prunesearch.tasks.classify import labelled
from prunesearch.trial import Trial
from tests.models.test_graphs import pretended
from tests.pretended import DEVICE, Seen, card

pytestmark = pytest.mark.card
"""In a process of their own: autograd counts devices when it first runs, and knows no device that comes later."""

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(48, 3, 8, 8, generator=GENERATOR)
LABELS = torch.arange(48) % 4
EXAMPLES = labelled(IMAGES, LABELS)
DATA = ps.Data(train=(IMAGES, LABELS), test=(IMAGES, LABELS), validation=0.25, calibration=32)
SHORT = ps.Recipe(epochs=1, batch_size=16)


class Small(nn.Module):
    """A residual network with a constant of its own and a number that its forward reads off a width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.inner = nn.Conv2d(12, 16, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(16)
        self.outer = nn.Conv2d(16, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.outer(F.relu(self.inner_norm(self.inner(x)))) * torch.tensor(0.5, device=x.device)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    model = Small()
    ps.recalibrate_bn(model, IMAGES)
    return ps.trace(model.eval(), IMAGES[:2])


@pytest.fixture
def seen() -> Iterator[Seen]:
    with card() as counted:
        yield counted


def ranked(network: Network) -> NestedRanking:
    return NestedRanking(tuple(tuple(range(len(units))) for units in network.units))


def structures(network: Network, n: int = 3) -> list[tuple[int, ...]]:
    return [network.space.check(row.tolist()) for row in network.space.sample(np.random.default_rng(0), n)]


def kinds(model: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}


def test_a_misplaced_tensor_is_refused(seen: Seen) -> None:
    there = torch.ones(3, device=DEVICE)
    for wrong in (
        lambda: there + torch.ones(3),
        lambda: there.index_select(0, torch.tensor([1])),
        lambda: F.relu(there) @ torch.ones(3),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            wrong()
    assert (there * torch.tensor(2.0))[0].item() == 2.0
    assert seen.stops == 1


def test_several_tensors_are_fetched_in_their_shapes_and_waited_for_once(seen: Seen) -> None:
    some = [torch.arange(6.0).view(2, 3), torch.tensor(7.0), torch.zeros(0, 2)]
    there = [x.to(DEVICE) for x in some]
    before = seen.stops
    found = fetched(there)
    assert seen.stops == before + 1
    assert all(torch.equal(one, other) for one, other in zip(found, some, strict=True))


def test_a_network_is_moved_as_a_copy_and_traced_there(network: Network, seen: Seen) -> None:
    moved = network.to(DEVICE)
    assert kinds(moved.model) == {DEVICE}
    assert kinds(network.model) == {"cpu"}
    assert moved.to(DEVICE) is moved
    again = ps.trace(moved.model, IMAGES[:2].to(DEVICE))
    assert again.space == network.space
    assert moved.verify(2).largest_difference < 1e-5


CRITERIA = {
    **{"l1": 1, "l2": 1, "bn_scale": 2, "fpgm": 1, "cpmc": 1, "taylor": 1, "random": 0},
    **{"cap": 3, "lasso": 7, "genetic": 4},  # of two groups, which three layers read
}
"""How often each waits for the card: never once for each unit, mask or structure.

Whoever runs the network asks once, at the end, whether its forward wrote to it.
"""


@pytest.mark.parametrize(("name", "waits"), [*CRITERIA.items(), pytest.param("lfe", 12, marks=pytest.mark.slow)])
def test_criteria_choose_as_on_the_cpu_and_wait_a_few_times(
    network: Network, seen: Seen, name: str, waits: int
) -> None:
    width = [group.units // 2 for group in network.space.groups]
    here = make_criterion(name, seed=0).rank(network, EXAMPLES)
    moved, examples = network.to(DEVICE), EXAMPLES.to(DEVICE)
    before = seen.stops
    there = make_criterion(name, seed=0).rank(moved, examples)
    for group, units in enumerate(width):
        assert there.keep(group, units).tolist() == here.keep(group, units).tolist()
    assert seen.stops - before <= waits


def test_moments_are_summed_where_the_network_is(network: Network, seen: Seen) -> None:
    here = list(layer_inputs(network, IMAGES))
    moved, there = network.to(DEVICE), IMAGES.to(DEVICE)
    before = seen.stops
    found = list(layer_inputs(moved, there))
    assert seen.stops == before + 1  # whether the forward wrote to the network
    for mine, other in zip(found, here, strict=True):
        for name in ("mean", "covariance", "weights"):
            moment = getattr(mine, name)
            assert (moment.device.type, moment.dtype) == (DEVICE, torch.float64)
            torch.testing.assert_close(moment.cpu(), getattr(other, name))


def test_moments_of_a_cache_are_read_to_where_the_network_is(network: Network, seen: Seen, tmp_path: Path) -> None:
    here = list(layer_inputs(network, IMAGES, cache=tmp_path))
    for mine, other in zip(layer_inputs(network.to(DEVICE), IMAGES.to(DEVICE), cache=tmp_path), here, strict=True):
        assert mine.covariance.device.type == DEVICE
        assert torch.equal(mine.covariance.cpu(), other.covariance)


@pytest.mark.parametrize(("source", "waits"), [("compensated", 1), ("reconstructed", 0)])
def test_weights_are_fitted_where_the_network_is_and_no_layer_waits(
    network: Network, seen: Seen, source: str, waits: int
) -> None:
    chosen = structures(network)
    here = make_weights(source, network, ranked(network), IMAGES)
    moved, there = network.to(DEVICE), IMAGES.to(DEVICE)
    before = seen.stops
    weights = make_weights(source, moved, ranked(network), there)
    built = [weights.build(structure) for structure in chosen]
    assert seen.stops == before + waits
    assert seen.launches["_linalg_solve_ex"]
    for mine, structure in zip(built, chosen, strict=True):
        torch.testing.assert_close(mine.cpu().state_dict(), here.build(structure).state_dict(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "waits"), [("similarity", 6), ("errors", 4), ("curves", 1)])
def test_what_searchers_are_told_first_is_gathered_there(network: Network, seen: Seen, kind: str, waits: int) -> None:
    weights = InheritedWeights(network, ranked(network))
    expected = gather(kind, weights, AccuracyEvaluator(weights, EXAMPLES), IMAGES)
    weights, there = InheritedWeights(network.to(DEVICE), ranked(network)), IMAGES.to(DEVICE)
    evaluator = AccuracyEvaluator(weights, EXAMPLES.to(DEVICE), path="sliced")
    before = seen.stops
    found = gather(kind, weights, evaluator, there)
    assert seen.stops - before <= waits
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize("path", ["sliced", "stacked"])
@pytest.mark.parametrize("source", ["inherited", "compensated", "reconstructed"])
def test_scores_and_built_networks_are_those_of_the_cpu(network: Network, seen: Seen, source: str, path: Any) -> None:
    if (source, path) == ("reconstructed", "stacked"):
        pytest.skip("its normalisations differ by structure, which is refused")
    chosen, ranking, moved = structures(network), ranked(network), network.to(DEVICE)
    here = make_weights(source, network, ranking, IMAGES)
    there = make_weights(source, moved, ranking, IMAGES.to(DEVICE))
    expected = AccuracyEvaluator(here, EXAMPLES, path=path).score(chosen)
    assert AccuracyEvaluator(there, EXAMPLES.to(DEVICE), path=path).score(chosen) == pytest.approx(expected, abs=1e-5)
    built = there.build(chosen[0])
    ps.recalibrate_bn(built, IMAGES.to(DEVICE))
    assert kinds(built) == {DEVICE}


@pytest.mark.parametrize(
    ("source", "path", "uploads"),
    [
        ("inherited", "sliced", 60),
        ("inherited", "stacked", 8),
        ("compensated", "sliced", 140),
        ("compensated", "stacked", 140),
        ("reconstructed", "sliced", 260),
    ],
)
def test_scores_wait_for_the_card_once(network: Network, seen: Seen, source: str, path: Any, uploads: int) -> None:
    chosen = structures(network, 4)
    weights = make_weights(source, network.to(DEVICE), ranked(network), IMAGES.to(DEVICE))
    evaluator = AccuracyEvaluator(weights, EXAMPLES.to(DEVICE), path=path, batch_size=24)
    evaluator.score(chosen[:1])  # indices get there once
    before = seen.stops, seen.up
    evaluator.score(chosen)
    assert seen.stops - before[0] == 1
    assert seen.up - before[1] <= uploads


@pytest.mark.parametrize("path", ["sliced", "stacked"])
def test_a_layer_that_asks_for_a_number_is_counted(network: Network, seen: Seen, path: Any) -> None:
    """So that the test above fails where somebody writes `float(tensor)` into a forward."""
    evaluator = AccuracyEvaluator(InheritedWeights(network.to(DEVICE), ranked(network)), EXAMPLES.to(DEVICE), path=path)
    forward: Any = evaluator._forward
    real = forward.run_in

    def asking(*given: Any) -> Any:
        found, way = real(*given)
        assert float(found[0].sum()) != 0
        return found, way

    forward.run_in = asking
    before = seen.stops
    evaluator.score(structures(network))
    assert seen.stops - before == 2


@pytest.mark.parametrize("path", ["sliced", "stacked"])
def test_corrected_statistics_are_those_of_the_cpu(network: Network, seen: Seen, path: Any) -> None:
    chosen = structures(network)
    here, there = (InheritedWeights(each, ranked(each)) for each in (network, network.to(DEVICE)))
    expected = AccuracyEvaluator(here, EXAMPLES, path=path, statistics="corrected").score(chosen)
    evaluator = AccuracyEvaluator(there, EXAMPLES.to(DEVICE), path=path, statistics="corrected")
    assert evaluator.score(chosen) == pytest.approx(expected, abs=1e-5)
    stops = seen.stops
    assert evaluator.score(chosen) == pytest.approx(expected, abs=1e-5)
    assert seen.stops == stops + 1


@pytest.mark.parametrize("statistics", get_args(Statistics))
def test_winners_are_those_of_the_cpu(network: Network, seen: Seen, statistics: Any) -> None:
    (chosen,) = structures(network, 1)
    trial = Trial(0, chosen, Cost(1, 1), 0.0, None, 0.0, "", "", "")

    def built(traced: Network, images: Tensor) -> nn.Module:
        trained = TrainedStatistics(traced.model) if statistics == "corrected" else None
        return Winner(trial, InheritedWeights(traced, ranked(traced)), images, network.model, trained).build()

    mine, theirs = built(network, IMAGES), built(network.to(DEVICE), IMAGES.to(DEVICE))
    for one, other in zip(mine.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_elsewhere_than_on_a_cpu_the_faster_way_is_found_by_running_both(network: Network, seen: Seen) -> None:
    chosen, weights = structures(network, 4), InheritedWeights(network.to(DEVICE), ranked(network))
    evaluator = AccuracyEvaluator(weights, EXAMPLES.to(DEVICE))
    evaluator.score(chosen[:1])
    assert evaluator.way is None
    found = evaluator.score(chosen)
    assert evaluator.way is not None
    seconds = dict(evaluator.way.seconds)
    assert [*seconds] == ["sliced", "stacked", "stacked+channels_last"]
    assert evaluator.way.path == min(seconds, key=lambda path: seconds[path])
    assert not evaluator.way.left_out
    here = AccuracyEvaluator(InheritedWeights(network, ranked(network)), EXAMPLES)
    assert here.way == Way("sliced", 16)
    assert found == pytest.approx(here.score(chosen), abs=1e-5)
    assert evaluator.description == here.description


def wrongly_captured(work: Work, inputs: Sequence[torch.Tensor]) -> Work:
    return lambda *given: work(*given) * 0


def not_captured(work: Work, inputs: Sequence[torch.Tensor]) -> Work:
    raise RuntimeError("It waits for the card.")


@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (pretended, ""),
        (wrongly_captured, "Its outputs are not those of the other ways."),
        (not_captured, "It waits for the card."),
    ],
)
def test_graphs_are_among_the_ways_where_there_are_some_and_left_out_where_they_fail(
    network: Network, seen: Seen, monkeypatch: pytest.MonkeyPatch, capture: Any, reason: str
) -> None:
    monkeypatch.setattr(ways, "paths_on", lambda device: get_args(ways.Path)[1:])
    monkeypatch.setattr(batching, "paths_on", ways.paths_on)
    chosen, weights = structures(network, 4), InheritedWeights(network.to(DEVICE), ranked(network))
    evaluator = AccuracyEvaluator(weights, EXAMPLES.to(DEVICE))
    stacked: Any = evaluator._forward._stacked
    stacked.graphs = Graphs(capture)
    found = evaluator.score(chosen)
    way = evaluator.way
    assert way is not None
    graphed = {"stacked+graph", "stacked+channels_last+graph"}
    assert {path for path, _ in way.seconds} >= {"sliced", "stacked", "stacked+channels_last"}
    assert dict(way.left_out) == (dict.fromkeys(graphed, reason) if reason else {})
    assert graphed.isdisjoint(dict(way.seconds)) == bool(reason)
    here = AccuracyEvaluator(InheritedWeights(network, ranked(network)), EXAMPLES)
    assert found == pytest.approx(here.score(chosen), abs=1e-5)


@pytest.mark.parametrize("path", ["sliced", "stacked"])
def test_scores_in_16_bits_rank_structures_alike(network: Network, path: Any) -> None:
    chosen, weights = structures(network, 16), InheritedWeights(network, ranked(network))
    exact = AccuracyEvaluator(weights, EXAMPLES, path=path).score(chosen)
    evaluator = AccuracyEvaluator(weights, EXAMPLES, path=path, precision="bf16")
    rounded = evaluator.score(chosen)
    assert rounded == pytest.approx(exact, abs=1e-2)
    assert rounded != exact
    assert kendalltau(rounded, exact).statistic >= 0.98
    assert "precision=bf16" in evaluator.description


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adaptive_bn", "precise_bn"])
def test_the_protocols_of_papers_run_there(network: Network, seen: Seen, name: str) -> None:
    found = [
        ps.search(
            network,
            DATA,
            budget=ps.Budget(macs="90%"),
            searcher="uniform",
            n_trials=1,
            scoring=ps.Scoring(evaluator=name, evaluator_options={"calibration": IMAGES[:16]}),
            running=ps.Running(device=device),
        ).best.trial.score
        for device in ("cpu", DEVICE)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_a_search_moves_a_copy_and_gives_back_where_the_model_was(network: Network, seen: Seen) -> None:
    result = ps.search(network, DATA, budget="macs=60%", n_trials=4, running=ps.Running(device=DEVICE))
    assert seen.launches
    assert kinds(network.model) == kinds(result.best.build()) == kinds(result.build(result.trials[0])) == {"cpu"}
    assert result.best.unpruned is network.model
    here = ps.search(network, DATA, budget="macs=60%", n_trials=4, running=ps.Running(device="cpu"))
    assert [trial.structure for trial in here.trials] == [trial.structure for trial in result.trials]
    tuned = ps.finetune(
        result.best.build(), DATA, recipe=SHORT, teacher=network.model, study=result, device=torch.device(DEVICE)
    )
    again = ps.search(tuned, DATA, budget="macs=90%", n_trials=2, running=ps.Running(device=DEVICE))
    assert kinds(again.best.build()) == {"cpu"}


@pytest.mark.parametrize("path", ["sliced", "stacked"])
def test_generated_weights_score_there_as_on_the_cpu(network: Network, seen: Seen, tmp_path: Path, path: Any) -> None:
    save_pruningnet(ps.PruningNet(network), tmp_path / "net.safetensors")
    chosen, name = structures(network), f"generated:{tmp_path / 'net.safetensors'}"
    here = make_weights(name, network, None, IMAGES)
    there = make_weights(name, network.to(DEVICE), None, IMAGES.to(DEVICE))
    expected = AccuracyEvaluator(here, EXAMPLES, path=path).score(chosen)
    assert AccuracyEvaluator(there, EXAMPLES.to(DEVICE), path=path).score(chosen) == pytest.approx(expected, abs=1e-5)
    assert kinds(there.build(chosen[0])) == {DEVICE}


TARGETS: dict[str, tuple[Any, Callable[[], ps.Task]]] = {
    "regression": (torch.randn(48, 4, generator=GENERATOR), ps.tasks.regression),
    "multilabel": (torch.randint(0, 2, (48, 4), generator=GENERATOR).float(), ps.tasks.multilabel),
    "fidelity": (None, ps.tasks.fidelity),
}


@pytest.mark.parametrize("task", TARGETS)
def test_every_task_is_searched_and_finetuned_there(network: Network, seen: Seen, task: str) -> None:
    targets, make = TARGETS[task]
    data = ps.Data(train=IMAGES if targets is None else (IMAGES, targets), task=make())
    scoring = ps.Scoring(criterion="l1")
    found = [
        ps.search(network, data, budget="macs=60%", n_trials=2, scoring=scoring, running=ps.Running(device=device))
        for device in ("cpu", DEVICE)
    ]
    assert found[1].best.trial.score == pytest.approx(found[0].best.trial.score, abs=1e-5)
    tuned = ps.finetune(found[1].best.build(), data, recipe=SHORT, teacher=network.model, device=DEVICE)
    assert kinds(tuned) == {"cpu"}


def test_the_whole_job_and_a_comparison_are_done_there(network: Network, seen: Seen) -> None:
    small = ps.prune(network.model, DATA, "macs=60%", n_trials=2, recipe=SHORT, device=DEVICE)
    assert kinds(small) == {"cpu"}
    assert seen.launches["convolution_backward"]
    table = [str(ps.compare(network, {"small": small}, data=DATA, device=device)) for device in ("cpu", DEVICE)]
    assert table[0] == table[1]


@pytest.mark.slow
def test_pruning_in_steps_and_judging_by_finetuning_are_done_there(
    network: Network, seen: Seen, tmp_path: Path
) -> None:
    budgets, settings = ["macs=80%", "macs=60%"], {"n_trials": 2, "device": DEVICE}

    def train(model: nn.Module) -> nn.Module:
        return ps.finetune(model, DATA, recipe=SHORT, device=DEVICE)

    steps = ps.prune_in_steps(network.model, DATA, budgets, train, folder=tmp_path, **settings)  # type: ignore[arg-type]
    assert kinds(steps) == {"cpu"}
    verifier = ps.FinetuneVerifier(DATA, reach=0.0, recipe=SHORT, device=DEVICE)
    running = ps.Running(device=DEVICE)
    result = ps.search(network, DATA, budget="macs=60%", n_trials=2, verifiers=verifier, running=running)
    assert kinds(result.best.build()) == {"cpu"}


def test_a_network_there_is_written_and_read(network: Network, seen: Seen, tmp_path: Path) -> None:
    there = network.to(DEVICE).model
    ps.save(there, tmp_path / "network.safetensors")
    back = ps.load(tmp_path / "network.safetensors", Small())
    assert all(torch.equal(value, network.model.state_dict()[key]) for key, value in back.state_dict().items())


def test_the_inputs_of_an_export_are_brought_to_the_network(network: Network, seen: Seen) -> None:
    """What `torch.export` makes of tensors of this kind is its own matter."""
    asked: list[str] = []

    def export(model: nn.Module, positional: Any, by_name: Any, **_: Any) -> Any:
        asked.extend([*kinds(model), *(x.device.type for x in positional)])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.export, "export", export)
        ps.export_program(network.to(DEVICE).model, IMAGES[:2])
    assert asked == [DEVICE, DEVICE]


def test_a_way_that_was_chosen_there_is_in_the_study(network: Network, seen: Seen, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    settings: dict[str, Any] = {"budget": "macs=60%", "study": url, "running": ps.Running(device=DEVICE)}
    first = ps.search(network, DATA, n_trials=4, **settings)
    with closing(Store(url, create=False)) as store:
        way: Any = (store.summary(first.name) or {})["way"]
    assert (way["precision"], way["device"]) == ("fp32", DEVICE)
    assert {"sliced", "stacked", "stacked+channels_last"} <= {name for name, _ in way["seconds"]}
    before = seen.launches["convolution"]
    again = ps.search(network, DATA, n_trials=4, **settings)
    assert again.trials == first.trials
    assert seen.launches["convolution"] - before < 100  # none of the ways runs sixteen structures again
    here = ps.search(network, DATA, n_trials=6, **(settings | {"running": ps.Running(device="cpu")}))
    assert here.trials[:4] == first.trials


TRAININGS: dict[str, Callable[[Network], Any]] = {
    "finetune": lambda network: ps.finetune(network.model, DATA, recipe=SHORT, teacher=network.model, device=DEVICE),
    "paam": lambda network: (
        ps.paam(
            network, DATA, budget=ps.Budget(macs="80%"), recipe=ps.Recipe(epochs=5, batch_size=16), device=DEVICE
        ).model
    ),
    "manidp": lambda network: (
        ps.manidp(
            network, DATA, budget=ps.Budget(macs="80%"), recipe=ps.Recipe(epochs=3, batch_size=16), device=DEVICE
        ).model
    ),
    "layerwise": lambda network: (
        ps.layerwise(
            network,
            DATA,
            budget="macs=80%",
            recipe=SHORT,
            settings=ps.LayerwiseSettings(generations=1, scored=1),
            device=DEVICE,
        ).model
    ),
}


STEPPED: dict[str, Callable[[Network, int, Callable[[ps.StepReport], None]], Any]] = {
    "finetune": lambda network, size, on_step: ps.finetune(
        network.model, DATA, recipe=ps.Recipe(epochs=1, batch_size=size), on_step=on_step, device=DEVICE
    ),
    "paam": lambda network, size, on_step: ps.paam(
        network,
        DATA,
        budget=ps.Budget(macs="80%"),
        recipe=ps.Recipe(epochs=5, batch_size=size),
        settings=ps.AttentionSettings(every=1),
        on_step=on_step,
        device=DEVICE,
    ),
    "manidp": lambda network, size, on_step: ps.manidp(
        network,
        DATA,
        budget=ps.Budget(macs="80%"),
        recipe=ps.Recipe(epochs=3, batch_size=size),
        on_step=on_step,
        device=DEVICE,
    ),
    "pruningnet": lambda network, size, on_step: ps.train_pruningnet(
        ps.PruningNet(network),
        ps.Data(train=(IMAGES, LABELS), calibration=16),
        recipe=ps.PruningNetRecipe(epochs=1, batch_size=size, sampling="sandwich"),
        on_step=on_step,
        device=DEVICE,
    ),
}


@pytest.mark.parametrize(
    "name", ["finetune", *(pytest.param(name, marks=pytest.mark.slow) for name in ("paam", "manidp", "layerwise"))]
)
def test_what_is_trained_there_comes_back(network: Network, seen: Seen, name: str) -> None:
    before = copy.deepcopy(network.model.state_dict())
    trained = TRAININGS[name](network)
    assert seen.launches["convolution_backward"]
    assert kinds(trained) == {"cpu"}
    assert all(torch.equal(value, before[key]) for key, value in network.model.state_dict().items())


@pytest.mark.parametrize(
    "form", ["compact", *(pytest.param(form, marks=pytest.mark.slow) for form in ("published", "supernet"))]
)
def test_a_pruningnet_trained_there_is_that_of_the_cpu(network: Network, seen: Seen, form: Any) -> None:
    recipe = ps.PruningNetRecipe(epochs=1, batch_size=8, sampling="sandwich")
    data = ps.Data(train=(IMAGES, LABELS), calibration=16)
    nets = []
    for device in ("cpu", DEVICE):
        net = ps.PruningNet(network, form=form)
        ps.train_pruningnet(net, data, recipe=recipe, device=device)
        nets.append(net)
    assert device_of_module(nets[1]) == torch.device("cpu")
    for mine, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-3)


def test_statistics_are_estimated_with_one_wait_for_all_batches(network: Network, seen: Seen) -> None:
    """It is for NaN in the images, which the statistics would keep."""
    model = network.to(DEVICE).model
    there = IMAGES.to(DEVICE)
    before = seen.stops
    ps.recalibrate_bn(model, there, batch_size=16)
    assert seen.stops == before + 1
    ps.recalibrate_bn(here := copy.deepcopy(network.model), IMAGES, batch_size=16)
    torch.testing.assert_close(model.cpu().state_dict(), here.state_dict())


@pytest.mark.parametrize("form", ["compact", "supernet"])
def test_a_forward_of_a_pruningnet_keeps_nobody_waiting(network: Network, seen: Seen, form: Any) -> None:
    net = ps.PruningNet(network, form=form).to(DEVICE).train()
    first, *others = structures(network)
    there = IMAGES.to(DEVICE)
    net([first], there)
    before = seen.stops
    outputs = net(others, there)
    assert seen.stops == before
    net.cpu()
    for mine, other in zip(outputs, net(others, IMAGES), strict=True):
        torch.testing.assert_close(mine.cpu(), other)


@pytest.mark.parametrize(
    "name", ["finetune", *(pytest.param(name, marks=pytest.mark.slow) for name in ("paam", "manidp")), "pruningnet"]
)
def test_a_training_waits_for_the_card_once_a_step(network: Network, seen: Seen, name: str) -> None:
    found = []
    for batch_size in (16, 8):
        steps: list[ps.StepReport] = []
        before = seen.stops
        STEPPED[name](network, batch_size, steps.append)
        found.append((len(steps), seen.stops - before))
    (few, waits), (many, more_waits) = found
    assert many > few
    assert more_waits - waits == many - few


def test_objects_of_a_network_stay_with_it(network: Network, seen: Seen) -> None:
    weights = InheritedWeights(network, ranked(network))
    scoring = ps.Scoring(weight_source=weights)
    with pytest.raises(ValueError, match=r"its network is on cpu\. Make it of network\.to\('card'\)"):
        ps.search(network, DATA, budget="macs=60%", scoring=scoring, running=ps.Running(device=DEVICE))
