"""The main job in one call: a traced network, data and a budget go in, the best structure found comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch._version import __version__
from prunesearch.budget import Budget
from prunesearch.contracts import name_of
from prunesearch.errors import EvaluationFailed
from prunesearch.evaluators import gather, has_own_ranking, make_evaluator, make_weights
from prunesearch.evaluators.batchnorm import recalibrate_bn
from prunesearch.evaluators.channels.criterion import Criterion
from prunesearch.evaluators.classic import ClassicEvaluator
from prunesearch.evaluators.diagnosis import check_finite, diagnose
from prunesearch.evaluators.evaluator import Divisible, Evaluator, divided
from prunesearch.evaluators.inputs import example_batch
from prunesearch.given import (
    Chooser,
    as_budget,
    as_callbacks,
    as_network,
    check_evaluator_object,
    check_searcher_object,
    listed,
)
from prunesearch.latency_table import LatencyTable
from prunesearch.measured import LatencyOutcome, until_it_holds
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.nested import Batch, device_of, in_order_of, members, parts_of, tensors_in
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking, Ranking
from prunesearch.models.weights import WeightSource
from prunesearch.ranges import whole_number
from prunesearch.search import WITH_POLICY, evidence_needed, is_searcher, make_searcher
from prunesearch.search.checked import CheckedSearcher
from prunesearch.search.searcher import PolicySearcher, Searcher
from prunesearch.structure import Cost, Space, Structure
from prunesearch.study.database import IN_MEMORY
from prunesearch.study.events import Callback
from prunesearch.study.executors import Executor, RememberingExecutor
from prunesearch.study.racing import RacingExecutor, Track
from prunesearch.study.scoring import score_one
from prunesearch.study.study import Study, find
from prunesearch.study.workers import Workers, executor_on, jobs_on, open_pool
from prunesearch.tasks import CLASSIFICATION
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.metric import Measured, as_text
from prunesearch.training.data import Data, Source, as_data, balanced
from prunesearch.training.fitting import outputs_of
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
        return _built(self.weights, self.structure, self.calibration)


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search found.

    Attributes:
        best: The trial with the highest score.
        trials: Every trial of the study, in order.
        space: The space they belong to.
        study: URL of the database that holds them; not printed, as it may hold a password.
        name: Name of the study in it.
        searcher: The searcher that proposed them and was told what they scored. After several rounds under a latency
            budget, that of the round which ended with this winner.
        notes: What should be known before the result is believed.
        latency: Predicted and measured latency of the winner, where the budget limits it and it could be timed here.
        measures: What the scores are of: `"loss"`, `"fidelity"`, `"agreement"` or the name of the task's metric, such
            as `"accuracy"`; `"score"` of an evaluator that does not say.
        unpruned: Score of the unpruned network; None if it has none.
        is_negated: Whether scores are minus what they measure, as of a loss.
    """

    best: Winner
    trials: tuple[Trial, ...]
    space: Space
    study: str
    name: str
    searcher: Searcher = field(compare=False)
    notes: tuple[str, ...] = ()
    latency: LatencyOutcome | None = None
    measures: str = "score"
    unpruned: float | None = None
    is_negated: bool = False

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

    def policy(self, share: float) -> Structure:
        """What the policy that `searcher="conditional"` has learnt keeps for a share of the budget.

        The share may be one that the search never tried. Nothing is scored, so this takes milliseconds, and how good
        the structure is remains to be seen: `build` makes its network. The same share gives the same structure, also
        from the stored study that is run again.

        Args:
            share: Of every limit of the budget, in (0, 1].

        Raises:
            ValueError: The share is not in (0, 1], or the searcher learns no policy.
            TypeError: The share is no number.
            InfeasibleBudget: No structure meets it; the message has the lowest share that can be met.
        """
        if not isinstance(self.searcher, PolicySearcher):
            raise ValueError(
                f"Expected a search with a searcher that learns a policy ({', '.join(WITH_POLICY)}); "
                f"{self.best.trial.searcher} learns none. Search with such a one, or choose among the trials by "
                "result.within(budget)."
            )
        return self.searcher.policy(share)

    def build(self, structure: Sequence[int]) -> nn.Module:
        """Build the network of any structure of the space as that of the winner; a new module each time.

        Its weights come from where the winner's come from, its BatchNorm statistics are re-estimated on the same
        images, and it is in eval mode.

        Raises:
            ValueError: The structure is not of the space.
        """
        return _built(self.best.weights, self.space.check(structure), self.best.calibration)

    def shown(self, score: float) -> str:
        """A score as what it measures."""
        value = -score if self.is_negated else score
        return as_text(self.measures, value, digits=1)

    def __repr__(self) -> str:
        notes = "".join(f"; note: {note}" for note in self.notes[:1])
        more = f", and {len(self.notes) - 1} more" if len(self.notes) > 1 else ""
        return f"SearchResult({self}{notes}{more})"

    def __str__(self) -> str:
        full = self.space.cost(self.space.full)
        cost = self.best.cost
        assert self.best.trial.score is not None  # or it would not be the best
        score = f"{self.measures} {self.shown(self.best.trial.score)}"
        unpruned = "" if self.unpruned is None else f" (unpruned {self.shown(self.unpruned)})"
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
    criterion: str | Ranking | Criterion | Callable[..., Criterion] = "l1",
    weight_source: str | WeightSource | Callable[..., WeightSource] = "inherited",
    build_with: str | WeightSource | Callable[..., WeightSource] | None = None,
    evaluator: str | Evaluator | Callable[..., Evaluator] = "accuracy",
    metric: str | None = None,
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

    Wherever a name is taken, so is one that an installed package adds by an entry point, `"package.module:attribute"`,
    an object of the same contract, or a class or function that makes one (docs/extending.md).

    Args:
        network: A traced network with trained weights; a module is traced first, with two of the images.
        data: What to score with, and what the network is for (`Data.task`): `data.calibration` of the training examples
            score structures and re-estimate the BatchNorm statistics of the winner. A source alone, such as a
            DataLoader or a tensor of images without labels, is `Data(train=...)`.
        budget: What every structure must meet, also as a text such as `"macs=50%"`. Where it limits latency, by a table
            measured on this machine, the winner is built and timed, and the search goes on until one is in time
            (`prunesearch.measured`).
        table: What latency is predicted from, or the path of its file, if the budget does not have it.
        searcher: One of `prunesearch.search.SEARCHERS`; or what makes a searcher of (space, budget, seed=), or a fresh
            object (`search.searcher.Searcher`).
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
            Or what makes a source of (network, ranking, images), or an object of this very network
            (`models.weights.WeightSource`), with a ranking of its own.
        build_with: Another weight source for the winner alone, such as `"reconstructed"`, which would take long for
            every structure. Scores do not change, so neither does the study.
        evaluator: How structures are scored, one of `prunesearch.evaluators.EVALUATORS`; or what makes an evaluator of
            (weights, examples), or an object that scores (`evaluators.evaluator.Evaluator`), with examples of its own.
        metric: What `"accuracy"` scores: `"loss"` (its negative) of the task; `"fidelity"` to the outputs of the
            unpruned network (minus the distance from them) or `"agreement"` with them, which need no labels; or the
            task's own, as `"accuracy"` of classification. None takes the loss, or fidelity where the task has none. The
            other evaluators have one of their own.
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
    data = as_data(data)
    network, budget = as_network(network, data), as_budget(budget, table)
    n_trials, seed = whole_number("n_trials", n_trials, at_least=1), whole_number("seed", seed, at_least=0)
    images = None if images is None else whole_number("images", images, at_least=1)
    callbacks = as_callbacks(callbacks)
    check_searcher_object(searcher, options)
    check_evaluator_object(evaluator, images=images, options=evaluator_options)
    workers = workers if isinstance(workers, Workers) else Workers(whole_number("workers", workers, at_least=-1))
    budget.check(network.space)
    examples = check_data(network, data)
    calibration, classes = examples.inputs, examples.strata()
    if workers.executor == "ray" and not workers.gpus and device_of(calibration).type == "cuda":
        workers = replace(workers, gpus=1.0)
    race = race and in_order
    if images is None:
        images = _WITHOUT_RACE if evaluator == "accuracy" and not race else len(examples)
    chosen = _balanced(classes, images)
    settings = {**({"metric": metric} if evaluator == "accuracy" and metric else {}), **(evaluator_options or {})}
    tensors = [value for _, value in sorted(settings.items()) if any(True for _ in tensors_in(value))]
    check_finite(network.model, calibration, *tensors)
    chooser = Chooser(criterion, criterion_options, seed=seed, cache=cache)
    ranking, ranked_by = None, ""
    if not (has_own_ranking(weight_source) and has_own_ranking(build_with or weight_source)):
        ranking, ranked_by = chooser.choose(network, examples)
    weights = make_weights(weight_source, network, ranking, calibration, cache=cache)
    built = weights if build_with is None else make_weights(build_with, network, ranking, calibration, cache=cache)
    if not weights.sliced:
        check_finite(weights.build(network.space.full), calibration)

    def scorer_on(subset: Tensor) -> Evaluator:
        return make_evaluator(evaluator, weights, examples.take(subset), **settings)

    scorer = scorer_on(chosen)
    n_parts = _parts(scorer, classes) if race else 1
    parts = divided(scorer, n_parts) if n_parts > 1 else ()
    question = {
        "model": network.fingerprint(),
        "space": network.space.fingerprint,
        "data": fingerprint(*members(examples.batch), *tensors),
        "budget": str(budget),
        "searcher": f"{name_of(searcher)}{listed(options or {})}",
        "seed": seed,
        **({} if has_own_ranking(weight_source) else {"criterion": ranked_by}),
        "weight_source": weights.description,
        "evaluator": scorer.description + (f", race={n_parts} parts" if n_parts > 1 else ""),
        "versions": {"prunesearch": __version__, "torch": torch.__version__},
        **({} if examples.task.name == CLASSIFICATION else {"task": _identity(network, examples)}),
        **({} if in_order else {"order": "as finished"}),
    }
    proposer: Any = searcher
    needed = () if is_searcher(proposer) else evidence_needed(proposer)
    study_name = find(study, study_name, question, open_another=open_another)  # refuses before anything is computed
    if not is_searcher(proposer):
        given = options or {}
        evidence = {need: gather(need, weights, scorer, calibration) for need in needed if need not in given}
        proposer = make_searcher(proposer, network.space, budget, seed=seed, **evidence, **given)
    checked = CheckedSearcher(proposer, network.space, budget, searcher)
    names = {"searcher_name": name_of(searcher), "evaluator_name": scorer.description}
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
                trials = opened.run(checked, executor, n_trials, callbacks=callbacks, **names)
            else:
                pool = stack.enter_context(open_pool(workers, lambda: (scorer_on(chosen),)))
                trials = opened.run_as_finished(checked, pool, n_trials, callbacks=callbacks, **names)
        opened.note("score_full", lambda: _mean_score(parts or (scorer,), network.space.full))
        unpruned = opened.fact("score_full")
        winner = best(trials)
        if winner is None:
            reason = trials[0].failure if trials else "The searcher proposed nothing."
            raise EvaluationFailed(f"None of {len(trials)} structures could be scored. The first: {reason}")
        notes = ranking.notes if isinstance(ranking, NestedRanking) else ()
        by_accuracy = scorer if isinstance(scorer, ClassicEvaluator) else None
        notes += diagnose(weights, examples.take(chosen), winner.structure, by_accuracy)
        opened.record({"notes": list(notes)})
    return SearchResult(
        best=Winner(winner, built, calibration),
        trials=tuple(trials),
        space=network.space,
        study=study,
        name=opened.name,
        searcher=proposer,
        notes=notes,
        measures=getattr(scorer, "measures", "score"),
        unpruned=unpruned,
        is_negated=getattr(scorer, "is_negated", False),
    )


def _built(weights: WeightSource, structure: Structure, calibration: Batch) -> nn.Module:
    """The network of a structure, BatchNorm statistics re-estimated, in eval mode."""
    model = weights.build(structure).eval()
    recalibrate_bn(model, calibration)
    return model


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


def _identity(network: Network, examples: Examples) -> str:
    """What a study knows a task by: its name, and what it makes of the unpruned network on a few examples.

    As functions of the caller's cannot be compared; three digits are the same on another machine.
    """
    few = examples.take(slice(8))
    outputs = outputs_of(network.model, few.inputs)
    found = [examples.task.name]
    for what in ("loss", "metric"):
        if getattr(examples.task, what) is not None:
            measured = Measured(examples.task, what)
            measured.update(outputs, few.batch, len(few))
            found.append(f"{what} {measured.compute():.3g}")
    return ", ".join(found)


def check_data(network: Network, data: Data) -> Examples:
    """Return the calibration examples, on the network's device, or say how they do not fit the network.

    Raises:
        ValueError: The network takes other inputs, or of another shape or type; what it returns is nothing that the
            task understands; or a function of the task fails.
    """
    example = example_batch(network)
    examples = data.examples_of(data.calibration_set())
    _check_inputs(example, examples.inputs)
    placed = examples.to(device_of(example))
    few = placed.take(slice(2))
    outputs = outputs_of(network.model, few.inputs)
    if few.task.check is not None:
        few.task.check(outputs, placed.batch)
    if few.task.loss is not None:
        few.losses(outputs)
    return placed


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
