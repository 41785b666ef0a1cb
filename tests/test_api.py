"""The main job in one call, on a real trained network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.errors import EvaluationFailed
from prunesearch.evaluators import batching
from prunesearch.evaluators.channels import CRITERIA, make_criterion
from prunesearch.models.devices import Devices
from prunesearch.models.graphs import Graphs
from prunesearch.models.hypernet_file import save_pruningnet
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.registry import resolve
from prunesearch.search import SEARCHERS
from prunesearch.search.conditional import ConditionalSearcher
from prunesearch.search.global_order import GlobalSearcher
from prunesearch.search.surrogate import SurrogateSettings
from prunesearch.structure import Structure
from prunesearch.study import workers as workers_module
from prunesearch.study.store import Store
from prunesearch.study.workers import Workers
from prunesearch.tasks.classify import labelled
from prunesearch.training.data import Data, balanced
from prunesearch.trial import Source
from tests.asking import asking
from tests.models_state import generators, state_of
from tests.toys import admits

BUDGET = ps.Budget(macs="45%")
_PLAIN = ps.Scoring()


def searched(network: Any, data: Any, *, scoring: Any = _PLAIN, **settings: Any) -> ps.SearchResult:
    """`ps.search` as a test gives it, with what takes least elsewhere.

    The default criterion takes half of a search, and with more than 64 images sensitivity curves come first.
    """
    if isinstance(scoring, ps.Scoring):
        criterion = "l1" if scoring.criterion == _PLAIN.criterion else scoring.criterion
        images = 64 if scoring.images is None and isinstance(scoring.evaluator, str) else scoring.images
        scoring = replace(scoring, criterion=criterion, images=images)
    return ps.search(network, data, scoring=scoring, **settings)


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_the_winner_is_an_ordinary_smaller_module_that_meets_the_budget(
    network: Network, digits_data: Data, searcher: str
) -> None:
    before = state_of(network.model), generators()
    result = searched(network, digits_data, budget=BUDGET, searcher=searcher, n_trials=10)
    small = result.best.build()
    assert (state_of(network.model), generators()) == before
    assert type(small) is type(network.model)
    assert ps.count(small, network.example_inputs) == result.best.cost
    assert admits(BUDGET.check(network.space), result.best.cost)
    assert all(trial.score is not None and trial.score <= result.best.trial.score for trial in result.trials)


def test_the_winners_batch_norm_statistics_are_its_own(network: Network, digits_data: Data) -> None:
    result = searched(network, digits_data, budget=BUDGET, n_trials=20)
    images, labels = digits_data.test_set()
    sliced = result.best.weights.build(result.best.structure).eval()
    assert ps.top1(result.best.build(), images, labels) > ps.top1(sliced, images, labels) + 0.1


def test_the_score_of_the_unpruned_network_is_recorded_beside_the_trials(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    result = searched(network, digits_data, budget=ps.Budget(macs="100%"), searcher="uniform", n_trials=1, study=url)
    assert result.best.structure == network.space.full
    with closing(Store(url, create=False)) as store:
        assert (store.summary("search") or {})["score_full"] == pytest.approx(result.best.trial.score)


def test_a_stored_study_goes_on_and_another_question_is_refused(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    part = searched(network, digits_data, budget=BUDGET, n_trials=8, study=url)
    more = searched(network, digits_data, budget=BUDGET, n_trials=16, study=url)
    assert more.trials[:8] == part.trials
    whole = searched(network, digits_data, budget=BUDGET, n_trials=16)
    assert [(t.structure, t.score) for t in more.trials] == [(t.structure, t.score) for t in whole.trials]
    changes: dict[str, dict[str, object]] = {
        "seed": {"seed": 1},
        "criterion": {"criterion": "random"},
        "weight_source": {"weight_source": "compensated"},
        "evaluator": {"metric": "accuracy"},
    }
    for field, change in changes.items():
        with pytest.raises(ps.StudyMismatch, match=f"its {field} is"):
            searched(network, digits_data, **asking(budget=BUDGET, n_trials=16, study=url, **change))
    with pytest.raises(ps.StudyMismatch, match="its budget is"):
        searched(network, digits_data, budget=ps.Budget(macs="40%"), n_trials=16, study=url, study_name="search")
    with closing(Store(url, create=False)) as store:
        assert store.studies() == ["search"]


def test_another_budget_is_a_new_study_of_the_file_and_takes_over_the_scores_that_apply(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    tighter = ps.Budget(macs="30%")

    def search(budget: ps.Budget, study: str = url, **more: object) -> ps.SearchResult:
        return searched(network, digits_data, budget=budget, n_trials=12, searcher="random", study=study, **more)  # type: ignore[arg-type]

    first = search(BUDGET)
    second = search(tighter)
    assert (first.name, second.name) == ("search", f"search {tighter}")
    assert all(admits(tighter.check(network.space), trial.cost) for trial in second.trials)
    fresh = search(tighter, study="sqlite://")
    assert [(t.structure, t.score) for t in second.trials] == [(t.structure, t.score) for t in fresh.trials]
    assert search(BUDGET).trials == first.trials  # the first question again: its study
    again = search(tighter, study_name="the same, elsewhere")
    assert [(t.structure, t.score) for t in again.trials] == [(t.structure, t.score) for t in fresh.trials]
    assert all(t.source is not None and t.seconds == 0.0 for t in again.trials)  # none was scored anew


@pytest.mark.parametrize("criterion", ["l1", "random", "lasso"])
def test_another_seed_takes_over_the_scores_only_if_the_same_channels_stay(
    network: Network, digits_data: Data, tmp_path: Path, criterion: str
) -> None:
    def search(seed: int, study: str, name: str) -> ps.SearchResult:
        scoring = ps.Scoring(criterion=criterion)
        own = {"searcher": "uniform", "n_trials": 1, "seed": seed, "study": study, "study_name": name}
        return searched(network, digits_data, budget=BUDGET, scoring=scoring, **own)

    url, other = (f"sqlite:///{tmp_path / name}" for name in ("one.db", "other.db"))
    search(0, url, "first")
    second, alone = search(1, url, "second"), search(1, other, "second")
    assert (second.best.trial.source is not None) == (criterion == "l1")  # which draws nothing
    assert second.best.trial.score == alone.best.trial.score
    third = search(0, url, "third")
    assert third.best.trial.source == Source("first", 0)


def test_the_winner_can_be_built_with_other_weights_than_were_scored(network: Network, digits_data: Data) -> None:
    images, labels = digits_data.calibration_set()
    plain = searched(network, digits_data, budget=ps.Budget(macs="30%"), searcher="uniform")
    fitted = searched(
        network, digits_data, budget=ps.Budget(macs="30%"), searcher="uniform", build_with="reconstructed"
    )
    assert [(t.structure, t.score) for t in plain.trials] == [(t.structure, t.score) for t in fitted.trials]
    losses = [F.cross_entropy(result.best.build()(images), labels).item() for result in (plain, fitted)]
    assert losses[1] < losses[0]
    assert fitted.front()[0].weights.description == "reconstructed"
    with pytest.raises(ValueError, match="weight source"):
        searched(network, digits_data, budget=BUDGET, build_with="repainted")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, Workers(1, "processes", time_limit=60.0)])
def test_workers_give_the_history_of_one_process(network: Network, digits_data: Data, workers: int | Workers) -> None:
    def history(**more: object) -> list[tuple[object, ...]]:
        found = searched(network, digits_data, budget=BUDGET, n_trials=20, searcher="evolution", **asking(**more))
        return [(trial.number, trial.structure, trial.score) for trial in found.trials]

    assert history(workers=workers) == history()


def test_that_stacks_could_not_be_captured_is_noted(
    network: Network, digits_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Graphs, key: Any, work: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
        self.trouble = "It waits for the GPU."
        return work(*inputs)

    monkeypatch.setattr(batching, "paths_on", lambda device: ["stacked+graph"])
    monkeypatch.setattr(Graphs, "run", run)
    scoring = ps.Scoring(race=False, images=16, evaluator_options={"path": "stacked+graph"})
    result = searched(network, digits_data, budget=BUDGET, searcher="uniform", n_trials=1, scoring=scoring)
    assert "Stacks ran without a CUDA graph: It waits for the GPU." in result.notes


@pytest.mark.parametrize(
    ("race", "asynchronous"), [(True, False), (False, False), (False, True)], ids=["races", "in order", "as finished"]
)
def test_local_processes_share_out_the_gpus(
    network: Network, digits_data: Data, monkeypatch: pytest.MonkeyPatch, race: bool, asynchronous: bool
) -> None:
    def started(given: Workers, payload: bytes, cards: Sequence[str]) -> Any:
        raise EvaluationFailed(f"{given.count} processes on {' and '.join(cards)}")

    monkeypatch.setattr(Devices, "shared_out", lambda self, device, asked: ("4", "6"))
    monkeypatch.setattr(workers_module, "_backend", started)
    scoring, running = ps.Scoring(race=race), ps.Running(workers=2, asynchronous=asynchronous)
    with pytest.raises(EvaluationFailed, match="2 processes on 4 and 6"):
        searched(network, digits_data, budget=BUDGET, searcher="random", n_trials=4, scoring=scoring, running=running)


@pytest.mark.slow
def test_giving_up_the_order_is_part_of_the_question(network: Network, digits_data: Data, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for n_trials in (6, 12):
        found = searched(
            network,
            digits_data,
            budget=BUDGET,
            n_trials=n_trials,
            searcher="random",
            study=url,
            running=ps.Running(asynchronous=True),
        )
        assert len({trial.structure for trial in found.trials}) == n_trials
    with pytest.raises(ps.StudyMismatch, match="its order is 'as finished'"):
        searched(
            network,
            digits_data,
            budget=BUDGET,
            n_trials=12,
            searcher="random",
            study=url,
            scoring=ps.Scoring(race=False),
        )


def test_a_password_in_the_url_is_not_printed_with_the_result(network: Network, digits_data: Data) -> None:
    result = searched(network, digits_data, budget=BUDGET, searcher="uniform")
    assert "secret" not in repr(replace(result, study="postgresql://me:secret@server/studies"))


def test_changed_weights_data_or_space_are_another_question(
    network: Network, digits_data: Data, images: Tensor, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    searched(network, digits_data, budget=BUDGET, n_trials=4, study=url)
    retrained = copy.deepcopy(network.model)
    next(retrained.parameters()).data.mul_(1.001)
    other_data = Data(train=digits_data.train, calibration=255)
    for field, traced, data in (
        ("model", ps.trace(retrained, images[:2]), digits_data),
        ("space", ps.trace(network.model, images[:2], round_to=2), digits_data),
        ("data", network, other_data),
    ):
        with pytest.raises(ps.StudyMismatch, match=f"its {field} is"):
            searched(traced, data, budget=BUDGET, n_trials=4, study=url)


def test_another_calibration_image_is_another_question_although_it_scores_nothing(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    pixels, labels = digits_data.calibration_set()
    data = Data(train=digits_data.train, calibration=256, calibrate_on=(pixels, labels))
    searched(network, data, budget=BUDGET, n_trials=4, scoring=ps.Scoring(images=64), study=url)
    used, classes = data.calibration_set()
    last = used[balanced(classes.numpy(), 256)[-1]]
    changed = torch.where((pixels == last).flatten(1).all(dim=1).reshape(-1, 1, 1, 1), pixels + 0.1, pixels)
    other = Data(train=digits_data.train, calibration=256, calibrate_on=(changed, labels))
    with pytest.raises(ps.StudyMismatch, match="its data is"):
        searched(network, other, budget=BUDGET, n_trials=4, scoring=ps.Scoring(images=64), study=url)


def test_the_global_searcher_orders_units_by_the_criterions_scores(network: Network, digits_data: Data) -> None:
    found = {
        criterion: searched(
            network, digits_data, budget=BUDGET, searcher="global", scoring=ps.Scoring(criterion=criterion)
        ).best
        for criterion in ("l1", "taylor")
    }
    images, labels = digits_data.calibration_set()
    for criterion, winner in found.items():
        ranking = make_criterion(criterion).rank(network, labelled(images, labels))
        assert isinstance(ranking, NestedRanking)
        assert ranking.scores is not None
        asked = GlobalSearcher(network.space, BUDGET, unit_scores=ranking.scores).ask(1)
        assert [winner.structure] == asked
    assert found["l1"].structure != found["taylor"].structure
    with pytest.raises(ValueError, match="scores can be compared between groups"):
        searched(network, digits_data, budget=BUDGET, searcher="global", scoring=ps.Scoring(criterion="genetic"))


def test_options_of_the_criterion_reach_it_and_belong_to_the_question(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    def find(**options: object) -> ps.SearchResult:
        url = f"sqlite:///{tmp_path / 'study.db'}"
        scoring = ps.Scoring(criterion="lfe", criterion_options=options)
        return searched(network, digits_data, budget=BUDGET, n_trials=2, scoring=scoring, study=url)

    assert "linear models of the criterion lfe" in find(masks=20, images=32).notes[0]
    with pytest.raises(ps.StudyMismatch, match="its criterion is"):
        find(masks=30, images=32)
    with pytest.raises(TypeError, match="magic"):
        find(magic=1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"budget": ps.Budget(macs="0.01%")}, ps.InfeasibleBudget, "The space reaches from"),
        ({"searcher": "magic"}, ValueError, "Unknown searcher 'magic'; there are uniform, random, evolution"),
        ({"criterion": "magic"}, ValueError, "Unknown channel criterion"),
        ({"metric": "magic"}, ValueError, "Unknown metric"),
        ({"n_trials": 0}, ValueError, "^Expected n_trials >= 1, got 0.$"),
        ({"n_trials": 2.5}, TypeError, "^Expected n_trials as a whole number, got 2.5.$"),
        ({"seed": -1}, ValueError, "^Expected seed >= 0, got -1.$"),
        ({"seed": None}, TypeError, "^Expected seed as a whole number, got None.$"),
        ({"images": 0}, ValueError, "^Expected images >= 1, got 0.$"),
        ({"workers": 0}, ValueError, "^Expected at least one worker, or -1 for one per core, got 0.$"),
        ({"workers": "two"}, TypeError, "^Expected workers as a whole number, got 'two'.$"),
        ({"callbacks": [1]}, TypeError, "^Expected callbacks as functions that take an Event, got 1.$"),
        ({"callbacks": 1}, TypeError, "^Expected callbacks as functions that take an Event, got 1.$"),
        ({"budget": "50%"}, ValueError, r'got \'50%\'\. Did you mean "macs=50%"\?$'),
        ({"budget": 0.5}, TypeError, 'Expected budget as Budget.*or as a text such as "macs=50%"; got 0.5.$'),
        ({"searcher": 3}, TypeError, r"as an object with ask\(n\), tell\(trials\), or as a class .*; got 3.$"),
        (
            {"evaluator": nn.ReLU()},
            TypeError,
            r"an object with description, score\(structures\), .*got an object of ReLU",
        ),
        ({"criterion": nn.ReLU()}, TypeError, r"with rank\(network, examples\), or .*; got an object of ReLU"),
        (
            {"criterion": NestedRanking},
            TypeError,
            "NestedRanking breaks the contract Criterion: it cannot be made from",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    network: Network, digits_data: Data, tmp_path: Path, change: dict[str, object], error: type[Exception], message: str
) -> None:
    arguments = {"budget": BUDGET, "n_trials": 4, "study": f"sqlite:///{tmp_path / 'study.db'}", **change}
    with pytest.raises(error, match=message):
        searched(network, digits_data, **asking(**arguments))
    assert list(tmp_path.iterdir()) == []


def test_images_of_another_shape_and_labels_beyond_the_outputs_are_refused(network: Network) -> None:
    labels = torch.arange(20) % 10
    with pytest.raises(ValueError, match=r"Expected images of shape \(n, 1, 8, 8\).*got \(20, 3, 8, 8\)"):
        searched(network, Data(train=(torch.randn(20, 3, 8, 8), labels)), budget=BUDGET)
    with pytest.raises(ValueError, match=r"Expected labels from 0 to 9.*got 0 to 10"):
        searched(network, Data(train=(torch.randn(22, 1, 8, 8), torch.arange(22) % 11)), budget=BUDGET)


def test_a_tensor_of_the_network_that_is_not_finite_is_named_before_anything_is_computed(
    network: Network, digits_data: Data, images: Tensor, tmp_path: Path
) -> None:
    model = copy.deepcopy(network.model)
    name, weight = list(model.named_parameters())[7]
    weight.data.view(-1)[3] = float("nan")
    broken = ps.trace(model, images[:2])
    for settings in ({}, {"criterion": "taylor"}, {"weight_source": "reconstructed"}, {"evaluator": "adaptive_bn"}):
        with pytest.raises(ValueError, match=f"The tensor {name} of the network has a NaN"):
            searched(broken, digits_data, budget=BUDGET, study=f"sqlite:///{tmp_path / 's.db'}", **asking(**settings))
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_not_finite_are_refused_also_those_of_the_evaluator(
    network: Network, digits_data: Data, images: Tensor, labels: Tensor
) -> None:
    broken = images.clone()
    broken[5, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="images hold NaN or infinite values"):
        searched(network, Data(train=(broken, labels), calibration=256), budget=BUDGET, n_trials=2)
    with pytest.raises(ValueError, match="the first of them at index 5"):
        searched(
            network,
            digits_data,
            budget=BUDGET,
            n_trials=2,
            scoring=ps.Scoring(evaluator_options={"calibration": broken}),
        )


def test_generated_weights_that_are_not_finite_are_named(network: Network, digits_data: Data, tmp_path: Path) -> None:
    net = ps.PruningNet(network)
    for parameter in net.parameters():
        parameter.data.fill_(float("nan"))
    save_pruningnet(net, tmp_path / "net.safetensors")
    source = f"generated:{tmp_path / 'net.safetensors'}"
    with pytest.raises(ValueError, match=r"conv1\.weight of the network has a NaN"):
        searched(network, digits_data, budget=BUDGET, n_trials=2, scoring=ps.Scoring(weight_source=source))


def test_a_criterion_that_the_weight_source_does_not_ask_is_not_computed_and_no_part_of_the_question(
    network: Network, digits_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pruningnet(ps.PruningNet(network), tmp_path / "net.safetensors")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    asked: list[str] = []
    for name in CRITERIA:
        kind = resolve(CRITERIA, name, "criterion")
        rank = kind.rank
        monkeypatch.setattr(kind, "rank", lambda self, *given, rank=rank: asked.append("") or rank(self, *given))

    def find(criterion: str, **settings: object) -> list[tuple[tuple[int, ...], float | None]]:
        arguments = {"budget": BUDGET, "searcher": "random", "n_trials": 3, "study": url, **settings}
        source = f"generated:{tmp_path / 'net.safetensors'}"
        found = searched(network, digits_data, **asking(criterion=criterion, weight_source=source, **arguments))
        return [(trial.structure, trial.score) for trial in found.trials]

    first = find("l1")
    assert find("taylor") == find("lfe", criterion_options={"masks": 20}) == first
    assert asked == []
    with closing(Store(url, create=False)) as store:
        assert store.studies() == ["search"]
        assert "criterion" not in (store.question("search") or {})
    assert find("l1", build_with="inherited") == first  # the winner's weights want to know which channels stay
    assert len(asked) == 1
    with pytest.raises(ValueError, match="Unknown channel criterion 'magic'"):
        find("magic")


def test_a_network_that_returns_no_logits_is_refused() -> None:
    network = ps.trace(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 2, 3)), torch.randn(2, 1, 8, 8))
    with pytest.raises(ValueError, match="Expected a classifier that returns"):
        searched(network, Data(train=(torch.randn(4, 1, 8, 8), torch.zeros(4).long())), budget=BUDGET)


def test_new_trials_are_reported_and_recorded_ones_are_not(network: Network, digits_data: Data, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    seen: list[ps.Event] = []
    searched(network, digits_data, budget=BUDGET, n_trials=4, study=url, running=ps.Running(callbacks=[seen.append]))
    result = searched(
        network, digits_data, budget=BUDGET, n_trials=6, study=url, running=ps.Running(callbacks=[seen.append])
    )
    assert tuple(event.trial for event in seen) == result.trials
    assert [event.n_trials for event in seen] == [4] * 4 + [6] * 2
    assert seen[-1].best == result.best.trial
    store = Store(url)
    assert tuple(store.trials("search")) == result.trials
    store.close()


def test_options_reach_the_searcher_and_are_part_of_the_question(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    settings = SurrogateSettings(startup=4)
    result = searched(network, digits_data, budget=BUDGET, n_trials=8, options={"settings": settings})
    plain = searched(network, digits_data, budget=BUDGET, n_trials=8)
    assert [t.structure for t in result.trials] != [t.structure for t in plain.trials]
    with pytest.raises(TypeError, match="nonsense"):
        searched(network, digits_data, budget=BUDGET, n_trials=8, options={"nonsense": 1})
    url = f"sqlite:///{tmp_path / 'study.db'}"
    searched(network, digits_data, budget=BUDGET, n_trials=2, study=url)
    with pytest.raises(ps.StudyMismatch, match="its searcher is"):
        searched(network, digits_data, budget=BUDGET, study=url, study_name="search", options={"settings": settings})
    beside = searched(network, digits_data, budget=BUDGET, n_trials=2, study=url, options={"settings": settings})
    assert beside.name.startswith("search surrogate(settings=")


def test_settings_can_be_given_one_by_one(network: Network, digits_data: Data) -> None:
    whole = SurrogateSettings(startup=4, batch_size=2)
    one_by_one = {"startup": 4, "batch_size": 2}
    results = [
        searched(network, digits_data, budget=BUDGET, n_trials=8, options=options)
        for options in ({"settings": whole}, one_by_one)
    ]
    assert [t.structure for t in results[0].trials] == [t.structure for t in results[1].trials]
    options = {"settings": whole, "startup": 3, "batch_size": 2}
    with pytest.raises(TypeError, match="either settings or batch_size, startup"):
        searched(network, digits_data, budget=BUDGET, n_trials=8, options=options)


def test_few_images_score_and_all_re_estimate_the_winners_statistics(network: Network, digits_data: Data) -> None:
    result = searched(network, digits_data, budget=BUDGET, n_trials=3, scoring=ps.Scoring(images=256))
    assert {trial.images for trial in result.trials} <= {64, 128, 256, digits_data.calibration}
    assert len(result.best.calibration) == digits_data.calibration
    assert f"images={digits_data.calibration}" in result.best.trial.evaluator
    fewer = searched(network, digits_data, budget=BUDGET, n_trials=3, scoring=ps.Scoring(images=64, race=False))
    assert {trial.images for trial in fewer.trials} == {64}
    with pytest.raises(ValueError, match="images >= 1"):
        searched(network, digits_data, budget=BUDGET, n_trials=3, scoring=ps.Scoring(images=0))


def test_compensated_weights_are_found_scored_and_built(network: Network, digits_data: Data) -> None:
    images, labels = digits_data.test_set()
    inherited, compensated = (
        searched(network, digits_data, budget=BUDGET, searcher="uniform", scoring=ps.Scoring(weight_source=source)).best
        for source in ("inherited", "compensated")
    )
    assert inherited.structure == compensated.structure
    assert ps.top1(compensated.build(), images, labels) > ps.top1(inherited.build(), images, labels)


def test_one_study_answers_several_budgets(network: Network, digits_data: Data) -> None:
    result = searched(network, digits_data, budget=ps.Budget(macs="60%"), searcher="nsga2", n_trials=60)
    front = result.front()
    assert len(front) >= 3
    assert [w.cost.macs for w in front] == sorted(w.cost.macs for w in front)
    assert [w.trial.score or 0.0 for w in front] == sorted(w.trial.score or 0.0 for w in front)
    assert front[-1].trial == result.best.trial
    tighter = ps.Budget(macs="45%")
    found = result.within(tighter)
    assert admits(tighter.check(network.space), found.cost)
    assert ps.count(found.build(), network.example_inputs) == found.cost
    with pytest.raises(ValueError, match="None of 60 trials meets the budget macs="):
        result.within(ps.Budget(macs=network.space.cost(network.space.minimum).macs))


CONDITIONAL = {"shares": (1.0, 0.7), "warmup": 8, "updates": 1}


@pytest.mark.slow
def test_the_learnt_policy_answers_a_share_that_was_never_tried_and_its_network_can_be_built(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"

    def search(n_trials: int, study: str = "sqlite://") -> ps.SearchResult:
        arguments = {"searcher": "conditional", "options": CONDITIONAL, "study": study}
        return searched(network, digits_data, budget=BUDGET, n_trials=n_trials, **arguments)  # type: ignore[arg-type]

    search(21, url)
    result = search(40, url)
    replayed, in_one_go = search(40, url), search(40)
    feasible = BUDGET.check(network.space)
    for share in (0.85, 0.55):
        structure = result.policy(share)
        assert share - 0.1 < feasible.usage([structure])[0] <= share
        assert structure == result.policy(share) == replayed.policy(share) == in_one_go.policy(share)
    small = result.build(structure)
    assert not small.training
    assert ps.count(small, network.example_inputs) == network.space.cost(structure)
    assert state_of(small) != state_of(result.best.weights.build(structure))  # it has statistics of its own
    assert state_of(result.build(result.best.structure)) == state_of(result.best.build())


@pytest.mark.parametrize("asynchronous", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_policy_has_learnt_from_every_trial_of_a_search_that_was_stopped(
    network: Network, digits_data: Data, asynchronous: bool
) -> None:
    result = searched(
        network,
        digits_data,
        budget=BUDGET,
        searcher="conditional",
        n_trials=60,
        options={"warmup": 64, "batch_size": 64},
        running=ps.Running(callbacks=lambda event: event.trial.number == 20, asynchronous=asynchronous),
    )
    assert isinstance(result.searcher, ConditionalSearcher)
    assert len(result.searcher.told) == len(result.trials) == 21


def test_a_share_that_no_policy_can_answer_is_refused(network: Network, digits_data: Data) -> None:
    plain = searched(network, digits_data, budget=BUDGET, searcher="random", n_trials=2)
    with pytest.raises(ValueError, match=r"learns a policy \(conditional\); random learns none"):
        plain.policy(0.8)
    result = searched(network, digits_data, budget=BUDGET, searcher="conditional", n_trials=2)
    with pytest.raises(ValueError, match=r"^Expected a share of the budget in \(0, 1\], got 2.$"):
        result.policy(2)
    with pytest.raises(TypeError, match=r"^Expected a share of the budget as a number, got 'half'.$"):
        result.policy("half")  # type: ignore[arg-type]
    with pytest.raises(ps.InfeasibleBudget, match="the narrowest structure has"):
        result.policy(0.001)
    with pytest.raises(ValueError, match="one width per group"):
        result.build((1, 2))


def test_numpys_integers_will_do_and_a_trial_is_on_disk_when_it_is_reported(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    import numpy as np

    url = f"sqlite:///{tmp_path / 'study.db'}"

    def look(event: ps.Event) -> None:
        store = Store(url, create=False)
        assert store.trials("search")[-1] == event.trial
        store.close()

    budget = BUDGET
    searched(
        network,
        digits_data,
        budget=budget,
        n_trials=np.int64(3),
        seed=np.int64(0),
        study=url,
        running=ps.Running(callbacks=[look]),
    )  # type: ignore[arg-type]
    assert len(searched(network, digits_data, budget=budget, n_trials=3, study=url).trials) == 3


@pytest.mark.parametrize(
    ("settings", "measures", "shown"),
    [
        ({}, "loss", lambda score: f"{-score:.3g}"),
        ({"metric": "accuracy"}, "accuracy", lambda score: f"{score:.1%}"),
        ({"metric": "agreement"}, "agreement", lambda score: f"{score:.1%}"),
        ({"evaluator": "adaptive_bn"}, "accuracy", lambda score: f"{score:.1%}"),
    ],
)
def test_the_result_reads_as_a_sentence_about_what_was_measured(
    network: Network, digits_data: Data, settings: dict[str, Any], measures: str, shown: Callable[[float], str]
) -> None:
    result = searched(network, digits_data, budget=BUDGET, searcher="uniform", **asking(**settings))
    assert result.measures == measures
    assert result.unpruned is not None
    assert result.best.trial.score is not None
    judged = result.judged
    assert judged is not None
    own = "" if measures == "accuracy" else f", accuracy on 256 images {judged.winner:.1%} ({judged.unpruned:.1%})"
    facts = f"{measures} {shown(result.best.trial.score)} (unpruned {shown(result.unpruned)}){own}, "
    assert f"{facts}MACs {result.best.cost.macs:,} (" in str(result)
    assert judged.uniform_structure == result.best.structure
    assert judged.winner == ps.top1(result.best.build(), *digits_data.calibration_set())


def test_a_result_says_what_uniform_widths_reach_and_an_earlier_run_is_not_judged_again(
    network: Network, digits_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = f"sqlite:///{tmp_path / 's.db'}"
    first = searched(network, digits_data, budget=BUDGET, n_trials=12, study=study)
    judged = first.judged
    assert judged is not None
    by_itself = searched(network, digits_data, budget=BUDGET, searcher="uniform", n_trials=1)
    assert judged.uniform_structure == by_itself.best.structure
    assert judged.uniform_score == pytest.approx(by_itself.best.trial.score, abs=1e-6)
    assert f"uniform widths: loss {-by_itself.best.trial.score:.3g}, accuracy {judged.uniform:.1%}" in repr(first)
    monkeypatch.setattr("prunesearch.api.judge", None)
    assert searched(network, digits_data, budget=BUDGET, n_trials=12, study=study).judged == judged


def test_a_winner_that_is_built_with_other_weights_is_judged_by_these(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    study = f"sqlite:///{tmp_path / 's.db'}"

    def judged(build_with: str | None) -> tuple[float, float]:
        own = {"searcher": "uniform", "n_trials": 1, "study": study, "build_with": build_with}
        result = searched(network, digits_data, budget=ps.Budget(macs="30%"), **own)
        assert result.judged is not None
        return result.judged.winner, ps.top1(result.best.build(), *digits_data.calibration_set())

    first = judged(None)
    fitted = judged("reconstructed")
    assert fitted[0] == fitted[1] != first[0]
    assert judged("inherited") == first


def test_a_metric_that_fails_is_a_note_and_the_search_is_not_lost(network: Network, digits_data: Data) -> None:
    def broken(outputs: Tensor, batch: object) -> float:
        if len(outputs) > 8:  # more than what is tried before the search
            raise RuntimeError("not today")
        return 0.5

    data = replace(digits_data, task=replace(digits_data.goal, name="own", metric=broken))
    result = searched(network, data, budget=BUDGET, searcher="uniform", n_trials=1, scoring=ps.Scoring(metric="loss"))
    assert result.judged is None
    assert "not today" in result.notes[-1]


def test_the_score_of_the_unpruned_network_is_known_when_a_study_goes_on(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    whole = searched(network, digits_data, budget=ps.Budget(macs="100%"), searcher="uniform").best.trial.score
    for n_trials in (1, 2):
        result = searched(network, digits_data, budget=BUDGET, searcher="random", n_trials=n_trials, study=url)
        assert result.unpruned == pytest.approx(whole)


def test_a_search_races_and_the_winner_was_scored_on_all_images(network: Network, digits_data: Data) -> None:
    raced, whole = (
        searched(
            network,
            digits_data,
            budget=BUDGET,
            searcher="random",
            n_trials=40,
            scoring=ps.Scoring(race=race, images=256),
        )
        for race in (True, False)
    )
    assert [trial.structure for trial in raced.trials] == [trial.structure for trial in whole.trials]
    assert raced.best.trial.images == 256
    assert raced.best.trial.error == 0
    assert {trial.images for trial in raced.trials if trial.error > 0} <= {64, 128}
    scores = {trial.structure: trial.score for trial in whole.trials}
    assert scores[raced.best.structure] == pytest.approx(raced.best.trial.score, rel=0.1)  # BatchNorm of 64 images
    assert sum(trial.error > 0 for trial in raced.trials) > 20
    assert all(trial.error == 0 for trial in whole.trials)


@pytest.mark.slow
def test_a_race_with_workers_has_the_history_of_one_process(network: Network, digits_data: Data) -> None:
    one, two = (
        searched(
            network,
            digits_data,
            budget=BUDGET,
            n_trials=30,
            scoring=ps.Scoring(images=256),
            running=ps.Running(workers=workers),
        )
        for workers in (1, 2)
    )
    told = [(trial.structure, trial.score, trial.error, trial.parts) for trial in one.trials]
    assert told == [(trial.structure, trial.score, trial.error, trial.parts) for trial in two.trials]


@pytest.mark.parametrize(
    "searcher", ["surrogate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nsga2", "bayes"))]
)
def test_a_race_goes_on_as_if_it_was_never_interrupted(
    network: Network, digits_data: Data, tmp_path: Path, searcher: str
) -> None:
    def search(study: str, n_trials: int) -> list[tuple[object, ...]]:
        result = searched(
            network,
            digits_data,
            budget=BUDGET,
            searcher=searcher,
            n_trials=n_trials,
            scoring=ps.Scoring(images=256),
            study=study,
        )
        return [(trial.structure, trial.score, trial.error, trial.parts) for trial in result.trials]

    url = f"sqlite:///{tmp_path / 's.db'}"
    search(url, 13)
    whole = search("sqlite://", 20)
    assert search(url, 20) == whole
    with pytest.raises(ps.StudyMismatch, match="its evaluator is"):
        searched(
            network,
            digits_data,
            budget=BUDGET,
            searcher=searcher,
            scoring=ps.Scoring(images=256, race=False),
            study=url,
        )


def test_an_evaluator_of_ones_own_races_if_it_can_score_on_some_of_its_images(
    network: Network, digits_data: Data
) -> None:
    class Own:
        description = "own"

        def __init__(self, images: Sequence[int] = range(200)) -> None:
            self.n_images = len(images)
            self._hard = sum(image % 7 for image in images) / len(images)

        def on(self, images: Sequence[int]) -> Own:
            return Own(images)

        def score(self, structures: Sequence[Structure]) -> list[float]:
            return [sum(structure) / 100 - self._hard for structure in structures]

    result = searched(
        network, digits_data, budget=BUDGET, searcher="random", n_trials=30, scoring=ps.Scoring(evaluator=Own())
    )
    assert result.best.trial.images == 200
    assert min(trial.images or 0 for trial in result.trials) in (66, 67)
    assert sum(result.best.structure) == max(sum(trial.structure) for trial in result.trials)


def test_a_search_on_labels_of_something_else_says_so(network: Network, digits_data: Data) -> None:
    images, labels = digits_data.train
    wrong = Data(train=(images, labels.flip(0)), calibration=256)
    result = searched(network, wrong, budget=ps.Budget(macs="60%"), searcher="random", n_trials=2)
    assert "chance" in result.notes[0]


def test_a_result_says_what_its_weights_do_not_fit() -> None:
    images = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    layers = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 2, groups=2), nn.Flatten())
    result = searched(
        ps.trace(layers.eval(), images[:2]),
        images,
        budget="macs=60%",
        searcher="uniform",
        scoring=ps.Scoring(weight_source="compensated"),
        build_with="reconstructed",
        n_trials=1,
    )
    told = [note for note in result.notes if "keep their inherited weights" in note]
    assert ["compensated" in note for note in told] == [True, False]
    assert "reconstructed" in told[1]


@pytest.mark.parametrize("evaluator", ["adaptive_bn", pytest.param("precise_bn", marks=pytest.mark.slow)])
def test_the_protocols_of_the_papers_can_be_asked_for(network: Network, digits_data: Data, evaluator: str) -> None:
    result = searched(
        network,
        digits_data,
        budget=ps.Budget(macs="60%"),
        searcher="random",
        n_trials=2,
        scoring=ps.Scoring(evaluator=evaluator, evaluator_options={"batch_size": 32}),
    )
    assert all(0 <= trial.score <= 1 for trial in result.trials if trial.score is not None)
    assert evaluator in result.trials[0].evaluator


def test_statistics_can_be_estimated_on_images_of_their_own(network: Network, digits_data: Data) -> None:
    images, _ = digits_data.train
    result = searched(
        network,
        digits_data,
        budget=BUDGET,
        searcher="random",
        n_trials=2,
        scoring=ps.Scoring(evaluator_options={"calibration": images[:64]}),
    )
    assert "calibration=64" in result.trials[0].evaluator
