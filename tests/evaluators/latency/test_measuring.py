"""Measuring for real, a network so small that it takes a second. What times are is never asserted, only whose."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import prunesearch as ps
from prunesearch.evaluators.built_costs import BuiltCosts, CostCheck, measure_costs, structure_of
from prunesearch.evaluators.latency import built, measuring, timing
from prunesearch.evaluators.latency.backends import make_backend
from prunesearch.evaluators.latency.built import measure_built
from prunesearch.evaluators.latency.remote import plan
from prunesearch.latency_model import LatencyModel
from prunesearch.latency_table import LatencyTable
from prunesearch.latency_times import REMOTE
from tests.models_state import generators, state_of


def tiny() -> ps.Network:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
    return ps.trace(model.eval(), torch.randn(1, 3, 8, 8), round_to=4)


@pytest.fixture(scope="module", autouse=True)
def quick() -> object:
    """Short visits: nothing here depends on what they find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_SECONDS_PER_VISIT", 1e-3)
        patch.setattr(measuring, "_NETWORK_VISITS", 2)
        patch.setattr(built, "_VISITS", 2)
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[ps.Network, LatencyTable, Path]:
    network, path = tiny(), tmp_path_factory.mktemp("table") / "cpu.json"
    return network, LatencyTable.measure(network, threads=1, file=path), path


def test_every_layer_is_timed_at_every_width_and_the_file_is_the_table(
    measured: tuple[ps.Network, LatencyTable, Path],
) -> None:
    network, table, path = measured
    assert table.missing == 0
    assert [use.place for use in table.uses] == ["0", "3", "7"]
    assert [layer.axes for layer in table.layers] == [((4, 8),), ((4, 8, 12), (4, 8)), ((4, 8, 12),)]
    assert all(t.low <= t.ms <= t.high for layer in table.layers for t in layer.timings if t)
    assert (table.conditions.backend, table.conditions.threads, table.conditions.batch_size) == ("eager", 1, 1)
    assert LatencyTable.load(path) == table
    assert LatencyTable.load(path).fingerprint == table.fingerprint  # by which studies know it
    assert LatencyModel(LatencyTable.load(path), network.space).predict([network.space.full])[0] > 0


@pytest.mark.slow
def test_model_generators_threads_and_collector_are_left_alone(tmp_path: Path) -> None:
    import gc

    network = tiny()
    network.model.train()
    before = state_of(network.model), generators(), torch.get_num_threads(), gc.isenabled()
    LatencyTable.measure(network, threads=1, points=2)
    assert (state_of(network.model), generators(), torch.get_num_threads(), gc.isenabled()) == before


def test_what_is_in_the_file_is_not_measured_again(measured: tuple[ps.Network, LatencyTable, Path]) -> None:
    network, _, path = measured
    before = path.read_bytes()
    LatencyTable.measure(network, threads=1, file=path)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    code = (
        "import os, signal, prunesearch as ps\n"
        "from prunesearch.evaluators.latency import timing\n"
        "from tests.evaluators.latency.test_measuring import tiny\n"
        "timing._SECONDS_PER_VISIT = 1e-3\n"
        "kill = lambda done, wanted: done > 4 and os.kill(os.getpid(), signal.SIGKILL)\n"
        f"ps.LatencyTable.measure(tiny(), threads=1, file={str(path)!r}, on_progress=kill)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[3]).returncode == (
        -signal.SIGKILL
    )
    stored = LatencyTable.load(path)
    assert stored.missing > 0
    known = {(i, j): t for i, layer in enumerate(stored.layers) for j, t in enumerate(layer.timings) if t}
    progress: list[tuple[int, int]] = []
    whole = LatencyTable.measure(tiny(), threads=1, file=path, on_progress=lambda d, w: progress.append((d, w)))
    assert whole.missing == 0
    assert progress[0][0] > len(known)
    assert progress[-1][0] == progress[-1][1]
    scale = whole.reference_ms / stored.reference_ms  # type: ignore[operator]  # the speed that times are given at
    for (layer, position), timing_then in known.items():
        timing_now = whole.layers[layer].timings[position]
        assert timing_now is not None
        assert timing_now.ms == pytest.approx(scale * timing_then.ms, rel=1e-3)


def test_a_file_of_other_conditions_or_another_grid_is_not_gone_on_with(
    measured: tuple[ps.Network, LatencyTable, Path], tmp_path: Path
) -> None:
    network, table, _ = measured
    other = tmp_path / "other.json"
    replace(table, conditions=replace(table.conditions, threads=7)).save(other)
    with pytest.raises(ValueError, match="holds times with other conditions"):
        LatencyTable.measure(network, threads=1, file=other)
    table.save(other)
    with pytest.raises(ValueError, match="holds times with other layers"):
        LatencyTable.measure(ps.trace(network.model, network.example_inputs), threads=1, file=other)


def test_senseless_wishes_are_refused() -> None:
    for wish, sentence in (
        ({"threads": 4096}, "threads, as many as this process may use"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"points": 1}, "points >= 2"),
        ({"backend": "abacus"}, "Unknown backend 'abacus'"),
        ({"backend": "eager:fast"}, "Only onnxruntime has providers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            LatencyTable.measure(tiny(), **{"threads": 1, **wish})  # type: ignore[arg-type]


def test_onnx_runtime_runs_what_torch_runs_and_knows_its_providers() -> None:
    pytest.importorskip("onnxruntime")
    network = tiny()
    runner = make_backend("onnxruntime", "cpu", 1)
    (ours,) = runner.prepare(network.model, network.example_inputs)()  # type: ignore[misc]
    assert torch.allclose(torch.from_numpy(ours), network.model(*network.example_inputs), atol=1e-5)
    with pytest.raises(ValueError, match="has no provider 'Abacus'; it has"):
        make_backend("onnxruntime:Abacus", "cpu", 1)


def test_a_plan_for_another_device_is_filled_in_and_read_back(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = tiny()
    table = plan(network, "phone", onnx=tmp_path / "onnx")
    table.save(tmp_path / "phone.json")
    plain = json.loads((tmp_path / "phone.json").read_text())
    wanted = {f"layer-{i}-{key}.onnx" for i, layer in enumerate(plain["layers"]) for key in layer["times"]}
    wanted |= {f"network-{i}.onnx" for i in range(len(plain["networks"]))}
    assert {file.name for file in (tmp_path / "onnx").iterdir()} == wanted
    for layer in plain["layers"]:
        layer["times"] = dict.fromkeys(layer["times"], 0.5)
    for entry in plain["networks"]:
        entry["time"] = 1.5
    (tmp_path / "phone.json").write_text(json.dumps(plain))
    filled = LatencyTable.load(tmp_path / "phone.json")
    assert filled.conditions.backend == REMOTE
    assert LatencyModel(filled, network.space).predict([network.space.minimum])[0] == pytest.approx(1.5)
    with pytest.raises(ValueError, match="measured on another device"):
        measure_built(network.model, network.example_inputs, filled)


def test_a_table_of_another_processor_is_not_timed_against(measured: tuple[ps.Network, LatencyTable, Path]) -> None:
    network, table, _ = measured
    foreign = replace(table, conditions=replace(table.conditions, processor="Abacus 3000"))
    with pytest.raises(ValueError, match="measured on 'Abacus 3000', and this is"):
        measure_built(network.model, network.example_inputs, foreign)
    crowded = replace(table, conditions=replace(table.conditions, threads=4096))
    with pytest.raises(ValueError, match="threads, as many as this process may use"):
        measure_built(network.model, network.example_inputs, crowded)


def test_a_finished_network_is_compared_with_what_was_predicted(
    measured: tuple[ps.Network, LatencyTable, Path],
) -> None:
    network, table, _ = measured
    small = ps.slim(network, (4, 8), _any_ranking(network))
    found = measure_costs(network, small.train(), table)
    assert small.training
    assert found.structure == structure_of(network, small) == (4, 8)
    assert found.exact
    rows = {row.cost: row for row in found.comparisons}
    assert rows["MACs"].measured == network.space.cost((4, 8)).macs
    assert rows["latency, ms"].predicted == pytest.approx(LatencyModel(table, network.space).predict([(4, 8)])[0])
    assert rows["peak memory, bytes"].predicted <= rows["peak memory, bytes"].measured
    assert "latency, ms" in str(found)
    with pytest.raises(ValueError, match="was not pruned from it"):
        measure_costs(network, nn.Linear(3, 3))


def _any_ranking(network: ps.Network) -> object:
    from prunesearch.models.ranking import NestedRanking

    return NestedRanking(tuple(tuple(range(len(units))) for units in network.units))


@pytest.mark.parametrize("measured", [100.0, 150.0])
def test_memory_above_its_lower_bound_is_explained(measured: float) -> None:
    rows = (CostCheck("peak memory, bytes", 100.0, measured, measured, measured),)
    assert ("lower bound" in str(BuiltCosts((1,), rows, None))) == (measured > 100)
