"""Resources: what budgets limit, the package's own and those of others."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

import prunesearch as ps
from prunesearch.evaluators.energy import EnergyCounter, measure
from prunesearch.models.peak_memory import predicted_peak_bytes
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.zoo.mobilenet import mobilenet_v2
from prunesearch.resources.energy import Energy, EnergyTable
from prunesearch.resources.resource import Metered
from prunesearch.search import make_searcher
from prunesearch.structure import Space
from tests.packages import install
from tests.test_given import BUDGET, history, network, search

NETWORKS = {
    "own": network,
    "resnet8": lambda: ps.trace(ps.make_model("resnet8", in_channels=1, image_size=8), torch.randn(2, 1, 8, 8)),
    "windowed": lambda: ps.trace(Windowed(), torch.randn(2, 3, 8, 8)),
    "mobilenet": lambda: ps.trace(mobilenet_v2(width=0.25), torch.randn(2, 3, 32, 32)),
}


class Attention(nn.Module):
    """A convolution, self-attention over positions, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.attend = nn.Conv2d(3, 16, 3, 2, 1), nn.MultiheadAttention(16, 4, batch_first=True)
        self.inner, self.head = nn.Linear(16, 24), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        words = self.stem(x).flatten(2).transpose(1, 2)
        words = words + self.attend(words, words, words)[0]
        return self.head(torch.relu(self.inner(words)).mean(1))


@pytest.mark.parametrize(
    "name",
    ["own", "resnet8", "windowed", pytest.param("mobilenet", marks=pytest.mark.slow)],  # which has many layers to build
)
def test_peak_memory_of_any_structure_is_that_of_the_built_network(name: str) -> None:
    net = NETWORKS[name]()
    space = net.space
    meter = ps.Budget(peak_memory="100%").check(net).meters["peak_memory"].meter
    rows = np.vstack([space.sample(np.random.default_rng(0), 2), space.minimum, space.full])
    ranking = NestedRanking.by_importance([np.arange(float(group.units)) for group in space.groups])
    built = [predicted_peak_bytes(ps.slim(net, tuple(row), ranking).eval(), net.inputs) for row in rows.tolist()]
    assert np.asarray(meter.costs(rows)).tolist() == built


def test_the_formula_of_peak_memory_is_exact_at_full_width_and_never_more_than_the_peak() -> None:
    net = NETWORKS["resnet8"]()
    space, metered = net.space, ps.Budget(peak_memory="100%").check(net).meters["peak_memory"]
    matrix, meter = metered.quadratic(space), metered.meter
    rows = np.vstack([space.full, space.minimum, space.sample(np.random.default_rng(0), 20)])
    u = np.concatenate([np.ones((len(rows), 1)), rows / np.array(space.full)], axis=1)
    formula, costs = ((u @ matrix) * u).sum(axis=1), np.asarray(meter.costs(rows))
    assert formula[0] == pytest.approx(costs[0])
    assert (formula <= costs * (1 + 1e-9)).all()
    assert np.corrcoef(formula, costs)[0, 1] > 0.95


def test_convex_answers_where_peak_memory_is_hardly_more_than_that_of_the_narrowest_network() -> None:
    net = NETWORKS["resnet8"]()
    least = ps.Budget(peak_memory="100%").check(net).cost(net.space.minimum)["peak_memory"]
    feasible = ps.Budget(peak_memory=int(1.2 * least)).check(net)
    similarity = [np.ones(1)] * len(net.space.groups)
    assert feasible.contains(make_searcher("convex", net.space, feasible, similarity=similarity).ask(1)).all()


class Windowed(nn.Module):
    """Its buffers take more than its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        self.register_buffer("window", torch.ones(4000, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3))) * self.window[0]


def test_peak_memory_that_does_not_grow_evenly_is_refused_in_a_sentence() -> None:
    net = ps.trace(Attention(), torch.randn(2, 3, 8, 8))
    with pytest.raises(ValueError, match="The peak memory of Attention cannot be predicted for all structures"):
        ps.Budget(peak_memory="90%").check(net)


def test_peak_memory_needs_the_network_and_a_search_has_it() -> None:
    net = network()
    with pytest.raises(ValueError, match=r"not from its space alone. Give the traced network: budget.check\(network\)"):
        ps.Budget(peak_memory="70%").check(net.space)
    found = search(net, budget="peak_memory=70%,macs=90%")
    wanted = ps.Budget(peak_memory="70%", macs="90%").check(net)
    limits = dict(wanted.limits)
    for trial in found.trials:
        cost = wanted.cost(trial.structure)
        assert cost["peak_memory"] <= limits["peak_memory"]
        assert cost["macs"] <= limits["macs"]


class Widths:
    """A resource that somebody else wrote: the sum of all widths."""

    name, unit, is_count = "widths", "channels", True

    def meter(self, subject: Any) -> Widths:
        return self

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        return np.asarray(structures, dtype=np.int64).sum(axis=1)


class Watts(Widths):
    """One that is measured, not counted."""

    name, unit, is_count = "watts", "W", False

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        return 0.5 + 0.1 * super().costs(structures)


@pytest.mark.parametrize("searcher", ["random", "surrogate", "convex", "uniform"])
def test_a_resource_of_somebody_elses_limits_a_search(searcher: str) -> None:
    found = search(budget=ps.Budget(widths="60%", resources=[Widths()]), searcher=searcher)
    assert all(sum(trial.structure) <= 24 for trial in found.trials)
    assert max(sum(trial.structure) for trial in found.trials) > 18


def test_its_limit_is_written_and_shown_like_others() -> None:
    budget = ps.Budget(watts=2.5, macs="90%", resources=[Watts()])
    assert str(budget) == "macs=90%, watts=2.5"
    feasible = budget.check(network().space)
    cost = feasible.cost(network().space.minimum)
    assert feasible.shown(cost).endswith(f", {cost['watts']:.3g} W")
    with pytest.raises(ps.InfeasibleBudget, match=r"0.1 \(0.1 W\) cannot be met.*from 1 to 4.5 W") as caught:
        ps.Budget(watts=0.1, resources=[Watts()]).check(network().space)
    assert caught.value.unit == "watts"
    for wrong in ("2k", "fast", 0):
        with pytest.raises(ValueError, match="Expected watts as W above 0 or a share"):
            ps.Budget(watts=wrong, resources=[Watts()])


def test_a_resource_is_found_by_where_it_stands_and_by_the_name_that_a_package_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from tests.test_resources import Widths"
    install(tmp_path, "more-resources", code, {"prunesearch.resources": {"widths": "Widths"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = history(search(budget=ps.Budget(widths="60%", resources=[Widths()])))
    assert history(search(budget="widths=60%")) == expected
    assert history(search(budget="more_resources:Widths=60%")) == expected
    assert str(ps.Budget.parse("macs=90%, more_resources:Widths=60%")) == "macs=90%, more_resources:Widths=60%"


class Broken(Widths):
    """Its meter is what a test says."""

    def __init__(self, costs: Any = None, is_count: bool = True) -> None:
        self._costs, self.is_count = costs, is_count

    def costs(self, structures: npt.ArrayLike) -> Any:
        return self._costs


class Meterless(Widths):
    def meter(self, subject: Any) -> Any:
        return 3


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (Broken([1]), "The resource Broken breaks the contract Resource: costs(structures) gave [1] for 2 structures"),
        (Broken([1.5, 2.5]), "expected whole numbers >= 0"),
        (Broken([float("nan"), 1.0], is_count=False), "expected finite numbers >= 0"),
        (Broken([3, 2]), "the narrowest structure costs 3, the unpruned 2; expected no more"),
        (Meterless(), "meter(subject) gave 3; expected a meter, with costs(structures)"),
    ],
)
def test_a_resource_that_breaks_its_contract_is_refused_in_a_sentence(resource: Any, message: str) -> None:
    with pytest.raises(ps.ContractBroken) as caught:
        ps.Budget(widths="50%", resources=[resource]).check(network().space)
    assert message in str(caught.value)


def test_what_is_no_resource_is_refused() -> None:
    class Unnamed:
        def meter(self, subject: Any) -> None: ...

    with pytest.raises(ps.ContractBroken, match="Unnamed breaks the contract Resource: it has no name and no unit"):
        ps.Budget(widths="50%", resources=[Unnamed()])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="the resource 'widths', and no limit on it"):
        ps.Budget(macs="50%", resources=[Widths()])
    with pytest.raises(ValueError, match="There is no module 'nowhere' to take the resource"):
        ps.Budget.parse("nowhere:Widths=50%")


class Wider(Widths):
    """Another of the same name."""


class Listed(Widths):
    """Its meter gives a list."""

    def costs(self, structures: npt.ArrayLike) -> Any:
        return [int(sum(structure)) for structure in np.asarray(structures)]


class InTorch(Widths):
    """Its meter gives a tensor."""

    def costs(self, structures: npt.ArrayLike) -> Any:
        return torch.from_numpy(super().costs(structures))


@pytest.mark.parametrize("resource", [Listed(), InTorch()])
def test_costs_may_be_a_list_or_a_tensor(resource: Any) -> None:
    def found(limited: Any) -> list[Any]:
        return history(search(budget=ps.Budget(widths="60%", resources=[limited]), searcher="convex"))

    assert found(resource) == found(Widths())


class Weighed(Widths):
    """A resource with settings of its own."""

    def __init__(self, first: int) -> None:
        self._first = first

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        return super().costs(structures) + self._first * np.asarray(structures, dtype=np.int64)[:, 0]


def test_a_resource_with_other_settings_is_another_budget(tmp_path: Path) -> None:
    def found(first: int, n_trials: int, name: str | None = None) -> ps.SearchResult:
        budget = ps.Budget(widths="60%", resources=[Weighed(first)])
        return search(budget=budget, n_trials=n_trials, study=tmp_path / "s.db", study_name=name)

    one = found(0, 4)
    assert history(found(0, 6))[:4] == history(one)
    other = found(9, 6)
    assert other.name != one.name
    assert other.name.startswith("search widths=60% by widths ")
    with pytest.raises(ps.StudyMismatch, match=r"its budget is 'widths=60% by widths \w+', not"):
        found(9, 6, one.name)


@pytest.mark.parametrize(
    "asynchronous", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["in order", "asynchronous"]
)
def test_a_study_from_before_costs_were_part_of_it_goes_on_for_as_long_as_they_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    def found(first: int, n_trials: int) -> ps.SearchResult:
        own = {"study": tmp_path / "s.db", "running": ps.Running(asynchronous=asynchronous)}
        budget = ps.Budget(widths="60%", resources=[Weighed(first)])
        return search(budget=budget, n_trials=n_trials, **own)

    with monkeypatch.context() as earlier:
        earlier.setattr(Metered, "told_apart", lambda self, space: "")
        one = found(0, 4)
    again = found(0, 6)
    assert (again.name, history(again)[:4]) == (one.name, history(one))
    with pytest.raises(ps.StudyMismatch, match="What widths is made from has changed"):
        found(9, 8)


def test_the_peak_memory_of_other_images_is_another_budget(tmp_path: Path) -> None:
    def found(images: int) -> ps.SearchResult:
        traced = ps.trace(network().model, torch.randn(images, *network().inputs.tensors[0].shape[1:]))
        return search(traced, budget="peak_memory=70%", n_trials=2, study=tmp_path / "s.db")

    assert found(2).name == found(2).name == "search"
    assert found(9).name == "search peak_memory=70% by peak_memory of 9 images"


class Above(Widths):
    """What is wider than so many channels."""

    def __init__(self, free: int) -> None:
        self._free = free

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        return np.maximum(0, super().costs(structures) - self._free)


def test_of_what_costs_nothing_no_share_is_a_limit() -> None:
    space = network().space
    with pytest.raises(ValueError, match=r"of widths the unpruned network costs 0 channels. Leave widths out"):
        ps.Budget(widths="60%", resources=[Above(1000)]).check(space)
    with pytest.raises(ps.InfeasibleBudget, match=r"A budget of 5% \(0 channels\) leaves nothing. The space reaches"):
        ps.Budget(widths="5%", resources=[Above(sum(space.full) - 4)]).check(space)


class MACs(Widths):
    """Another of a name of the package's."""

    name = "macs"


def test_a_name_means_one_resource_and_the_packages_names_mean_its_own() -> None:
    with pytest.raises(ValueError, match="two of the name 'widths': an object of Wide"):
        ps.Budget.parse("tests.test_resources:Widths=50%,tests.test_resources:Wider=90%")
    for given in ({"macs": "50%", "resources": [MACs()]}, {"tests.test_resources:MACs": "50%"}):
        with pytest.raises(ValueError, match="Expected macs to be limited by the package's own resource"):
            ps.Budget(**given)  # type: ignore[arg-type]
    assert ps.Budget.parse("prunesearch.resources.macs:MACs=50%").check(network().space).limits[0][0] == "macs"


def test_a_verifier_may_lower_what_the_budget_did_not_limit() -> None:
    lowered = BUDGET.check(network().space).lowered_to({"params": 900})
    assert dict(lowered.limits)["params"] == 900
    assert str(lowered) == "macs=50%, lowered to params 900"
    assert lowered.lowered_to({"params": 1000}) == lowered
    with pytest.raises(ps.InfeasibleBudget, match="No structure has macs of at most 1; the narrowest has"):
        lowered.lowered_to({"macs": 1})


def counters(folder: Path, joules: float = 0.0, most: int = 10**12) -> Path:
    """What the kernel shows of a processor's energy."""
    domain = folder / "intel-rapl:0"
    (domain / "intel-rapl:0:0").mkdir(parents=True)
    (folder / "intel-rapl:0:0").mkdir()
    (domain / "energy_uj").write_text(f"{int(1e6 * joules)}\n")
    (domain / "max_energy_range_uj").write_text(f"{most}\n")
    return domain / "energy_uj"


def test_energy_is_read_where_the_machine_tells_it_also_when_a_counter_begins_again(tmp_path: Path) -> None:
    file = counters(tmp_path, joules=2.0, most=3_000_000)
    counter = EnergyCounter(tmp_path)
    before = counter.read()
    assert before == [2_000_000]
    file.write_text("2500000\n")
    assert counter.joules_since(before) == pytest.approx(0.5)
    file.write_text("500000\n")  # 1 J to the top, half a joule after it
    assert counter.joules_since(before) == pytest.approx(1.500001)


def test_a_machine_that_does_not_tell_its_energy_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not tell its energy: there is no .*/intel-rapl:0/energy_uj"):
        EnergyCounter(tmp_path)
    file = counters(tmp_path)
    file.unlink()
    file.mkdir()  # what cannot be read, also by root
    with pytest.raises(ValueError, match=r"energy_uj cannot be read .*Let root allow it: chmod a\+r"):
        EnergyCounter(tmp_path)


class Meter(EnergyCounter):
    """A counter that goes on by a millijoule each time it is read."""

    def __init__(self) -> None:
        self._now = 0

    def read(self) -> list[int]:
        self._now += 1000
        return [self._now]

    def joules_since(self, before: list[int]) -> float:
        return 1e-6 * (self.read()[0] - before[0])


def test_energy_is_measured_once_kept_in_a_file_and_limits_a_budget(tmp_path: Path) -> None:
    net = network()
    table = measure(net, structures=4, counter=Meter(), seconds=0.0)
    assert table.millijoules == pytest.approx((1.0,) * 4)
    assert table.structures[0] == net.space.minimum
    assert table.structures[-1] == net.space.full
    spent = tuple(0.5 + 1e-5 * net.space.cost(row).macs for row in table.structures)
    made = EnergyTable(table.groups, table.structures, spent, "toy", 1)
    file = tmp_path / "energy.json"
    file.write_text(json.dumps(dataclasses.asdict(made)))
    assert EnergyTable.load(file) == made == EnergyTable.measure(net, file=file)  # which has it already
    feasible = ps.Budget(energy_mj="60%", table=file).check(net.space)
    rows = net.space.sample(np.random.default_rng(0), 20)
    assert feasible.costs("energy_mj", rows) == pytest.approx(0.5 + 1e-5 * net.space.macs(rows))
    assert feasible.meters["energy_mj"].relative_error < 1e-6
    found = search(net, budget="energy_mj=60%", table=file)
    assert feasible.contains([trial.structure for trial in found.trials]).all()


def test_an_energy_table_is_asked_for_and_must_be_of_the_network(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected energy_mj and table together, got no table"):
        ps.Budget(energy_mj="50%")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ValueError, match=r"broken\.json is no energy table"):
        ps.Budget(energy_mj="50%", table=tmp_path / "broken.json")
    for spent, sentence in (((0.0,), "got 0.0"), ((float("nan"),), "got nan"), ((), "got 0 for 1")):
        table = {
            "groups": (("stem", 8),),
            "structures": ((8,),),
            "millijoules": spent,
            "processor": "",
            "batch_size": 1,
        }
        (tmp_path / "broken.json").write_text(json.dumps(table))
        with pytest.raises(ValueError, match=rf"broken\.json is no energy table.*{sentence}"):
            EnergyTable.load(tmp_path / "broken.json")
    other = EnergyTable((("stem", 8),), ((8,),), (1.0,), "toy", 1)
    with pytest.raises(ValueError, match="measured for another network"):
        ps.Budget(energy_mj="50%", resources=[Energy(other)]).check(network().space)


@pytest.mark.skipif(os.path.exists("/sys/class/powercap/intel-rapl:0"), reason="this machine tells its energy")
def test_where_energy_is_not_told_measuring_says_so() -> None:
    with pytest.raises(ValueError, match="This machine does not tell its energy"):
        EnergyTable.measure(network())


def test_a_set_of_another_space_is_no_budget_of_this_one() -> None:
    feasible = BUDGET.check(network())
    assert feasible.check(network().space) is feasible
    other: Space = NETWORKS["resnet8"]().space
    with pytest.raises(ValueError, match="Expected the budget macs=50% to be resolved for"):
        feasible.check(other)
