"""What a channel criterion promises; see `prunesearch.evaluators.channels.criterion.Criterion`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.channels.criterion import Criterion
from prunesearch.models.ranking import Ranking
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.follow import fidelity
from prunesearch.testing.expecting import expect_error, expect_that
from prunesearch.testing.state import generators, state_of
from prunesearch.testing.subjects import Subject, digits

_NEEDS = ("nothing", "inputs", "loss")


class CriterionContract:
    """Tests of a criterion on a small trained network; a subclass says which criterion.

    Attributes:
        criterion: The name, the class, or `"package.module:attribute"`; of a function say it in `make`.
        options: Of its constructor.
    """

    criterion: ClassVar[Any]
    options: ClassVar[Mapping[str, Any]] = {}

    def make(self, *, seed: int = 0) -> Criterion:
        """A fresh criterion."""
        return make_criterion(self.criterion, seed=seed, **self.options)

    def subject(self) -> Subject:
        """What it is tested on; another network and other data will do."""
        return digits()

    def rank(self, *, seed: int = 0) -> Ranking:
        """What a fresh criterion says of the subject."""
        on = self.subject()
        return self.make(seed=seed).rank(on.network, on.examples)

    def test_it_keeps_as_many_units_as_asked_distinct_and_ascending(self) -> None:
        """In every group, at every number of units."""
        ranking = self.rank()
        for index, group in enumerate(self.subject().network.space.groups):
            for units in range(1, group.units + 1):
                kept = np.asarray(ranking.keep(index, units))
                right = kept.shape == (units,) and np.issubdtype(kept.dtype, np.integer) and np.all(np.diff(kept) > 0)
                expect_that(
                    bool(right) and kept[0] >= 0 and kept[-1] < group.units,
                    f"Expected keep({index}, {units}) to give {units} ascending numbers of units below {group.units}, "
                    f"got {kept!r}",
                )

    def test_the_same_seed_gives_the_same_ranking(self) -> None:
        """Or a study could not go on."""
        one, two = (self.rank(seed=4) for _ in range(2))
        for index, group in enumerate(self.subject().network.space.groups):
            half = max(1, group.units // 2)
            alike = np.array_equal(one.keep(index, half), two.keep(index, half))
            expect_that(alike, f"Expected the same units of group {index} of the same seed, got others")

    def test_ranking_leaves_the_network_and_every_random_generator_as_they_were(self) -> None:
        """Weights, statistics, modes, gradients and hooks."""
        model = self.subject().network.model
        before = state_of(model), generators()
        self.rank()
        expect_that(state_of(model) == before[0], "Expected rank to leave the network as it was")
        expect_that(generators() == before[1], "Expected rank to leave global random generators as they were")

    def test_it_says_what_it_needs_and_refuses_without(self) -> None:
        """`needs` says whether it looks at inputs, or at the loss on them, too, which not every task has."""
        criterion, network = self.make(), self.subject().network
        needs = getattr(criterion, "needs", None)
        expect_that(needs in _NEEDS, f"Expected needs as one of {', '.join(_NEEDS)}, got {needs!r}")
        if needs == "nothing":
            criterion.rank(network)
            return
        with expect_error(ValueError, "Expected to be refused without examples", "examples"):
            criterion.rank(network)
        if needs == "loss":
            without = Examples(self.subject().examples.inputs, fidelity())
            with expect_error(ValueError, "Expected to be refused with a task that has no loss", "loss"):
                criterion.rank(network, without)
