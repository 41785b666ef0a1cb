from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunesearch.budget import Budget
from prunesearch.errors import TraceError
from prunesearch.models.count import count, count_layers
from prunesearch.models.export import export_program
from prunesearch.models.gates import GatedConv, gated, gated_layers, macs_per_image
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.saving import load, save
from prunesearch.models.skipping import skipping
from prunesearch.models.slim import slim
from prunesearch.models.trace import trace
from prunesearch.models.zoo import make_model
from prunesearch.models.zoo.mobilenet import mobilenet_v2
from tests.models_state import generators, state_of


def images(n: int = 12, size: int = 8) -> Tensor:
    return torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def make_zoo(name: str) -> nn.Module:
    return make_model(name, in_channels=1, image_size=8)


def base(name: str = "resnet8") -> nn.Module:
    torch.manual_seed(0)
    model = mobilenet_v2(width=0.25, in_channels=1, image_size=8) if name == "mobilenet_v2" else make_zoo(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after some training
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.3)
    return model.double().eval()  # so that no channel is at one side of a threshold here and at the other there


def selective(name: str = "resnet8", share: float = 0.5, noise: float = 1.0) -> nn.Module:
    """Gated, its images get different channels, and no saliency is at its threshold."""
    model = gated(base(name), images(2)).eval()
    torch.manual_seed(1)
    for layer in gated_layers(model).values():
        nn.init.normal_(layer.gate.excite.weight, std=noise)
        seen: list[Tensor] = []
        handle = layer.gate.register_forward_hook(lambda gate, inputs, saliency, seen=seen: seen.append(saliency))
        with torch.no_grad():
            model(images())
        handle.remove()
        values = seen[0].flatten().sort().values
        middle = int(share * len(values))
        near = values[max(0, middle - 20) : middle + 20]
        gap = int(near.diff().argmax())
        layer.threshold.copy_((near[gap] + near[gap + 1]) / 2)
    return model


def test_at_first_a_gated_network_is_the_network_and_costs_as_much_plus_its_gates() -> None:
    model = base()
    before = state_of(model), generators()
    found = gated(model, images(2))
    with torch.no_grad():
        assert torch.equal(found(images()), model(images()))
    macs = macs_per_image(found, images())
    assert macs.tolist() == [count(model, images(1)).macs + gate_macs(found)] * len(images())
    assert (state_of(model), generators()) == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet8", {f"layer{i}.0.conv{j}": [f"layer{i}.0.conv1"][: j - 1] for i in (1, 2, 3) for j in (1, 2)}),
        ("resnet8b", {f"layer{i}.0.conv{j}": [f"layer{i}.0.conv1"][: j - 1] for i in (1, 2, 3) for j in (1, 2)}),
    ],
)
def test_blocks_have_gates_but_not_what_reads_images_nor_shortcuts(name: str, expected: dict[str, list[str]]) -> None:
    layers = gated_layers(gated(base(name), images(2)))
    names = {layer: name for name, layer in layers.items()}
    assert {name: [names[source] for source in layer.sources] for name, layer in layers.items()} == expected


def test_a_depthwise_convolution_has_no_gate_and_hides_the_zeros_before_it() -> None:
    """It gives something where it is given nothing: its BatchNorm's bias."""
    layers = gated_layers(gated(base("mobilenet_v2"), images(2)))
    assert all(layer.conv.groups == 1 for layer in layers.values())
    projections = [layer for layer in layers.values() if layer.conv.out_channels < layer.conv.in_channels]
    assert projections
    assert not any(layer.sources for layer in projections)


def test_a_network_without_batchnorm_has_no_place_for_a_gate() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(TraceError, match="Sequential has no place for a gate"):
        gated(model, images(2).float())


def test_macs_per_image_are_those_of_the_channels_each_image_gets() -> None:
    model = selective()
    counted = macs_per_image(model, images())
    assert len(set(counted.tolist())) > 1
    dense = count_layers(model, [images(1)])
    layers = gated_layers(model)
    for image, macs in zip(images(), counted.tolist(), strict=True):
        got: dict[GatedConv, int] = {}
        handles = [layer.gate.register_forward_hook(noting(layer, got)) for layer in layers.values()]
        with torch.no_grad():
            model(image[None])
        for handle in handles:
            handle.remove()
        expected = sum(full for name, full in dense.items() if name.removesuffix(".conv") not in layers)
        for name, layer in layers.items():
            read = got[layer.sources[0]] if layer.sources else layer.conv.in_channels
            share = read * got[layer] / (layer.conv.in_channels * layer.conv.out_channels)
            expected += round(dense[f"{name}.conv"] * share)
        assert macs == expected


def noting(layer: GatedConv, got: dict[GatedConv, int]) -> Callable[..., None]:
    return lambda gate, inputs, saliency: got.update({layer: int(layer.is_active(saliency).sum())})


@pytest.mark.parametrize("name", ["resnet8", "resnet8b", pytest.param("mobilenet_v2", marks=pytest.mark.slow)])
def test_skipping_gives_what_multiplying_gives(name: str) -> None:
    model = selective(name)
    skipped = skipping(model)
    for n in (1, 12):
        with torch.no_grad():
            assert torch.allclose(skipped(images()[:n]), model(images()[:n]))


def test_images_that_need_the_same_run_together() -> None:
    model = selective()
    alike = images(1).expand(6, -1, -1, -1)
    with torch.no_grad(), FlopCounterMode(display=False) as together:
        out = skipping(model)(alike)
    assert torch.allclose(out, model(alike))
    operations = together.get_flop_counts()["Global"]
    with FlopCounterMode(display=False) as alone, torch.no_grad():
        skipping(model)(images(1))
    assert operations[torch.ops.aten.convolution] == 6 * alone.get_flop_counts()["Global"][torch.ops.aten.convolution]


def test_skipping_really_computes_only_what_is_counted() -> None:
    """The witness is torch's own counter of operations: 2 per multiply-accumulate."""
    model, skipped = selective(), skipping(selective())
    linear = sum(
        macs
        for name, macs in count_layers(model, [images(1)]).items()
        if isinstance(model.get_submodule(name), nn.Linear)
    )
    for image, macs in zip(images(), macs_per_image(model, images()).tolist(), strict=True):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            skipped(image[None])
        assert counter.get_flop_counts()["Global"][torch.ops.aten.convolution] == 2 * (macs - linear)


@pytest.mark.parametrize("which", ["first", "second", "both"])
def test_layers_of_which_nothing_is_needed_are_skipped_whole(which: str) -> None:
    model = selective()
    for name, layer in gated_layers(model).items():
        if which == "both" or name.endswith("conv1") == (which == "first"):
            layer.threshold.fill_(math.inf)
    with torch.no_grad():
        expected = model(images())
        assert torch.allclose(skipping(model)(images()), expected)


def gate_macs(model: nn.Module) -> int:
    gates = [layer.gate for layer in gated_layers(model).values()]
    return sum(gate.squeeze.weight.numel() + gate.excite.weight.numel() for gate in gates)


def test_where_no_channel_is_needed_only_what_has_no_gate_costs() -> None:
    model = selective()
    for layer in gated_layers(model).values():
        layer.threshold.fill_(math.inf)
    dense = count_layers(base(), [images(1)])
    static = sum(macs for name, macs in dense.items() if name not in gated_layers(model))
    assert macs_per_image(model, images()).tolist() == [static + gate_macs(model)] * len(images())


def test_skipping_needs_gates() -> None:
    with pytest.raises(ValueError, match="ResNet without a gate"):
        skipping(base())


def test_a_gated_network_is_saved_and_loaded_safely_also_after_pruning(tmp_path: Path) -> None:
    network = trace(base(), images(2))
    structure = Budget(macs="50%").check(network.space).fit([network.space.minimum])[0].tolist()
    orders = NestedRanking.by_importance([torch.rand(len(units)).double().numpy() for units in network.units])
    small = gated(slim(network, network.space.check(structure), orders).eval(), images(2))
    for layer in gated_layers(small).values():
        nn.init.normal_(layer.gate.excite.weight)
        layer.threshold.fill_(0.7)
    save(small, tmp_path / "gated.safetensors")
    again = load(tmp_path / "gated.safetensors", gated(make_zoo("resnet8"), images(2).float()))
    with torch.no_grad():
        assert torch.equal(again.eval()(images()), small.eval()(images()))
    assert torch.equal(macs_per_image(again, images()), macs_per_image(small, images()))


def test_a_gated_network_can_be_exported() -> None:
    model = selective()
    exported = export_program(model, images(2)).module()
    with torch.no_grad():
        assert torch.allclose(exported(images(5)), model(images(5)))
