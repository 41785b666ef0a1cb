"""A scoring, made for one network and its data: what scores structures, and what builds the winner."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prunesearch._version import __version__
from prunesearch.contracts import kind_of, name_of
from prunesearch.evaluators import gather, has_own_ranking, make_evaluator, make_weights
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import CRITERIA, CRITERION, RANKING, make_criterion
from prunesearch.evaluators.classic import ClassicEvaluator
from prunesearch.evaluators.diagnosis import check_finite, diagnose
from prunesearch.evaluators.evaluator import Choosing, Divisible, Evaluator, divided
from prunesearch.evaluators.inputs import example_batch
from prunesearch.evaluators.refitted import RefittedWeights
from prunesearch.evaluators.statistics import better_statistics
from prunesearch.evaluators.ways import Way
from prunesearch.evaluators.winner import Winner
from prunesearch.models.corrections import TrainedStatistics
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.misfit import outputs_of
from prunesearch.models.nested import Batch, in_order_of, members, moved, parts_of, tensors_in
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking, Ranking
from prunesearch.models.sizes import batches_by_size, by_size
from prunesearch.models.weights import WeightSource
from prunesearch.question import in_words, named, plain
from prunesearch.scoring import Scoring
from prunesearch.structure import Group, IntArray, Structure
from prunesearch.study.scoring import Scorer, ScorerFactory, score_one
from prunesearch.tasks import CLASSIFICATION, make_task
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.metric import Measured, as_text
from prunesearch.training.data import Data, balanced
from prunesearch.trial import Note, Trial

if TYPE_CHECKING:
    from prunesearch.evaluators import AnyWeights

_WITHOUT_RACE = 512
"""Images that score each structure where none of them can be given up early."""
_AT_ONCE = 256


@dataclass(frozen=True)
class Prepared:
    """What scores the structures of one network.

    Attributes:
        network: The traced network, on the device that scores.
        given: The caller's own model, which stays where it is; what is built comes back there.
        examples: All calibration examples.
        scored: Those that score structures.
        ranking: Which channels stay; None where the weights have a ranking of their own.
        weights: Where the weights of a structure come from.
        built: Where those of the winner come from.
        scorer: Scores on all examples.
        parts: It on each part of the examples, where structures race; empty where they do not.
        factory: Makes what scores anew: the parts, or the one scorer, for a process of its own.
        question: What scores depend on, as a study knows it.
        facts: What they were made by, as far as names say it.
        trained: What the calibration images get wrong in the trained network, if statistics are corrected.
        kept: Tells rankings apart that have the same name in the question, as their criterion draws from the seed.
        built_with: What the winner is built with, as a study knows it.
    """

    network: Network
    given: nn.Module
    examples: Examples
    scored: Examples
    ranking: Ranking | None
    weights: WeightSource
    built: WeightSource
    scorer: Evaluator
    parts: tuple[Divisible, ...]
    factory: ScorerFactory
    question: dict[str, Any]
    facts: dict[str, Any]
    trained: TrainedStatistics | None
    kept: str
    built_with: str

    @property
    def calibration(self) -> Batch:
        """The inputs from which BatchNorm statistics are estimated."""
        return self.examples.inputs

    @property
    def is_on_gpu(self) -> bool:
        """Whether structures are scored on a GPU."""
        return self.network.device.type == "cuda"

    @property
    def measures(self) -> str:
        """What scores are of."""
        return str(getattr(self.scorer, "measures", "score"))

    @property
    def is_negated(self) -> bool:
        """Whether scores are minus what they measure, as of a loss."""
        return bool(getattr(self.scorer, "is_negated", False))

    def told(self, score: float) -> str:
        """A score in words, such as `loss 0.128`."""
        return f"{self.measures} {as_text(self.measures, -score if self.is_negated else score, digits=1)}"

    def winner(self, trial: Trial) -> Winner:
        """A trial, ready to be built."""
        return Winner(trial, self.built, self.calibration, self.given, self.trained)

    def is_of_built(self, stored: Mapping[str, Any]) -> bool:
        """Whether what a study has of a network is of one that was built as the winner is now.

        Where it does not say, as of earlier releases, the network had the weights that are scored.
        """
        return bool(stored.get("built_with", self.weights.description) == self.built_with)

    def evidence(self, name: str, *, on_few: bool = False) -> Any:
        """What a searcher wants to know first.

        Args:
            name: One of `prunesearch.evaluators.EVIDENCE`.
            on_few: Structures are scored on the few images that a race begins with.
        """
        return gather(name, self.weights, self.parts[0] if on_few else self.scorer, self.calibration)

    @property
    def way(self) -> Way | None:
        """How structures are run, where there is something to say about it."""
        way = self.scorer.way if isinstance(self.scorer, Choosing) else None
        return None if way is None or way.is_usual else way

    def questions(self) -> dict[str, dict[str, Any]]:
        """What scores depend on, by the precision in which they may come to be computed."""
        scorer = self.scorer
        if not isinstance(scorer, Choosing):
            return {}
        return {precision: self._described(scorer.described(precision)) for precision in scorer.precisions}

    def settled(self, kept: Way | None, structures: Callable[[], Sequence[Structure]]) -> Prepared:
        """The same with its way of running structures settled, so that workers run them so, too.

        Args:
            kept: What was chosen before for the same scores.
            structures: Gives what to choose by, asked for only if something is open.
        """
        scorer = self.parts[0] if self.parts else self.scorer  # they share what runs structures
        if not isinstance(scorer, Choosing):
            return self
        if kept is not None:
            scorer.keep(kept)
        if scorer.way is None:
            scorer.choose(structures())
        factory = self.factory if scorer.way is None else partial(_in_the_way, scorer.way, self.factory)
        return replace(self, question=self._described(self.scorer.description), factory=factory)

    def _described(self, evaluator: str) -> dict[str, Any]:
        """The question with another description of the evaluator."""
        return {**self.question, "evaluator": {**self.question["evaluator"], "description": evaluator}}

    def score_of(self, structure: Structure) -> float | None:
        """The score of one structure on all images, outside of the study; None if it has none."""
        scores = [score_one(scorer, structure).score for scorer in self.parts or (self.scorer,)]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if len(known) == len(scores) else None

    def notes(self, best: Structure) -> tuple[Note, ...]:
        """What should be known before a winner is believed."""
        own = self.ranking.notes if isinstance(self.ranking, NestedRanking) else ()
        sources = (self.weights,) if self.built is self.weights else (self.weights, self.built)
        of_weights = [note for source in sources if isinstance(source, RefittedWeights) for note in source.notes]
        classic = self.scorer if isinstance(self.scorer, ClassicEvaluator) else None
        of_scores = diagnose(self.weights, self.scored, best, classic)
        way = self.way
        why = None if way is None else dict(way.left_out).get(str(way))
        of_graphs = [] if why is None else [f"Stacks ran without a CUDA graph: {why}"]
        found = (("criterion", own), ("weights", of_weights), ("scores", of_scores), ("device", of_graphs))
        return tuple(Note(kind, said) for kind, notes in found for said in notes)


def prepare(
    network: Network,
    data: Data,
    scoring: Scoring,
    *,
    build_with: AnyWeights | None = None,
    races: bool = True,
    seed: int = 0,
    cache: str | Path | None = None,
    device: torch.device | None = None,
    probe: Structure | None = None,
) -> Prepared:
    """Make what scores the structures of a network.

    Args:
        network: The traced network.
        data: Where the images come from.
        scoring: What decides scores.
        build_with: Another weight source for the winner.
        races: False where structures cannot race, whatever the scoring says.
        seed: Decides every random draw of a criterion.
        cache: Folder where statistics of layers are kept.
        device: Where to score; by default where the network is.
        probe: A structure like those that will be scored, which chooses the BatchNorm statistics where the scoring
            leaves them open; without one they are those of the images.

    Raises:
        ValueError: Data that do not fit the network, or a NaN or an infinity in them, in the network or in its weights.
        TypeError: An option that the criterion or the evaluator does not have.
        ContractBroken: What was given in place of a name does not do what its role asks for.
    """
    given, network = network.model, network if device is None else network.to(device)
    examples = check_data(network, data)
    settings = {name: moved(value, network.device) for name, value in scoring.settings.items()}
    evaluator, races = scoring.evaluator, races and scoring.race
    images = scoring.images
    if images is None:
        images = _WITHOUT_RACE if evaluator == "accuracy" and not races else len(examples)
    strata = examples.strata()
    chosen = torch.from_numpy(balanced(strata.cpu().numpy(), images)).to(strata.device)
    tensors = [value for _, value in sorted(settings.items()) if any(True for _ in tensors_in(value))]
    check_finite(network.model, examples.inputs, *tensors)
    ranking, ranked_by = _ranking(network, examples, scoring, build_with, seed=seed, cache=cache)
    weights = make_weights(scoring.weight_source, network, ranking, examples.inputs, cache=cache)
    of_winner = weights
    if build_with is not None:
        of_winner = make_weights(build_with, network, ranking, examples.inputs, cache=cache)
    asks_in_question = not has_own_ranking(scoring.weight_source) or has_own_ranking(
        build_with or scoring.weight_source
    )
    if not weights.sliced:
        check_finite(weights.build(network.space.full), examples.inputs)

    def scorer_on_all() -> Evaluator:
        return make_evaluator(evaluator, weights, examples.take(chosen), **settings)

    scorer = scorer_on_all()
    if probe is not None and isinstance(scorer, AccuracyEvaluator) and _leaves_statistics_open(scoring):
        settings["statistics"] = better_statistics(weights, scorer, probe)
        scorer = scorer.with_statistics(settings["statistics"])
    n_parts = _parts(scorer, strata) if races else 1
    raced = n_parts > 1
    question = {
        "model": network.fingerprint(),
        "space": network.space.fingerprint,
        "data": fingerprint(*members(examples.batch), *tensors),
        **({} if has_own_ranking(scoring.weight_source) else {"criterion": ranked_by}),
        "weight_source": weights.description,
        "evaluator": {"description": scorer.description, **({"parts": n_parts} if raced else {})},
        "versions": {"prunesearch": __version__, "torch": torch.__version__},
        **({} if examples.task == make_task(CLASSIFICATION) else {"task": _identity(network, examples)}),
    }
    return Prepared(
        network=network,
        given=given,
        examples=examples,
        scored=examples.take(chosen),
        ranking=ranking,
        weights=weights,
        built=of_winner,
        scorer=scorer,
        parts=divided(scorer, n_parts) if raced else (),
        factory=lambda: divided(scorer_on_all(), n_parts) if raced else (scorer_on_all(),),
        question=question,
        facts={**_facts(scoring, scorer, raced), "device": str(network.device)},
        trained=TrainedStatistics(network.model) if getattr(scorer, "statistics", "") == "corrected" else None,
        kept=_told_apart(ranking, seed) if _is_own(scoring.criterion) and "criterion" in question else "",
        built_with=of_winner.description + ("" if asks_in_question else f" by {in_words(ranked_by)}"),
    )


def _in_the_way(way: Way, factory: ScorerFactory) -> Sequence[Scorer]:
    """What scores, in the way that was settled."""
    scorers = factory()
    for scorer in scorers:
        if isinstance(scorer, Choosing):
            scorer.keep(way)
    return scorers


def _leaves_statistics_open(scoring: Scoring) -> bool:
    """Whether nobody said which BatchNorm statistics there are."""
    return scoring.evaluator == "accuracy" and not {"statistics", "calibration"} & scoring.evaluator_options.keys()


def _facts(scoring: Scoring, scorer: Evaluator, raced: bool) -> dict[str, Any]:
    """What scores were made by, as far as names say it, so that the same search can be asked for again."""
    own = {"criterion": scoring.criterion, "weight_source": scoring.weight_source, "evaluator": scoring.evaluator}
    options = {"criterion_options": scoring.criterion_options, "evaluator_options": scoring.evaluator_options}
    return {
        **{name: value for name, value in own.items() if isinstance(value, str)},
        **{name: {key: plain(each) for key, each in given.items()} for name, given in options.items() if given},
        "metric": scoring.metric,
        "measures": getattr(scorer, "measures", None),
        "is_negated": bool(getattr(scorer, "is_negated", False)),
        "images": getattr(scorer, "n_images", None),
        "race": raced,
        **({"statistics": scorer.statistics} if isinstance(scorer, AccuracyEvaluator) else {}),
    }


def check_data(network: Network, data: Data) -> Examples:
    """Return the calibration examples, on the network's device, or say how they do not fit the network.

    Raises:
        ValueError: The network takes other inputs, or of another shape or type; what it returns is nothing that the
            task understands; or a function of the task fails.
    """
    examples = data.examples_of(data.calibration_set())
    _check_inputs(example_batch(network), examples.inputs)
    placed = examples.to(network.device)
    for part in placed.by_size():
        few = part.take(slice(2))
        outputs = outputs_of(network.model, few.inputs)
        if few.task.check is not None:
            few.task.check(outputs, part.batch)
        if few.task.loss is not None:
            few.losses(outputs)
    return placed


def _check_inputs(example: Batch, images: Batch) -> None:
    """Make sure that data are what the network was traced with, but for the number of images.

    Where inputs have several sizes, these may be others; channels of images, which come first, may not.
    """
    tensors = {name: x for name, x in parts_of(example).items() if isinstance(x, Tensor)}
    several = by_size(images) is not None
    for few in batches_by_size(images, at_most=1):
        for (name, wanted), given in zip(tensors.items(), in_order_of(example, few), strict=True):
            varies = several and wanted.dim() == given.dim()
            fixed = slice(1, 2 if wanted.dim() > 3 else 1) if varies else slice(1, None)
            if given.shape[fixed] == wanted.shape[fixed] and given.dtype == wanted.dtype:
                continue
            what = f"the input {name}" if name else "images"
            shape = f"(n, {', '.join(map(str, wanted.shape[1:]))})"
            raise ValueError(
                f"Expected {what} of shape {shape} and type {wanted.dtype}, as in example_inputs"
                f"{', or of another size' if varies else ''}; got {tuple(given.shape)} and {given.dtype}."
            )


def _parts(scorer: Evaluator, classes: Tensor) -> int:
    """How many parts of its images an evaluator is to score on one after the other; 1 where it cannot race."""
    size = max(64, min(256, len(torch.unique(classes))))
    return max(1, scorer.n_images // size) if isinstance(scorer, Divisible) else 1


def _identity(network: Network, examples: Examples) -> dict[str, str]:
    """What a study knows a task by: its name, and what it makes of the unpruned network on a few examples and on all.

    As functions of the caller's cannot be compared; three digits are the same on another machine. A few examples may
    not have the classes in which two losses differ.
    """
    parts = examples.take(slice(8)).by_size()
    outputs = [outputs_of(network.model, few.inputs) for few in parts]
    found = {"name": examples.task.name}
    for what in ("loss", "metric"):
        if getattr(examples.task, what) is not None:
            measured = Measured(examples.task, what)
            for returned, few in zip(outputs, parts, strict=True):
                measured.update(returned, few.batch, len(few))
            found[what] = f"{measured.compute():.3g}"
    if examples.task.loss is not None:
        measured = Measured(examples.task, "loss")
        for part in examples.split(_AT_ONCE):
            measured.update(outputs_of(network.model, part.inputs), part.batch, len(part))
        found["loss of all"] = f"{measured.compute():.3g}"
    return found


def _ranking(
    network: Network,
    examples: Examples,
    scoring: Scoring,
    build_with: AnyWeights | None,
    *,
    seed: int,
    cache: str | Path | None,
) -> tuple[Ranking | None, dict[str, Any]]:
    """Which channels stay, and what a study calls that; nothing if all weights have a ranking of their own.

    The package's own criteria are called by their names, as the study knows the version of the package; what a
    criterion of somebody else's keeps is part of its name.

    Raises:
        ContractBroken: The ranking does not keep as many units as asked for.
    """
    given, options = scoring.criterion, scoring.criterion_options
    ranking: Any = given
    criterion: Any = None
    if not RANKING.is_met(given):
        criterion = make_criterion(given, seed=seed, cache=cache, **options)  # type: ignore[arg-type]
    if has_own_ranking(scoring.weight_source) and has_own_ranking(build_with or scoring.weight_source):
        return None, {}
    if criterion is not None:
        ranking = criterion.rank(network, examples)
    asked = named(name_of(given), options)
    if _is_own(given):
        return ranking, asked
    kept = _fingerprint(ranking, network, given)
    return ranking, {"name": str(ranking)} if isinstance(given, NestedRanking) else {**asked, "kept": kept}


def _is_own(criterion: Any) -> bool:
    """Whether a criterion is one of the package's own, which a study knows by its name and not by what it keeps."""
    return isinstance(criterion, str) and criterion in CRITERIA


def _told_apart(ranking: Ranking | None, seed: int) -> str:
    """Hash of the orders, equal for all seeds where nothing was drawn; the seed where orders take long to find."""
    if isinstance(ranking, NestedRanking):
        return hashlib.sha256(repr(ranking.orders).encode()).hexdigest()[:16]
    return f"seed {seed}"


def _fingerprint(ranking: Any, network: Network, given: Any) -> str:
    """Hash of which units stay at every width, as a printed object may hold an address."""
    if not RANKING.is_met(ranking):
        what = f"rank(network, images, labels) gave {kind_of(ranking)}; expected a ranking, with keep(group, units)"
        raise CRITERION.broken(given, what)
    digest = hashlib.sha256()
    for index, group in enumerate(network.space.groups):
        for width in group.widths:
            digest.update(_kept(ranking, index, group, width // group.unit, given).tobytes())
    return digest.hexdigest()[:16]


def _kept(ranking: Ranking, index: int, group: Group, units: int, given: Any) -> IntArray:
    """Which units of a group a ranking of anybody's keeps."""
    call = f"keep({index}, {units})"
    try:
        answer: Any = ranking.keep(index, units)
        kept = np.asarray(answer)
    except Exception as error:  # the caller's own code may raise anything
        raise RANKING.broken(given, f"{call} failed with {type(error).__name__}: {error}".rstrip(".")) from error
    right = kept.shape == (units,) and np.issubdtype(kept.dtype, np.integer) and bool(np.all(np.diff(kept) > 0))
    if not right or kept[0] < 0 or kept[-1] >= group.units:
        raise RANKING.broken(
            given,
            f"{call} gave {answer!r}; expected {units} different whole numbers from 0 to {group.units - 1}, ascending, "
            f"the units of group {group.name!r} that stay",
        )
    return kept.astype(np.int64)
