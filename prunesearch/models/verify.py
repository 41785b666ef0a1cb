"""The proof that slimming is right: a slimmed network against the full one with the removed channels masked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunesearch.models.copying import without_data
from prunesearch.models.count import count
from prunesearch.models.following import Forwards, varied, with_images
from prunesearch.models.isolation import attributes_kept, isolated
from prunesearch.models.kept_whole import Calls, arguments_given, results_given
from prunesearch.models.masked import Masked, MaskedForward
from prunesearch.models.nested import tensors_in
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.recorded import Inputs
from prunesearch.models.slim import kept_units, slim
from prunesearch.models.traced import TracedModel
from prunesearch.ranges import whole_number
from prunesearch.structure import Cost, Structure


@dataclass(frozen=True, repr=False)
class Verification:
    """What `verify` found.

    Attributes:
        structures: How many random structures were built.
        largest_difference: Largest absolute difference of any output, slimmed against masked; NaN if an output is.
        scale: Largest absolute output of the masked networks, to judge the difference by.
        costs_exact: Whether every predicted cost equalled the one counted on the built network.
        training_difference: The same difference in training mode, as a share of its scale, infinite where the slimmed
            network fails in it; None where the full network fails, or where the forward draws at random in a way that
            depends on widths, so that two networks cannot be compared.
    """

    structures: int
    largest_difference: float
    scale: float
    costs_exact: bool
    training_difference: float | None = None

    def __repr__(self) -> str:
        costs = "exact" if self.costs_exact else "not as predicted"
        share = self.training_difference
        training = "" if share is None else f", a share of {share:.2g} in training mode"
        return (
            f"Verification(structures: {self.structures}, largest difference: {self.largest_difference:.2g} of "
            f"{self.scale:.3g}{training}, costs: {costs})"
        )


def verify(network: TracedModel, n: int = 10, seed: int = 0) -> Verification:
    """Build `n` random structures, with random channels, and compare each with the masked full network.

    Run in eval and in training mode on the example inputs; about 1e-6 of the scale is float32 rounding. Costs are
    counted by torch's own counter. Dropout is left out, and noise is one number for a whole tensor: both are otherwise
    drawn for each channel, of which the smaller network has fewer.

    Raises:
        TypeError: The network returns something in which we find no tensor to compare, or a number is no whole one.
        ValueError: There is nothing to build, as `n` is below 1.
    """
    n, seed = whole_number("n", n, at_least=1), whole_number("seed", seed, at_least=0)
    rng = np.random.default_rng([seed, n])
    return verify_these(network, [network.space.check(row.tolist()) for row in network.space.sample(rng, n)], rng)


def verify_these(
    network: TracedModel,
    structures: Sequence[Structure],
    rng: np.random.Generator,
    forwards: Forwards | None = None,
    inputs: Inputs | None = None,
) -> Verification:
    """The same for structures of the caller's choice; which channels stay is drawn from `rng`.

    Args:
        network: The traced network.
        structures: What to build.
        rng: Draws the channels that stay.
        forwards: Its forward, where that has just been followed.
        inputs: On which outputs are compared; by default the example inputs.
    """
    forward = MaskedForward(network, forwards)
    found = [_compared(network, forward, structure, rng, inputs or network.inputs) for structure in structures]
    training = [item.training for item in found]
    return Verification(
        len(structures),
        float(np.max([item.difference for item in found], initial=0.0)),  # unlike max of Python, keeps a NaN
        float(np.max([item.scale for item in found], initial=0.0)),
        all(item.costs_exact for item in found),
        None if None in training else float(np.max([share for share in training if share is not None], initial=0.0)),
    )


@dataclass(frozen=True)
class _Compared:
    """One structure: see `Verification`."""

    difference: float
    scale: float
    training: float | None
    costs_exact: bool


def _compared(
    network: TracedModel, forward: MaskedForward, structure: Structure, rng: np.random.Generator, inputs: Inputs
) -> _Compared:
    ranking = NestedRanking.by_importance([rng.random(len(units)) for units in network.units])

    def both() -> tuple[nn.Module, Masked]:
        return slim(network, structure, ranking), forward.module(kept_units(network, structure, ranking))

    slimmed, full = both()
    exact = _cost(network, forward, slimmed) == network.space.cost(structure)
    found = _differences(network, forward, slimmed, full, inputs)
    if found.difference > _ROUNDING * found.scale or (found.training or 0.0) > _ROUNDING:
        inputs = inputs.with_tensors([x.double() if x.is_floating_point() else x for x in inputs.tensors])
        slimmed, full = both()  # anew, as running statistics have changed
        try:
            found = _differences(network, forward, slimmed.double(), full.double(), inputs)
        except Exception:  # a forward may insist on its type
            return replace(found, costs_exact=exact)
    return replace(found, costs_exact=exact)


_FEWEST, _MOST, _VALUES = 2, 8, 64
"""Images in training mode: so many that BatchNorm has this many values, as rounding is large behind fewer."""
_ROUNDING = 1e-4
"""Of the largest output. Larger differences are looked at again with 53 bits: rounding may decide what is on top."""


def _cost(network: TracedModel, forward: MaskedForward, slimmed: nn.Module) -> Cost:
    """What the slimmed network costs when it runs.

    Where data decide what runs, as how many boxes are looked at, the parts that decide get the unpruned network's data.
    """
    if network.way.without_data:
        return _cost_without_data(network, slimmed)
    if not network.leaves or not network.inputs.is_listed:
        return count(slimmed, network.inputs)
    _, calls = _of_masked(forward.module(np.ones(network.unit_count, dtype=np.bool_)).eval(), network.inputs)
    with arguments_given(slimmed, calls):
        return count(slimmed, network.inputs)


def _cost_without_data(network: TracedModel, slimmed: nn.Module) -> Cost:
    """The same of shapes alone, where the forward was followed so."""
    try:
        with torch.device("meta"):
            return count(without_data(slimmed), network.inputs.without_data())
    except Exception:  # whatever torch raises on tensors without data
        return count(slimmed, network.inputs)


def _differences(
    network: TracedModel, forward: MaskedForward, slimmed: nn.Module, full: Masked, inputs: Inputs
) -> _Compared:
    theirs, calls = _of_masked(full.eval(), inputs)
    ours = _of_slimmed(slimmed.eval(), inputs, calls)
    training = _training_difference(network, forward, slimmed, full, inputs) if forward.trains else None
    return _Compared(_distance(ours, theirs), theirs.scale, training, costs_exact=True)


def _training_difference(
    network: TracedModel, forward: MaskedForward, slimmed: nn.Module, full: Masked, inputs: Inputs
) -> float | None:
    """As a share of the largest output; infinite where only the smaller network fails.

    None if the full network fails, or where the difference is that of draws which depend on widths.
    """
    images = max(_FEWEST, min(_MOST, math.ceil(_VALUES / forward.positions)), len(inputs.tensors[0]))
    same = inputs if network.way.as_given else with_images(inputs, images)
    for several in [same] if network.way.as_given else [varied(same), same]:  # the forward may check their range
        try:
            theirs, calls = _of_masked(full.train(), several)
        except Exception:  # BatchNorm refuses a single value for each channel, some forwards more than one image
            return None
        try:
            ours = _of_slimmed(slimmed.train(), several, calls)
            break
        except Exception:  # whatever a forward raises at another width
            continue
    else:
        return math.inf
    difference = _distance(ours, theirs) / max(theirs.scale, 1e-12)
    if difference <= 1e-3:
        return difference
    is_of_draws = forward.reads_draws or not torch.equal(_values(full, several, seed=1), theirs.outputs)
    return None if is_of_draws else difference


@dataclass(frozen=True)
class _Values:
    """What is compared of a network.

    Attributes:
        outputs: Every number that it returns, in one row.
        given: What goes into the parts that are kept whole.
    """

    outputs: Tensor
    given: Sequence[Tensor]

    @property
    def scale(self) -> float:
        """The largest output; 1 where there is none, as where no boxes are found."""
        return _largest(self.outputs) or float(len(self.given) > 0)


def _of_masked(full: Masked, inputs: Inputs) -> tuple[_Values, Calls]:
    full.calls.taken()  # of a forward that failed
    outputs = _values(full, inputs)
    calls = full.calls.taken()
    return _Values(outputs, calls.given), calls


def _of_slimmed(model: nn.Module, inputs: Inputs, theirs: Calls) -> _Values:
    """In which parts that are kept whole return what they do in the masked network."""
    with results_given(model, theirs) as calls:
        outputs = _values(model, inputs)
    return _Values(outputs, calls.given)


def _distance(ours: _Values, theirs: _Values) -> float:
    """Largest difference of outputs; of what parts are given, as a share of each tensor's largest value, times scale.

    Infinite where one has more numbers, as where the values of data decide how many.
    """
    pairs = [(ours.outputs, theirs.outputs), *zip(ours.given, theirs.given, strict=False)]
    if len(ours.given) != len(theirs.given) or any(one.shape != other.shape for one, other in pairs):
        return math.inf
    shares = [_largest(_row([a]) - _row([b])) / max(_largest(_row([b])), 1e-12) for a, b in pairs[1:]]
    return float(np.max([_largest(ours.outputs - theirs.outputs), *(share * theirs.scale for share in shares)]))


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if len(values) else 0.0


class _SameDraws(TorchFunctionMode):
    """Lets random numbers be the same in a network and in a smaller one, which draws fewer of them.

    Dropout is left out; noise is one number for the whole tensor, drawn anew by each call.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DROPOUT:
            return args[0] if args else (kwargs or {})["input"]
        if func in _ATTENTION:
            args, kwargs = _without_dropout(_ATTENTION[func], args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        noise = _NOISE.get(getattr(func, "__name__", "")) if isinstance(result, Tensor) else None
        return result if noise is None or not result.is_floating_point() else result.fill_(noise(self._generator))

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = np.random.default_rng(seed)


_DROPOUT = {
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
    torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.dropout_, torch.alpha_dropout_,
}  # fmt: skip
_ATTENTION: Mapping[Any, int] = {F.scaled_dot_product_attention: 4, F.multi_head_attention_forward: 10}
"""What drops out inside, and where it is told how much."""


def _without_dropout(index: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    if index < len(args):
        args = (*args[:index], 0.0, *args[index + 1 :])
    return args, {**kwargs, "dropout_p": 0.0} if "dropout_p" in kwargs else dict(kwargs)


_NOISE: Mapping[str, Callable[[np.random.Generator], float]] = {
    **dict.fromkeys(("randn", "randn_like", "normal", "normal_"), lambda draw: float(draw.normal())),
    **dict.fromkeys(("rand", "rand_like", "uniform_"), lambda draw: float(draw.random())),
    **dict.fromkeys(("bernoulli", "bernoulli_"), lambda draw: float(draw.random() < 0.5)),
    "exponential_": lambda draw: float(draw.exponential()),
}


def _values(model: nn.Module, inputs: Inputs, seed: int = 0) -> Tensor:
    """Every number the model returns, in one row."""
    with isolated(inputs.tensors, seed) as copies, attributes_kept(model), _SameDraws(seed):
        ours = inputs.with_tensors(copies)
        output = model(*ours.args, **ours.kwargs)
    tensors = list(tensors_in(output))
    if not tensors:
        raise TypeError(f"Expected a network that returns tensors, got {type(output).__name__}.")
    return _row(tensors)


def _row(tensors: Iterable[Tensor]) -> Tensor:
    """Their numbers, one after the other."""
    rows = [tensor.detach().flatten().cpu().double() for tensor in tensors]
    return torch.cat(rows) if rows else torch.empty(0, dtype=torch.float64)
