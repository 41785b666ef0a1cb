"""Forwards that nobody wrote: source code put together of what people write, for properties that hold for all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.models.habits import HABITS
from tests.models.pieces import PIECES
from tests.models.writing import SIZE, Code

PRELUDE = '''
import math
import random
from collections import namedtuple
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization
from torch.utils.checkpoint import checkpoint

CONTIGUOUS = torch.contiguous_format
Pair = namedtuple("Pair", "first second")
OFFSET = torch.tensor(0.25)


@dataclass
class Found:
    scores: torch.Tensor
    features: torch.Tensor


class OwnConv(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, padding=self.padding) * 0.5


class Named(nn.Conv2d):
    """A convolution with another name."""


class MaskedConv(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("mask", torch.ones_like(self.weight).tril())

    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)


class Double(nn.Module):
    def forward(self, weight):
        return weight * 2


def scaled(layer):
    register_parametrization(layer, "weight", Double())
    return layer


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * torch.sigmoid(x)


class Squeeze(nn.Module):
    def __init__(self, c, r=4):
        super().__init__()
        self.c, self.down, self.up = c, nn.Linear(c, r), nn.Linear(r, c)

    def forward(self, x):
        n, c, _, _ = x.size()
        w = self.up(F.relu(self.down(x.mean((2, 3))))).sigmoid().view(n, c, 1, 1)
        return x * w.expand_as(x)


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def double(x):
    return x * 2


'''


EVERYTHING = PIECES | HABITS

# --- networks ---------------------------------------------------------------------------------------------------------

HEADS = {
    "mean": ("self.fc = nn.Linear(6, 3)", "y = self.fc(h.mean((2, 3)))"),
    "pooled": ("self.fc = nn.Linear(6, 3)", "y = self.fc(torch.flatten(F.adaptive_avg_pool2d(h, 1), 1))"),
    "literal view": (f"self.fc = nn.Linear({6 * SIZE * SIZE}, 3)", f"y = self.fc(h.view(-1, 6 * {SIZE} * {SIZE}))"),
    "size view": (f"self.fc = nn.Linear({6 * SIZE * SIZE}, 3)", "y = self.fc(h.reshape(h.size(0), -1))"),
    "attribute view": (
        f"self.features = 6 * {SIZE * SIZE}; self.fc = nn.Linear(self.features, 3)",
        "y = self.fc(h.view(-1, self.features))",
    ),
}
OUTPUTS = {
    "tensor": ["return y"],
    "tuple": ["return y, y.softmax(-1)"],
    "dictionary": ["return {'scores': y, 'means': [h.mean((1, 2, 3))]}"],
    "dataclass": ["return Found(y, h.mean((1, 2, 3)))"],
    "named tuple": ["return Pair(y, (y * 2,))"],
    "auxiliary": ["if self.training:", "    return y, self.aux(h).mean((2, 3))", "return y"],
}
SIGNATURES = {
    "x": "self, x",
    "default": "self, x, scale=1.0",
    "keyword only": "self, x, *, scale=1.0",
    "variadic": "self, x, *args, scale=1.0, **kwargs",
}


def _class(name: str, code: Code, signature: str, returned: list[str]) -> str:
    init = ["super().__init__()", *code.init]
    body = ["h = x", *code.lines, *returned]
    return "\n".join(
        [f"class {name}(nn.Module):", "    def __init__(self):", *(f"        {line}" for line in init), "",
         f"    def forward({signature}):", *(f"        {line}" for line in body), "",
         *(f"    {line}" for line in code.methods), "", ""]
    )  # fmt: skip


@dataclass(frozen=True)
class Written:
    """Source of a module with a class `Net`, whose instances take a (n, 3, SIZE, SIZE) batch.

    Attributes:
        source: The text.
        flags: Paths of attributes that may be set at any time.
        traits: See `Code`.
    """

    source: str
    flags: tuple[str, ...]
    traits: frozenset[str]


def written(choose: Callable[..., Any], segments: list[list[str]]) -> Written:
    """Write a network: each segment is a list of pieces, in the forward itself or in a module of its own."""
    net, text, flags = Code(choose, 3), PRELUDE, []
    net.write(f"h = {net.conv(8)}(h)")
    net.channels = 8
    for index, pieces in enumerate(segments):
        inside = choose(True, False)
        code = Code(choose, net.channels, traits=net.traits) if inside else net
        for piece in pieces:
            EVERYTHING[piece](code)
        if inside:
            text += _class(f"Part{index}", code, "self, x", ["return h"]) + "\n"
            net.write(f"h = {net.layer('part', f'Part{index}()')}(h)")
            net.channels = code.channels
            flags += [f"{net.lines[-1][9:].partition('(')[0]}.{flag}" for flag in code.flags]
    net.write(f"h = {net.conv(5)}(h)")  # which can be pruned whatever came before
    net.channels = 5
    net.write(f"h = {net.conv(6)}(h)")
    layer, line = HEADS[choose(*HEADS)]
    net.init += [layer, "self.aux = nn.Conv2d(6, 2, 1)"]
    signature, output = choose(*SIGNATURES), choose(*OUTPUTS)
    net.write(line, *([] if signature == "x" else ["y = y * scale"]))
    text += _class("Net", net, SIGNATURES[signature], OUTPUTS[output])
    return Written(text, (*net.flags, *flags), frozenset(net.traits))
