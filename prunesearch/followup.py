"""What follows a finished search is recorded in its study: what finetuning reached, what was measured, which files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunesearch.evaluators.built_costs import structure_of
from prunesearch.models.network import Network
from prunesearch.structure import Structure
from prunesearch.study.store import is_kept
from prunesearch.study.study import add_to_summary, recording


@dataclass(frozen=True)
class FollowUp:
    """A study that is finished, and the network it is about.

    Attributes:
        url: Of the database.
        name: Of the study.
        network: The traced network.
    """

    url: str
    name: str
    network: Network

    def structure_of(self, model: nn.Module) -> Structure:
        """The structure of a network that was pruned from that of the study.

        Raises:
            ValueError: It was not.
        """
        return structure_of(self.network, model)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Put facts beside the trials, for reports, in place of those of the same name; not of a study in memory.

        Raises:
            StudyLocked, StudyUnreadable, StudyUnwritable: As `record`.
        """
        add_to_summary(self.url, self.name, facts)

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Add to what is known of the study, under its lock; what is there already as it is, is not added again.

        A study that was kept in memory is gone, and nothing is recorded.

        Args:
            kind: What it is: `"finetuned"`, `"measured"` or `"file"`, or a word of your own.
            facts: Plain values by name.

        Raises:
            StudyLocked: Another process drives the study, for longer than half a minute.
            StudyUnreadable: The database cannot be read.
            StudyUnwritable: It cannot be written, or the study is not there any more.
        """
        if not is_kept(self.url):
            return
        with recording(self.url, self.name) as store:
            if not any(fact.kind == kind and fact.value == dict(facts) for fact in store.facts(self.name)):
                store.add_fact(self.name, kind, facts)
