"""Networks that somebody might really write, some of them to break us, and the proof that every one must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.trace import trace
from prunesearch.structure import Structure

Operation = Callable[[Any, Tensor, Tensor], Tensor]


# --- helpers ----------------------------------------------------------------------------------------------------------


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight, bias and BatchNorm statistic a value that cannot be right by accident."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, scale: float, middle: float = 0.0) -> None:
        values = torch.randn(tensor.shape, generator=generator) * scale + middle
        tensor.data.copy_(values)

    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            normal(parameter, fan_in**-0.5)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.affine:
                normal(module.weight, 0.2, middle=0.7)
            if module.track_running_stats:
                normal(module.running_mean, 0.3)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model


def image(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_ranking(network: Network, seed: int = 0) -> NestedRanking:
    rng = np.random.default_rng(seed)
    return NestedRanking.by_importance([rng.random(len(units)) for units in network.units])


def some_structures(network: Network, n: int = 3, seed: int = 0) -> list[Structure]:
    drawn = network.space.sample(np.random.default_rng(seed), n)
    return [network.space.minimum, *(network.space.check(row.tolist()) for row in drawn)]


def prove(network: Network, n: int = 3, tolerance: float = 1e-5) -> None:
    """Random structures: the slimmed network equals the masked one, and every cost is the counted one."""
    found = network.verify(n)
    assert found.scale > 1e-3, "the outputs are zero, so nothing was proved"
    assert found.largest_difference <= tolerance * found.scale
    assert found.costs_exact
    assert found.training_difference is None or found.training_difference <= 100 * tolerance


def proven(model: nn.Module, inputs: Tensor | Sequence[Tensor], **rules: Any) -> Network:
    """Trace a model with random weights, prove it, and return it."""
    network = trace(randomised(model), inputs, **rules)
    prove(network)
    return network


def names(network: Network) -> list[str]:
    return [group.name for group in network.space.groups]


def snapshot(model: nn.Module) -> list[Any]:
    """Everything a caller could notice to have changed."""
    return [
        [
            (name, id(tensor), tensor.dtype, tensor.detach().clone().flatten().view(torch.uint8).tolist())
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        ],
        [
            (name, id(module), type(module), module.training, dict(module._forward_hooks), _plain(vars(module)))
            for name, module in model.named_modules()
        ],
        [
            (parameter.requires_grad, None if parameter.grad is None else parameter.grad.tolist())
            for parameter in model.parameters()
        ],
    ]


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if isinstance(value, (int, float, str, tuple))}


# --- one operator between two convolutions ----------------------------------------------------------------------------


class Middle(nn.Module):
    """conv1, bn1, an operation, conv2 and a classifier; `conv2` stays prunable whatever the operation does.

    Args:
        operation: Gets this network, the (n, 8, 6, 6) tensor after bn1, and the network's input; returns (n, c, h, w).
        channels: How many channels it returns.
        modules: Further layers and parameters, for the operation to use.
    """

    def __init__(self, operation: Operation, channels: int = 8, **modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.other = nn.Conv2d(3, 8, 3, padding=1)
        self.operation = operation
        for name, module in modules.items():
            setattr(self, name, module)
        self.conv2 = nn.Conv2d(channels, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.operation(self, self.bn1(self.conv1(x)), x)
        return self.fc(F.relu(self.conv2(h)).mean((2, 3)))


SMALL = image(2, 3, 6, 6)


# --- whole networks ---------------------------------------------------------------------------------------------------


class Inception(nn.Module):
    """Three branches of different widths, concatenated, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 4, 1)
        self.b = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1))
        self.c = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 5, 1), nn.BatchNorm2d(5))
        self.bn = nn.BatchNorm2d(17)
        self.head = nn.Conv2d(17 + 8, 9, 1)
        self.fc = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        joined = self.bn(torch.cat([self.a(x), self.b(x), self.c(x)], dim=1))
        return self.fc(self.head(torch.cat((joined, x), -3)).mean([-1, -2]))


class SqueezeExcite(nn.Module):
    """A residual block whose branch is gated per channel, (n, c, 1, 1), and per position, (n, 1, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.conv = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(12)
        self.squeeze = nn.Conv2d(12, 5, 1)
        self.excite = nn.Conv2d(5, 12, 1)
        self.where = nn.Conv2d(12, 1, 7, padding=3)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        out = self.bn(self.conv(x))
        out = out * torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(out, 1)))))
        out = out * self.where(out).sigmoid()
        return self.head((x + out).relu_().mean(dim=(2, 3)))


class Depthwise(nn.Module):
    """Depthwise with multiplier 2, then grouped convolutions in both regimes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.many = nn.Conv2d(16, 16, 3, padding=1, groups=8)  # 8 groups of 2 channels: whole groups go
        self.few = nn.Conv2d(16, 12, 3, padding=1, groups=2)  # 2 groups of 8 channels: the same ones of each go
        self.bn = nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = self.many(F.relu(self.twice(self.stem(x))))
        return self.fc(self.bn(self.few(out)).amax((2, 3)))


class Shared(nn.Module):
    """One convolution and BatchNorm called twice, and one called on what it made itself."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 10, 3, padding=1)
        self.bn = nn.BatchNorm2d(10)
        self.again = nn.Conv2d(10, 10, 3, padding=1)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = self.bn(self.shared(self.left(x)))
        b = self.bn(self.shared(self.right(x[:, :, ::2, ::2])))
        return self.fc(self.again(self.again(a)).mean((2, 3)) + b.mean((2, 3)))


class Tied(nn.Module):
    """Two convolutions with one weight, used in the opposite order of their definition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.late = nn.Conv2d(8, 8, 3, padding=1)
        self.early = nn.Conv2d(8, 8, 3, padding=1)
        self.early.weight = self.late.weight
        self.norm_late, self.norm_early = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.norm_early.running_mean = self.norm_late.running_mean
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm_early(self.early(F.relu(self.stem(x)))))
        return self.fc(self.norm_late(self.late(h)).mean((2, 3)))


class TwoInputs(nn.Module):
    """An image and a vector, which meets the image's features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.embed = nn.Linear(5, 8)
        self.head = nn.Linear(8, 6)
        self.fc = nn.Linear(6 + 5, 4)

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        h = self.conv(x).mean((2, 3)) * self.embed(v)
        return self.fc(torch.cat([F.elu(self.head(h)), v], 1))


class Tokens(nn.Module):
    """Linear layers on the last dimension of (n, tokens, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.out = nn.Linear(6, 16), nn.Linear(16, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out((x + self.down(F.gelu(self.up(x)))).mean(1))


def flat(view: Callable[[Tensor], Tensor] = lambda h: h.flatten(1)) -> nn.Module:
    """A (n, 8, 3, 3) tensor that `view` flattens, before a linear layer of 72 features."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
            self.fc1, self.fc2 = nn.Linear(72, 10), nn.Linear(10, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(F.relu(self.fc1(view(F.max_pool2d(self.conv(F.relu(self.stem(x))), 2)))))

    return Flat()


# --- blocks that fit behind one another, for chains that nobody thought of --------------------------------------------


class Residual(nn.Module):
    """x + f(x), perhaps with a projection of another width."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


class Joined(nn.Module):
    """[x, f(x)], or [x, x] without f."""

    def __init__(self, branch: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x if self.branch is None else self.branch(x)], dim=1)


class Gate(nn.Module):
    """x times what f makes of its means."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x * self.branch(x.mean((2, 3), keepdim=True)).sigmoid()


class ChannelsLast(nn.Module):
    """Something done with the channels as the last dimension."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 2, 3, 1)).transpose(1, 3).transpose(-1, -2)


class Scale(nn.Module):
    """A learnt factor and addend for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor, self.addend = nn.Parameter(torch.ones(channels, 1, 1)), nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x + self.addend


class Glu(nn.Module):
    """The first half of the channels, gated by the second."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return first * second.sigmoid()


class Shuffle(nn.Module):
    """ShuffleNet's channel shuffle of two halves."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Halves(nn.Module):
    """Swap the halves."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat([second, first.abs()], 1)


class Padded(nn.Module):
    """A convolution to twice the channels, around which the shortcut pads with a literal number of zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.side = nn.Conv2d(channels, 2 * channels, 3, padding=1), channels // 2

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + F.pad(x, (0, 0, 0, 0, self.side, x.new_ones(1).dim() * self.side))


class Parts(nn.Module):
    """A few of the channels go through a convolution, the others past it; which is which are literals."""

    def __init__(self, channels: int, by: str) -> None:
        super().__init__()
        self.conv, self.sizes, self.by = nn.Conv2d(2, 6 if by == "split" else 2, 1), (2, channels - 2), by

    def forward(self, x: Tensor) -> Tensor:
        first, rest = x.split(self.sizes, dim=1) if self.by == "split" else (x[:, :2], x[:, 2:])
        return torch.cat([self.conv(first), rest.abs()], 1)


class Tokenised(nn.Module):
    """(n, c, h, w) -> (n, c, h w) and back, with literal sizes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, self.channels, x.size(2) * x.size(3)).relu().view(-1, self.channels, x.size(2), x.size(3))


BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "wider": lambda c: nn.Conv2d(c, c + 4, 3, padding=1),
    "narrower": lambda c: nn.Sequential(nn.Conv2d(c, max(4, c // 8 * 4), 1, bias=False), nn.ReLU(True)),
    "norm": lambda c: nn.BatchNorm2d(c),
    "depthwise": lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c),
    "multiplied": lambda c: nn.Conv2d(c, 2 * c, 1, groups=c),
    "whole groups": lambda c: nn.Conv2d(c, c, 1, groups=c // 2),
    "within groups": lambda c: nn.Conv2d(c, 8, 3, padding=1, groups=2),
    "residual": lambda c: Residual(nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c))),
    "bottleneck": lambda c: Residual(nn.Sequential(nn.Conv2d(c, 4, 1), nn.ELU(), nn.Conv2d(4, c, 1))),
    "projected": lambda c: Residual(nn.Conv2d(c, 12, 1), nn.Conv2d(c, 12, 3, padding=1)),
    "residual depthwise": lambda c: Residual(nn.Conv2d(c, c, 3, padding=1, groups=c)),
    "twice": lambda c: Joined(),
    "dense": lambda c: Joined(nn.Conv2d(c, 4, 3, padding=1)),
    "gate": lambda c: Gate(nn.Sequential(nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, c, 1))),
    "spatial gate": lambda c: Gate(nn.Conv2d(c, 1, 1)),
    "pool": lambda c: nn.MaxPool2d(2, ceil_mode=True),
    "prelu": lambda c: nn.PReLU(c),
    "group norm": lambda c: nn.GroupNorm(2, c),
    "many group norm": lambda c: nn.GroupNorm(c // 2, c),
    "layer norm": lambda c: ChannelsLast(nn.LayerNorm(c)),
    "mlp": lambda c: Residual(ChannelsLast(nn.Sequential(nn.Linear(c, 7), nn.GELU(), nn.Linear(7, c)))),
    "scale": lambda c: Scale(c),
    "transposed": lambda c: nn.ConvTranspose2d(c, 8, 3, padding=1),
    "glu": lambda c: nn.Sequential(nn.Conv2d(c, 12, 1), Glu(), nn.Conv2d(6, 8, 1)),
    "softmax": lambda c: nn.Softmax(1),
    "shuffle": lambda c: Shuffle(),
    "halves": lambda c: Halves(),
    "padded": Padded,
    "split": lambda c: Parts(c, "split"),
    "sliced": lambda c: Parts(c, "slice"),
    "tokenised": Tokenised,
    "instance norm": lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True),
}


def chain(blocks: Sequence[str]) -> nn.Module:
    """A stem, the blocks one after the other, a convolution that can always be pruned, and a classifier."""
    modules: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1)]
    channels = 8
    for name in blocks:
        modules.append(BLOCKS[name](channels))
        channels = modules[-1](torch.zeros(2, channels, 4, 4)).shape[1]
    return nn.Sequential(*modules, nn.Conv2d(channels, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


class Enlarging(nn.Module):
    """Ends in a transposed convolution that is told how large its outputs are: no linear map that is known."""

    def __init__(self, first: nn.Module, last: nn.Module, *sizes: int) -> None:
        super().__init__()
        self.first, self.last, self.sizes = first, last, sizes

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)), output_size=self.sizes)
