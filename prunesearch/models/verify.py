"""The proof that slimming is right: a slimmed network against the full one with the removed channels masked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunesearch.models.count import count
from prunesearch.models.following import varied, with_images
from prunesearch.models.isolation import attributes_kept, isolated
from prunesearch.models.masked import MaskedForward, masked
from prunesearch.models.nested import tensors_in
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.recording import Inputs
from prunesearch.models.slim import kept_units, slim
from prunesearch.structure import Structure

if TYPE_CHECKING:
    from prunesearch.models.network import Network


@dataclass(frozen=True)
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


def verify(network: Network, n: int = 10, seed: int = 0) -> Verification:
    """Build `n` random structures, with random channels, and compare each with the masked full network.

    Run in eval and in training mode on the example inputs; about 1e-6 of the scale is float32 rounding. Costs are
    counted by torch's own counter. Dropout is left out, and noise is one number for a whole tensor: both are otherwise
    drawn for each channel, of which the smaller network has fewer.

    Raises:
        TypeError: The network returns something in which we find no tensor to compare.
    """
    rng = np.random.default_rng([seed, n])
    return verify_these(network, [network.space.check(row.tolist()) for row in network.space.sample(rng, n)], rng)


def verify_these(network: Network, structures: Sequence[Structure], rng: np.random.Generator) -> Verification:
    """The same for structures of the caller's choice; which channels stay is drawn from `rng`."""
    forward = MaskedForward(network)
    found = [_compared(network, forward, structure, rng) for structure in structures]
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


def _compared(network: Network, forward: MaskedForward, structure: Structure, rng: np.random.Generator) -> _Compared:
    ranking = NestedRanking.by_importance([rng.random(len(units)) for units in network.units])

    def both() -> tuple[nn.Module, nn.Module]:
        return slim(network, structure, ranking), forward.module(kept_units(network, structure, ranking))

    slimmed, full = both()
    exact = count(slimmed, network.inputs) == network.space.cost(structure)
    found = _differences(network, forward, slimmed, full, network.inputs)
    if found.difference > _ROUNDING * found.scale or (found.training or 0.0) > _ROUNDING:
        inputs = network.inputs.with_tensors(
            [x.double() if x.is_floating_point() else x for x in network.inputs.tensors]
        )
        slimmed, full = both()  # anew, as running statistics have changed
        try:
            found = _differences(network, forward, slimmed.double(), full.double(), inputs)
        except Exception:  # a forward may insist on its type
            return replace(found, costs_exact=exact)
    return replace(found, costs_exact=exact)


_ROUNDING = 1e-4
"""Of the largest output. Larger differences are looked at again with 53 bits: rounding may decide what is on top."""


def _differences(
    network: Network, forward: MaskedForward, slimmed: nn.Module, full: nn.Module, inputs: Inputs
) -> _Compared:
    ours, theirs = (_outputs(model.eval(), inputs) for model in (slimmed, full))
    training = None
    if forward.trains:
        training = _training_difference(slimmed, full, inputs, is_for_one_number=network.way.as_given)
    return _Compared(_distance(ours, theirs), _largest(theirs), training, costs_exact=True)


def _training_difference(
    slimmed: nn.Module, full: nn.Module, inputs: Inputs, *, is_for_one_number: bool
) -> float | None:
    """As a share of the largest output; infinite where only the smaller network fails.

    None if the full network fails, or where the difference is that of draws which depend on widths.
    """
    several = inputs if is_for_one_number else varied(with_images(inputs, max(8, len(inputs.tensors[0]))))
    try:
        theirs, other = (_outputs(full.train(), several, seed) for seed in (0, 1))
    except Exception:  # BatchNorm refuses a single value for each channel, some forwards more than one image
        return None
    try:
        ours = _outputs(slimmed.train(), several)
    except Exception:  # whatever a forward raises at another width
        return math.inf
    difference = _distance(ours, theirs) / max(_largest(theirs), 1e-12)
    draws = not torch.equal(other, theirs)
    return None if draws and difference > 1e-3 else difference


def _distance(ours: Tensor, theirs: Tensor) -> float:
    """Infinite where one has more numbers, as where the values of data decide how many."""
    return math.inf if ours.shape != theirs.shape else _largest(ours - theirs)


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if len(values) else 0.0


class _SameDraws(TorchFunctionMode):
    """Lets random numbers be the same in a network and in a smaller one, which draws fewer of them.

    Dropout is left out; noise is one number for the whole tensor, drawn anew by each call.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DROPOUT:
            return args[0] if args else (kwargs or {})["input"]
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
_NOISE: Mapping[str, Callable[[np.random.Generator], float]] = {
    **dict.fromkeys(("randn", "randn_like", "normal", "normal_"), lambda draw: float(draw.normal())),
    **dict.fromkeys(("rand", "rand_like", "uniform_"), lambda draw: float(draw.random())),
    **dict.fromkeys(("bernoulli", "bernoulli_"), lambda draw: float(draw.random() < 0.5)),
    "exponential_": lambda draw: float(draw.exponential()),
}


def _outputs(model: nn.Module, inputs: Inputs, seed: int = 0) -> Tensor:
    """Every number the model returns, in one row."""
    with isolated(inputs.tensors, seed) as copies, attributes_kept(model), _SameDraws(seed):
        ours = inputs.with_tensors(copies)
        output = model(*ours.args, **ours.kwargs)
    tensors = list(tensors_in(output))
    if not tensors:
        raise TypeError(f"Expected a network that returns tensors, got {type(output).__name__}.")
    return torch.cat([tensor.detach().flatten().cpu().double() for tensor in tensors])


__all__ = ["Verification", "masked", "verify"]
