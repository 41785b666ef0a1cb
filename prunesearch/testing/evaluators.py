"""What an evaluator promises; see `prunesearch.evaluators.evaluator.Evaluator`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from prunesearch.evaluators import make_evaluator
from prunesearch.evaluators.evaluator import Divisible, Evaluator
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.study.packing import pack, unpack
from prunesearch.testing.expecting import expect_that
from prunesearch.testing.state import generators, state_of
from prunesearch.testing.subjects import Subject, digits


class EvaluatorContract:
    """Tests of an evaluator on a small trained network; a subclass says which evaluator.

    Attributes:
        evaluator: The name, the class, or `"package.module:attribute"`; of a function say it in `make`.
        options: Of its constructor.
    """

    evaluator: ClassVar[Any]
    options: ClassVar[Mapping[str, Any]] = {}

    def make(self, weights: WeightSource | None = None) -> Evaluator:
        """A fresh evaluator, of some weights, or of those that `weights` gives."""
        on = self.subject()
        return make_evaluator(self.evaluator, weights or self.weights(), on.examples, **self.options)

    def subject(self) -> Subject:
        """What it is tested on; another network and other data will do."""
        return digits()

    def weights(self) -> WeightSource:
        """Where the weights of structures come from: slices of the trained ones."""
        on = self.subject()
        return InheritedWeights(on.network, on.ranking)

    def test_every_structure_gets_a_finite_score_and_a_better_one_scores_higher(self) -> None:
        """The unpruned network is better than the narrowest."""
        structures = self.subject().structures()
        scores = self.make().score(structures)
        expect_that(len(scores) == len(structures), f"Expected {len(structures)} scores, got {len(scores)}")
        full, *_, minimum = scores
        expect_that(math.isfinite(full), f"Expected a finite score of the unpruned network, got {full}")
        expect_that(full > minimum, f"Expected the unpruned network above the narrowest, got {full} and {minimum}")

    def test_a_score_does_not_depend_on_its_batch_on_order_or_on_what_came_before(self) -> None:
        """Equal to the last bit, as a study that goes on compares them."""
        structures, evaluator = self.subject().structures(), self.make()
        together = evaluator.score(structures)
        backwards = evaluator.score(structures[::-1])[::-1]
        expect_that(
            backwards == together, f"Expected the same scores in another order, got {backwards}, not {together}"
        )
        alone = [self.make().score([structure])[0] for structure in structures]
        expect_that(alone == together, f"Expected the same scores one by one, got {alone}, not {together}")

    def test_scoring_leaves_the_network_and_every_random_generator_as_they_were(self) -> None:
        """Weights, statistics, modes, gradients and hooks."""
        model = self.subject().network.model
        before = state_of(model), generators()
        self.make().score(self.subject().structures())
        expect_that(state_of(model) == before[0], "Expected score to leave the network as it was")
        expect_that(generators() == before[1], "Expected score to leave global random generators as they were")

    def test_scoring_nothing_gives_nothing(self) -> None:
        """As when everything of a batch is known already."""
        scores = self.make().score([])
        expect_that(list(scores) == [], f"Expected no score of no structure, got {scores}")

    def test_the_description_is_one_line_that_is_the_same_for_the_same_settings(self) -> None:
        """A stored study refuses to go on with another."""
        one, two = self.make().description, self.make().description
        expect_that(isinstance(one, str) and bool(one), f"Expected a description in words, got {one!r}")
        expect_that(one == two, f"Expected the same description of the same settings, got {one!r} and {two!r}")
        expect_that(len(one.splitlines()) == 1, f"Expected a description in one line, got {one!r}")

    def test_an_evaluator_that_can_be_divided_scores_on_all_of_its_images_what_it_scores_undivided(self) -> None:
        """Those without `n_images` and `on(images)` do not race; nothing is asked of them here."""
        evaluator, structures = self.make(), self.subject().structures()
        if isinstance(evaluator, Divisible):
            whole, n = evaluator.score(structures), evaluator.n_images
            half = evaluator.on(range(n // 2))
            expect_that(half.n_images == n // 2, f"Expected an evaluator on {n // 2} images, got {half.n_images}")
            half.score(structures)
            on_all = evaluator.on(range(n)).score(structures)
            expect_that(on_all == whole, f"Expected the same scores on all images, got {on_all}, not {whole}")
            after = evaluator.score(structures)
            expect_that(after == whole, f"Expected the undivided one to stay as it was, got {after}, not {whole}")

    def test_what_scores_measure_is_said_in_words(self) -> None:
        """`measures` may be left out."""
        measures = getattr(self.make(), "measures", "score")
        expect_that(isinstance(measures, str) and bool(measures), f"Expected measures in words, got {measures!r}")

    def test_what_a_worker_is_handed_scores_alike(self) -> None:
        """`workers=` copies the weights and what makes an evaluator to other processes, and makes one there."""
        structures, weights, make = self.subject().structures(), self.weights(), self.make
        here = make(weights).score(structures)
        (handed,) = unpack(pack(lambda: (make(weights),)))()
        there = handed.score(structures)
        expect_that(list(there) == list(here), f"Expected a worker to score alike, got {there}, not {here}")
