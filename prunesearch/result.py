"""What a search found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from prunesearch import plots
from prunesearch.budget import AnyBudget, as_budget
from prunesearch.evaluators.winner import Winner
from prunesearch.followup import FollowUp
from prunesearch.html_table import html_table
from prunesearch.judged import Judged
from prunesearch.plain_text import counted, shortened
from prunesearch.ranges import whole_number
from prunesearch.search import WITH_POLICY
from prunesearch.search.searcher import PolicySearcher, Searcher
from prunesearch.structure import Space, Structure
from prunesearch.study.tables import as_dataframe
from prunesearch.tasks.metric import as_text
from prunesearch.trial import Trial, best, pareto_front, ranked
from prunesearch.verifiers.latency import LatencyOutcome, LatencyVerifier, outcome_of
from prunesearch.verifiers.verifier import Verified

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search found.

    Attributes:
        best: The trial with the highest score.
        trials: Every trial of the study, in order.
        space: The space they belong to.
        study: URL of the database that holds them; not printed, as it may hold a password.
        name: Name of the study in it.
        searcher: The searcher that proposed them and was told what they scored. After several rounds that of the last.
        notes: What should be known before the result is believed.
        verified: What verifiers said of winners in this run, in order.
        measures: What the scores are of: `"loss"`, `"fidelity"`, `"agreement"` or the name of the task's metric, such
            as `"accuracy"`; `"score"` of an evaluator that does not say.
        unpruned: Score of the unpruned network; None if it has none.
        is_negated: Whether scores are minus what they measure, as of a loss.
        judged: The task's metric of the winner, the unpruned network and the uniform structure, before any training;
            None where it could not be computed.
    """

    best: Winner
    trials: tuple[Trial, ...]
    space: Space
    study: str
    name: str
    searcher: Searcher = field(compare=False)
    notes: tuple[str, ...] = ()
    verified: tuple[Verified, ...] = ()
    measures: str = "score"
    unpruned: float | None = None
    is_negated: bool = False
    judged: Judged | None = None

    @property
    def latency(self) -> LatencyOutcome | None:
        """Predicted and measured latency of the winner, where the budget limits it and it could be timed here."""
        of_latency = [each for each in self.verified if each.verifier == LatencyVerifier.description]
        facts = {each.structure: each.verdict.facts for each in of_latency}
        chosen, narrowest = facts.get(self.best.structure), None
        if self.best.structure != self.space.minimum:
            narrowest = facts.pop(self.space.minimum, None)
        return None if chosen is None else outcome_of(list(facts.values()), chosen, narrowest)

    @property
    def follow_up(self) -> FollowUp:
        """Where what follows the search is recorded."""
        return FollowUp(self.study, self.name, self.best.weights.network)

    def structure_of(self, model: nn.Module) -> Structure:
        """The structure of a network that was pruned from the one that was searched; finetuned or not.

        Raises:
            ValueError: It was not.
        """
        return self.follow_up.structure_of(model)

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Record in the study, under its lock, something that followed the search; see `FollowUp.record`.

        `finetune(..., study=result)` records what it reached.

        Raises:
            StudyLocked, StudyUnreadable, StudyUnwritable: The study cannot be written.
        """
        self.follow_up.record(kind, facts)

    def front(self) -> list[Winner]:
        """Winners at every cost: no other trial has fewer MACs and a higher score. Cheapest first."""
        return [replace(self.best, trial=trial) for trial in pareto_front(self.trials)]

    def top(self, k: int) -> list[Winner]:
        """The k best trials, best first; fewer if fewer have a score. Of equal structures the first counts."""
        k = whole_number("k", k, at_least=1)
        distinct = {trial.structure: trial for trial in reversed(ranked(self.trials))}
        return [replace(self.best, trial=trial) for trial in ranked(distinct.values())[:k]]

    def within(self, budget: AnyBudget) -> Winner:
        """The best trial that meets another budget, so that one study answers several; also one in text, `"macs=30%"`.

        It is resolved for the network that was searched, so it may limit what other resources need that for.

        Raises:
            InfeasibleBudget: No structure of the space meets it.
            ValueError: None of the trials does.
        """
        feasible = as_budget(budget).check(self.best.weights.network)
        inside = feasible.contains([trial.structure for trial in self.trials])
        found = best(trial for trial, is_in in zip(self.trials, inside, strict=True) if is_in)
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

    def build(self, structure: Trial | Sequence[int]) -> nn.Module:
        """Build the network of a trial, or of any structure, as that of the winner; a new module each time.

        Its weights come from where the winner's come from, its BatchNorm statistics are re-estimated on the same
        images, and it is in eval mode.

        Raises:
            ValueError: The structure is not of the space.
        """
        widths = structure.structure if isinstance(structure, Trial) else structure
        return self.best.build_another(self.space.check(widths))

    def shown(self, score: float) -> str:
        """A score as what it measures."""
        value = -score if self.is_negated else score
        return as_text(self.measures, value, digits=1)

    def trials_dataframe(self) -> DataFrame:
        """Every trial as a row of a pandas DataFrame: number, score, costs, ..., and `width GROUP` for each group.

        Raises:
            ImportError: pandas is not installed.
        """
        return as_dataframe(self.trials, [group.name for group in self.space.groups])

    def plot_front(self, axes: Axes | None = None) -> Axes:
        """Draw every trial by what it costs and scores, and the Pareto front.

        Args:
            axes: Of matplotlib, to draw on; new ones by default.

        Raises:
            ImportError: matplotlib is not installed (`pip install 'prunesearch[plots]'`).
        """
        return plots.front(self.trials, self.space, self.best.trial, self._scale, axes)

    def plot_history(self, axes: Axes | None = None) -> Axes:
        """Draw every trial in the order of the search, and the best so far; see `plot_front`."""
        return plots.history(self.trials, self._scale, axes)

    def plot_widths(self, axes: Axes | None = None) -> Axes:
        """Draw how much of each group of channels the winner keeps; see `plot_front`."""
        return plots.widths(self.space, self.best.structure, axes)

    @property
    def next_call(self) -> str:
        """What usually follows, as a line of Python."""
        return "small = ps.finetune(result.best.build(), data, teacher=model, study=result)"

    @property
    def _scale(self) -> plots.Scale:
        sign = -1.0 if self.is_negated else 1.0
        unpruned = None if self.unpruned is None else sign * self.unpruned
        return plots.Scale(self.measures, lambda score: sign * score, unpruned)

    @property
    def _facts(self) -> list[str]:
        """What was found, a fact each."""
        full, cost = self.space.cost(self.space.full), self.best.cost
        assert self.best.trial.score is not None  # or it would not be the best
        unpruned = "" if self.unpruned is None else f" (unpruned {self.shown(self.unpruned)})"
        facts = [f"{self.measures} {self.shown(self.best.trial.score)}{unpruned}"]
        if self.judged is not None and self.judged.metric != self.measures:
            facts.append(str(self.judged))
        facts += [
            f"MACs {cost.macs:,} ({cost.macs / full.macs:.1%})",
            f"parameters {cost.params:,} ({cost.params / full.params:.1%})",
        ]
        return facts if self.latency is None else [*facts, f"latency {self.latency}"]

    @property
    def beside(self) -> str:
        """The uniform structure, for comparison; nothing where it is the winner, or not known."""
        judged = self.judged
        if judged is None or judged.uniform_structure == self.best.structure:
            return ""
        score = "" if judged.uniform_score is None else f"{self.measures} {self.shown(judged.uniform_score)}"
        own = f"{judged.metric} {as_text(judged.metric, judged.uniform, digits=1)}"
        return ", ".join(filter(None, [score, own if judged.metric != self.measures else ""]))

    def __repr__(self) -> str:
        notes = [f"note: {shortened(note)}" for note in self.notes[:2]]
        if len(self.notes) > 2:
            notes.append(f"and {len(self.notes) - 2} more notes: result.notes")
        beside = [f"uniform widths: {self.beside}"] if self.beside else []
        lines = [f"best of {counted(len(self.trials), 'structure')}: {', '.join(self._facts)}", *beside, *notes]
        return "\n  ".join(["SearchResult", *lines, f"next: {self.next_call}"])

    def __str__(self) -> str:
        return f"best of {counted(len(self.trials), 'structure')}: {', '.join(self._facts)}"

    def _repr_html_(self) -> str:
        facts = [fact.partition(" ") for fact in self._facts]
        rows = [*((name, value) for name, _, value in facts)]
        if self.beside:
            rows.append(("uniform widths", self.beside))
        rows.append(("best of", counted(len(self.trials), "structure")))
        return html_table(["", "found (unpruned)"], rows, [*self.notes, f"Next: {self.next_call}"])
