"""Products of tensors: what they contract over is mixed, everything else is carried."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from prunesearch.models.operators.kind import Kind
from prunesearch.models.operators.values import Tracked, Value, Walk, argument, give_up, tracked
from prunesearch.structure import IntArray


def matmul(walk: Walk, node: fx.Node) -> Value:
    """`matmul`, `bmm` and `mm` of tensors with at least two dimensions each."""
    one, other = argument(node, 0, "input"), argument(node, 1, "other", "mat2")
    if not (walk.is_tensor(one) and walk.is_tensor(other)):
        return give_up(walk, node)
    left, right = walk.shape(one), walk.shape(other)
    if min(len(left), len(right)) < 2:
        return with_vector(walk, node)
    n = len(walk.shape(node))
    mixed = _contracted(walk, node, (one, len(left) - 1), (other, len(right) - 2))
    axes: dict[int, IntArray | None] = dict(_outer(walk, node, one, other, n))
    axes[n - 2] = _at(walk, one, len(left) - 2)
    made = axes[n - 1] = _at(walk, other, len(right) - 1)
    if made is not None and _is_weight(other, one):
        walk.produce(node, made)
    return _finished(walk, node, axes, mixed, left[-1])


def _is_weight(operand: Any, other: Any) -> bool:
    """Whether an operand is a parameter that works on what is computed from the inputs, as a layer's weight does."""
    is_fed = other.op == "placeholder" or other.meta.get("fed", False)
    return operand.op == "get_attr" and operand.meta.get("parameter", False) and is_fed


def with_vector(walk: Walk, node: fx.Node) -> Value:
    """`mv`, `dot` and products of matrices with vectors."""
    one, other = argument(node, 0, "input"), argument(node, 1, "other", "vec", "tensor")
    left, right = walk.shape(one), walk.shape(other)
    mixed = _contracted(walk, node, (one, len(left) - 1), (other, max(len(right) - 2, 0)))
    dims, source = (range(len(left) - 1), one) if len(left) > 1 else (range(len(right) - 2), other)
    kept = {dim: labels for dim in dims if (labels := _at(walk, source, dim)) is not None}
    if len(left) == 1 and len(right) > 1:
        last = _at(walk, other, len(right) - 1)
        kept |= {} if last is None else {len(right) - 2: last}
    if node.meta.get("flops"):
        return _finished(walk, node, kept, mixed, left[-1])
    return tracked(kept)


def _outer(walk: Walk, node: fx.Node, one: Any, other: Any, n: int) -> dict[int, IntArray]:
    """Channels along the dimensions before the matrices, which are broadcast."""
    shape = walk.shape(node)
    axes: dict[int, IntArray] = {}
    for dim in range(n - 2):
        met: list[IntArray] = []
        fixed = False
        for operand in (one, other):
            size = walk.shape(operand)
            own = dim - (n - len(size))
            if own < 0:
                continue
            labels = _at(walk, operand, own)
            if size[own] != shape[dim]:
                walk.freeze(labels, node, "broadcasts it over channels")
            elif labels is None:
                fixed = fixed or shape[dim] > 1
            else:
                met.append(labels)
        for labels in met[1:]:
            walk.labels.tie(met[0], labels)
        if fixed and met:
            walk.freeze(met[0], node, "combines it with something whose size stays")
        elif met:
            axes[dim] = met[0]
    return axes


def _contracted(walk: Walk, node: fx.Node, one: tuple[Any, int], other: tuple[Any, int]) -> IntArray | None:
    """Tie what a product sums over; None if that keeps its size."""
    left, right = _at(walk, *one), _at(walk, *other)
    if left is None or right is None:
        for labels in (left, right):
            walk.freeze(labels, node, "sums over it with something whose size stays")
        return None
    walk.labels.tie(left, right)
    walk.read(node, one[1], left)
    return left


def _finished(walk: Walk, node: fx.Node, axes: dict[int, Any], mixed: IntArray | None, inner: int) -> Value:
    found = {dim: labels for dim, labels in axes.items() if labels is not None}
    rest = math.prod(size for dim, size in enumerate(walk.shape(node)) if dim not in found)
    factors = [*found.values()] if mixed is None else [mixed, *found.values()]
    walk.macs(node, rest * (inner if mixed is None else 1), factors)
    return Tracked(found) if found else None


def _at(walk: Walk, operand: Any, dim: int) -> IntArray | None:
    value = walk.value(operand)
    return None if value is None else value.at(dim)


def einsum(walk: Walk, node: fx.Node) -> Value:
    """`torch.einsum`: of two tensors, a letter of both that is not in the result is summed over; of others none is."""
    spelled = _spelled(node)
    if spelled is None:
        return give_up(walk, node)
    letters, given, operands = spelled
    labels, sizes = _tied_letters(walk, node, letters, operands)
    summed = [letter for letter in labels if letter not in given]
    for letter in summed:
        mine = labels[letter]
        if mine is not None and letter not in letters[0]:
            walk.freeze(mine, node, "mixes channels")
            labels[letter] = None
        elif mine is not None:
            walk.read(node, letters[0].index(letter), mine)
    found = {letter: mine for letter, mine in labels.items() if mine is not None}
    if summed and all(letter in found or sizes[letter] == 1 for letter in summed):
        _not_one(walk, node, [found[letter] for letter in summed if letter in found])
    for this, other in ((0, 1), (1, 0)) if len(operands) == 2 else ():
        if _is_weight(operands[this], operands[other]):
            for letter in letters[this]:
                if letter in given and letter not in letters[other] and letter in found:
                    walk.produce(node, found[letter])
    if summed:  # else nothing is added up
        walk.macs(node, math.prod(size for letter, size in sizes.items() if letter not in found), [*found.values()])
    return tracked({dim: labels[letter] for dim, letter in enumerate(given)})


def _spelled(node: fx.Node) -> tuple[list[str], str, list[Any]] | None:
    """The letters of each operand, those of the result, and the operands; None of what is not looked into."""
    equation, *operands = node.args
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = list(operands[0])
    if not isinstance(equation, str) or "." in equation or "->" not in equation:
        return None
    taken, given = equation.replace(" ", "").split("->")
    letters = taken.split(",")
    if any(len(set(term)) != len(term) for term in (*letters, given)):
        return None
    if len(operands) != 2 and (set("".join(letters)) != set(given) or node.meta.get("flops")):
        return None
    return letters, given, operands


def _tied_letters(
    walk: Walk, node: fx.Node, letters: Sequence[str], operands: Sequence[Any]
) -> tuple[dict[str, IntArray | None], dict[str, int]]:
    """By letter, the channels that all operands have there, and how many; those of what stays elsewhere stay."""
    labels: dict[str, IntArray | None] = {}
    sizes: dict[str, int] = {}
    for term, operand in zip(letters, operands, strict=True):
        for dim, letter in enumerate(term):
            sizes[letter] = walk.shape(operand)[dim]
            mine = _at(walk, operand, dim)
            if letter not in labels:
                labels[letter] = mine
            elif mine is None or (before := labels[letter]) is None:
                for some in (mine, labels[letter]):
                    walk.freeze(some, node, "combines it with something whose size stays")
                labels[letter] = None
            else:
                walk.labels.tie(before, mine)
    return labels, sizes


def _not_one(walk: Walk, node: fx.Node, summed: list[IntArray]) -> None:
    """Torch multiplies without a product of matrices where there is nothing to add up, and counts nothing then."""
    if len(summed) == 1:
        walk.differ(summed[0], 1, node, "sums over it, and torch counts nothing where there is only one")


def attention(walk: Walk, node: fx.Node) -> Value:
    """`scaled_dot_product_attention`: heads stay tied, queries are scaled by their size unless a scale is given."""
    query, key, value = (argument(node, index, name) for index, name in enumerate(("query", "key", "value")))
    n = len(walk.shape(query))
    mask = argument(node, 3, "attn_mask")
    if len(walk.shape(key)) != n or len(walk.shape(value)) != n or n < 3 or node.kwargs.get("enable_gqa"):
        return give_up(walk, node)
    for operand in (query, key, value, *([mask] if walk.is_tensor(mask) else [])):
        shape = walk.shape(operand)
        for dim in {len(shape) - 2, *([len(shape) - 1] if operand is mask else [])}:
            walk.freeze(_at(walk, operand, dim), node, "attends over it")
    for operand in (query, key):
        walk.freeze(_at(walk, operand, n - 1), node, "scales by how many there are")
    outer = [_first_dims(walk, node, operand, n) for operand in (query, key, value)]
    heads = _tied_outer(walk, node, outer)
    if walk.is_tensor(mask):
        heads = _with_mask(walk, node, heads, mask, n)
    made = _at(walk, value, n - 1)
    if made is not None and walk.is_uncounted(node):  # a fused kernel; with another size torch would take another one
        walk.freeze(made, node, "is as fast as it is where values are as large as queries")
        made = None
    shape, keys = walk.shape(query), walk.shape(key)[-2]
    factors = [*heads.values()]
    rest = math.prod(size for dim, size in enumerate(shape[:-2]) if dim not in heads) * shape[-2] * keys
    walk.macs(node, rest * shape[-1], factors)
    size = walk.shape(value)[-1]
    walk.macs(node, rest * (size if made is None else 1), factors if made is None else [*factors, made])
    return tracked({**heads, n - 1: made})


def _with_mask(walk: Walk, node: fx.Node, heads: dict[int, IntArray], mask: Any, n: int) -> dict[int, IntArray]:
    """Where a mask is not one for all along a dimension, what is made of it goes with the heads, or both stay."""
    shape = walk.shape(mask)
    for own, size in enumerate(shape[:-2]):
        dim, labels = own + n - len(shape), _at(walk, mask, own)
        mine = heads.get(dim)
        if size == 1 or mine is None or labels is None:
            for some in (labels, mine if size > 1 else None):
                walk.freeze(some, node, "combines it with a mask whose size stays")
        else:
            walk.labels.tie(mine, labels)
    return heads


def _first_dims(walk: Walk, node: fx.Node, operand: Any, n: int) -> dict[int, IntArray | None]:
    return {dim: _at(walk, operand, dim) for dim in range(n - 2)}


def _tied_outer(walk: Walk, node: fx.Node, outer: list[dict[int, IntArray | None]]) -> dict[int, IntArray]:
    """Channels that all operands have along a dimension are tied; where one keeps its size, all do."""
    axes: dict[int, IntArray] = {}
    for dim in outer[0]:
        met = [labels for operand in outer if (labels := operand[dim]) is not None]
        for labels in met[1:]:
            walk.labels.tie(met[0], labels)
        if met and len(met) < len(outer):
            walk.freeze(met[0], node, "combines it with something whose size stays")
        elif met:
            axes[dim] = met[0]
    return axes


PRODUCT, WITH_VECTOR, EINSUM = Kind(matmul, multiplies=True), Kind(with_vector), Kind(einsum, multiplies=True)
KINDS: dict[Any, Kind] = {
    **dict.fromkeys((operator.matmul, torch.matmul, torch.bmm, torch.mm, "matmul", "bmm", "mm"), PRODUCT),
    **dict.fromkeys((torch.mv, torch.dot, torch.vdot, "mv", "dot"), WITH_VECTOR),
    **dict.fromkeys((torch.einsum, torch.functional.einsum), EINSUM),
    F.scaled_dot_product_attention: Kind(attention, multiplies=True),
}
