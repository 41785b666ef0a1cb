"""Labels for every channel of every tensor of a recorded forward, and what operators say of which belong together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fractions import Fraction
from types import CodeType, MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from torch import fx, nn

from prunesearch.errors import TraceError
from prunesearch.models.amounts import Amounts, Condition, arrays_of
from prunesearch.models.coupling import Labels
from prunesearch.models.forms import Form, Share
from prunesearch.models.functions import KeptFunction
from prunesearch.models.held import held_tensors
from prunesearch.models.literals import Place, argument_of, place_of
from prunesearch.models.nested import Nest
from prunesearch.models.normalised import MethodOf
from prunesearch.models.numbers import Origin, Size
from prunesearch.models.operators import OPERATOR_NAMES
from prunesearch.models.operators.kind import kind_of
from prunesearch.models.operators.values import Number, Shape, Tracked, Value, tensors_of
from prunesearch.models.recorded import Decision, Position, Recording, Site
from prunesearch.models.rounded import Span, call_at, is_rounding, name_called, position_of, span_of, uses_of
from prunesearch.models.width_rules import is_inside
from prunesearch.structure import IntArray

Visit: TypeAlias = "tuple[str | None, CodeType, int]"
"""A call in the code of a module: the module, the code, the instruction."""
Fork: TypeAlias = "tuple[CodeType, int] | str"
"""A call of an operator that leaves a choice, wherever that code runs; or a node by its name."""


@dataclass(frozen=True)
class Product:
    """Multiply-accumulates of one operator.

    Attributes:
        layer: Its name.
        size: How many for each combination of the factors' channels, of one image.
        factors: Labels of the channels whose numbers they are proportional to.
    """

    layer: str
    size: int
    factors: tuple[IntArray, ...]


@dataclass
class Found:
    """What walks over a network's forwards find.

    Attributes:
        labels: Of every channel.
        producers: Layers that make channels, in the order the network runs.
        cuts: Labels of each dimension of a tensor that gets narrower.
        counts: Labels of the channels that a module's attribute counts.
        literals: Labels of the channels that a number in the code of a forward counts.
        reads: Labels of the input of each operator that mixes channels: of a module by its name, of another by that of
            its node.
        products: What costs multiply-accumulates.
        uncounted: Of operators without a rule, how many were counted when they ran, of one image.
        numbers: Labels of the channels that a number in the arguments of a node counts, by the node's name and the way
            to the number; of the forward in eval mode.
        held: What else follows channels among the arguments of nodes that compute with numbers: sums of shares of
            channels and of attributes of modules; likewise.
        asked: Labels of channels whose number a forward asked for.
        conditions: What forwards found when they compared numbers.
        forks: Where channels become several dimensions and any of them could follow: how many there are to choose
            from, and the channels.
    """

    labels: Labels = field(default_factory=Labels)
    producers: list[tuple[str, IntArray]] = field(default_factory=list)
    cuts: dict[tuple[str, int], IntArray] = field(default_factory=dict)
    counts: dict[tuple[str, str], IntArray] = field(default_factory=dict)
    literals: dict[tuple[str, Place], IntArray] = field(default_factory=dict)
    reads: dict[tuple[str, int], IntArray] = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)
    uncounted: list[tuple[str, int]] = field(default_factory=list)
    numbers: dict[tuple[str, Position], IntArray] = field(default_factory=dict)
    held: dict[tuple[str, Position], Form] = field(default_factory=dict)
    asked: list[IntArray] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    forks: dict[Fork, tuple[int, list[IntArray]]] = field(default_factory=dict)

    def uses(self) -> list[IntArray]:
        """Every array of labels that costs depend on: units that run through the same ones are interchangeable."""
        return [*self.cuts.values(), *(factor for product in self.products for factor in product.factors)]


_NONE: Mapping[Any, Any] = MappingProxyType({})
_IGNORED = "is one of ignored_layers"


def walk(
    recording: Recording,
    ignored: Sequence[str],
    found: Found,
    choices: Mapping[Fork, int] = _NONE,
    unseen: Set[str] = frozenset(),
    *,
    by_value: bool = False,
) -> None:
    """Find out what is coupled in a recorded forward, and add it to what is known.

    Args:
        recording: The forward.
        ignored: Names or globs of modules whose outputs keep all channels.
        found: What earlier walks over the same network found.
        choices: Which way to take where there are several; the first by default.
        unseen: Names of nodes that are given a number of channels unseen (`models.unseen`).
        by_value: Whether numbers that the forward made plain are told by their values, to be checked afterwards.
    """
    _Walk(recording, ignored, found, choices, unseen, by_value=by_value).run()


def made_plain(recording: Recording) -> frozenset[Decision]:
    """Where a forward made a plain number of one that knew where it came from, as by `int(c / 2)`."""
    return frozenset(
        decision
        for decision in recording.decisions
        if decision.site is not None and is_rounding(decision.site.code, decision.site.instruction)
    )


class _SeveralTensors(Exception):
    """A rule for operators that give one tensor asked for the shape of something else."""


class _Walk:
    """Applies each operator's rule to the labels of what it was given: `operators.values.Walk`."""

    def __init__(
        self,
        recording: Recording,
        ignored: Sequence[str],
        found: Found,
        choices: Mapping[Fork, int],
        unseen: Set[str],
        *,
        by_value: bool,
    ) -> None:
        self._rounding = made_plain(recording) if by_value else frozenset()
        self._choices = choices
        self._unseen = unseen
        self.labels = found.labels
        self._recording = recording
        self._model = recording.model
        self._ignored = tuple(ignored)
        self._found = found
        self._values: dict[fx.Node, Value] = {}
        self._amounts = Amounts(
            self._model, self.labels, self._count_attribute, self._found.counts.get, self._made_plain
        )
        tensors = (
            *self._model.named_parameters(remove_duplicate=False),
            *self._model.named_buffers(remove_duplicate=False),
        )
        self._first_name = {id(tensor): name for name, tensor in reversed(tensors)}
        self._tensors = dict(tensors)
        held = held_tensors(self._model)
        for constant, attribute in recording.held.items():
            self._tensors[constant] = held[attribute]
            self._first_name[id(held[attribute])] = attribute
        self._visits: dict[Visit, list[fx.Node]] = {}
        self._literal_visits: dict[Visit, tuple[IntArray, set[fx.Node]]] = {}
        self._followed: dict[fx.Node, set[Position]] = {}
        self._rounded = self._uses_rounded()
        self._followed_uses: set[tuple[int, Span]] = set()
        self._sizes: list[int] = []  # what the rule at hand says that its operator costs, for all images

    def run(self) -> None:
        for node in self._recording.graph.nodes:
            self._visit(node)
        for decision in self._recording.decisions:
            self._decide(decision)
        self._amounts.settle()
        self._found.asked += [labels for size in self._recording.asked if (labels := self._labels_of(size)) is not None]
        self._freeze_what_is_used_as_it_is()

    def _visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            return
        if node.op == "get_attr":
            self._values[node] = self._tensor(str(node.target), node.meta["shape"])
        elif node.op == "output" or (isinstance(node.target, Nest) and all(user.op == "output" for user in node.users)):
            self._freeze_all(node, "is an output of the network")
        elif node.meta.get("number"):
            self._amounts.note(node, self.value(next(iter(node.args), None)))
            if not self._recording.training:
                self._found.held.update({(node.name, at): form for at, form in node.meta.get("numbers", {}).items()})
        else:
            self._values[node] = self._apply_rule(node)
            for position, form in node.meta.get("numbers", {}).items():
                if position not in self._followed.get(node, ()):
                    self._amounts.keep(Number(np.empty(0, np.int64), form), describe(node))

    def _apply_rule(self, node: fx.Node) -> Value:
        site = node.meta.get("site")
        if site is not None:
            self._visits.setdefault((site.module, site.code, site.instruction), []).append(node)
        if node.name in self._unseen:
            self.freeze_inputs(node, "computes with how many there are")
        kind = kind_of(node)
        if kind is None:
            return self._do_without_rule(node)
        self._sizes.clear()
        try:
            value = kind.rule(self, node)
        except _SeveralTensors:
            return self._do_without_rule(node)
        self._check_count(node)
        self._freeze_other_numbers(node)
        self._freeze_what_images_decide(node, value)
        if self._is_ignored(node) and self._is_returned(node):
            for held in tensors_of(value):
                for labels in held.axes.values():
                    self.labels.freeze(labels, _IGNORED)
        return value

    def _is_ignored(self, node: fx.Node) -> bool:
        """Whether it runs in a module that is to keep its channels, or is one."""
        return any(is_inside(node.meta.get("scope", ""), pattern) for pattern in self._ignored)

    def _is_returned(self, node: fx.Node) -> bool:
        """Whether what a node of an ignored module gives is given to others by that module, or by one inside of it.

        Computed weights, which do not depend on the inputs, are not if the layer that they are of is ignored, too.
        """
        users = [user for user in node.users if not user.meta.get("number")]
        if node.op == "call_module" or any(user.op == "output" or not self._is_ignored(user) for user in users):
            return True
        own = f"{node.meta['scope']}."
        return self.depends_on_inputs(node) and not all(
            f"{user.meta.get('scope', '')}.".startswith(own) for user in users
        )

    def _do_without_rule(self, node: fx.Node) -> Value:
        is_code = isinstance(node.target, (MethodOf, KeptFunction))
        leaf = f"{describe_target(node)}()" if isinstance(node.target, MethodOf) else str(node.target)
        if isinstance(node.target, KeptFunction):
            leaf = node.target.key
        why = self._recording.leaves.get(leaf, "has no rule")
        self.freeze_inputs(node, why)
        if node.op == "call_module" or is_code:
            self._report(node, why)
        self._count_as_it_ran(node)
        return None

    def _freeze_other_numbers(self, node: fx.Node) -> None:
        """Numbers of channels that the rule did not follow: the operator would compute something else with others."""
        followed = {_at(node, position) for position in self._followed.get(node, ())}
        for argument in node.all_input_nodes:
            if self.number(argument) is not None and argument not in followed:
                self.keep(argument, node, "computes with how many there are")

    def _freeze_what_images_decide(self, node: fx.Node, value: Value) -> None:
        """Channels that more images have more of: what reads them would be told of those of the example."""
        if isinstance(value, Tracked):
            for dim in node.meta.get("of_images", frozenset()) & value.axes.keys():
                self.freeze(value.axes[dim], node, "takes them together with the images of a batch")

    def _freeze_number(self, argument: fx.Node, reason: str) -> None:
        number = self.number(argument)
        if number is not None:
            self.labels.freeze(number.labels, reason)
            self._amounts.pin_number(number, reason)

    def _check_count(self, node: fx.Node) -> None:
        """What a rule says an operator costs must be what was counted when it ran."""
        if not self._sizes:
            self._count_as_it_ran(node)
            return
        if self._recording.training:
            return
        said = sum(self._sizes)
        counted = node.meta.get("flops", 0) // 2
        if not counted:  # some kernels of attention are unknown to torch's counter, which is the measure
            del self._found.products[-len(self._sizes) :]
            return
        if said != counted:
            raise TraceError(
                f"{describe(node)} takes {counted:,} MACs when it runs, and {said:,} by the shapes of its weights: it "
                "does something else than its kind. Keep its module whole with ignored_layers."
            )

    def _report(self, node: fx.Node, why: str) -> None:
        """A module that stays as it is, with all its weights."""
        name = node.target.module if isinstance(node.target, (MethodOf, KeptFunction)) else str(node.target)
        module = self._model.get_submodule(name)
        used = node.meta.get("used")  # of a method or function, what it was seen to use
        names = [self._first_name.get(id(t)) for t in (*module.parameters(), *module.buffers())]
        names = names if used is None else [tensor for tensor in names if tensor in used]
        for tensor in {tensor for tensor in names if tensor is not None}:
            value = self._tensor(tensor, tuple(self._tensors[tensor].shape))
            for labels in {} if value is None else value.axes.values():
                self.labels.freeze(
                    labels, f"{tensor!r} belongs to a module that stays as it is: {describe(node)} {why}"
                )
        if names:
            self._found.producers.append((name or describe_target(node), self.labels.fresh(1)))
            self.labels.freeze(self._found.producers[-1][1], why)

    def _count_as_it_ran(self, node: fx.Node) -> None:
        flops = node.meta.get("flops", 0)
        if flops:
            self._found.uncounted.append((self._layer(node), self._of_one_image(node, flops // 2)))

    # --- what rules may ask and tell: `operators.values.Walk`

    def value(self, argument: Any) -> Tracked | None:
        value = self._values.get(argument) if isinstance(argument, fx.Node) else None
        return None if isinstance(value, tuple) else value

    def values(self, argument: Any) -> Value:
        return self._values.get(argument) if isinstance(argument, fx.Node) else None

    def number(self, argument: Any) -> Number | None:
        return self._amounts.get(argument)

    def plain(self, argument: Any) -> Any:
        return argument.meta.get("value") if isinstance(argument, fx.Node) else argument

    def shape(self, argument: Any) -> Shape:
        if "shape" not in argument.meta:
            raise _SeveralTensors
        return argument.meta["shape"]

    def is_tensor(self, argument: Any) -> bool:
        return isinstance(argument, fx.Node) and "shape" in argument.meta

    def depends_on_inputs(self, node: fx.Node) -> bool:
        return bool(node.meta.get("fed"))

    def of_images(self, argument: Any) -> frozenset[int]:
        usual = frozenset({0} if self.depends_on_inputs(argument) else ())
        found: frozenset[int] = argument.meta.get("of_images", usual)
        return found

    def module_of(self, node: fx.Node) -> nn.Module:
        return self._model.get_submodule(str(node.target))

    def parameter(self, node: fx.Node, name: str) -> Tracked | None:
        tensor = getattr(self.module_of(node), name, None)
        if tensor is None:
            return None
        first = self._first_name.get(id(tensor))
        if first is None:
            return None
        return self._tensor(first, tuple(tensor.shape), also_single=True)

    def freeze(self, labels: IntArray | None, node: fx.Node, why: str) -> None:
        if labels is not None:
            self.labels.freeze(labels, f"{describe(node)} {why}")

    def freeze_inputs(self, node: fx.Node, why: str) -> None:
        self._freeze_all(node, f"{describe(node)} {why}")

    def choose(self, node: fx.Node, options: int, labels: IntArray, *, alone: bool = False) -> int:
        site = node.meta.get("site")
        fork: Fork = place(node) if alone or site is None else (site.code, site.instruction)
        _, before = self._found.forks.get(fork, (options, []))
        self._found.forks[fork] = options, [*before, labels]
        return min(self._choices.get(fork, 0), options - 1)

    def keep(self, argument: Any, node: fx.Node, why: str) -> None:
        number = self.number(argument)
        if number is not None:
            self._amounts.keep(number, f"{describe(node)} {why}")

    def fits(self, node: fx.Node, position: Position, labels: IntArray) -> bool:
        given = _at(node, position)
        number = self.number(given)
        if number is not None:
            fits = self._amounts.follow(number.form, labels)
            if fits:
                self.stays(node, position)
            return fits
        form = node.meta.get("numbers", {}).get(position)
        if form is not None:
            fits = self._amounts.follow(form, labels)
            if fits:
                self.stays(node, position)
        else:
            fits = type(given) is int and (
                self._follow_rounded(node, position, labels)
                or self._follow_literal(node, position, labels)
                or self._follow_value(given, labels)
            )
        if fits and not self._recording.training:
            self._found.numbers[node.name, position] = labels
        return fits

    def stays(self, node: fx.Node, position: Position) -> None:
        self._followed.setdefault(node, set()).add(position)

    def differ(self, labels: IntArray, n: int, node: fx.Node, why: str) -> None:
        if len(labels) != n:
            difference = Form.of(labels).plus(Form((), n), -1)
            self._found.conditions.append(Condition(difference, "ne", f"{describe(node)} {why}"))

    def is_uncounted(self, node: fx.Node) -> bool:
        return not self._recording.training and not node.meta.get("flops")

    def count(self, node: fx.Node, attribute: str, labels: IntArray) -> None:
        self._record(self._found.counts, (str(node.target), attribute), labels)

    def read(self, node: fx.Node, dim: int, labels: IntArray) -> None:
        self._record(self._found.reads, (place(node, training=self._recording.training), dim), labels)

    def produce(self, node: fx.Node, labels: IntArray) -> None:
        self._found.producers.append((self._layer(node), labels))
        if self._is_ignored(node):
            self.labels.freeze(labels, _IGNORED)

    def macs(self, node: fx.Node, size: int, factors: Sequence[IntArray]) -> None:
        self._sizes.append(size * math.prod(map(len, factors)))
        if self._recording.training:  # where nothing is counted
            return
        held = list(factors)
        while held and self._share(node, size).denominator != 1:
            labels = held.pop()
            self.freeze(labels, node, "takes them together with the images of a batch")
            size *= len(labels)
        self._found.products.append(Product(self._layer(node), self._of_one_image(node, size), tuple(held)))

    def _share(self, node: fx.Node, macs: int) -> Fraction:
        return macs * node.meta.get("of_one_image", Fraction(1, self._recording.images))

    def _of_one_image(self, node: fx.Node, macs: int) -> int:
        """What was counted for all images of the run, for one; what is the same for any number of them counts whole."""
        share = self._share(node, macs)
        if share.denominator != 1:
            raise TraceError(f"{describe(node)} takes {macs:,} MACs for {self._recording.images} images, and no whole "
                             "number for one.")  # fmt: skip
        return int(share)

    # --- tensors of the model

    def _tensor(self, name: str, shape: Shape, *, also_single: bool = False) -> Tracked | None:
        """Labels along every dimension of a parameter or buffer; it is narrowed with them.

        A dimension of size 1 of a layer's weight is a single channel; elsewhere it is one for all.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            return None  # a constant
        first = self._first_name[id(tensor)]
        axes = {}
        for dim, size in enumerate(shape):
            if size > 1 or also_single:
                if (first, dim) not in self._found.cuts:
                    self._found.cuts[first, dim] = self.labels.fresh(size)
                axes[dim] = self._found.cuts[first, dim]
        return Tracked(axes)

    def _record(self, table: dict[Any, IntArray], key: Any, labels: IntArray) -> None:
        if (
            key not in table
        ):  # a module called twice, or a tensor shared by two modules, sees the same channels each time
            table[key] = labels
        elif len(table[key]) == len(labels):
            self.labels.tie(table[key], labels)
        else:
            for held in (table[key], labels):
                self.labels.freeze(held, f"{key[0]!r} is used with different numbers of channels")

    def _layer(self, node: fx.Node) -> str:
        """What an operator is called in reports: its module, or the one whose weight it uses, or its own name."""
        if node.op == "call_module":
            return str(node.target)
        source: Any = node.args[1] if len(node.args) > 1 else None
        while isinstance(source, fx.Node) and source.op != "get_attr":
            source = next(iter(source.all_input_nodes), None)
        if isinstance(source, fx.Node) and str(source.target) in self._tensors:
            tensor = self._recording.held.get(str(source.target), str(source.target))
            scope, owner = node.meta["scope"], tensor.rpartition(".")[0]
            is_inside = bool(scope) and f"{owner}.".startswith(f"{scope}.")
            return scope if is_inside else owner or tensor
        return place(node)

    # --- numbers

    def _count_attribute(self, key: tuple[str, str], labels: IntArray) -> bool:
        """Let an attribute count channels, and whatever else it is known to count as many."""
        before = self._found.counts.get(key)
        if before is None or len(before) != len(labels) or not self.labels.count_alike(before, labels):
            self._record(self._found.counts, key, labels)
        return len(self._found.counts[key]) == len(labels)

    def _follow_literal(self, node: fx.Node, position: Position, labels: IntArray) -> bool:
        site = node.meta.get("site")
        if site is None:
            return False
        for owner in dict.fromkeys((site.module, node.meta["scope"])):
            if owner is None:
                continue
            found = place_of(self._model.get_submodule(owner), site, node, position)
            if found is not None and found[1] == len(labels):
                self._record(self._found.literals, (owner, found[0]), labels)
                break
        else:
            return False
        visit = site.module, site.code, site.instruction
        self._literal_visits.setdefault(visit, (labels, set()))[1].add(node)
        return True

    def _follow_rounded(self, node: fx.Node, position: Position, labels: IntArray) -> bool:
        """Follow a number through `int(...)`, by what the source says of its result."""
        site: Site | None = node.meta.get("site")
        if site is None or not site.run:
            return False
        call = call_at(site.code, site.instruction)
        expression = None if call is None else argument_of(call, node, position)
        if expression is None:
            return False
        use = site.run, position_of(expression)
        origin = self._rounded.get(use)
        if origin is None or not self._amounts.follow(self._form_of(origin), labels):
            return False
        self._followed_uses.add(use)
        return True

    def _follow_value(self, given: int, labels: IntArray) -> bool:
        """Follow a plain number as one that was made plain and has its value; of several as one of these channels."""
        found = [*self._all_made_plain(given)]
        found.sort(key=lambda form: not any(np.isin(labels, some).any() for some in arrays_of(form)))
        return any(self._amounts.follow(form, labels) for form in found)

    def _made_plain(self, node: fx.Node, index: int, given: int) -> Form | None:
        form = next(self._all_made_plain(given), None)
        if form is not None and not self._recording.training:
            self._found.held[node.name, (index,)] = form
        return form

    def _all_made_plain(self, given: int) -> Iterator[Form]:
        """What was made plain so far and has this value, the latest first, where numbers are told so."""
        decisions = (decision for decision in reversed(self._recording.decisions) if decision in self._rounding)
        for form in (self._form_of(decision.numbers[0]) for decision in decisions):
            if form is not None and form.terms and form.value(self._amounts.value_of) == given:
                yield form

    def _uses_rounded(self) -> dict[tuple[int, Span], Origin | float]:
        """What each use of a number that `int(...)` gave is."""
        found: dict[tuple[int, Span], Origin | float] = {}
        for decision in self._recording.decisions:
            site = decision.site
            if site is not None:
                uses = uses_of(site.code, site.instruction) or ()
                found.update({(site.run, use.span): decision.numbers[0] for use in uses})
        return found

    def _is_followed(self, site: Site | None) -> bool:
        """Whether all uses of a number that was made a plain one there were followed, or did not run."""
        uses = None if site is None else uses_of(site.code, site.instruction)
        if site is None or uses is None:
            return False
        sites = [node.meta["site"] for node in self._recording.graph.nodes if node.meta.get("site") is not None]
        ran = {span_of(other.code, other.instruction) for other in sites if other.run == site.run}
        return all(
            (site.run, use.span) in self._followed_uses
            or (ran.isdisjoint(use.calls) and name_called(site.code, use) in OPERATOR_NAMES)
            for use in uses
        )

    def _decide(self, decision: Decision) -> None:
        if self._is_followed(decision.site) or decision in self._rounding:
            return
        why = f"how many there are decides what the forward does, at {decision.where}"
        forms = [self._form_of(number) for number in decision.numbers]
        if not decision.relation or None in forms:
            for number in decision.numbers:
                labels = self._labels_of(number)
                if labels is not None:
                    self.labels.freeze(labels, why)
                self._amounts.pin(self._form_of(number), f"code at {decision.where}")
                self._amounts.pin_number(self.number(number), f"code at {decision.where}")
            return
        one, other = forms
        assert one is not None
        assert other is not None
        if decision.relation == "eq":
            self._make_equal(one, other)
        difference = one.plus(other, -1)
        if difference.terms:
            self._found.conditions.append(Condition(difference, decision.relation, why))

    def _make_equal(self, one: Form, other: Form) -> None:
        """Two numbers that were found equal stay so, if one of them is that of some channels.

        That `c // 2 * 2` is `c` is one of the conditions that are checked in the end.
        """
        for mine, theirs in ((one, other), (other, one)):
            labels = None if mine.only is None or mine.only[1] != Share() else mine.only[0]
            if isinstance(labels, np.ndarray) and theirs.terms and self._amounts.follow(theirs.reduced(), labels):
                return

    def _form_of(self, origin: Origin | float) -> Form | None:
        if not isinstance(origin, Size):
            return self._amounts.form_of(origin)
        labels = self._labels_of(origin)
        if labels is not None:
            return Form.of(labels)
        return Form((), origin.tensor.meta["shape"][origin.dim]) if "shape" in origin.tensor.meta else None

    def _labels_of(self, origin: Origin | float) -> IntArray | None:
        if isinstance(origin, Size):
            value = self.value(origin.tensor)
            return None if value is None else value.at(origin.dim)
        number = self.number(origin)
        return None if number is None else number.labels

    # --- freezing

    def _freeze_all(self, node: fx.Node, reason: str) -> None:
        for argument in node.all_input_nodes:
            for value in tensors_of(self._values.get(argument)):
                for labels in value.axes.values():
                    self.labels.freeze(labels, reason)
            self._freeze_number(argument, reason)

    def _freeze_what_is_used_as_it_is(self) -> None:
        """A number that something takes as it is would not be what it was if it followed channels."""
        constants = self._amounts.used_as_it_is
        for key, labels in self._found.counts.items():
            if key in constants:
                self.labels.freeze(labels, f"'{'.'.join(key).lstrip('.')}' is used as it is by {constants[key]}")
        for visit, (labels, followed) in self._literal_visits.items():
            others = [node for node in self._visits.get(visit, ()) if node not in followed]
            if others:
                self.labels.freeze(labels, f"{describe(others[0])} has the same number where no channels are")


def _at(node: fx.Node, position: Position) -> Any:
    value: Any = node.kwargs if isinstance(position[0], str) else node.args
    for step in position:
        value = getattr(value, str(step)) if isinstance(value, slice) else value[step]
    return value


def place(node: fx.Node, *, training: bool = False) -> str:
    """What an operator is called: the module that it is, or its node, with the module whose code calls it."""
    if node.op == "call_module":
        return str(node.target)
    return f"{node.meta.get('scope', '')}%{node.name}" + "(training)" * training


def describe_target(node: fx.Node) -> str:
    """The name of what a node calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def describe(node: fx.Node) -> str:
    """An operator in words."""
    if node.target is getattr:
        return f"attribute {str(node.args[1])!r}"
    name = describe_target(node)
    kind = {"call_module": "module", "call_method": "method", "call_function": "function"}.get(node.op, "node")
    scope = node.meta.get("scope") if node.op != "call_module" else ""
    return f"{kind} {name!r}" + (f" in {scope!r}" if scope else "")
