"""What code around operators is put together of: branches, loops, contexts, things that are kept, calls."""

from __future__ import annotations

import sys

from tests.models.pieces import Piece
from tests.models.writing import SIZE, Code

# --- control ----------------------------------------------------------------------------------------------------------


def sized_branch(code: Code) -> None:
    condition = code.choose("h.shape[2] > 3", "h.size(1) > 2", "h.dim() == 4", "x.shape[0] > 0", "h.numel() > 8")
    code.write(f"if {condition}:", "    h = h * 1.5", "else:", "    h = h - 1")


def equal_branch(code: Code) -> None:
    conv = code.conv(code.channels)
    code.write(f"t = {conv}(h)", "if t.shape == h.shape:" if code.choose(True, False) else "if t.size(1) == h.size(1):")
    code.write("    h = t + h", "else:", "    h = t")


def flagged(code: Code) -> None:
    flag = code.name("flag")
    code.init.append(f"self.{flag} = False")
    code.flags.append(flag)
    code.write(f"if self.{flag}:", code.choose("    h = h * 3", "    h = h.abs()", "    h = double(h).relu()"))


def checked(code: Code) -> None:
    if sys.version_info < (3, 11):  # where an instruction stands in its file is not known
        return
    test = code.choose(
        "torch.isnan(h).any()",
        "not bool((h.abs() < 1e9).all())",
        "h.max().item() > 1e9",
        "h.shape[1] < 1 or h.min() < -1e9",
    )
    code.write(
        *code.choose(
            (f"if {test}:", "    raise ValueError(h.mean().item())"), (f"assert not ({test}), f'{{h.max()}}'",)
        )
    )


def rooted(code: Code) -> None:
    conv = code.conv(code.channels)
    factor = code.choose(
        f"math.sqrt({conv}.weight.numel() / {conv}.weight.shape[0])", "math.log(h.size(1) / 2 + 1)",
        "math.sqrt(h.size(1))", "h.shape[1] ** -0.5",
    )  # fmt: skip
    code.write(f"h = {conv}(h) * {factor}")


def without_gradient(code: Code) -> None:
    code.write("with torch.no_grad():", "    g = h.mean((2, 3), keepdim=True)", "h = h * g.sigmoid()")


def autocast(code: Code) -> None:
    conv, c = code.conv(code.channels), code.channels
    code.traits.add("bfloat16")
    code.write('with torch.autocast("cpu", dtype=torch.bfloat16):', f"    h = {conv}(h)", "h = h.float()")
    code.channels = c


def random_in_training(code: Code) -> None:
    code.traits.add("draws")
    code.write(
        *code.choose(
            ("if self.training and random.random() < 0.5:", "    h = h * 2"),
            ("if self.training:", "    h = h * (torch.rand(h.shape[0], 1, 1, 1, device=h.device) < 0.7)"),
            ("h = F.dropout(h, 0.25, self.training)",),
            ("h = F.dropout2d(h, p=0.25, training=self.training)",),
            ("if self.training:", "    h = h + 0.1 * torch.randn(h.size(0), 1, 1, 1)"),
        )
    )


def looped(code: Code) -> None:
    blocks = code.layer("blocks", f"nn.ModuleList([nn.Conv2d({code.channels}, {code.channels}, 1) for _ in range(2)])")
    c = code.number(code.channels)
    body = code.choose(
        "    h = block(h).relu()", f"    h = block(h).view(-1, {c}, {SIZE}, {SIZE})", "    h = h + block(h)"
    )
    code.write(f"for block in {blocks}:", body)


def repeated(code: Code) -> None:
    c = code.number(code.channels)
    code.write("for i in range(2):", f"    h = h.reshape(-1, {c}, {SIZE * SIZE}).view(-1, {c}, {SIZE}, {SIZE}) + i")


# --- tensors from elsewhere -------------------------------------------------------------------------------------------


def constant(code: Code) -> None:
    c = code.channels
    value = code.choose(
        "OFFSET", "torch.arange(h.shape[3]) * 0.1", f"torch.ones({code.number(c)}, 1, 1)", "torch.full_like(h, 0.5)",
        "h.new_ones(h.shape)", "torch.zeros(1, h.size(1), 1, 1) + 1", f"torch.linspace(0, 1, {c}).view(1, {c}, 1, 1)",
    )  # fmt: skip
    code.write(f"h = h + {value}")


def plain_tensor(code: Code) -> None:
    name, c = code.name("scale"), code.channels
    made = code.choose(
        f"self.{name} = torch.linspace(0.5, 1, {c}).view({c}, 1, 1)",
        f"self.register_buffer('{name}', torch.linspace(0.5, 1, {c}).view({c}, 1, 1))",
        f"self.register_buffer('{name}', torch.linspace(0.5, 1, {c}).view(1, {c}, 1, 1), persistent=False)",
        f"self.{name} = nn.Parameter(torch.linspace(0.5, 1, {c}).view(1, {c}, 1, 1))",
    )
    code.init.append(made)
    code.write(f"h = h * self.{name}")


def stored(code: Code) -> None:
    code.write("self.feature = h", code.choose("h = h.relu()", "h = h * 0.5"), "h = h + self.feature")


def held(code: Code) -> None:
    function = code.choose(
        "double", f"lambda t: t.view(-1, {code.channels}, {SIZE}, {SIZE}).abs()", "lambda t: t.tanh()"
    )
    code.write(f"h = {code.layer('held', f'Lambda({function})')}(h)")


def counted(code: Code) -> None:
    name = code.name("calls")
    code.init.append(f"self.{name} = 0")
    code.write(f"self.{name} += 1", "self.size = h.shape", "h = h.flatten(2).view(-1, self.size[1], *self.size[2:])")


def tabulated(code: Code) -> None:
    name = code.name("table")
    code.init.append(f"self.{name} = None")
    code.write(f"if self.{name} is None:", f"    self.{name} = torch.arange(h.shape[-1]) * 0.1", f"h = h + self.{name}")


def averaged(code: Code) -> None:
    name, c = code.name("average"), code.channels
    code.init.append(f"self.register_buffer('{name}', torch.zeros(1, {c}, 1, 1))")
    code.write(
        "if self.training:",
        "    with torch.no_grad():",
        code.choose(
            f"        self.{name}.mul_(0.9).add_(h.mean((0, 2, 3), keepdim=True), alpha=0.1)",
            f"        self.{name} = 0.9 * self.{name} + 0.1 * h.mean((0, 2, 3), keepdim=True)",
            f"        self.{name}.copy_(h.mean((0, 2, 3), keepdim=True))",
        ),
        f"h = h - self.{name}",
    )


# --- calls ------------------------------------------------------------------------------------------------------------


def checkpointed(code: Code) -> None:
    block = code.layer("block", f"nn.Sequential({code.conv(4)}, nn.ReLU(), {code.conv(code.channels, 4)})")
    code.write(f"h = h + checkpoint({block}, h, use_reentrant=False)")


def tried(code: Code) -> None:
    wrong, right = code.conv(code.channels, code.channels + 1), code.conv(code.channels)
    code.write("try:", f"    h = {wrong}(h)", "except RuntimeError:", f"    h = {right}(h)")


def own_gradient(code: Code) -> None:
    code.write("h = Swish.apply(h)")


def in_place(code: Code) -> None:
    code.write("h = h.clone()")
    lines = code.choose(
        ("h.flatten(2).mul_(2)",),
        ("h.add_(1).relu_()",),
        ("h[..., 0] = 0.5",),
        ("a, b = h.chunk(2, 1)", "a.mul_(2)"),
        ("h.data.clamp_(min=0.1)",),
        ("h.data = h.data * 2",),
        ("h = torch.add(h, 1, out=torch.empty_like(h))",),
    )
    code.write(*lines)
    if "chunk" in lines[0] or "out=" in lines[0]:
        code.traits.add("no gradients")


def allocated(code: Code) -> None:
    c, half = code.channels, code.channels // 2
    way = code.choose("literal", "sizes", "shift")
    if way == "literal":
        code.write(
            f"t = torch.zeros(h.shape[0], {code.number(c)}, {SIZE}, {SIZE})",
            f"t[:, :{half}] = h[:, {half}:]",
            f"t[:, {half}:] = h[:, :{half}]",
            "h = t",
        )
    elif way == "sizes":
        code.write("t = h.new_zeros(h.shape[0], h.shape[1], *h.shape[2:])", "t += h * 2", "h = t")
    else:
        code.write(
            "k = h.size(1) // 2", "t = torch.zeros_like(h)", "t[..., 1:] = h[..., :-1]", "t[:, k:] = h[:, k:]", "h = t"
        )


def routed(code: Code) -> None:
    routes = code.layer("routes", f"nn.ModuleDict({{'a': {code.conv(code.channels)}, 'b': nn.Identity()}})")
    code.write(f"h = sum({routes}[key](h) for key in ('a', 'b'))")


def indexed(code: Code) -> None:
    c = code.channels
    layers = code.layer(
        "layers", f"nn.Sequential(nn.Conv2d({c}, 4, 1), nn.ReLU(), nn.Conv2d(4, {c}, 1), nn.Conv2d({c}, 1, 1))"
    )
    code.write(code.choose(f"h = {layers}[:3](h)", f"for layer in {layers}[:-1]:\n            h = layer(h)"))


def made_inside(code: Code) -> None:
    code.write(f"h = {code.choose('nn.ReLU()', 'nn.AvgPool2d(3, 1, 1)', 'nn.Sequential(nn.Tanh(), nn.Identity())')}(h)")


def by_method(code: Code) -> None:
    view = f"return t.reshape(-1, {code.channels}, {SIZE}, {SIZE})"
    way = code.choose("method", "bound", "static", "keywords", "generator")
    if way == "method":
        code.write(f"h = {code.method('run', 'self, t', view)}(h.flatten(2))")
    elif way == "bound":
        method = code.method("run", "self, t", view)
        code.init.append(f"self.bound{code.used} = {method}")
        code.write(f"h = self.bound{code.used}(h.flatten(2))")
    elif way == "static":
        code.write(f"h = {code.method('run', 't', 'return t.relu() + t', decorator='@staticmethod')}(h)")
    elif way == "keywords":
        code.write(f"h = {code.method('run', 'self, t, *, scale=1.0, **rest', 'return t * scale')}(t=h, scale=2.0)")
    else:
        code.write(f"h = sum(part for part in {code.method('run', 'self, t', 'yield t', 'yield t * 2')}(h))")


def reparametrised(code: Code) -> None:
    conv = code.conv(code.channels)
    wrapped = code.layer("wrapped", f"{code.choose('weight_norm', 'scaled')}({conv})")
    code.write(f"h = {wrapped}(h)")


def masked(code: Code) -> None:
    code.write(f"h = {code.layer('masked', f'MaskedConv({code.channels}, {code.channels}, 3, padding=1)')}(h)")


HABITS: dict[str, Piece] = {
    piece.__name__: piece
    for piece in (
        sized_branch, equal_branch, flagged, checked, rooted, without_gradient, autocast, random_in_training, looped,
        repeated, constant, plain_tensor, stored, held, counted, tabulated, averaged, checkpointed, tried, own_gradient,
        in_place, allocated, routed, indexed, made_inside, by_method, reparametrised, masked,
    )
}  # fmt: skip
