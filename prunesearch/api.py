"""The main job in one call: a traced network, data and a budget go in, the best structure found comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch._version import __version__
from prunesearch.budget import Budget
from prunesearch.errors import EvaluationFailed
from prunesearch.evaluators import gather, has_own_ranking, make_evaluator, make_weights
from prunesearch.evaluators.accuracy import Metric
from prunesearch.evaluators.batchnorm import recalibrate_bn
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.channels.criterion import Criterion
from prunesearch.evaluators.classic import ClassicEvaluator
from prunesearch.evaluators.diagnosis import check_finite, diagnose
from prunesearch.evaluators.evaluator import Divisible, Evaluator, divided
from prunesearch.evaluators.inputs import example_batch
from prunesearch.given import (
    as_budget,
    as_callbacks,
    as_network,
    check_evaluator_object,
    check_searcher_object,
    is_searcher,
    ranking_of,
)
from prunesearch.latency_table import LatencyTable
from prunesearch.measured import LatencyOutcome, until_it_holds
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.logits import check_labels
from prunesearch.models.nested import Batch, device_of, in_order_of, moved, parts_of, taken, tensors_in
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking, Ranking
from prunesearch.models.weights import WeightSource
from prunesearch.ranges import whole_number
from prunesearch.search import evidence_needed, make_searcher, searcher_name
from prunesearch.search.searcher import Searcher
from prunesearch.structure import Cost, Space, Structure
from prunesearch.study.database import IN_MEMORY
from prunesearch.study.events import Callback
from prunesearch.study.executors import Executor, RememberingExecutor
from prunesearch.study.racing import RacingExecutor, Track
from prunesearch.study.scoring import score_one
from prunesearch.study.study import Study, find
from prunesearch.study.workers import Workers, executor_on, jobs_on, open_pool
from prunesearch.training.data import Data, Source, as_data, balanced
from prunesearch.trial import Trial, best, pareto_front

_WITHOUT_RACE = 512
"""Images that score each structure where none of them can be given up early."""
_DECIDES_SCORES = ("model", "space", "data", "criterion", "weight_source", "evaluator", "versions")


@dataclass(frozen=True, repr=False)
class Winner:
    """The best trial of a search, and how to build its network.

    Attributes:
        trial: What was recorded of it.
        weights: Where its weights come from.
        calibration: Images from which its BatchNorm statistics are estimated.
    """

    trial: Trial
    weights: WeightSource
    calibration: Batch

    def __repr__(self) -> str:
        cost = f"MACs {self.cost.macs:,}, parameters {self.cost.params:,}"
        return f"Winner(trial {self.trial.number}, score {self.trial.score:.6g}, {cost}, structure {self.structure})"

    @property
    def structure(self) -> Structure:
        """Kept channels per group."""
        return self.trial.structure

    @property
    def cost(self) -> Cost:
        """Exact cost."""
        return self.trial.cost

    def build(self) -> nn.Module:
        """Build the network, BatchNorm statistics re-estimated, in eval mode; a new module each time."""
        model = self.weights.build(self.structure).eval()
        recalibrate_bn(model, self.calibration)
        return model


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search found.

    Attributes:
        best: The trial with the highest score.
        trials: Every trial of the study, in order.
        space: The space they belong to.
        study: URL of the database that holds them; not printed, as it may hold a password.
        name: Name of the study in it.
        notes: What should be known before the result is believed.
        latency: Predicted and measured latency of the winner, where the budget limits it and it could be timed here.
        measures: What the scores are: `"loss"` (they are minus a loss), `"accuracy"` or `"agreement"` (shares of the
            images); `"score"` of an evaluator that does not say.
        unpruned: Score of the unpruned network; None if it has none.
    """

    best: Winner
    trials: tuple[Trial, ...]
    space: Space
    study: str
    name: str
    notes: tuple[str, ...] = ()
    latency: LatencyOutcome | None = None
    measures: str = "score"
    unpruned: float | None = None

    def front(self) -> list[Winner]:
        """Winners at every cost: no other trial has fewer MACs and a higher score. Cheapest first."""
        return [replace(self.best, trial=trial) for trial in pareto_front(self.trials)]

    def within(self, budget: Budget) -> Winner:
        """The best trial that meets another budget, so that one study answers several.

        Raises:
            InfeasibleBudget: No structure of the space meets it.
            ValueError: None of the trials does.
        """
        feasible = budget.check(self.space)
        found = best(trial for trial in self.trials if feasible.contains([trial.structure])[0])
        if found is None:
            cheapest_one = min(trial.cost.macs for trial in self.trials)
            raise ValueError(
                f"None of {len(self.trials)} trials meets the budget {budget}; the cheapest has {cheapest_one:,} MACs. "
                "Search with that budget, or with a searcher that spreads over costs, such as nsga2."
            )
        return replace(self.best, trial=found)

    def __repr__(self) -> str:
        notes = "".join(f"; note: {note}" for note in self.notes[:1])
        more = f", and {len(self.notes) - 1} more" if len(self.notes) > 1 else ""
        return f"SearchResult({self}{notes}{more})"

    def __str__(self) -> str:
        full = self.space.cost(self.space.full)
        cost = self.best.cost
        assert self.best.trial.score is not None  # or it would not be the best
        score = f"{self.measures} {_shown(self.measures, self.best.trial.score)}"
        unpruned = "" if self.unpruned is None else f" (unpruned {_shown(self.measures, self.unpruned)})"
        return (
            f"best of {len(self.trials)} structure{'s' * (len(self.trials) != 1)}: {score}{unpruned}, "
            f"MACs {cost.macs:,} ({cost.macs / full.macs:.1%}), parameters {cost.params:,} "
            f"({cost.params / full.params:.1%})" + ("" if self.latency is None else f", latency {self.latency}")
        )


@until_it_holds
def search(
    network: Network | nn.Module,
    data: Data | Source,
    *,
    budget: Budget | str,
    table: LatencyTable | str | Path | None = None,
    searcher: str | Searcher | Callable[..., Searcher] = "surrogate",
    n_trials: int = 200,
    seed: int = 0,
    criterion: str | Ranking | Criterion = "l1",
    weight_source: str = "inherited",
    build_with: str | None = None,
    evaluator: str | Evaluator = "accuracy",
    metric: Metric = "loss",
    images: int | None = None,
    race: bool = True,
    study: str = IN_MEMORY,
    study_name: str | None = None,
    open_another: bool = False,
    cache: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    criterion_options: Mapping[str, Any] | None = None,
    evaluator_options: Mapping[str, Any] | None = None,
    workers: int | Workers = 1,
    in_order: bool = True,
    callbacks: Callback | Sequence[Callback] = (),
) -> SearchResult:
    """Search the structure of a network under a budget. Run again with the same arguments to continue.

    Nothing is trained: a structure's score is that of the network's own weights, narrowed, with BatchNorm statistics
    re-estimated (`evaluators.accuracy`). The model is not changed.

    Args:
        network: A traced network with trained weights; a module is traced first, with two of the images.
        data: Images and labels; `data.calibration` of the training images score structures and re-estimate the
            BatchNorm statistics of the winner. A source alone, such as a DataLoader, is `Data(train=...)`.
        budget: What every structure must meet, also as a text such as `"macs=50%"`. Where it limits latency, by a table
            measured on this machine, the winner is built and timed, and the search goes on until one is in time
            (`prunesearch.measured`).
        table: What latency is predicted from, or the path of its file, if the budget does not have it.
        searcher: One of `prunesearch.search.SEARCHERS`; or the class of a searcher, or a fresh object of it
            (`search.searcher.Searcher`).
        n_trials: Structures to score in all, those of earlier runs of the same study included; if there are more
            already, all of those count.
        seed: Decides every random draw.
        criterion: Which channels of a group stay, one of `prunesearch.evaluators.channels.CRITERIA`; or an object
            that ranks (`evaluators.channels.criterion.Criterion`), or a ranking that is known already, such as what
            PAAM learnt. Not asked, and no part of the study's question, where the weight source has a ranking of its
            own.
        weight_source: Where the weights of a structure come from, one of `prunesearch.evaluators.WEIGHT_SOURCES`:
            `"inherited"` ones are slices of the trained, `"compensated"` and `"reconstructed"` ones make up for the
            channels that go, `"generated:FILE"` are those of a PruningNet (`train_pruningnet`), with its own ranking.
        build_with: Another weight source for the winner alone, such as `"reconstructed"`, which would take long for
            every structure. Scores do not change, so neither does the study.
        evaluator: How structures are scored, one of `prunesearch.evaluators.EVALUATORS`; or an object that scores
            (`evaluators.evaluator.Evaluator`), with images of its own.
        metric: What `"accuracy"` scores: `"loss"` (its negative), `"accuracy"` or `"agreement"`; the others have one.
        images: How many of the `data.calibration` images score structures, balanced by class; by default all. Where
            `"accuracy"` does not race, by default at most 512.
        race: Whether structures race: each is scored on a part of the images (64, or one of each class up to 256), and
            on more for as long as it may be better than the best so far (`study.racing`). False scores every structure
            on all. Only evaluators that can score on some of their images race (`evaluators.evaluator.Divisible`).
        study: URL of the database, such as `"sqlite:///search.db"`; by default nothing is kept.
        study_name: Which study of the database. By default the one that answers this very question; with another
            budget or searcher that is a new one beside the others. Scores of the database that apply here are not
            found again.
        open_another: Whether, without a `study_name`, a new study is opened whatever differs: the model, the data, the
            seed, ... Otherwise anything but the budget and the searcher is refused.
        cache: Folder where statistics of layers, that some criteria and weight sources gather, are kept between runs.
        options: Further arguments of the searcher's constructor.
        criterion_options: Further arguments of the criterion's.
        evaluator_options: Further arguments of the evaluator's, such as `calibration=` images of their own.
        workers: How many processes score; or a `Workers`, for a cluster, a time limit per structure and the like. The
            history is the same for any.
        in_order: False tells the searcher each score as soon as it is known, so that no worker waits for another. The
            order then depends on how fast they are: **equal seeds no longer give equal results.** Nothing races then.
        callbacks: Called with an `Event` for each new trial; one that returns True ends the search. A single one will
            do.

    Raises:
        InfeasibleBudget: No structure meets the budget; carries the reachable range.
        ValueError: An unknown name, a number out of its range, data that do not fit the network, or a NaN or an
            infinity in the images or the network, with the name of the tensor.
        TypeError: An argument of another kind, or an option that the searcher or evaluator does not have.
        TraceError: The module cannot be traced.
        StudyMismatch: The stored study is of another search; the message says what differs.
        StudyLocked: Another process drives it.
        StudyUnreadable: The file cannot be read as a database of studies.
        StudyUnwritable: A trial could not be recorded, as on a full disk.
        EvaluationFailed: Nothing could be scored, or no worker could be started.
    """
    data = as_data(data)
    network, budget = as_network(network, data), as_budget(budget, table)
    n_trials, seed = whole_number("n_trials", n_trials, at_least=1), whole_number("seed", seed, at_least=0)
    images = None if images is None else whole_number("images", images, at_least=1)
    callbacks = as_callbacks(callbacks)
    check_searcher_object(searcher, options)
    check_evaluator_object(evaluator, images=images, options=evaluator_options)
    workers = workers if isinstance(workers, Workers) else Workers(whole_number("workers", workers, at_least=-1))
    budget.check(network.space)
    calibration, classes = check_data(network, data)
    if workers.executor == "ray" and not workers.gpus and device_of(calibration).type == "cuda":
        workers = replace(workers, gpus=1.0)
    race = race and in_order
    if images is None:
        images = _WITHOUT_RACE if evaluator == "accuracy" and not race else len(classes)
    chosen = _balanced(classes, images)
    settings = {**({"metric": metric} if evaluator == "accuracy" else {}), **(evaluator_options or {})}
    tensors = [value for _, value in sorted(settings.items()) if any(True for _ in tensors_in(value))]
    check_finite(network.model, calibration, *tensors)
    ranking, ranked_by = None, criterion
    if not isinstance(criterion, str):
        ranking, ranked_by = ranking_of(criterion, criterion_options, network, calibration, classes)
    else:
        chooser = make_criterion(criterion, seed=seed, cache=cache, **(criterion_options or {}))
        if not (has_own_ranking(weight_source) and has_own_ranking(build_with or weight_source)):
            ranking = chooser.rank(network, calibration, classes)
    weights = make_weights(weight_source, network, ranking, calibration, cache=cache)
    built = weights if build_with is None else make_weights(build_with, network, ranking, calibration, cache=cache)
    if not weights.sliced:
        check_finite(weights.build(network.space.full), calibration)

    def scorer_on(subset: Tensor) -> Evaluator:
        if not isinstance(evaluator, str):
            return evaluator
        return make_evaluator(evaluator, weights, taken(calibration, subset), classes[subset], **settings)

    scorer = scorer_on(chosen)
    n_parts = _parts(scorer, classes) if race else 1
    parts = divided(scorer, n_parts) if n_parts > 1 else ()
    asked = str(ranked_by) + (_listed(criterion_options) if criterion_options else "")
    question = {
        "model": network.fingerprint(),
        "space": network.space.fingerprint,
        "data": fingerprint(calibration, classes, *tensors),
        "budget": str(budget),
        "searcher": f"{searcher_name(searcher)}{_listed(options or {})}",
        "seed": seed,
        **({} if has_own_ranking(weight_source) else {"criterion": asked}),
        "weight_source": weights.description,
        "evaluator": scorer.description + (f", race={n_parts} parts" if n_parts > 1 else ""),
        "versions": {"prunesearch": __version__, "torch": torch.__version__},
        **({} if in_order else {"order": "as finished"}),
    }
    proposer: Any = searcher
    needed = () if is_searcher(proposer) else evidence_needed(proposer)
    study_name = find(study, study_name, question, open_another=open_another)  # refuses before anything is computed
    if not is_searcher(proposer):
        given = options or {}
        evidence = {need: gather(need, weights, scorer, calibration) for need in needed if need not in given}
        proposer = make_searcher(proposer, network.space, budget, seed=seed, **evidence, **given)
    names = {"searcher_name": searcher_name(searcher), "evaluator_name": scorer.description}
    with Study(study, study_name, question, network.space) as opened:
        with ExitStack() as stack:
            if in_order:
                known = opened.known_trials(_DECIDES_SCORES)
                executor: Executor
                if parts:
                    jobs = stack.enter_context(jobs_on(workers, parts, lambda: divided(scorer_on(chosen), n_parts)))
                    costs = getattr(proposer, "spreads", False)
                    executor = RacingExecutor(
                        jobs,
                        Track(tuple(part.n_images for part in parts)),
                        known,
                        (lambda structure: network.space.cost(structure).macs) if costs else None,
                    )
                else:
                    alone = stack.enter_context(executor_on(workers, scorer, lambda: (scorer_on(chosen),)))
                    executor = RememberingExecutor(alone, known)
                trials = opened.run(proposer, executor, n_trials, callbacks=callbacks, **names)
            else:
                pool = stack.enter_context(open_pool(workers, lambda: (scorer_on(chosen),)))
                trials = opened.run_as_finished(proposer, pool, n_trials, callbacks=callbacks, **names)
        opened.note("score_full", lambda: _mean_score(parts or (scorer,), network.space.full))
        unpruned = opened.fact("score_full")
        winner = best(trials)
        if winner is None:
            reason = trials[0].failure if trials else "The searcher proposed nothing."
            raise EvaluationFailed(f"None of {len(trials)} structures could be scored. The first: {reason}")
        notes = ranking.notes if isinstance(ranking, NestedRanking) else ()
        by_accuracy = scorer if isinstance(scorer, ClassicEvaluator) else None
        notes += diagnose(weights, taken(calibration, chosen), classes[chosen], winner.structure, by_accuracy)
        opened.record({"notes": list(notes)})
    return SearchResult(
        best=Winner(winner, built, calibration),
        trials=tuple(trials),
        space=network.space,
        study=study,
        name=opened.name,
        notes=notes,
        measures=getattr(scorer, "measures", "score"),
        unpruned=unpruned,
    )


def _shown(measures: str, score: float) -> str:
    """A score as what it measures."""
    if measures == "loss":
        return f"{-score:.3g}"
    return f"{score:.1%}" if measures in ("accuracy", "agreement") else f"{score:.4g}"


def _listed(options: Mapping[str, Any]) -> str:
    return f"({', '.join(f'{name}={value}' for name, value in sorted(options.items()))})"


def _parts(scorer: Evaluator, classes: Tensor) -> int:
    """How many parts of its images an evaluator is to score on one after the other; 1 where it cannot race."""
    size = max(64, min(256, len(torch.unique(classes))))
    return max(1, scorer.n_images // size) if isinstance(scorer, Divisible) else 1


def _mean_score(scorers: Sequence[Evaluator], structure: Structure) -> float | None:
    scores = [score_one(scorer, structure).score for scorer in scorers]
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None


def _balanced(classes: Tensor, n: int) -> Tensor:
    return torch.from_numpy(balanced(classes.cpu().numpy(), n)).to(classes.device)


def check_data(network: Network, data: Data) -> tuple[Batch, Tensor]:
    """Return the calibration images and labels, on the network's device, or say how they do not fit the network.

    Raises:
        ValueError: The network takes other inputs, or images of another shape or type; or there are labels beyond its
            outputs.
    """
    example = example_batch(network)
    images, labels = data.calibration_set()
    _check_inputs(example, images)
    outputs = network.outputs
    if outputs is None:
        raise ValueError(
            f"Expected a classifier that returns logits of shape (n, classes); {type(network.model).__name__} returns "
            "something else, which the accuracy evaluator cannot score."
        )
    check_labels(labels, outputs)
    device = device_of(example)
    return moved(images, device), labels.to(device)


def _check_inputs(example: Batch, images: Batch) -> None:
    """Make sure that data are what the network was traced with, but for the number of images."""
    tensors = {name: x for name, x in parts_of(example).items() if isinstance(x, Tensor)}
    for (name, wanted), given in zip(tensors.items(), in_order_of(example, images), strict=True):
        if given.shape[1:] != wanted.shape[1:] or given.dtype != wanted.dtype:
            raise ValueError(
                f"Expected {f'the input {name}' if name else 'images'} of shape "
                f"(n, {', '.join(map(str, wanted.shape[1:]))}) and type {wanted.dtype}, as in example_inputs; got "
                f"{tuple(given.shape)} and {given.dtype}."
            )
