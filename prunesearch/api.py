"""The main job in one call: a traced network, data and a budget go in, the best structure found comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import nn

from prunesearch.best_so_far import BestSoFar
from prunesearch.budget import AnyBudget, FeasibleSet, as_budget
from prunesearch.contracts import as_options, expect_kind, kind_of, name_of
from prunesearch.errors import EvaluationFailed, StudyLocked, StudyUnreadable, StudyUnwritable
from prunesearch.evidence import KEY, Evidence, as_facts, evidence_of, kept_evidence
from prunesearch.given import (
    as_network,
    as_verifiers,
    check_searcher_object,
    refuse_unknown,
)
from prunesearch.judged import judge, record, recorded
from prunesearch.kept_way import Keeping, settled
from prunesearch.latency_table import LatencyTable
from prunesearch.models.devices import Devices, devices_here
from prunesearch.models.network import Network
from prunesearch.models.weights import WeightSource
from prunesearch.plain_text import shortened
from prunesearch.preparation import Prepared, prepare
from prunesearch.progress import Progress, shown
from prunesearch.question import named
from prunesearch.ranges import whole_number
from prunesearch.result import SearchResult
from prunesearch.rounds import Rounds, unverified
from prunesearch.running import Running
from prunesearch.scoring import Scoring, is_bound
from prunesearch.search import is_searcher, make_searcher
from prunesearch.search.checked import CheckedSearcher
from prunesearch.search.searcher import Searcher
from prunesearch.search.uniform import uniform_structure
from prunesearch.study.database import IN_MEMORY, as_url, parse
from prunesearch.study.executors import Executor, RememberingExecutor
from prunesearch.study.racing import RacingExecutor, Track
from prunesearch.study.store import look
from prunesearch.study.study import Study, find
from prunesearch.study.workers import Workers, as_workers, executor_on, jobs_on, open_pool
from prunesearch.training.data import Data, Source, as_data, told_of
from prunesearch.trial import Note, Trial, best

if TYPE_CHECKING:
    from prunesearch.study.events import Callback
    from prunesearch.verifiers import AnyVerifier

_MOST_ROUNDS = 6
_FEWEST_MORE = 32  # structures that a later round scores
_DECIDES_SCORES = ("model", "space", "data", "criterion", "weight_source", "evaluator", "versions", "task")
_KEPT = "kept"
"""What the fact is called that tells apart which channels stay where a study's question does not."""
_USUAL, _ALONE = Scoring(), Running()
_MOVED = {
    **{name: f"scoring=Scoring({name}=...)" for name in ("criterion", "weight_source", "evaluator", "metric")},
    **{name: f"scoring=Scoring({name}=...)" for name in ("images", "race", "criterion_options", "evaluator_options")},
    **{name: f"running=Running({name}=...)" for name in ("workers", "callbacks", "cache", "device", "open_another")},
    "in_order": "running=Running(asynchronous=...)",
}
"""Where arguments of earlier releases went."""


def search(
    network: Network | nn.Module,
    data: Data | Source,
    *,
    budget: AnyBudget,
    table: LatencyTable | str | Path | None = None,
    searcher: str | Searcher | Callable[..., Searcher] = "surrogate",
    options: Mapping[str, Any] | None = None,
    n_trials: int = 200,
    seed: int = 0,
    scoring: Scoring = _USUAL,
    build_with: str | WeightSource | Callable[..., WeightSource] | None = None,
    verifiers: AnyVerifier | Sequence[AnyVerifier] | None = None,
    study: str | Path = IN_MEMORY,
    study_name: str | None = None,
    running: Running = _ALONE,
    progress: Progress = True,
    **moved: NoReturn,
) -> SearchResult:
    """Search the structure of a network under a budget. Run again with the same arguments to continue.

    Nothing is trained: a structure's score is that of the network's own weights, narrowed, with BatchNorm statistics
    re-estimated (`evaluators.accuracy`). The model is not changed.

    Wherever a name is taken, so is one that an installed package adds by an entry point, `"package.module:attribute"`,
    an object of the same contract, or a class or function that makes one (docs/extending.md).

    Args:
        network: A traced network with trained weights; a module is traced first, with two of the images.
        data: What to score with, and what the network is for (`Data.task`): `data.calibration` of the training examples
            score structures and re-estimate the BatchNorm statistics of the winner. A source alone, such as a
            DataLoader or a tensor of images without labels, is `Data(train=...)`.
        budget: What every structure must meet, also as a text such as `"macs=50%"`, or resolved (`Budget.check`).
        table: What latency is predicted from, or the path of its file, if the budget does not have it.
        searcher: One of `prunesearch.search.SEARCHERS`; or what makes a searcher of (space, budget, seed=), or a fresh
            object (`search.searcher.Searcher`).
        options: Further arguments of the searcher's constructor.
        n_trials: Structures to score in all, those of earlier runs of the same study included; if there are more
            already, all of those count.
        seed: Decides every random draw.
        scoring: What decides the score of a structure.
        build_with: Another weight source for the winner alone, such as `"reconstructed"`, which would take long for
            every structure. Scores do not change, so neither does the study.
        verifiers: Who looks at the winner itself, in this order: one of `prunesearch.verifiers.VERIFIERS`, what makes a
            verifier of the resolved budget, or an object (`verifiers.verifier.Verifier`). If one refuses it, the search
            goes on under the lower limits that it says, or looks at the next best structure, until a winner holds, six
            times at most. By default the winner is built and timed (`"latency"`) where the budget limits latency by a
            table measured on this machine; `()` takes the winner as it is.
        study: URL of the database, such as `"sqlite:///search.db"`, or the path of its file; by default nothing is
            kept.
        study_name: Which study of the database. By default the one that answers this very question; with another
            budget or searcher that is a new one beside the others. Scores of the database that apply here are not
            found again.
        running: How the search runs: workers, callbacks and the like.
        progress: Whether to show how far it is, where there is a terminal or a notebook.
        **moved: Nothing. An argument of an earlier release is refused with a sentence that says where it went.

    Raises:
        InfeasibleBudget: No structure meets the budget; carries the reachable range.
        ValueError: An unknown name, a number out of its range, data that do not fit the network, or a NaN or an
            infinity in the images or the network, with the name of the tensor.
        TypeError: An argument of another kind, or an option that the searcher, criterion or evaluator does not have.
        ContractBroken: What was given in place of a name does not do what its role asks for, such as a searcher that
            proposes what is over the budget.
        TraceError: The module cannot be traced.
        StudyMismatch: The stored study is of another search; the message says what differs.
        StudyLocked: Another process drives it.
        StudyUnreadable: The file cannot be read as a database of studies.
        StudyUnwritable: A trial could not be recorded, as on a full disk.
        EvaluationFailed: Nothing could be scored, or no worker could be started.
    """
    refuse_unknown(moved, _MOVED, search)
    data, study = as_data(data), as_url(study)
    if study_name is not None and not isinstance(study_name, str):
        raise TypeError(f"Expected study_name as text, got {kind_of(study_name)}.")
    look(parse(study))  # before anything takes long
    network, budget = as_network(network, data), as_budget(budget, table)
    n_trials, seed = whole_number("n_trials", n_trials, at_least=1), whole_number("seed", seed, at_least=0)
    expect_kind("scoring", scoring, Scoring, "Scoring(criterion='taylor')")
    expect_kind("running", running, Running, "Running(workers=4)")
    options = as_options("options", options)
    check_searcher_object(searcher, options)
    wanted = budget.check(network)
    convinced = as_verifiers(verifiers, wanted, searcher)
    devices = devices_here()
    is_pinned = scoring.is_bound or (build_with is not None and is_bound(build_with))
    device = _where(network, devices, running.device, is_pinned=is_pinned)
    prepared = prepare(
        network,
        data,
        scoring,
        build_with=build_with,
        races=not running.asynchronous,
        seed=seed,
        cache=running.cache,
        device=device,
        probe=uniform_structure(wanted),
    )
    subject = {"network": type(network.model).__name__, "data": shortened(told_of(data), 120), "task": data.goal.name}
    idle = devices.idle_beside(device, running.device)
    cards = devices.shared_out(device, running.device)
    asked = _Asked(prepared, subject, searcher, dict(options or {}), seed, study, running, progress, idle, cards)
    asked = replace(asked, prepared=settled(prepared, study, study_name, asked.question(wanted), wanted))
    first = _searched(asked, wanted, n_trials, study_name)
    if not convinced:
        return _judged(asked, unverified(first), wanted)

    rounds, limits = Rounds(first, wanted, convinced, prepared), wanted
    more = max(_FEWEST_MORE, n_trials // 4)
    for lowered in rounds.lowered:  # what an earlier run of this study had come to
        limits = wanted.lowered_to(lowered)
        rounds.add(_searched(asked, limits, more, rounds.name_under(limits)), limits)
    for _ in range(_MOST_ROUNDS):
        winner = rounds.winner(limits)
        if winner is None:
            break
        verdict = rounds.verify(replace(winner, progress=progress))
        lower = rounds.lower(limits, verdict)
        if verdict.holds or lower is None:
            break
        if lower != limits:
            limits = lower
            rounds.add(_searched(asked, limits, more, rounds.name_under(limits)), limits)
    return _judged(asked, rounds.settled(), wanted)


def _where(network: Network, devices: Devices, asked: str | None, *, is_pinned: bool) -> torch.device:
    """The device that scores.

    Args:
        network: The network that was given.
        devices: What there is.
        asked: The device that was asked for.
        is_pinned: Whether an object, which is of this very network, takes part in it.

    Raises:
        ValueError: There is no such device, or an object of a network elsewhere cannot follow it there.
    """
    chosen = devices.chosen(asked, network.device)
    if not is_pinned:
        return chosen
    if asked is not None and not network.is_on(chosen):
        raise ValueError(
            f"Expected the weight source or evaluator that was given as an object on {chosen}, as device={asked!r} "
            f"says; its network is on {network.device}. Make it of network.to({asked!r}), and give that network."
        )
    return network.device


@dataclass(frozen=True)
class _Asked:
    """What all rounds of a search have in common."""

    prepared: Prepared
    subject: Mapping[str, str]
    searcher: str | Searcher | Callable[..., Searcher]
    options: Mapping[str, Any]
    seed: int
    study: str
    running: Running
    progress: Progress
    idle: str | None
    cards: tuple[str, ...]

    def question(self, limits: FeasibleSet) -> dict[str, Any]:
        """What a study under some limits answers."""
        of_scores = self.prepared.question
        first = {field: of_scores[field] for field in ("model", "space", "data")}
        return {
            **first,
            "budget": limits.as_facts(),
            "searcher": named(name_of(self.searcher), self.options),
            "seed": self.seed,
            **of_scores,
            **({"order": "as finished"} if self.running.asynchronous else {}),
        }

    def evidence(self, name: str) -> tuple[Evidence, tuple[Note, ...]]:
        """What the searcher is told first, in a study of this name, and what it could not be told."""
        if is_searcher(self.searcher):
            return {}, ()
        given: Any = self.searcher
        return evidence_of(given, self.options, self.prepared, kept_evidence(self.study, name))

    def proposer(self, limits: FeasibleSet, evidence: Evidence) -> Searcher:
        """A fresh searcher; or the one that was given."""
        given, space = self.searcher, self.prepared.network.space
        if is_searcher(given):
            return given
        return make_searcher(given, space, limits, seed=self.seed, **evidence, **self.options)

    @property
    def workers(self) -> Workers:
        """Who scores; on a machine with a GPU, each actor of a cluster needs one."""
        workers = as_workers(self.running.workers)
        takes_one = workers.executor == "ray" and not workers.gpus and self.prepared.is_on_gpu
        return replace(workers, gpus=1.0) if takes_one else workers


def _searched(asked: _Asked, limits: FeasibleSet, n_trials: int, study_name: str | None) -> SearchResult:
    """One search, which is one study: propose, score, record, until there are enough trials."""
    prepared, running = asked.prepared, asked.running
    question = asked.question(limits)
    name = find(asked.study, study_name, question, open_another=running.open_another)  # refuses before it is computed
    evidence, lacking = asked.evidence(name)
    proposer = asked.proposer(limits, evidence)
    checked = CheckedSearcher(proposer, prepared.network.space, limits, asked.searcher)
    with Study(asked.study, name, question, prepared.network.space, limits) as opened:
        opened.note(KEY, lambda: as_facts(evidence))
        opened.note(_KEPT, lambda: prepared.kept)
        trials = _run(opened, asked, checked, n_trials, spreads=getattr(proposer, "spreads", False))
        opened.note("score_full", lambda: prepared.score_of(prepared.network.space.full))
        unpruned = opened.fact("score_full")
        winner = best(trials)
        if winner is None:
            reason = trials[0].failure if trials else "The searcher proposed nothing."
            raise EvaluationFailed(f"None of {len(trials)} structures could be scored. The first: {reason}")
        notes = lacking + prepared.notes(winner.structure)
        opened.note("subject", lambda: dict(asked.subject))
        notes += () if asked.idle is None else (Note("device", asked.idle),)
        opened.record({"notes": [vars(note) for note in notes], "scoring": prepared.facts, **_costs_of(limits)})
    return SearchResult(
        best=prepared.winner(winner),
        trials=tuple(trials),
        space=prepared.network.space,
        study=asked.study,
        name=opened.name,
        searcher=proposer,
        notes=tuple(note.said for note in notes),
        measures=prepared.measures,
        unpruned=unpruned,
        is_negated=prepared.is_negated,
    )


def _costs_of(limits: FeasibleSet) -> dict[str, Any]:
    """What a study keeps of a budget: its limits as numbers, and what the unpruned network costs."""
    return {"limits": dict(limits.limits), "unpruned": limits.cost(limits.space.full).amounts}


def _judged(asked: _Asked, result: SearchResult, limits: FeasibleSet) -> SearchResult:
    """The result with the metric of its winner; where that cannot be had, hours of search are worth more than it."""
    structure = result.best.structure
    try:
        judged = recorded(result.study, result.name, structure, asked.prepared)
        if judged is None:
            judged = judge(asked.prepared, result.best.trial, limits, result.trials)
            record(result.study, result.name, judged, asked.prepared)
    except (StudyLocked, StudyUnreadable, StudyUnwritable, ValueError) as error:
        return replace(result, notes=(*result.notes, f"The metric of the winner is not known. {error}"))
    return replace(result, judged=judged)


def _run(opened: Study, asked: _Asked, searcher: CheckedSearcher, n_trials: int, *, spreads: bool) -> list[Trial]:
    """Score until there are enough trials, by whoever is to score."""
    prepared, workers = asked.prepared, asked.workers
    names = {"searcher_name": name_of(asked.searcher), "evaluator_name": prepared.scorer.description}
    space = prepared.network.space
    with ExitStack() as stack:
        bar = stack.enter_context(shown("scored", "trials", asked.progress))
        best_so_far = BestSoFar(bar, space.cost(space.full).macs, prepared.told)
        callbacks: list[Callback] = [Keeping(opened, prepared), *asked.running.told, best_so_far]
        if asked.running.asynchronous:
            pool = stack.enter_context(open_pool(workers, prepared.factory, asked.cards))
            return opened.run_as_finished(searcher, pool, n_trials, callbacks=callbacks, **names)
        known = opened.known_trials(_DECIDES_SCORES, fact=_KEPT, otherwise="seed")
        executor: Executor
        if prepared.parts:
            jobs = stack.enter_context(jobs_on(workers, prepared.parts, prepared.factory, asked.cards))
            track = Track(tuple(part.n_images for part in prepared.parts))
            cost = (lambda structure: space.cost(structure).macs) if spreads else None
            executor = RacingExecutor(jobs, track, known, cost)
        else:
            alone = stack.enter_context(executor_on(workers, prepared.scorer, prepared.factory, asked.cards))
            executor = RememberingExecutor(alone, known)
        return opened.run(searcher, executor, n_trials, callbacks=callbacks, **names)
