"""What networks are put together of: pieces that turn features into others, in one of the ways that people write."""

from __future__ import annotations

from collections.abc import Callable

from tests.models.writing import SIZE, Code

Piece = Callable[[Code], None]
BACK = "h = h.permute(0, 3, 1, 2).clone(memory_format=CONTIGUOUS)"
"""From channels that are last to channels that are second, also in memory."""


# --- layers -----------------------------------------------------------------------------------------------------------


def convolution(code: Code) -> None:
    outputs = code.choose(4, 6, 8)
    how = code.choose("module", "functional", "forward", "own forward", "named", "keyword", "lists of one")
    if how == "lists of one":
        made = f"nn.Conv2d({code.channels}, {outputs}, 3, stride=[1], padding=[1])"
        code.write(f"h = {code.layer('conv', made)}(h)")
    elif how in ("own forward", "named"):
        kind = {"own forward": "OwnConv", "named": "Named"}[how]
        code.write(f"h = {code.layer('conv', f'{kind}({code.channels}, {outputs}, 3, padding=1)')}(h)")
    else:
        conv = code.conv(outputs)
        call = {
            "module": f"{conv}(h)",
            "functional": f"F.conv2d(h, {conv}.weight, {conv}.bias, padding=1)",
            "forward": f"{conv}.forward(h)",
            "keyword": f"{conv}(input=h)",
        }[how]
        code.write(f"h = {call}")
    code.channels = outputs


def grouped(code: Code) -> None:
    c = code.channels
    groups = code.choose(c, 2, c // 2)
    code.write(f"h = {code.layer('grouped', f'nn.Conv2d({c}, {c}, 3, padding=1, groups={groups})')}(h)")


def norm(code: Code) -> None:
    c = code.channels
    how = code.choose("batch", "batch", "group", "layer", "functional group", "functional batch", "instance")
    if how == "batch":
        code.write(f"h = {code.layer('norm', f'nn.BatchNorm2d({c})')}(h)")
    elif how == "group":
        code.write(f"h = {code.layer('norm', f'nn.GroupNorm({code.choose(1, 2, c // 2)}, {c})')}(h)")
    elif how == "layer":
        code.write(f"h = {code.layer('norm', f'nn.LayerNorm({c})')}(h.permute(0, 2, 3, 1))", BACK)
    elif how == "instance":
        code.write(f"h = {code.layer('norm', f'nn.InstanceNorm2d({c}, affine=True)')}(h)")
    elif how == "functional group":
        code.write(f"h = F.group_norm(h, {code.number(2)})")
    else:
        bn = code.layer("norm", f"nn.BatchNorm2d({c})")
        code.traits.add("functional norm")
        code.write(f"h = F.batch_norm(h, {bn}.running_mean, {bn}.running_var, {bn}.weight, {bn}.bias, self.training)")


def activation(code: Code) -> None:
    module = code.choose("nn.ReLU(inplace=True)", "nn.SiLU()", f"nn.PReLU({code.channels})", "nn.Hardtanh()")
    called = code.choose(
        "F.relu(h)", "h.relu_()", "torch.tanh(h)", "F.gelu(h)", "h.clamp(-1, 1)", "h * h.sigmoid()", ""
    )
    code.write(f"h = {called or code.layer('act', module) + '(h)'}")


def twice(code: Code) -> None:
    conv = code.conv(code.channels)
    code.write(f"h = {conv}({conv}(h).relu())")


def gated(code: Code) -> None:
    code.write(f"h = {code.layer('se', f'Squeeze({code.channels})')}(h)")


# --- joining and taking apart -----------------------------------------------------------------------------------------


def residual(code: Code) -> None:
    conv = code.conv(code.channels)
    code.write(code.choose(f"h = h + {conv}(h)", f"h += {conv}(h)", f"h = torch.add(h, {conv}(h), alpha=0.5)"))


def joined(code: Code) -> None:
    if code.channels > 8:
        return
    conv, outputs = code.conv(4), code.channels + 4
    code.write(code.choose(f"h = torch.cat([h, {conv}(h)], 1)", f"h = torch.cat(({conv}(h), h), dim=-3)"))
    code.channels = outputs


def chunked(code: Code) -> None:
    way = code.choose(
        "h.chunk(2, 1)", "torch.chunk(h, chunks=2, dim=1)", f"h.split({code.number(code.channels // 2)}, 1)"
    )
    code.write(
        f"a, b = {way}", code.choose("h = torch.cat([b, a.relu()], 1)", "h = torch.cat([a * b.sigmoid(), b], 1)")
    )


def parted(code: Code) -> None:
    rest = code.channels - 2
    sizes = f"{code.number(2)}, {code.number(rest)}"
    way = code.choose(f"h.split([{sizes}], dim=1)", f"h.split(({sizes}), 1)", f"torch.split(h, [{sizes}], 1)")
    conv = code.conv(2, 2)
    code.write(f"a, b = {way}", f"h = torch.cat([{conv}(a), b], 1)")


def sliced(code: Code) -> None:
    k, half = code.number(2), code.channels // 2
    how = code.choose("literal", "half", "part", "write")
    if how == "literal":
        code.write(f"h = torch.cat([h[:, {k}:].abs(), h[:, :{k}]], 1)")
    elif how == "half":
        code.write("h = torch.cat([h[:, h.size(1) // 2:], h[:, :h.size(1) // 2]], 1)")
    elif how == "write":
        code.write("h = h.clone()", f"h[:, :{k}] = h[:, :{k}] * 2")
    else:
        code.write(f"h = h[:, :{half}] + 1")
        code.channels = half


def every_second(code: Code) -> None:
    half = code.conv(code.channels // 2)
    code.write(
        code.choose(
            "h = torch.stack([h[:, ::2] * 2, h[:, 1::2].abs()], 2).flatten(1, 2)",
            f"h = torch.cat([{half}(h), h[:, 0::2, ...] * h[:, 1::2, ...].sigmoid()], 1)",
        )
    )


def padded(code: Code) -> None:
    if code.channels > 8:
        return
    conv, c = code.conv(code.channels + 4), code.channels
    before, after = code.choose((2, 2), (4, 0), (0, 4))
    code.write(f"h = {conv}(h) + F.pad(h, (0, 0, 0, 0, {code.number(before)}, {code.number(after)}))")
    code.channels = c + 4


# --- layers on steps and weights that are computed --------------------------------------------------------------------


def recurrent(code: Code) -> None:
    c = code.channels
    kind, sides, hidden = code.choose("LSTM", "GRU", "RNN"), code.choose(1, 2), code.choose(4, 6)
    layers = code.choose(1, 2)
    made = f"nn.{kind}({c}, {hidden}, {layers}, batch_first=True, bidirectional={sides == 2})"
    layer = code.layer("steps", made)
    code.write(
        f"t, _ = {layer}(h.flatten(2).transpose(1, 2))",
        f"h = t.transpose(1, 2).view(-1, {sides * hidden}, {SIZE}, {SIZE})",
    )
    code.channels = sides * hidden


def normalised_weight(code: Code) -> None:
    c, outputs = code.channels, code.choose(4, 6)
    how = code.choose("parametrizations.weight_norm", "parametrizations.spectral_norm")
    code.write(f"h = {code.layer('conv', f'nn.utils.{how}(nn.Conv2d({c}, {outputs}, 3, padding=1))')}(h)")
    code.channels = outputs


def product(code: Code) -> None:
    c, outputs = code.channels, code.choose(4, 6)
    weight = code.layer("weight", f"nn.Parameter(torch.empty({c}, {outputs}))")
    code.write(
        code.choose(
            f"h = (h.permute(0, 2, 3, 1) @ {weight}).permute(0, 3, 1, 2)",
            f"h = torch.einsum('nchw,co->nohw', h, {weight})",
        ),
        "h = h.clone(memory_format=CONTIGUOUS)",
    )
    code.channels = outputs


# --- shapes -----------------------------------------------------------------------------------------------------------


def reshaped(code: Code) -> None:
    c, positions = code.number(code.channels), SIZE * SIZE
    there = code.choose(
        f"h.view(-1, {c}, {positions})", f"h.reshape(h.size(0), {c}, -1)", "h.flatten(2)",
        "torch.flatten(h, start_dim=2)", "h.view(*h.shape[:2], -1)", "h.reshape(len(h), len(h[0]), -1)",
        "h.reshape(h.shape[0], h.shape[1], h.shape[2] * h.shape[3])",
    )  # fmt: skip
    back = code.choose(
        f"t.view(-1, {code.number(code.channels)}, {SIZE}, {SIZE})", "t.view(t.size(0), -1, *h.shape[2:])",
        "t.view(h.shape)", "t.view_as(h)" if code.choose(True, False) else "t.unflatten(2, h.shape[2:])",
    )  # fmt: skip
    code.write(f"t = {there}.relu()", f"h = {back}")


def tokens(code: Code) -> None:
    c = code.channels
    linear = code.layer("mlp", f"nn.Sequential(nn.Linear({c}, 6), nn.GELU(), nn.Linear(6, {c}))")
    code.write(f"h = {linear}(h.permute(0, 2, 3, 1))", BACK)


def prompted(code: Code) -> None:
    c = code.channels
    token = code.layer("token", f"nn.Parameter(torch.empty(1, 2, {c}))")
    linear = code.layer("linear", f"nn.Linear({c}, {c})")
    code.write("t = h.flatten(2).transpose(1, 2)", "n, l, c = t.shape")
    code.write(
        *code.choose(
            (f"t = {linear}(torch.cat([{token}.expand(n, -1, -1), t], dim=1))[:, 2:]",),
            (f"t = {linear}(torch.cat(({token}.repeat(n, 1, 1), t), 1))", "t = t.split([2, l], dim=1)[1]"),
            (
                f"k = {linear}({token}.expand(n, {token}.shape[1], c).reshape(n * {token}.shape[1], c))",
                "t = t + k.view(n, 2, c).mean(1, keepdim=True)",
            ),
        )
    )
    code.write("h = t.transpose(1, 2).reshape(h.shape).clone(memory_format=CONTIGUOUS)")


def shuffled(code: Code) -> None:
    way = code.choose("h.view(n, 2, c // 2, a, b)", "h.view(n, 2, -1, a, b)", "h.reshape(n, 2, c // 2, a, b)")
    back = code.choose("view(n, -1, a, b)", "view(n, c, a, b)")
    code.write("n, c, a, b = h.size()", f"h = {way}.transpose(1, 2).contiguous().{back}")


# --- products ---------------------------------------------------------------------------------------------------------


def attended(code: Code) -> None:
    q, k, v = (code.layer("linear", f"nn.Linear({code.channels}, {code.channels})") for _ in range(3))
    heads = code.choose(1, 2)
    if heads == 1:
        code.write(
            "t = h.flatten(2).transpose(1, 2)",
            f"a = ({q}(t) @ {k}(t).transpose(-2, -1) * 0.3).softmax(-1)",
            f"h = h + (a @ {v}(t)).transpose(1, 2).reshape(h.shape)",
        )
        return
    code.write(
        "t = h.flatten(2).transpose(1, 2)",
        "n, l, c = t.shape",
        f"q, k, v = (m(t).view(n, l, {heads}, -1).transpose(1, 2) for m in ({q}, {k}, {v}))",
        "a = torch.softmax(torch.matmul(q, k.transpose(2, 3)), dim=-1)",
        "h = h + torch.matmul(a, v).transpose(1, 2).reshape(n, l, c).transpose(1, 2).reshape(h.shape)",
    )


def contracted(code: Code) -> None:
    c = code.channels
    code.init.append(f"self.mix{code.used} = nn.Parameter(torch.linspace(-1, 1, {c * c}).view({c}, {c}))")
    mix = f"self.mix{code.used}"
    code.write(
        code.choose(
            f"h = F.conv2d(h, {mix}[:, :, None, None])",
            f"h = F.linear(h.permute(0, 2, 3, 1), {mix} * 0.5).permute(0, 3, 1, 2)",
            f"h = ({mix} @ h.flatten(2)).reshape(h.shape)",
        ),
        "h = h.clone(memory_format=CONTIGUOUS)",
    )
    code.used += 1


def back_and_forth(code: Code) -> None:
    conv = code.conv(4)
    code.write(f"h = F.conv_transpose2d({conv}(h).relu(), {conv}.weight, padding=1)")


def maxima(code: Code) -> None:
    conv, c = code.conv(2 * code.channels), code.channels
    code.write(
        f"t = {conv}(h)",
        code.choose(
            "h = torch.max(*t.chunk(2, 1))",
            f"h = t.view(t.size(0), {c}, 2, {SIZE}, {SIZE}).max(dim=2)[0]",
            f"h = t.view(t.size(0), -1, 2, {SIZE}, {SIZE}).amax(2)",
            "h = F.glu(t, dim=1)",
        ),
    )


def resized(code: Code) -> None:
    code.write(
        code.choose(
            "h = F.interpolate(F.avg_pool2d(h, 2), size=h.shape[2:], mode='nearest')",
            "h = F.interpolate(F.max_pool2d(h, 2), scale_factor=2.0)",
            "h = F.pixel_shuffle(F.pixel_unshuffle(h, 2), 2)",
            "h = torch.cat([h[..., ::2], h[..., 1::2]], dim=3)",
        )
    )


PIECES: dict[str, Piece] = {
    piece.__name__: piece
    for piece in (
        convolution, grouped, norm, activation, twice, gated, residual, joined, chunked, parted, sliced, padded,
        reshaped, tokens, prompted, shuffled, attended, contracted, back_and_forth, maxima, resized, every_second,
        recurrent, normalised_weight, product,
    )
}  # fmt: skip
