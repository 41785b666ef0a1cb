"""Verifiers: who looks at the winner itself, and what a search does with what they say."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import prunesearch as ps
from prunesearch.budget import FeasibleSet
from prunesearch.evaluators.winner import Winner
from prunesearch.report.contents import read
from prunesearch.structure import Structure
from prunesearch.study.store import Store
from prunesearch.verifiers import make_verifier
from tests.test_given import BUDGET, IMAGES, LABELS, network, search


class Refuses:
    """A verifier that refuses the first few winners, and says how the search is to go on."""

    def __init__(self, times: int, share: float | None = None, short: Sequence[float] = (3.0, 1.0, 2.0)) -> None:
        self.description = f"refuses(times={times}, share={share})"
        self.seen: list[Winner] = []
        self._times, self._share, self._short = times, share, short

    def verify(self, winner: Winner) -> ps.Verdict:
        self.seen.append(winner)
        number = len(self.seen)
        if number > self._times:
            return ps.Verdict(holds=True, facts={"number": number})
        limits = {} if self._share is None else {"macs": int(self._share * winner.cost.macs)}
        short = self._short[(number - 1) % len(self._short)]
        return ps.Verdict(False, f"It is {short:g} short.", limits=limits, shortfall=short)

    @property
    def structures(self) -> list[Structure]:
        return [winner.structure for winner in self.seen]


def test_a_winner_that_is_refused_without_lower_limits_is_followed_by_the_next_best_and_nothing_is_scored_again() -> (
    None
):
    plain = search()
    verifier = Refuses(times=2)
    found = search(verifiers=verifier)
    assert found.trials == plain.trials or [t.structure for t in found.trials] == [t.structure for t in plain.trials]
    assert verifier.structures == [winner.structure for winner in plain.top(3)]
    assert found.best.structure == verifier.structures[-1]
    assert [each.verdict.holds for each in found.verified] == [False, False, True]
    assert found.notes == plain.notes


def test_lower_limits_send_the_search_on_and_the_budget_is_never_loosened() -> None:
    verifier = Refuses(times=2, share=0.9)
    found = search(verifiers=[verifier], n_trials=8)
    assert len(found.trials) == 8 + 2 * 32
    costs = [winner.cost.macs for winner in verifier.seen]
    assert costs[1] <= 0.9 * costs[0]
    assert costs[2] <= 0.9 * costs[1]
    assert found.best.cost.macs == costs[2]
    wanted = BUDGET.check(network().space)
    assert wanted.contains([trial.structure for trial in found.trials]).all()


def test_if_nobody_holds_the_one_that_is_the_least_off_comes_back_with_a_note() -> None:
    verifier = Refuses(times=99)
    found = search(verifiers=verifier)
    assert len(verifier.seen) == 4  # all trials there are
    assert found.best.structure == verifier.structures[1]
    assert found.notes[-1] == "It is 1 short."


def test_six_rounds_are_the_most() -> None:
    verifier = Refuses(times=99, share=0.999)
    search(verifiers=verifier)
    assert len(verifier.seen) <= 7  # and the narrowest structure, so that it is known what could be reached
    assert verifier.structures[-1] == network().space.minimum


def test_several_verifiers_are_asked_in_their_order_until_one_refuses() -> None:
    first, second = Refuses(times=1), Refuses(times=1)
    second.description = "the second"
    found = search(verifiers=[first, second])
    assert [(each.verifier, each.verdict.holds) for each in found.verified] == [
        (first.description, False),
        (first.description, True),
        ("the second", False),
        (first.description, True),
        ("the second", True),
    ]


def test_a_study_remembers_what_was_said_and_a_later_run_asks_only_about_its_last_winner(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    first = Refuses(times=2, share=0.9)
    found = search(verifiers=first, study=url)
    with closing(Store(url, create=False)) as store:
        summary = store.summary("search") or {}
        assert len(store.studies()) == len(summary["rounds"]) == 3
        assert [each["structure"] for each in summary["verdicts"]] == [list(s) for s in first.structures]
        assert summary["verdicts"][-1]["facts"] == {"number": 3}
    again = Refuses(times=0, share=0.9)
    again.description = first.description
    more = search(verifiers=again, study=url)
    assert again.structures == [found.best.structure] == [more.best.structure]
    assert [t.structure for t in more.trials] == [t.structure for t in found.trials]


@pytest.mark.parametrize("share", [None, 0.9])
def test_a_report_shows_the_winner_of_the_last_search_whether_it_was_verified_or_not(
    tmp_path: Path, share: float | None
) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"

    def shown() -> Structure:
        with closing(Store(url, create=False)) as store:
            (study,) = read(store, None)
        assert study.winner is not None
        return study.winner.structure

    verifier = Refuses(times=2, share=share)
    verified = search(verifiers=verifier, study=url)
    assert shown() == verified.best.structure
    plain = search(verifiers=(), study=url)
    assert shown() == plain.best.structure != verified.best.structure
    assert [row.structure for row in ps.compare(study=url).rows][1:] == [plain.best.structure]
    again = Refuses(times=0)
    again.description = verifier.description
    assert search(verifiers=again, study=url).best.structure == verified.best.structure == shown()


def test_whom_a_verifier_refused_is_not_shown_to_it_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    first = Refuses(times=2)
    found = search(verifiers=first, study=url)
    again = Refuses(times=0)
    again.description = first.description
    assert search(verifiers=again, study=url).best.structure == found.best.structure
    assert again.structures == [found.best.structure]


@pytest.mark.parametrize("share", [None, 0.9])
def test_what_was_said_of_a_winner_says_nothing_of_one_that_is_built_with_other_weights(
    tmp_path: Path, share: float | None
) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"

    def seen(times: int, build_with: str | None) -> list[Structure]:
        verifier = Refuses(times, share)
        verifier.description = "accuracy"
        search(verifiers=verifier, study=url, build_with=build_with)
        return verifier.structures

    first = seen(1, None)
    assert seen(0, "reconstructed") == first[:1]  # nobody refused the best one so far
    assert seen(0, "inherited") == first[1:]  # this one was refused, and remains so


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, "breaks the contract Verifier: verify(winner) gave None; expected a Verdict"),
        (
            ps.Verdict(False, limits={"watts": 3.0}),
            "gave a verdict that cannot be followed: A budget cannot limit 'watts'",
        ),
        (
            ps.Verdict(True, facts={"net": object()}),
            "cannot be followed: Object of type object is not JSON serializable",
        ),
        (ps.Verdict(False, limits=3), "cannot be followed: 'int' object has no attribute 'items'"),  # type: ignore[arg-type]
    ],
)
def test_a_verifier_that_breaks_its_contract_is_refused_in_a_sentence(said: Any, message: str) -> None:
    class Says:
        description = "says"

        def verify(self, winner: Winner) -> Any:
            return said

    with pytest.raises(ps.ContractBroken) as caught:
        search(verifiers=Says())
    assert message in str(caught.value)


def test_what_is_no_verifier_is_refused_before_anything_is_scored() -> None:
    class Mute:
        def verify(self, winner: Winner) -> ps.Verdict:
            return ps.Verdict(True)

    with pytest.raises(ps.ContractBroken, match="verifier Mute breaks the contract Verifier: it has no description"):
        search(verifiers=Mute())
    with pytest.raises(ValueError, match=r"Unknown verifier 'latencies'.*Did you mean 'latency'"):
        search(verifiers="latencies")
    with pytest.raises(
        ValueError, match="Expected a budget that limits latency_ms by a table, to time winners; got macs"
    ):
        search(verifiers="latency")
    with pytest.raises(TypeError, match=r"Expected verifier as one of latency, .*verify\(winner\).*got 3"):
        search(verifiers=3)


def test_what_makes_a_verifier_of_the_budget_is_as_good_as_an_object() -> None:
    def convinced(wanted: FeasibleSet) -> Refuses:
        assert str(wanted) == "macs=50%"
        return Refuses(times=0)

    assert search(verifiers=convinced).verified[0].verdict.holds
    assert make_verifier(Refuses, BUDGET.check(network().space)) is not None


def test_a_winner_that_finetuning_brings_far_enough_is_accepted_and_others_are_not() -> None:
    data = ps.Data(train=(IMAGES, LABELS), validation=(IMAGES[:16], LABELS[:16]), calibration=32)
    recipe = ps.Recipe(epochs=1, batch_size=16)
    easy = ps.FinetuneVerifier(data, reach=0.0, recipe=recipe)
    found = search(data=data, verifiers=easy)
    (verified,) = found.verified
    assert verified.verdict.holds
    assert verified.verdict.facts.keys() == {"metric", "before", "reached", "epochs"}
    trained = ps.train(found.best.build(), data, recipe=recipe, teacher=found.best.unpruned)
    assert verified.verdict.facts["reached"] == trained.validation_after
    hard = ps.FinetuneVerifier(data, reach=1.1, recipe=recipe)
    refused = search(data=data, verifiers=hard)
    assert len(refused.verified) == 4
    nearest = min(refused.verified, key=lambda each: each.verdict.shortfall)
    assert refused.best.structure == nearest.structure
    assert "No winner reached accuracy 110" in refused.notes[-1]


def test_a_verdict_after_finetuning_is_of_the_recipe_and_the_data() -> None:
    data = ps.Data(train=(IMAGES, LABELS), validation=(IMAGES[:16], LABELS[:16]))
    others = [
        ps.FinetuneVerifier(data, reach=0.5),
        ps.FinetuneVerifier(data, reach=0.5, recipe=ps.Recipe(epochs=1, lr=0.1)),
        ps.FinetuneVerifier(data, reach=0.5, recipe=ps.Recipe(epochs=1, augmentation=ps.Augmentation(flip=True))),
        ps.FinetuneVerifier(ps.Data(train=(IMAGES, LABELS), validation=(IMAGES[16:], LABELS[16:])), reach=0.5),
    ]
    assert len({each.description for each in others}) == len(others)
    again = ps.FinetuneVerifier(data, reach=0.5, recipe=ps.Recipe(epochs=1))
    assert again.description == others[0].description
    assert others[1].description.startswith("finetune(reach=0.5, epochs=1, seed=0, lr=0.1, data=")


def test_a_finetuning_verifier_needs_examples_that_judge() -> None:
    with pytest.raises(ValueError, match=r"validation examples to judge by, such as Data\(train, validation=0.1\)"):
        ps.FinetuneVerifier((IMAGES, LABELS), reach=0.5)
    with pytest.raises(ValueError, match="Expected reach as a finite value of the metric, got nan"):
        ps.FinetuneVerifier(ps.Data(train=(IMAGES, LABELS), validation=0.2), reach=float("nan"))
