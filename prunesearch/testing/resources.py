"""What a resource promises; see `prunesearch.resources.resource.Resource`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from prunesearch.budget import Budget
from prunesearch.errors import InfeasibleBudget
from prunesearch.models.network import Network
from prunesearch.resources import make_resource, metered
from prunesearch.resources.resource import Metered, Resource
from prunesearch.structure import IntArray
from prunesearch.testing.expecting import expect_error, expect_that
from prunesearch.testing.subjects import digits


class ResourceContract:
    """Tests of a resource on a small traced network; a subclass says which resource.

    Attributes:
        resource: The name, the class, `"package.module:attribute"`, or an object.
        table: What it is predicted from, if it takes a table.
    """

    resource: ClassVar[Any]
    table: ClassVar[Any] = None

    def make(self) -> Resource:
        """A fresh resource."""
        if isinstance(self.resource, str):
            return make_resource(self.resource, table=self.table)
        made: Resource = self.resource() if isinstance(self.resource, type) else self.resource
        return made

    def network(self) -> Network:
        """What it is tested on; another network will do."""
        return digits().network

    def structures(self) -> IntArray:
        """(p, g) structures, the narrowest first and the unpruned one last."""
        space = self.network().space
        drawn = space.sample(np.random.default_rng(0), 30)
        return np.vstack([space.minimum, drawn, space.full]).astype(np.int64)

    def metered(self) -> Metered:
        """The resource with its meter for the network."""
        return metered(self.make(), self.network())

    def test_its_name_and_its_unit_are_words(self) -> None:
        """They stand in budgets and in sentences."""
        made = self.make()
        for what, value in (("name", made.name), ("unit", made.unit)):
            expect_that(isinstance(value, str) and bool(value.strip()), f"Expected a {what} in words, got {value!r}")
        clean = not any(sign in made.name for sign in "=, ")
        expect_that(clean, f"Expected a name without spaces, commas and =, got {made.name!r}")
        expect_that(isinstance(made.is_count, bool), f"Expected is_count as True or False, got {made.is_count!r}")

    def test_every_structure_costs_a_finite_amount_of_the_right_kind(self) -> None:
        """Whole numbers of what is counted."""
        structures, found = self.structures(), self.metered()
        costs = np.asarray(found.meter.costs(structures))
        expect_that(costs.shape == (len(structures),), f"Expected {len(structures)} costs, got shape {costs.shape}")
        expect_that(bool(np.isfinite(costs).all() and (costs >= 0).all()), f"Expected finite costs >= 0, got {costs}")
        if found.resource.is_count:
            whole = np.issubdtype(costs.dtype, np.integer)
            expect_that(bool(whole), f"Expected whole numbers of what is counted, got {costs.dtype}")

    def test_a_cost_does_not_depend_on_its_batch_or_on_what_came_before(self) -> None:
        """Equal to the last bit, as a study that goes on compares them."""
        structures, one, two = self.structures(), self.metered().meter, self.metered().meter
        together = np.asarray(one.costs(structures)).tolist()
        backwards = np.asarray(one.costs(structures[::-1])).tolist()[::-1]
        expect_that(backwards == together, "Expected the same costs in another order")
        again = np.asarray(two.costs(structures)).tolist()
        expect_that(again == together, "Expected the same costs of another meter of the same resource")

    def test_the_narrowest_structure_costs_least_and_the_unpruned_one_more(self) -> None:
        """Or nothing could be saved by pruning."""
        costs = np.asarray(self.metered().meter.costs(self.structures())).tolist()
        expect_that(min(costs) == costs[0], f"Expected no structure below the narrowest's {costs[0]}, got {min(costs)}")
        expect_that(costs[-1] > costs[0], f"Expected the unpruned network above the narrowest, got {costs[-1]}")

    def test_no_structures_cost_nothing(self) -> None:
        """As when a searcher has proposed nothing."""
        empty = self.structures()[:0]
        found = np.asarray(self.metered().meter.costs(empty))
        expect_that(found.shape == (0,), f"Expected no cost of no structure, got shape {found.shape}")

    def test_a_budget_limits_it_and_what_is_projected_is_within(self) -> None:
        """A share of what the unpruned network costs, halfway to what the narrowest does."""
        made, structures = self.make(), self.structures()
        least, *_, most = np.asarray(self.metered().meter.costs(structures)).tolist()
        share: dict[str, Any] = {made.name: f"{100 * (least + most) / (2 * most):.3f}%"}
        feasible = Budget(resources=[made], **share).check(self.network())
        for name, moved in (("repair", feasible.repair(structures)), ("fit", feasible.fit(structures))):
            expect_that(bool(feasible.contains(moved).all()), f"Expected what {name} gives to be within the budget")

    def test_a_limit_below_the_narrowest_structure_is_infeasible_with_what_can_be_reached(self) -> None:
        """The error has the numbers."""
        made, structures = self.make(), self.structures()
        least = np.asarray(self.metered().meter.costs(structures)).tolist()[0]
        if least < 2:
            return
        limit: dict[str, Any] = {made.name: least // 2 if made.is_count else least / 2}
        with expect_error(InfeasibleBudget, "Expected a limit below the narrowest structure to be refused"):
            Budget(resources=[made], **limit).check(self.network())

    def test_a_structure_with_one_group_changed_costs_what_it_costs_as_a_whole(self) -> None:
        """A `costs_with` of its own says what `costs` does."""
        space, metered = self.network().space, self.metered()
        pairs = [(index, width) for index, group in enumerate(space.groups) for width in group.widths]
        groups, widths = np.array(pairs, dtype=np.int64).T
        for structure in self.structures():
            whole = np.repeat(np.array([structure]), len(pairs), axis=0)
            whole[np.arange(len(pairs)), groups] = widths
            found, wanted = metered.costs_with(structure, groups, widths), metered.costs(whole)
            expect_that(
                np.array_equal(found, wanted), f"Expected the costs {wanted} with one group changed, got {found}"
            )

    def test_its_formula_has_no_negative_coefficient(self) -> None:
        """`convex` needs one; without a `quadratic` of its own one is fitted."""
        space = self.network().space
        matrix = np.asarray(self.metered().quadratic(space))
        wanted = (1 + len(space.groups), 1 + len(space.groups))
        expect_that(matrix.shape == wanted, f"Expected a matrix of shape {wanted}, got {matrix.shape}")
        fine = bool(np.isfinite(matrix).all() and (matrix >= 0).all())
        expect_that(fine, "Expected a matrix of finite coefficients >= 0")
