"""Operators that treat every element alike, and those that mix along one dimension without changing its size."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from prunesearch.models.operators.kind import Kind
from prunesearch.models.operators.values import Tracked, Value, Walk, argument, combined, dims_of
from prunesearch.structure import IntArray


def elementwise(walk: Walk, node: fx.Node) -> Value:
    """Operators on one or several tensors of one (broadcast) shape; channels that meet are tied."""
    for source in node.all_input_nodes:
        walk.keep(source, node, "computes with how many there are")
    return combined(walk, node, node.all_input_nodes, walk.shape(node))


def broadcast(walk: Walk, node: fx.Node) -> Value:
    """`broadcast_tensors`: each of them in the shape of all, so what meets is tied as where they are added."""
    shapes = node.meta["shapes"]
    return (combined(walk, node, node.all_input_nodes, shapes[0]),) * len(shapes)


def along(walk: Walk, node: fx.Node) -> Value:
    """Operators that mix what lies along one dimension, such as `softmax`: narrowed, the channels that stay."""
    source = argument(node, 0, "input")
    n = len(walk.shape(source))
    if node.op == "call_module":
        dim: Any = getattr(walk.module_of(node), "dim", None)
    else:
        dim = argument(node, 1, "dim", "axis", default=1 if node.target is F.normalize else None)
        if node.target is F.normalize:  # (input, p, dim)
            dim = argument(node, 2, "dim", default=1)
    dims = None if dim is None else dims_of(walk, dim, n)
    value = walk.value(source)
    if value is None:
        return None
    mixed = range(n) if dims is None else dims
    name = getattr(node.target, "__name__", str(node.target))
    for dim, labels in value.axes.items():
        if dim in mixed and name in ("cumsum", "cumprod"):
            walk.freeze(labels, node, "mixes channels")
        elif dim in mixed:
            walk.read(node, dim, labels)
    return value


def _frozen(walk: Walk, node: fx.Node, labels: IntArray, mixes: bool) -> bool:
    if mixes:
        walk.freeze(labels, node, "mixes channels")
    return mixes


def reordered(walk: Walk, node: fx.Node) -> Value:
    """`flip` and `roll`: whatever lies along their dimensions changes places."""
    source = argument(node, 0, "input")
    index, name = (2, "dims") if getattr(node.target, "__name__", node.target) == "roll" else (1, "dims")
    given: Any = argument(node, index, name)
    if node.op == "call_method" and index == 1 and isinstance(given, int):
        given = node.args[1:]
    dims = None if given is None else dims_of(walk, given, len(walk.shape(source)))
    value = walk.value(source)
    if value is None:
        return None
    moved = range(len(walk.shape(source))) if dims is None else dims
    return Tracked({d: labels for d, labels in value.axes.items() if not _frozen(walk, node, labels, d in moved)})


def cast(walk: Walk, node: fx.Node) -> Value:
    """`to` and `type_as`: of another tensor it takes the type and the device alone."""
    return walk.value(node.args[0])


def unrelated(walk: Walk, node: fx.Node) -> Value:
    """Operators that take a type and a device from a tensor, not channels."""
    return None


_MODULES = (
    nn.ReLU, nn.ReLU6, nn.RReLU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold, nn.Softplus,
    nn.Softsign, nn.LogSigmoid, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)  # fmt: skip
_FUNCTIONS = (
    operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul, operator.truediv,
    operator.itruediv, operator.neg, operator.pow,
    torch.add, torch.sub, torch.subtract, torch.mul, torch.multiply, torch.div, torch.divide, torch.true_divide,
    torch.neg, torch.abs, torch.exp, torch.expm1, torch.log, torch.log1p, torch.log2, torch.log10, torch.sqrt,
    torch.rsqrt, torch.square, torch.pow, torch.reciprocal, torch.sign, torch.floor, torch.ceil, torch.round, torch.sin,
    torch.cos, torch.erf, torch.clamp, torch.clamp_min, torch.clamp_max, torch.maximum, torch.minimum, torch.relu,
    torch.relu_, torch.sigmoid, torch.tanh, torch.where, torch.lerp, torch.addcmul, torch.addcdiv, torch.fmod,
    torch.remainder, torch.floor_divide, torch.clone, torch.detach, torch.isnan, torch.isinf, torch.isfinite,
    torch.logical_and, torch.logical_or, torch.logical_not, torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge,
    torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like, torch.rand_like, torch.randn_like,
    torch.bernoulli, torch.normal, torch.nan_to_num, torch.selu_, torch.celu_, torch.rrelu_,
    F.relu, F.relu6, F.leaky_relu, F.leaky_relu_, F.elu, F.elu_, F.celu, F.selu, F.gelu, F.silu, F.mish, F.sigmoid,
    F.tanh, F.hardswish, F.hardsigmoid, F.hardtanh, F.hardtanh_, F.softplus, F.softsign, F.logsigmoid, F.threshold,
    F.rrelu, F.hardshrink, F.softshrink, F.tanhshrink, torch.threshold_,
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout,
    torch.sigmoid_, torch.tanh_, torch.exp_, torch.sqrt_, torch.rsqrt_, torch.abs_, torch.neg_, torch.square_,
    torch.clamp_, torch.sin_, torch.cos_, torch.erf_, torch.log_, torch.round_, torch.floor_, torch.reciprocal_,
    torch.nan_to_num_, torch.complex, torch.angle, torch.conj, torch.polar, torch.tan, torch.atan, torch.atan2,
    torch.sinh, torch.cosh, torch.special.expit, torch.absolute, torch.positive, torch.heaviside, torch.hypot,
)  # fmt: skip
_METHODS = (
    "add", "add_", "sub", "sub_", "subtract", "mul", "mul_", "multiply", "div", "div_", "divide", "true_divide", "neg",
    "abs", "abs_", "exp", "exp_", "expm1", "log", "log1p", "log2", "sqrt", "sqrt_", "rsqrt", "square", "pow", "pow_",
    "reciprocal", "sign", "floor", "floor_", "ceil", "round", "sin", "cos", "erf", "clamp", "clamp_", "clamp_min",
    "clamp_max", "clamp_min_", "clamp_max_", "clip", "maximum", "minimum", "relu", "relu_", "sigmoid", "sigmoid_",
    "tanh", "tanh_", "contiguous", "clone", "detach", "detach_", "float", "half", "bfloat16", "double", "int", "long",
    "bool", "type", "cpu", "cuda", "expand_as", "masked_fill", "masked_fill_", "where", "lerp",
    "addcmul", "addcdiv", "gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not", "isnan",
    "fill_", "zero_", "bernoulli", "bernoulli_", "uniform_", "normal_", "copy_", "requires_grad_", "nan_to_num",
    "__floordiv__", "__mod__", "remainder", "floor_divide", "isfinite", "square_", "rsqrt_", "reciprocal_", "neg_",
    "sin_", "cos_", "log_", "round_", "nan_to_num_", "angle", "conj", "tan", "atan", "atan2", "sinh", "cosh",
    "absolute", "log10", "erf_", "sign_", "ceil_", "clip_", "addcmul_", "addcdiv_", "lerp_", "fmod", "hypot",
)  # fmt: skip
_ALONG_MODULES = (nn.Softmax, nn.LogSoftmax, nn.Softmin)
_ALONG_FUNCTIONS = (
    torch.softmax, torch.log_softmax, F.softmax, F.log_softmax, F.softmin, torch.cumsum, torch.cumprod, F.normalize,
)  # fmt: skip

ALONG = Kind(along, masking="in place")
KINDS: dict[Any, Kind] = {
    **dict.fromkeys((*_MODULES, *_FUNCTIONS, *_METHODS), Kind(elementwise)),
    **dict.fromkeys((*_ALONG_MODULES, *_ALONG_FUNCTIONS, "softmax", "log_softmax", "cumsum"), ALONG),
    **dict.fromkeys((torch.flip, torch.roll, "flip", "roll"), Kind(reordered)),
    **dict.fromkeys(("to", "type_as"), Kind(cast)),
    torch.broadcast_tensors: Kind(broadcast),
    "new_tensor": Kind(unrelated),
}
