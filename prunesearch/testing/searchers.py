"""What a searcher promises; see `prunesearch.search.searcher.Searcher`."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar

from prunesearch.budget import Budget, BudgetOrSet, as_array
from prunesearch.errors import InfeasibleBudget
from prunesearch.search import evidence_needed, make_searcher
from prunesearch.search.searcher import Searcher
from prunesearch.structure import Space, Structure
from prunesearch.testing.expecting import expect_error, expect_that
from prunesearch.testing.state import generators
from prunesearch.testing.toys import bowl, chain_space, evidence, toy_table, trial, trials_of
from prunesearch.trial import Trial

_BATCHES = (20,) * 8
_FEWER = _BATCHES[:5]
"""What every searcher of ours has begun to learn after, for promises that hold at each step or break early."""
_SECONDS = 1.0
"""How long it may take to refuse a budget; a loop that never ends is what this guards against."""


class SearcherContract:
    """Tests of a searcher on small made-up spaces; a subclass says which searcher. Seconds in all, none of torch.

    Attributes:
        searcher: The name, the class, or `"package.module:attribute"`; of a function say it in `make`.
        options: Of its constructor.
    """

    searcher: ClassVar[Any]
    options: ClassVar[Mapping[str, Any]] = {}

    def make(self, space: Space, budget: BudgetOrSet, *, seed: int = 0, **options: Any) -> Searcher:
        """A fresh searcher; what it wants to know of a network (`needs`) is made up."""
        known = evidence(space, evidence_needed(self.searcher))
        return make_searcher(self.searcher, space, budget, seed=seed, **known, **self.options, **options)

    def space(self) -> Space:
        """The space of most tests; with five groups of up to 32 channels, or a test's own."""
        return chain_space((16, 24, 32, 32, 16), 8)

    def budgets(self) -> dict[str, Budget]:
        """Budgets of `space`, by what is particular to them."""
        space = self.space()
        return {
            "macs": Budget(macs="40%"),
            "params": Budget(params="25%"),
            "both": Budget(macs="50%", params="30%"),
            "tight": Budget(macs=space.cost(space.minimum).macs + 1),
            "loose": Budget(macs="100%"),
            "latency": Budget(latency_ms="60%", table=toy_table(space)),
            "latency with cliffs": Budget(latency_ms="60%", macs="50%", table=toy_table(space, cliff=1.5)),
        }

    def play(self, budget: BudgetOrSet, seed: int = 0, batches: Sequence[int] = _BATCHES) -> list[Structure]:
        """Ask and tell a fresh searcher; return what it proposed."""
        space = self.space()
        searcher = self.make(space, budget, seed=seed)
        proposed: list[Structure] = []
        for n in batches:
            asked = searcher.ask(n)
            searcher.tell(trials_of(asked, self._score(), start=len(proposed)))
            proposed += asked
        return proposed

    def test_every_proposal_is_in_the_space_within_the_budget_and_new(self) -> None:
        """Under limits on MACs, parameters and latency, one or two at once, tight and loose ones."""
        for name, budget in self.budgets().items():
            proposed = self.play(budget)
            expect_that(bool(proposed), f"Expected proposals under the budget {name!r} ({budget}), got none")
            expect_valid(proposed, self.space(), budget)

    def test_no_more_are_proposed_than_asked_for(self) -> None:
        """One, a few and many."""
        searcher = self.make(self.space(), self.budgets()["macs"])
        for n in (1, 3, 50):
            asked = searcher.ask(n)
            expect_that(len(asked) <= n, f"Expected at most {n} structures of ask({n}), got {len(asked)}")
            searcher.tell(trials_of(asked, self._score()))

    def test_full_width_a_hundred_times_over_the_budget_is_no_obstacle(self) -> None:
        """One per cent of the MACs of a wide network."""
        space, budget = chain_space((400, 400), 400), Budget(macs="1%")
        proposed = self.make(space, budget).ask(16)
        expect_that(bool(proposed), "Expected proposals under a budget of 1% of the MACs, got none")
        expect_valid(proposed, space, budget)

    def test_the_same_seed_and_history_give_the_same_proposals(self) -> None:
        """Or a killed study could not go on: it is replayed."""
        first, second = (self.play(self.budgets()["macs"], seed=3, batches=_FEWER) for _ in range(2))
        expect_that(first == second, "Expected the same proposals of the same seed and history, got others")

    def test_the_same_proposals_come_in_another_process_with_another_hash_seed(self) -> None:
        """What goes through a set or a hash comes in another order there. The suite must be importable by its name."""
        budget, main = self.budgets()["macs"], sys.modules["__main__"]
        can_be_imported = type(self).__module__ != main.__name__ or hasattr(main, "__file__")
        expect_that(can_be_imported, "Expected a suite in a file, as another process imports it; this one is in none")
        fresh = multiprocessing.get_context("spawn")
        with _environment(PYTHONHASHSEED="123"), ProcessPoolExecutor(1, mp_context=fresh) as pool:
            there = pool.submit(self.play, budget, 5).result()
        expect_that(there == self.play(budget, 5), "Expected the same proposals in another process, got others")

    def test_asking_for_fewer_gives_the_first_of_what_asking_for_more_would(self) -> None:
        """So that the size of batches decides nothing."""
        few, many = (self.make(self.space(), self.budgets()["macs"], seed=1).ask(n) for n in (7, 30))
        expect_that(many[: len(few)] == few, f"Expected ask(7) to be the first 7 of ask(30), got {few} and {many}")

    def test_global_random_generators_are_left_as_they_were(self) -> None:
        """Draws come from generators made of the seed."""
        before = generators()
        self.play(self.budgets()["macs"], batches=_FEWER)
        expect_that(generators() == before, "Expected global random generators to be left as they were")

    def test_tell_takes_failed_tied_foreign_and_out_of_order_trials(self) -> None:
        """Trials without a score, in any order, of other spaces and of structures that were never asked for."""
        space, budget = self.space(), self.budgets()["macs"]
        searcher = self.make(space, budget)
        asked = searcher.ask(20)
        told: list[Trial] = [trial(i, structure, None if i % 3 == 0 else 0.5) for i, structure in enumerate(asked)]
        foreign = [trial(90, (1, 2), 9.0), trial(91, space.full, 9.0), trial(92, (-1,) * 5, None), trial(93, (), 1.0)]
        searcher.tell([*reversed(told), *foreign])
        searcher.tell([])
        expect_valid([*asked, *searcher.ask(20)], space, budget)

    def test_structures_that_were_told_are_not_proposed_again(self) -> None:
        """As when a study goes on whose trials were told, not asked for."""
        budget = self.budgets()["macs"]
        known = self.play(budget, batches=(10,))
        searcher = self.make(self.space(), budget)
        searcher.tell(trials_of(known, self._score()))
        again = set(searcher.ask(30)) & set(known)
        expect_that(not again, f"Expected nothing that was told before, got {sorted(again)}")

    def test_a_small_space_is_exhausted_with_an_empty_ask_and_not_with_a_loop(self) -> None:
        """Finished is said by proposing nothing."""
        space, budget = chain_space((4, 4), 2), Budget(macs="100%")
        searcher = self.make(space, budget)
        seen: list[Structure] = []
        for _ in range(20):
            asked = searcher.ask(10)
            if not asked:
                break
            searcher.tell(trials_of(asked, lambda structure: float(sum(structure)), start=len(seen)))
            seen += asked
        else:
            raise AssertionError(f"Expected an end in a space of {space.size} structures, got {len(seen)} proposals")
        expect_valid(seen, space, budget)

    def test_spaces_with_hardly_anything_to_choose_are_no_obstacle(self) -> None:
        """No group at all, one, and groups of one channel: the only structure there is, once."""
        for widths in ((), (8,), (1, 1)):
            space = chain_space(widths, 1)
            searcher = self.make(space, Budget(macs="100%"))
            seen: list[Structure] = []
            for _ in range(3):
                asked = searcher.ask(10)
                searcher.tell(trials_of(asked, lambda _: 1.0, start=len(seen)))
                seen += asked
            expect_that(seen == [space.full], f"Expected [{space.full}] of a space of widths {widths}, got {seen}")

    def test_an_infeasible_budget_is_refused_by_the_constructor_in_under_a_second(self) -> None:
        """By `budget.check(space)`, which says what can be reached."""
        start = time.monotonic()
        with expect_error(InfeasibleBudget, "Expected a budget of one MAC to be refused", "cannot be met"):
            self.make(self.space(), Budget(macs=1))
        seconds = time.monotonic() - start
        expect_that(seconds < _SECONDS, f"Expected the refusal within {_SECONDS} s, it took {seconds:.1f} s")

    def test_an_option_it_does_not_know_is_refused(self) -> None:
        """Or a typing error would search with the default."""
        with expect_error(TypeError, "Expected an option that does not exist to be refused", "nonsense"):
            self.make(self.space(), self.budgets()["macs"], nonsense=1)

    def _score(self) -> Callable[[Structure], float]:
        space = self.space()
        return bowl(space, [(0.5, 0.4, 0.6, 0.3, 0.7)[i % 5] for i in range(len(space.groups))])


def expect_valid(proposed: Sequence[Structure], space: Space, budget: BudgetOrSet) -> None:
    """Make sure that structures are of a space, within a budget, and each there once.

    Raises:
        AssertionError: One is not.
    """
    feasible = budget.check(space)
    for structure in proposed:
        try:
            checked = space.check(structure)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"Expected structures of the space, got {structure!r}: {error}") from error
        expect_that(checked == structure, f"Expected structures as tuples of integers, got {structure!r}")
    inside = feasible.contains(as_array(proposed, space))
    over = [
        (structure, feasible.cost(structure))
        for structure, is_inside in zip(proposed, inside, strict=True)
        if not is_inside
    ]
    expect_that(not over, f"Expected structures within {budget}, got with their costs {over}")
    twice = [structure for structure in set(proposed) if proposed.count(structure) > 1]
    expect_that(not twice, f"Expected each structure once, got {twice} more often")


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables of the environment for the processes that are started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
