"""Latency tables: prediction with known answers, the file, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunesearch.budget import Budget
from prunesearch.errors import InfeasibleBudget
from prunesearch.latency_model import LatencyModel, alignment
from prunesearch.latency_table import LatencyTable
from prunesearch.latency_times import Built, Layer, Timing
from tests.toys import admits, chain_space, every_structure, toy_table

SPACE = chain_space((16, 24, 32), 8)
TABLE = toy_table(SPACE)


def plain_sum(structure: tuple[int, ...]) -> float:
    """What the toy table was made from."""
    return 0.02 * len(SPACE.macs_terms) + 1e-6 * sum(SPACE.layer_macs(structure).values())


def thinned(table: LatencyTable, keep: Callable[[int], bool]) -> LatencyTable:
    """The table with some widths of every axis only."""
    layers = []
    for layer in table.layers:
        axes = tuple(tuple(w for w in axis if keep(w) or w in (axis[0], axis[-1])) for axis in layer.axes)
        shape = [len(axis) for axis in layer.axes]
        times = np.array([timing.ms for timing in layer.timings]).reshape(shape)
        chosen = times[np.ix_(*[[a.index(w) for w in axis] for a, axis in zip(layer.axes, axes, strict=True)])]
        layers.append(Layer(layer.computes, axes, tuple(Timing(ms, ms, ms) for ms in chosen.ravel().tolist())))
    return dataclasses.replace(table, layers=tuple(layers))


def with_networks(table: LatencyTable, ms_of: Callable[[tuple[int, ...]], float]) -> LatencyTable:
    structures = [tuple(row) for row in SPACE.sample(np.random.default_rng(3), 12).tolist()]
    built = tuple(Built(s, Timing(ms_of(s), ms_of(s), ms_of(s))) for s in structures)
    return dataclasses.replace(table, networks=built)


def test_every_structure_of_a_measured_grid_takes_the_sum_of_its_layers() -> None:
    structures = every_structure(SPACE)
    assert LatencyModel(TABLE, SPACE).predict(structures) == pytest.approx([plain_sum(s) for s in structures])


def test_between_measured_widths_bilinear_work_is_interpolated_exactly() -> None:
    model = LatencyModel(thinned(TABLE, lambda width: width % 8 == 0), SPACE)
    structures = every_structure(SPACE)
    assert model.predict(structures) == pytest.approx([plain_sum(s) for s in structures])


def test_one_structure_is_predicted_as_in_a_batch_of_many() -> None:
    model = LatencyModel(TABLE, SPACE)
    structures = SPACE.sample(np.random.default_rng(0), 9000)  # more than are predicted at once
    many = model.predict(structures)
    assert [model.predict([row])[0] for row in structures[::1000]] == pytest.approx(many[::1000])
    assert model.predict(np.zeros((0, 3), dtype=np.int64)).shape == (0,)


def test_widths_between_aligned_ones_are_not_taken_for_aligned() -> None:
    space = chain_space((64,), 16)  # 4, 8, ..., 64
    table = toy_table(space, cliff=2.0)  # twice as slow unless divisible by 8
    widths = [w for w in space.groups[0].widths if alignment(w) in (1, 16) or w in (8, 56)]
    layers = []
    for layer in table.layers:
        times = dict(zip(layer.axes[0], layer.timings, strict=True))
        layers.append(Layer(layer.computes, (tuple(widths),), tuple(times[w] for w in widths)))
    model = LatencyModel(dataclasses.replace(table, layers=tuple(layers)), space)
    truth = LatencyModel(table, space)
    structures = every_structure(space)
    assert model.predict(structures) == pytest.approx(truth.predict(structures))


def test_a_sum_that_is_off_by_a_factor_and_a_constant_is_calibrated() -> None:
    def whole(structure: tuple[int, ...]) -> float:
        return 0.93 * plain_sum(structure) + 0.004

    plain = LatencyModel(TABLE, SPACE)
    model = LatencyModel(with_networks(TABLE, whole), SPACE)
    structures = every_structure(SPACE)
    truth = np.array([whole(s) for s in structures])
    assert np.abs(model.predict(structures) / truth - 1).max() < 0.01
    assert np.abs(plain.predict(structures) / truth - 1).max() > 0.03
    assert model.relative_error < 0.01
    assert np.isnan(plain.relative_error)


def test_no_structure_takes_less_than_a_tenth_of_its_layers_however_networks_calibrate_them() -> None:
    model = LatencyModel(TABLE, SPACE)
    model.coefficients = np.array([1.0, -0.12, 0.0])  # of networks timed on a busy machine
    structures = every_structure(SPACE)
    sums = np.array([plain_sum(tuple(structure)) for structure in structures])
    assert (sums < 0.12).any()
    np.testing.assert_allclose(model.predict(structures), np.maximum(sums - 0.12, 0.1 * sums))


def test_the_expected_error_is_that_of_leaving_each_network_out() -> None:
    rng = np.random.default_rng(5)
    noisy = with_networks(TABLE, lambda s: plain_sum(s) * (1 + 0.05 * rng.standard_normal()))
    left_out = []
    for i, built in enumerate(noisy.networks):
        others = dataclasses.replace(noisy, networks=noisy.networks[:i] + noisy.networks[i + 1 :])
        assert built.timing is not None
        left_out.append(LatencyModel(others, SPACE).predict([built.structure])[0] / built.timing.ms - 1)
    # not equal: the weight of the prior is taken from all networks in the one, from the others in the other
    assert LatencyModel(noisy, SPACE).relative_error == pytest.approx(np.sqrt(np.mean(np.square(left_out))), rel=0.05)


def test_the_quadratic_form_is_exact_for_bilinear_work_and_never_above_at_the_narrowest() -> None:
    model = LatencyModel(TABLE, SPACE)
    kept = np.array(every_structure(SPACE)) / np.array(SPACE.full)
    ones = np.concatenate([np.ones((len(kept), 1)), kept], axis=1)
    form = model.quadratic()
    assert np.einsum("pi,ij,pj->p", ones, form, ones) == pytest.approx(model.predict(every_structure(SPACE)))
    assert (form >= 0).all()
    bent = LatencyModel(with_networks(toy_table(SPACE, cliff=3.0), lambda s: 0.5 * plain_sum(s)), SPACE)
    low = np.concatenate([[1.0], np.array(SPACE.minimum) / np.array(SPACE.full)])
    assert low @ bent.quadratic() @ low <= bent.predict([SPACE.minimum])[0] * (1 + 1e-9)


def test_a_learnt_correction_multiplies_predictions() -> None:
    corrected = LatencyModel(dataclasses.replace(TABLE, correction=1.21), SPACE)
    assert corrected.predict([SPACE.full])[0] == pytest.approx(1.21 * plain_sum(SPACE.full))


def test_a_file_reads_as_it_was_written_and_holds_one_line_per_timing(tmp_path: Path) -> None:
    table = dataclasses.replace(toy_table(SPACE, noise=0.01), reference_ms=0.125, drift=(0.9, 1.0, 1.25))
    path = tmp_path / "toy.json"
    table.save(path)
    again = LatencyTable.load(path)
    assert again.fingerprint == table.fingerprint
    structures = every_structure(SPACE)
    assert LatencyModel(again, SPACE).predict(structures) == pytest.approx(
        LatencyModel(table, SPACE).predict(structures)
    )
    assert (again.conditions, again.uses, again.drift) == (table.conditions, table.uses, table.drift)
    assert path.read_text().count("\n") > sum(len(layer.timings) for layer in table.layers)
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy.json"]


def test_a_number_alone_will_do_for_a_time_measured_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "phone.json"
    dataclasses.replace(
        TABLE, layers=tuple(dataclasses.replace(x, timings=(None,) * len(x.timings)) for x in TABLE.layers)
    ).save(path)
    plain = json.loads(path.read_text())
    with pytest.raises(ValueError, match=f"lacks {LatencyTable.load(path).missing} times"):
        Budget(latency_ms="50%", table=LatencyTable.load(path)).check(SPACE)
    for layer, known in zip(plain["layers"], TABLE.layers, strict=True):
        layer["times"] = {key: timing.ms for key, timing in zip(layer["times"], known.timings, strict=True)}
    path.write_text(json.dumps(plain))
    assert LatencyModel(LatencyTable.load(path), SPACE).predict([SPACE.full])[0] == pytest.approx(
        plain_sum(SPACE.full), rel=1e-4
    )


def test_a_file_of_another_device_from_an_earlier_release_is_the_same_table_to_a_study(tmp_path: Path) -> None:
    file = tmp_path / "phone.json"
    TABLE.as_remote().save(file)
    remote = LatencyTable.load(file)
    assert json.loads(file.read_text())["conditions"]["backend"] == "remote"
    file.write_text(file.read_text().replace('"remote"', '"elsewhere"'))
    assert LatencyTable.load(file) == remote
    assert LatencyTable.load(file).is_remote
    formerly = dataclasses.replace(remote, conditions=dataclasses.replace(remote.conditions, backend="elsewhere"))
    assert remote.fingerprint == formerly.fingerprint != dataclasses.replace(remote, correction=1.1).fingerprint


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        plain = json.loads(text)
        change(plain)
        return json.dumps(plain)

    return apply


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda text: text[: len(text) // 2], "is not JSON"),
        (lambda text: "[1, 2]", "is not a latency table"),
        (damaged(lambda plain: plain.update(version=99)), "of version 99"),
        (damaged(lambda plain: plain.pop("uses")), "is damaged: KeyError 'uses'"),
        (damaged(lambda plain: plain["layers"][0]["times"].popitem()), "layer 0 has times for 7 combinations"),
        (damaged(lambda plain: plain["layers"][0]["times"].update({"2": -1})), "milliseconds above 0"),
        (damaged(lambda plain: plain["layers"][0]["times"].update({"2": "fast"})), "cannot be used"),
        (damaged(lambda plain: plain["uses"][0].update(layer=77)), "names layer 77"),
        (damaged(lambda plain: plain["uses"][0]["widths"][0].update(nobody=1)), "damaged: KeyError 'nobody'"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_place(
    tmp_path: Path, damage: Callable[[str], str], sentence: str
) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=sentence):
        LatencyTable.load(path)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (chain_space((16, 24, 32, 8), 8), "it has 3 groups, this network 4"),
        (chain_space((16, 24, 40), 8), "its group 'conv2' of 32 channels is 'conv2' of 40 here"),
        (chain_space((16, 24, 32), 8, inputs=1), "its layers have other shapes"),
    ],
)
def test_a_table_of_another_network_is_refused_with_the_difference(space: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Budget(latency_ms=1.0, table=TABLE).check(space)


def test_a_table_serves_the_same_network_under_other_width_rules() -> None:
    coarse = chain_space((16, 24, 32), 4)
    assert Budget(latency_ms="50%", table=TABLE).check(coarse).contains([coarse.minimum]).all()


def test_a_limit_under_the_fixed_cost_is_infeasible_with_what_can_be_reached() -> None:
    low, high = plain_sum(SPACE.minimum), plain_sum(SPACE.full)
    with pytest.raises(InfeasibleBudget, match="No choice of widths can save") as caught:
        Budget(latency_ms=0.5 * low, table=TABLE).check(SPACE)
    assert caught.value.reachable == pytest.approx((low, high))
    assert caught.value.unit == "latency_ms"
    with pytest.raises(InfeasibleBudget, match="nothing to search"):
        Budget(latency_ms=2 * high, table=TABLE).check(SPACE)


def test_a_table_too_noisy_for_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match=r"too noisy for a budget of 0\.14: predictions are off by"):
        Budget(latency_ms=0.14, table=toy_table(SPACE, noise=0.6)).check(SPACE)
    Budget(latency_ms=0.14, table=toy_table(SPACE, noise=0.02)).check(SPACE)
    upside_down = dataclasses.replace(
        TABLE, layers=tuple(dataclasses.replace(x, timings=x.timings[::-1]) for x in TABLE.layers), networks=()
    )
    with pytest.raises(ValueError, match=r"The table of latency_ms is too noisy: it predicts .* for the narrowest"):
        Budget(latency_ms="50%", table=upside_down).check(SPACE)


def test_milliseconds_and_table_come_together_and_milliseconds_are_positive() -> None:
    with pytest.raises(ValueError, match="latency_ms and table together"):
        Budget(latency_ms=4.0)
    with pytest.raises(ValueError, match="latency_ms and table together"):
        Budget(macs="50%", table=TABLE)
    for limit in (0, -1.0, "fast", "4k", "nan"):
        with pytest.raises(ValueError, match="Expected latency_ms as ms above 0"):
            Budget(latency_ms=limit, table=TABLE)
    assert Budget.parse("latency_ms=0.4, macs=50%", TABLE) == Budget(latency_ms="0.4", macs="50%", table=TABLE)


def test_repair_and_fit_project_onto_latency_alone_and_with_other_limits() -> None:
    rows = SPACE.sample(np.random.default_rng(1), 64)
    for budget in (Budget(latency_ms="60%", table=TABLE), Budget(latency_ms="60%", macs="45%", table=TABLE)):
        feasible = budget.check(SPACE)
        repaired, fitted = feasible.repair(rows), feasible.fit(rows)
        assert feasible.contains(repaired).all()
        assert (repaired <= rows).all()
        assert feasible.contains(fitted).all()
        assert feasible.usage(fitted).min() > 0.9
        assert all(admits(feasible, feasible.cost(row)) for row in fitted.tolist())
    cheapest = feasible.tightened(1e-9)
    assert cheapest.contains([SPACE.minimum]).all()
