"""`F.multi_head_attention_forward` in operators that can be followed; to whoever watches, torch's own is one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_OTHER = ("bias_k", "bias_v", "static_k", "static_v", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def can_be_followed(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether `multi_head_attention` does the same with these arguments of `F.multi_head_attention_forward`."""
    named = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
    return (
        named["query"].dim() == 3
        and not named["add_zero_attn"]
        and not named.get("use_separate_proj_weight")
        and all(named.get(name) is None for name in _OTHER)
    )


_NAMES = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training", "key_padding_mask", "need_weights",
    "attn_mask",
)  # fmt: skip


def multi_head_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """What `F.multi_head_attention_forward` gives for the same arguments.

    Returns:
        (l, n, e) what is attended to, projected; and (n, l, s) how much, of all heads together, if that is wanted.
    """
    given = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
    if given["query"].shape[-1] != given["embed_dim_to_check"]:
        raise AssertionError(f"was expecting embedding dimension of {given['embed_dim_to_check']}")
    n, heads = given["query"].shape[1], given["num_heads"]
    size = given["embed_dim_to_check"] // heads
    q, k, v = (
        projected.view(projected.shape[0], n, heads, size).permute(1, 2, 0, 3) for projected in _projected(given)
    )
    mask = _mask(given, n, heads)
    dropout = given["dropout_p"] if given.get("training", True) else 0.0
    weights = None
    if given.get("need_weights", True):
        scores = torch.matmul(q * math.sqrt(1.0 / float(q.shape[-1])), k.transpose(-2, -1))
        weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
        made = torch.matmul(weights, v)
    else:
        is_causal = bool(given.get("is_causal")) and given.get("key_padding_mask") is None
        made = F.scaled_dot_product_attention(q, k, v, None if is_causal else mask, dropout, is_causal=is_causal)
    output = F.linear(made.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], given["out_proj_bias"])
    if weights is not None and given.get("average_attn_weights", True):
        weights = weights.mean(1)
    return output, weights


def _projected(given: Mapping[str, Any]) -> tuple[Tensor, ...]:
    query, key, value = (given[name] for name in ("query", "key", "value"))
    weight, bias = given["in_proj_weight"], given["in_proj_bias"]
    if query is key and key is value:
        return F.linear(query, weight, bias).chunk(3, -1)
    weights = weight.chunk(3)
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))


def _mask(given: Mapping[str, Any], n: int, heads: int) -> Tensor | None:
    """(n or 1, heads or 1, l, s) what is added to scores."""
    padding, mask = given.get("key_padding_mask"), given.get("attn_mask")
    if mask is not None:
        mask = _added(mask, given["query"])
        if mask.dim() == 3:
            mask = mask.view(n, heads, mask.shape[-2], mask.shape[-1])
    if padding is not None:
        padding = _added(padding, given["query"]).view(n, 1, 1, padding.shape[-1])
        mask = padding if mask is None else mask + padding
    return mask


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -math.inf)
