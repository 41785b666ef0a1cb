"""The rounds of a search whose winners are verified: what was found so far, and what the study keeps of it.

A later run of the same study finds there under which limits this one went on, and whom it refused, so it goes on from
there and looks only at its last winner again. What was said of networks that were built otherwise does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prunesearch.budget import FeasibleSet
from prunesearch.errors import InfeasibleBudget, StudyLocked, StudyUnreadable, StudyUnwritable
from prunesearch.evaluators.winner import Winner
from prunesearch.preparation import Prepared
from prunesearch.result import SearchResult
from prunesearch.structure import Structure
from prunesearch.study.store import is_kept, summary_of
from prunesearch.study.study import add_to_summary, recording
from prunesearch.trial import Note, Trial, best
from prunesearch.verifiers import verdict_of
from prunesearch.verifiers.verifier import Verdict, Verified, Verifier

Limits = dict[str, float]


class Rounds:
    """Rounds of one search: the first under the budget as it is, others under limits that verifiers lowered.

    Args:
        first: What the first round found.
        wanted: Its budget, resolved.
        verifiers: Whom each winner must convince, in this order.
        prepared: What scored and builds them.

    Attributes:
        lowered: Limits under which an earlier run of this study went on, in its order.
    """

    def __init__(
        self, first: SearchResult, wanted: FeasibleSet, verifiers: Sequence[Verifier], prepared: Prepared
    ) -> None:
        self._wanted = wanted
        self._verifiers = verifiers
        self._prepared = prepared
        self._first = self._latest = first
        self._trials: list[Trial] = list(first.trials)
        self._rounds: dict[str, tuple[Limits, tuple[Trial, ...]]] = {first.name: ({}, first.trials)}
        self._verified: list[Verified] = []
        self._is_kept = is_kept(first.study)
        self._unkept = ""  # why the study lacks something
        stored = summary_of(first.study, first.name)
        rounds, verdicts = (filter(prepared.is_of_built, stored.get(key, [])) for key in ("rounds", "verdicts"))
        self.lowered: list[Limits] = [_limits(each) for each in rounds][1:]
        self._refused = _refused(verdicts, [each.description for each in verifiers])

    def name_under(self, limits: FeasibleSet) -> str:
        """The name of the study of a later round."""
        return f"{self._first.name}, {', '.join(f'{name} {limit:.10g}' for name, limit in limits.lowered)}"

    def add(self, result: SearchResult, limits: FeasibleSet) -> None:
        """Take note of what a later round found."""
        self._latest = result
        self._trials += result.trials
        self._rounds[result.name] = (dict(limits.lowered), result.trials)

    def winner(self, limits: FeasibleSet) -> Winner | None:
        """The best structure of all rounds within some limits that nobody refused; None if there is none."""
        inside = limits.contains([trial.structure for trial in self._trials])
        trials = (trial for trial, is_in in zip(self._trials, inside, strict=True) if is_in)
        trial = best(trial for trial in trials if trial.structure not in self._refused)
        return None if trial is None else replace(self._first.best, trial=trial)

    def verify(self, winner: Winner) -> Verdict:
        """Ask one verifier after the other, until one refuses the winner.

        Raises:
            ContractBroken: A verifier gave no verdict.
        """
        verdict = Verdict(holds=True)
        for verifier in self._verifiers:
            verdict = verdict_of(verifier, winner, self._wanted)
            self._verified.append(Verified(verifier.description, winner.structure, verdict))
            if not verdict.holds:
                self._refused[winner.structure] = verdict
                break
        self._keep({})
        return verdict

    def lower(self, limits: FeasibleSet, verdict: Verdict) -> FeasibleSet | None:
        """The limits under which to go on; None if no structure meets them."""
        try:
            return limits.lowered_to(verdict.limits)
        except InfeasibleBudget:
            return None

    def settled(self) -> SearchResult:
        """What all rounds found: the winner that holds; else the one that is the least off, and a note that says so."""
        last = self._verified[-1] if self._verified else None
        holds = last is not None and last.verdict.holds
        chosen = last.structure if last is not None and holds else self._least_off()
        notes, own = self._latest.notes, []
        if not holds:
            verdict = self._refused[chosen]
            own = [vars(Note("verified", verdict.said))] if verdict.said else []
            notes += (verdict.said,) if verdict.said else ()
            if verdict.limits:  # no structure met what they were lowered to, so the reader wants to know what could be
                self._ask_of_the_narrowest()
        trial = best(trial for trial in self._trials if trial.structure == chosen)
        assert trial is not None  # it was verified
        result = replace(self._latest, best=replace(self._first.best, trial=trial), name=self._first.name)
        result = replace(result, trials=tuple(self._trials), verified=tuple(self._verified))
        self._keep({"winner": list(trial.structure)}, own)
        if self._unkept:  # hours of search are worth more than this
            notes += (f"What was verified is not recorded in the study. {self._unkept}",)
        return replace(result, notes=notes)

    def _least_off(self) -> Structure:
        """Of those that were refused, the one that convinced most verifiers, and missed the next by the least."""
        passed: dict[Structure, int] = {}
        for each in self._verified:
            passed[each.structure] = passed.get(each.structure, 0) + each.verdict.holds
        return min(self._refused, key=lambda each: (-passed.get(each, 0), self._refused[each].shortfall))

    def _ask_of_the_narrowest(self) -> None:
        space, winner = self._wanted.space, self._first.best
        trial = replace(winner.trial, structure=space.minimum, cost=space.cost(space.minimum))
        for verifier in self._verifiers[:1]:
            verdict = verdict_of(verifier, replace(winner, trial=trial), self._wanted)
            self._verified.append(Verified(verifier.description, space.minimum, verdict))

    def _keep(self, facts: Mapping[str, Any], notes: Sequence[Mapping[str, Any]] = ()) -> None:
        """Record rounds, verdicts and some facts in the first round's study; what earlier runs found stays."""
        if not self._is_kept:
            return
        is_ours, built = self._prepared.is_of_built, {"built_with": self._prepared.built_with}
        fresh = [{**_as_fact(each), **built} for each in self._verified]
        again = [(fact["verifier"], fact["structure"]) for fact in fresh]
        rounds = [{"study": name, "limits": limits, **built} for name, (limits, _) in self._rounds.items()]

        def is_said_again(stored: Mapping[str, Any]) -> bool:
            return is_ours(stored) and (stored["verifier"], stored["structure"]) in again

        def with_ours(summary: dict[str, Any]) -> dict[str, Any]:
            old = [each for each in summary.get("verdicts", []) if not is_said_again(each)]
            others = [each for each in summary.get("rounds", []) if not is_ours(each)]
            of_scores = [note for note in summary.get("notes", []) if note.get("kind") != "verified"]
            found = {"rounds": [*others, *rounds], "verdicts": [*old, *fresh], "notes": [*of_scores, *notes]}
            return {**summary, **facts, **found}

        try:
            with recording(self._first.study, self._first.name) as store:
                store.change_summary(self._first.name, with_ours)
        except (StudyLocked, StudyUnreadable, StudyUnwritable) as error:
            self._unkept = str(error)


def unverified(result: SearchResult) -> SearchResult:
    """What a search without verifiers found; a study with the winner of one that had some has this one from now on.

    What is known of the rounds stays, for those who verify again.
    """
    winner = list(result.best.structure)
    stored = summary_of(result.study, result.name)
    if "rounds" not in stored or stored.get("winner") == winner:  # of the best trial nothing needs to be said
        return result
    try:
        add_to_summary(result.study, result.name, {"winner": winner})
    except (StudyLocked, StudyUnreadable, StudyUnwritable) as error:
        return replace(result, notes=(*result.notes, f"The winner is not recorded in the study. {error}"))
    return result


def _as_fact(verified: Verified) -> dict[str, Any]:
    verdict = verified.verdict
    return {
        "verifier": verified.verifier,
        "structure": list(verified.structure),
        "holds": verdict.holds,
        "said": verdict.said,
        "limits": dict(verdict.limits),
        "shortfall": verdict.shortfall,
        "facts": dict(verdict.facts),
    }


def _limits(stored: Mapping[str, Any]) -> Limits:
    return {str(name): float(limit) for name, limit in stored["limits"].items()}


def _refused(stored: Iterable[Mapping[str, Any]], verifiers: Sequence[str]) -> dict[Structure, Verdict]:
    """Whom these verifiers refused in an earlier run, without lower limits that would keep them out."""
    found: dict[Structure, Verdict] = {}
    for each in stored:
        if each["verifier"] in verifiers and not each["holds"] and not each["limits"]:
            verdict = Verdict(False, each["said"], {}, each["shortfall"], each["facts"])
            found[tuple(each["structure"])] = verdict
    return found
