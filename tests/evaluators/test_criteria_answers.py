"""Channel criteria against closed forms, brute force and planted answers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.budget import Budget
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.channels.cap import CaPCriterion
from prunesearch.evaluators.channels.cpmc import CPMCCriterion
from prunesearch.evaluators.channels.genetic import best_mask, errors, greedy_mask
from prunesearch.evaluators.channels.lfe import LFECriterion, balanced_masks, fit_ensemble, responses
from prunesearch.evaluators.channels.slices import slices
from prunesearch.evaluators.channels.taylor import TaylorCriterion
from prunesearch.evaluators.layer_inputs import LayerInputs, layer_inputs
from prunesearch.evaluators.width_errors import gram_matrices
from prunesearch.models.masked import MaskedForward
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import slim
from prunesearch.models.trace import trace
from prunesearch.structure import FloatArray
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.follow import fidelity
from tests.models.networks import Enlarging, image, randomised


class Coupled(nn.Module):
    """A stem that two convolutions and, through a skip, a linear layer read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.inner, self.back = nn.Conv2d(5, 4, 3, padding=1), nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.back(F.relu(self.inner(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def coupled() -> Network:
    return trace(randomised(Coupled()).eval(), image(2, 2, 4, 4))


IMAGES = image(100, 2, 4, 4, seed=5)
LABELS = torch.arange(100) % 3


def order(criterion: str, network: Network) -> tuple[tuple[int, ...], ...]:
    ranking = make_criterion(criterion).rank(network, labelled(IMAGES, LABELS))
    assert isinstance(ranking, NestedRanking)
    return ranking.orders


def test_weights_are_told_apart_by_what_they_do_with_the_channels(coupled: Network) -> None:
    roles = {(part.name, part.dim): part.role for part in slices(coupled)}
    assert roles[("stem.weight", 0)] == "produces"
    assert roles[("inner.weight", 1)] == "reads"
    assert roles[("norm.weight", 0)] == "scales"
    assert roles[("inner.bias", 0)] == "other"


def test_a_transposed_convolution_produces_its_second_dimension() -> None:
    network = trace(
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.ConvTranspose2d(4, 6, 2), nn.Conv2d(6, 2, 1)), image(2, 2, 4, 4)
    )
    roles = {(part.name, part.dim): part.role for part in slices(network) if part.name == "1.weight"}
    assert roles == {("1.weight", 0): "reads", ("1.weight", 1): "produces"}


class Functions(nn.Module):
    """Weights of other names, that functions are given."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.wide = nn.Parameter(torch.zeros(5, 2, 3, 3)), nn.Parameter(torch.zeros(5, 4, 2, 2))
        self.scale, self.table = nn.Parameter(torch.zeros(6, 1)), nn.Parameter(torch.zeros(6, 4))
        self.square = nn.Parameter(torch.zeros(6, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.kernel))
        x = F.relu(F.conv_transpose2d(x, self.wide)).mean((2, 3))
        x = F.relu(F.linear(x, weight=self.table * self.scale.exp()))
        return self.head(F.relu(F.linear(x, self.square.t())))


def test_functions_tell_what_their_weights_do_with_the_channels() -> None:
    network = trace(randomised(Functions()).eval(), image(2, 2, 4, 4))
    roles = {(part.name, part.dim): part.role for part in slices(network)}
    assert (roles["kernel", 0], roles["wide", 0], roles["wide", 1]) == ("produces", "reads", "produces")
    assert (roles["table", 0], roles["table", 1], roles["scale", 0]) == ("produces", "reads", "produces")
    assert roles["square", 0] == roles["square", 1] == "other"  # it is turned, so its dimensions are not the weight's


norms = nn.utils.parametrizations
COMPUTED: dict[str, tuple[Callable[..., nn.Module], Callable[[nn.Module], object]]] = {
    "weight_norm": (norms.weight_norm, lambda layer: nn.utils.parametrize.remove_parametrizations(layer, "weight")),
    "spectral_norm": (norms.spectral_norm, lambda layer: nn.utils.parametrize.remove_parametrizations(layer, "weight")),
    "weight_norm by a hook": (nn.utils.weight_norm, nn.utils.remove_weight_norm),
    "spectral_norm by a hook": (nn.utils.spectral_norm, nn.utils.remove_spectral_norm),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm", "bn_scale", "cpmc", "taylor"])
def test_layers_whose_weight_is_computed_are_ranked_by_that_weight(name: str, criterion: str) -> None:
    compute, remove = COMPUTED[name]
    model = nn.Sequential(compute(nn.Conv2d(2, 6, 3)), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(16, 3))
    with torch.no_grad():
        model.eval()(IMAGES)  # what a hook left in the layer is of other tensors than those that follow
    randomised(model)
    network = trace(model, image(2, 2, 4, 4))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    found = make_criterion(criterion).rank(network, labelled(IMAGES, LABELS))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    plain = copy.deepcopy(model)  # which torch refuses of layers that hold what a gradient needs
    with torch.no_grad():
        plain(IMAGES)  # hooks compute the weight in a forward
    remove(plain[0])
    known = make_criterion(criterion).rank(trace(plain, image(2, 2, 4, 4)), labelled(IMAGES, LABELS))
    assert isinstance(found, NestedRanking)
    assert isinstance(known, NestedRanking)
    assert found.scores is not None
    assert known.scores is not None
    assert found.notes == ()
    if (criterion, name.partition(" ")[0]) == ("taylor", "spectral_norm"):  # all filters count in the norm of each
        assert found.scores[0].all()
    elif criterion == "cpmc":  # a layer with two tensors has more parameters, so other costs
        assert found.orders == known.orders
    else:
        for scores, wanted in zip(found.scores, known.scores, strict=True):
            np.testing.assert_allclose(scores, wanted, rtol=1e-3)


class Multiplied(nn.Module):
    """Channels that a product of matrices makes: neither a layer nor a rule says what the parameters do with them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(torch.zeros(6, 5)), nn.Parameter(torch.zeros(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(x @ self.first), self.last.t())


class Fixed(nn.Module):
    """Weights that are buffers, of which no parameter knows."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("first", torch.rand(5, 6))
        self.register_buffer("last", torch.rand(3, 5))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(x, self.first)), self.last) * self.scale  # type: ignore[arg-type]


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm", "bn_scale", "cpmc", "taylor"])
def test_channels_that_no_weight_is_known_to_produce_are_ranked_by_what_has_them_and_a_note_says_so(
    criterion: str,
) -> None:
    model = randomised(Multiplied())
    with torch.no_grad():
        model.first[:, 2] = model.last[2] = 0  # type: ignore[index,operator]
    found = make_criterion(criterion).rank(
        trace(model.eval(), torch.ones(2, 6)), labelled(torch.randn(20, 6), LABELS[:20])
    )
    assert isinstance(found, NestedRanking)
    assert found.scores is not None
    assert found.scores[0].max() > 0
    if criterion != "fpgm":  # whose distance to what is empty is not the smallest
        assert found.orders[0][-1] == 2
    (note,) = found.notes
    assert "No weight is known to produce the channels of" in note


@pytest.mark.parametrize("criterion", ["l1", "cpmc", "taylor"])
def test_channels_that_no_parameter_has_are_not_ranked_by_weights(criterion: str) -> None:
    network, examples = trace(Fixed().eval(), torch.ones(2, 6)), labelled(torch.rand(20, 6), LABELS[:20])
    with pytest.raises(ValueError, match=r"expects parameters that hold the channels of each group; first has none"):
        make_criterion(criterion).rank(network, examples)
    assert len(make_criterion("cap").rank(network, examples).keep(0, 3)) == 3


def test_norms_and_distances_are_those_of_the_filters() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([[3.0, 0.0], [2.0, 2.0], [0.1, 0.0], [-3.0, 0.1]]).view(4, 2, 1, 1)
    network = trace(model, image(2, 2, 4, 4))
    assert order("l1", network) == ((1, 3, 0, 2),)
    assert order("l2", network) == ((3, 0, 1, 2),)
    weights = model[0].weight.detach().flatten(1).numpy()
    far = [sum(float(np.linalg.norm(w - other)) for other in weights) for w in weights]
    assert order("fpgm", network) == (tuple(np.argsort([-d for d in far])),)


class Stream(nn.Module):
    """A stream that a stem and three blocks produce, each block with channels of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(2, 6, 1), nn.Linear(6, 3)
        self.inner = nn.ModuleList(nn.Conv2d(6, 4, 1) for _ in range(3))
        self.back = nn.ModuleList(nn.Conv2d(4, 6, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for inner, back in zip(self.inner, self.back, strict=True):
            x = x + back(F.relu(inner(x)))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm"])
def test_a_stream_of_many_producers_scores_on_average_as_much_as_a_layer_of_one(criterion: str) -> None:
    found = make_criterion(criterion).rank(trace(randomised(Stream()).eval(), image(2, 2, 4, 4)))
    assert isinstance(found, NestedRanking)
    assert found.scores is not None
    assert [float(scores.mean()) for scores in found.scores] == pytest.approx([1.0] * 4)


def test_batchnorms_scale_decides_where_there_is_one_and_the_norm_where_not(coupled: Network) -> None:
    model = coupled.model
    stem, inner = order("bn_scale", coupled)
    assert stem == tuple(np.argsort(-np.abs(model.norm.weight.detach().numpy())))  # type: ignore[union-attr,operator]
    assert inner == order("l1", coupled)[1]


def test_scales_of_all_batchnorms_are_compared_as_they_are() -> None:
    """As with one threshold over them; a group without one has norms relative to its layer, times the mean scale."""
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5), nn.ReLU())
    model.extend([nn.Conv2d(5, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1)])
    randomised(model)
    with torch.no_grad():
        model[1].weight *= 1e-3
    found = make_criterion("bn_scale").rank(trace(model.eval(), image(2, 2, 4, 4)))
    assert isinstance(found, NestedRanking)
    assert found.scores is not None
    small, large = (model[at].weight.detach().abs().double().numpy() for at in (1, 3))
    norms = model[5].weight.detach().abs().double().flatten(1).sum(1).numpy()
    plain = norms / norms.mean() * np.concatenate([small, large]).mean()
    for scores, wanted in zip(found.scores, (small, large, plain), strict=True):
        assert scores == pytest.approx(wanted)


def test_of_several_batchnorms_the_mean_scale_counts() -> None:
    """The mean, not the sum: channels with two BatchNorms matter no more than channels with one."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.head = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 1)
            self.norm, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.norm(self.one(x)) + self.second(self.other(x))))

    model = randomised(Two()).eval()
    found = make_criterion("bn_scale").rank(trace(model, image(2, 2, 4, 4)))
    assert isinstance(found, NestedRanking)
    assert found.scores is not None
    both = model.norm.weight.detach().abs() + model.second.weight.detach().abs()  # type: ignore[operator, union-attr]
    assert found.scores[0] == pytest.approx((both / 2).numpy())


def test_taylor_is_the_squared_derivative_with_respect_to_a_factor_on_the_filters(coupled: Network) -> None:
    """Against finite differences: scale the filters that produce a channel by 1 + e and see what the loss does."""
    importance = np.zeros(4)
    weight = coupled.model.inner.weight  # type: ignore[union-attr]
    for channel, batch in itertools.product(range(4), (slice(0, 50), slice(50, 100))):
        losses = []
        for factor in (1.001, 0.999):
            with torch.no_grad():
                whole = weight.clone()  # type: ignore[operator,union-attr]
                weight[channel] *= factor  # type: ignore[index]
                losses.append(float(F.cross_entropy(coupled.model(IMAGES[batch]).double(), LABELS[batch])))
                weight.copy_(whole)  # type: ignore[operator,union-attr]
        importance[channel] += ((losses[0] - losses[1]) / 0.002) ** 2
    assert order("taylor", coupled)[1] == tuple(np.argsort(-importance))


def test_scores_of_taylor_are_averages_over_batches(coupled: Network) -> None:
    """Each by its size, so four times the same batch say what it says once."""
    taylor = TaylorCriterion()
    once = taylor.scores(coupled, labelled(IMAGES[:64], LABELS[:64]))
    often = taylor.scores(coupled, labelled(IMAGES[:64].repeat(4, 1, 1, 1), LABELS[:64].repeat(4)))
    assert often == pytest.approx(once, rel=1e-4)
    sizes = (33, 32)  # what 65 images are cut into
    parts = [labelled(IMAGES[:33], LABELS[:33]), labelled(IMAGES[33:65], LABELS[33:65])]
    wanted = sum(size * taylor.scores(coupled, part) for size, part in zip(sizes, parts, strict=True)) / 65
    assert taylor.scores(coupled, labelled(IMAGES[:65], LABELS[:65])) == pytest.approx(wanted, rel=1e-4)


def test_cpmc_counts_all_weights_that_disappear_with_a_channel(coupled: Network) -> None:
    parts = {name: parameter.detach() for name, parameter in coupled.model.named_parameters()}
    found = [
        [
            parts["inner.weight"][c].abs().flatten(),
            parts["inner.weight"][:0].flatten(),
            parts["back.weight"][:, c].abs().flatten(),
        ]
        for c in range(4)
    ]
    means = [float(torch.cat(tensors).mean()) for tensors in found]
    assert order("cpmc", coupled)[1] == tuple(np.argsort([-mean for mean in means]))


def test_networks_of_equal_weights_are_ordered_by_cost_alone(coupled: Network) -> None:
    for parameter in coupled.model.parameters():
        nn.init.ones_(parameter)
    scores = CPMCCriterion().rank(coupled).scores
    assert scores is not None
    assert all(np.ptp(values) < 1e-12 for values in scores)
    space = coupled.space
    costs = [
        space.cost(space.full).macs - space.cost((4, 4)).macs,
        space.cost(space.full).macs - space.cost((5, 3)).macs,
    ]
    assert (scores[0][0] < scores[1][0]) == (costs[0] > costs[1])


def test_what_compensation_leaves_is_known_in_closed_form(coupled: Network) -> None:
    """J(S): what the kept inputs do not explain, as the Schur complement of what was dropped, and as measured."""
    (reader,) = (one for one in layer_inputs(coupled, IMAGES) if one.name == "inner")
    kept = np.repeat(np.isin(reader.units, coupled.units[0][[0, 2, 4]]), reader.taps)
    covariance, weights = reader.covariance.numpy(), reader.weights.numpy()
    own, between = covariance[np.ix_(kept, kept)], covariance[np.ix_(~kept, kept)]
    crossed = weights @ covariance[:, kept]
    refitted = crossed @ np.linalg.inv(own)
    closed = np.trace(weights @ covariance @ weights.T) - np.trace(refitted @ crossed.T)
    unexplained = covariance[np.ix_(~kept, ~kept)] - between @ np.linalg.inv(own) @ between.T
    assert closed == pytest.approx(np.trace(weights[:, ~kept] @ unexplained @ weights[:, ~kept].T), rel=1e-9)
    with torch.no_grad():
        stream = F.relu(coupled.model.norm(coupled.model.stem(IMAGES)))  # type: ignore[operator]
        columns = F.unfold(stream, 3, padding=1).transpose(1, 2).flatten(0, 1).double().numpy()
    columns -= columns.mean(axis=0)
    measured = ((columns @ weights.T - columns[:, kept] @ refitted.T) ** 2).sum(axis=1).mean()
    assert measured == pytest.approx(closed, rel=1e-5)


def explained(network: Network, group: int, kept: list[int], readers: Iterable[LayerInputs] | None = None) -> float:
    """Share of the next layers' output variance that least squares on some units explains, summed over next layers.

    Args:
        network: Of whatever layers.
        group: Whose units.
        kept: Some of them.
        readers: What `layer_inputs` found, where many ask.
    """
    total = 0.0
    units = network.units[group]
    for reader in layer_inputs(network, IMAGES) if readers is None else readers:
        inside, places = reader.channels_of(units)
        if len(inside):
            columns = [
                c * reader.taps + k
                for c, p in zip(inside, places, strict=True)
                if p in kept
                for k in range(reader.taps)
            ]
            covariance, weights = reader.covariance.numpy(), reader.weights.numpy()
            own = [c * reader.taps + k for c in inside for k in range(reader.taps)]
            cross = weights[:, own] @ covariance[np.ix_(own, columns)]
            gain = cross @ np.linalg.pinv(covariance[np.ix_(columns, columns)], rcond=1e-12) @ cross.T
            total += float(np.trace(gain) / np.trace(weights @ covariance @ weights.T))
    return total


def test_cap_adds_greedily_what_explains_most_as_brute_force_does(coupled: Network) -> None:
    for group, found in enumerate(CaPCriterion().rank(coupled, Examples(IMAGES, fidelity())).orders):
        kept: list[int] = []
        for unit in found:
            left = [u for u in range(len(found)) if u not in kept]
            gains = {u: explained(coupled, group, [*kept, u]) for u in left}
            assert gains[unit] >= max(gains.values()) - 1e-6
            kept.append(unit)


def test_scores_of_cap_have_its_order_and_add_up_to_what_all_units_explain(coupled: Network) -> None:
    found = CaPCriterion().rank(coupled, Examples(IMAGES, fidelity()))
    assert found.scores is not None
    for group, (order, scores) in enumerate(zip(found.orders, found.scores, strict=True)):
        assert (np.diff(scores[list(order)]) <= 0).all()
        assert scores.sum() <= explained(coupled, group, list(order)) + 1e-6
        assert scores[order[0]] == pytest.approx(explained(coupled, group, [order[0]]), rel=1e-5)


def test_cap_adds_units_of_wide_groups_several_at_a_time() -> None:
    """300 units, two a step: the first two are those that explain most alone; in the end all are there once."""
    network = trace(
        randomised(nn.Sequential(nn.Conv2d(2, 300, 1), nn.ReLU(), nn.Conv2d(300, 2, 1))).eval(), image(2, 2, 4, 4)
    )
    (found,) = order("cap", network)
    readers = list(layer_inputs(network, IMAGES))
    alone = [explained(network, 0, [unit], readers) for unit in range(300)]
    assert sorted(found) == list(range(300))
    assert set(found[:2]) == set(np.argsort(alone)[-2:])


def test_cap_ranks_by_magnitude_what_no_layer_of_a_known_kind_reads() -> None:
    """A layer with too many inputs is as one of an unknown kind."""
    upwards = Enlarging(nn.Conv2d(2, 6, 1), nn.ConvTranspose2d(6, 3, 2), 5, 5)
    network = trace(randomised(upwards).eval(), image(2, 2, 4, 4))
    producing, reading = upwards.first.weight.detach(), upwards.last.weight.detach()  # type: ignore[union-attr, operator]
    magnitudes = [float(producing[c].abs().sum() + reading[c].abs().sum()) for c in range(6)]  # type: ignore[index]
    assert order("cap", network) == (tuple(np.argsort(magnitudes)[::-1].tolist()),)
    plain = trace(
        randomised(nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1))).eval(), image(2, 2, 4, 4)
    )
    few, many = (CaPCriterion(most_columns=most).rank(plain, Examples(IMAGES, fidelity())) for most in (5, 6))
    assert few.orders == CPMCCriterion(macs_power=0, params_power=0).rank(plain).orders != many.orders


def test_cap_ranks_by_what_mixes_channels_and_not_by_depthwise_layers() -> None:
    """Outputs of a depthwise layer go with its inputs; only the layer behind it misses them, and it reads the first."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(2, 3, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2)[:, :, None, None])  # type: ignore[union-attr, operator]
        model[1].weight[1] = 100 * model[1].weight[0]  # type: ignore[index, operator]
        model[3].weight[:, 0], model[3].weight[:, 1] = 1, 0.002  # type: ignore[index]
    assert order("cap", trace(model.eval(), image(2, 2, 4, 4))) == ((0, 1),)


def test_cap_gives_a_duplicate_away() -> None:
    """Of two equal channels one explains the other: after the first is in, the second is worth nothing."""
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    randomised(model)
    with torch.no_grad():
        model[0].weight[3], model[0].bias[3] = model[0].weight[0], model[0].bias[0]  # type: ignore[index]
    network = trace(model.eval(), image(2, 2, 4, 4))
    assert set(order("cap", network)[0][-1:]) <= {0, 3}


def test_the_best_mask_is_that_of_brute_force_and_never_worse_than_greedy(coupled: Network) -> None:
    rng = np.random.default_rng(0)
    for total, units in ((8, 3), (9, 5), (10, 4)):
        z = rng.normal(size=(30, total)) @ rng.normal(size=(total, total))
        gram = z.T @ z
        every = np.array(
            [[i in chosen for i in range(total)] for chosen in itertools.combinations(range(total), units)]
        )
        found = best_mask(gram, units, np.random.default_rng(1))
        assert found.sum() == units
        assert errors(gram, found[None])[0] == pytest.approx(errors(gram, every).min())
        assert errors(gram, found[None])[0] <= errors(gram, greedy_mask(gram, units)[None])[0]


def test_greedy_drops_what_adds_least() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(30, 6))
    gram = z.T @ z
    for units in range(1, 6):
        wider, mask = greedy_mask(gram, units + 1), greedy_mask(gram, units)
        options = [np.where(np.arange(6) == i, False, wider) for i in np.flatnonzero(wider)]
        assert errors(gram, mask[None])[0] == pytest.approx(min(errors(gram, option[None])[0] for option in options))


def test_lasso_keeps_the_channels_that_the_output_is_made_of() -> None:
    """Channels whose reader weights are nearly zero are the first to go, whatever their own size."""
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    randomised(model)
    with torch.no_grad():
        model[2].weight[:, [1, 4]] *= 1e-3  # type: ignore[index]
    network = trace(model.eval(), image(2, 2, 4, 4))
    assert make_criterion("lasso").rank(network, Examples(IMAGES, fidelity())).keep(0, 4).tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize("criterion", ["genetic", "lasso"])
def test_channels_with_a_mean_alone_matter_where_no_batchnorm_takes_it_away(criterion: str) -> None:
    """A channel that is always 5 is what the next layer's outputs are made of, and a BatchNorm's loss is none."""
    for norm, kept in ((nn.Identity(), [0]), (nn.BatchNorm2d(3), [1])):
        model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 1), norm, nn.ReLU(), nn.Flatten())
        randomised(model.append(nn.Linear(48, 3)))
        with torch.no_grad():
            model[0].weight[0], model[0].bias[0] = 0, 5  # type: ignore[index, operator]
        network = trace(model.eval(), image(2, 2, 4, 4))
        ranking = make_criterion(criterion).rank(network, Examples(IMAGES, fidelity()))
        assert ranking.keep([group.name for group in network.space.groups].index("0"), 1).tolist() == kept


def test_lassos_support_is_scikit_learns(coupled: Network) -> None:
    """On the square root of the Gram matrix, whose regression is the same."""
    from sklearn.linear_model import Lasso

    ranking = make_criterion("lasso").rank(coupled, Examples(IMAGES, fidelity()))
    gram = gram_matrices(coupled, layer_inputs(coupled, IMAGES))[0]
    values, vectors = np.linalg.eigh(gram)
    root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    for alpha in np.geomspace(1e-3, 1, 20) * np.abs(gram.sum(1)).max():
        support = np.flatnonzero(
            Lasso(alpha=alpha / len(root), fit_intercept=False, max_iter=100_000, tol=1e-10)
            .fit(root, root.sum(1))
            .coef_
        )
        if 0 < len(support) < len(gram):
            assert ranking.keep(0, len(support)).tolist() == support.tolist()


def test_balanced_masks_drop_each_unit_once_in_ten() -> None:
    masks = balanced_masks(7, 40, np.random.default_rng(0))
    assert masks.shape == (40, 7)
    assert (masks.reshape(4, 10, 7).sum(axis=1) == 9).all()
    assert len(np.unique(masks.sum(axis=1))) > 1  # the number dropped varies, so nothing is collinear


def test_a_planted_additive_response_is_recovered_and_better_than_by_differences_of_means() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=40)
    joint, means = [], []
    for seed in range(5):
        masks = balanced_masks(40, 400, np.random.default_rng(seed))
        scores = masks @ truth + 0.3 * rng.normal(size=len(masks))
        found = fit_ensemble(masks, scores, np.random.default_rng(seed))
        assert found.r2 > 0.9  # noise is 0.09 of a variance of 0.09 * 40 + 0.09
        joint.append(np.abs(found.importance - truth).mean())
        plain: FloatArray = np.array([scores[m == 1].mean() - scores[m == 0].mean() for m in masks.T])
        means.append(np.abs(plain - truth).mean())
    assert max(joint) < min(means) / 3


def test_a_response_that_nothing_explains_is_said_to_be_unexplained() -> None:
    rng = np.random.default_rng(0)
    found = fit_ensemble(balanced_masks(10, 300, rng), rng.normal(size=300), rng)
    assert found.r2 < 0.2


def test_responses_are_those_of_the_masked_network(coupled: Network) -> None:
    masks = balanced_masks(5, 10, np.random.default_rng(0))[:6]
    everything = np.ones(coupled.unit_count, dtype=np.bool_)
    found = responses(coupled, coupled.units[0], masks, labelled(IMAGES, LABELS), everything)
    for mask, response in zip(masks, found, strict=True):
        kept = np.ones(coupled.unit_count, dtype=np.bool_)
        kept[coupled.units[0]] = mask == 1
        with torch.no_grad():
            loss = F.cross_entropy(MaskedForward(coupled).module(kept).eval()(IMAGES), LABELS)
        assert response == pytest.approx(-float(loss), rel=1e-5)


class ChannelsLast(nn.Module):
    """A layer that works on the last dimension, for (n, c, h, w)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


MIXING: dict[str, Callable[[], nn.Module]] = {
    "LayerNorm": lambda: ChannelsLast(nn.LayerNorm(8)),
    "RMSNorm": lambda: ChannelsLast(nn.RMSNorm(8)),
    "GroupNorm": lambda: nn.GroupNorm(1, 8),
    "GroupNorm of 2": lambda: nn.GroupNorm(2, 8),
    "Softmax": lambda: nn.Softmax(1),
    "LogSoftmax": lambda: ChannelsLast(nn.LogSoftmax(-1)),
}


@pytest.mark.parametrize("name", MIXING)
def test_layers_that_mix_channels_work_on_those_that_a_mask_leaves(name: str) -> None:
    """As in the network from which the others were cut."""
    model = nn.Sequential(nn.Conv2d(2, 8, 1), MIXING[name](), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(64, 3))
    randomised(model)
    with torch.no_grad():
        model[0].bias[:3] += 3  # type: ignore[operator, union-attr, index]
    network = trace(model.eval(), image(2, 2, 4, 4))
    units = network.units[[group.name for group in network.space.groups].index("0")]
    everything = np.ones(network.unit_count, dtype=np.bool_)
    masks = np.vstack([balanced_masks(len(units), 10, np.random.default_rng(0))[:6], np.zeros((1, len(units)))])
    found = responses(network, units, masks, labelled(IMAGES, LABELS), everything)
    assert np.isfinite(found).all()
    for mask, response in zip(masks[:-1], found, strict=False):
        importances = [np.ones(len(each)) for each in network.units]
        importances[0] = mask.astype(np.float64)
        structure = (int(mask.sum()) * network.space.groups[0].unit, *network.space.full[1:])
        slimmed = slim(network, structure, NestedRanking.by_importance(importances))
        with torch.no_grad():
            loss = F.cross_entropy(slimmed.eval()(IMAGES), LABELS)
        assert response == pytest.approx(-float(loss), rel=1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_units_that_are_gone_are_dropped_in_every_mask(coupled: Network) -> None:
    whole = np.ones(coupled.unit_count, dtype=np.bool_)
    left = whole.copy()
    left[[coupled.units[0][2], coupled.units[1][1]]] = False
    varied = coupled.units[0][[0, 1, 3, 4]]
    masks = balanced_masks(4, 10, np.random.default_rng(0))[:3]
    found = responses(coupled, varied, masks, labelled(IMAGES, LABELS), left)
    for mask, response in zip(masks, found, strict=True):
        kept = left.copy()
        kept[varied] = mask == 1
        with torch.no_grad():
            loss = F.cross_entropy(MaskedForward(coupled).module(kept).eval()(IMAGES), LABELS)
        assert response == pytest.approx(-float(loss), rel=1e-5)


def test_rounds_find_that_one_of_two_duplicates_is_needed() -> None:
    """Either copy saves the class alone, so both add little on average; in rounds one of them must outlive noise."""
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for unit, source in enumerate((0, 0, 1, 1, 2, 3)):  # units 0 and 1 are copies, so are 2 and 3; 5 is noise
            model[0].weight[unit, source] = 1.0  # type: ignore[index,operator]
        for unit, answer in enumerate((0, 0, 1, 1, 2)):
            model[2].weight[answer, unit] = 4.0  # type: ignore[index,operator]
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    images = F.pad(F.one_hot(labels, 3).float() * 2, (0, 3)) + 0.05 * torch.rand(120, 6, generator=generator)
    network = trace(model, images[:2])
    ranking = LFECriterion(masks=200, rounds=5).rank(network, labelled(images, labels))
    assert ranking.scores is not None
    assert sorted(ranking.scores[0].tolist()) == [0, 1, 2, 3, 4, 5]
    kept = set(ranking.keep(0, 3).tolist())
    assert 4 in kept
    assert len(kept & {0, 1}) == len(kept & {2, 3}) == 1


def test_lfe_says_how_far_its_linear_model_goes(coupled: Network) -> None:
    (note,) = make_criterion("lfe").rank(coupled, labelled(IMAGES, LABELS)).notes  # type: ignore[attr-defined]
    found = LFECriterion().ensembles(coupled, labelled(IMAGES, LABELS))
    assert f"explain {np.median([ensemble.r2 for ensemble in found]):.0%} of the variance" in note


def test_ensembles_work_on_a_fully_connected_network() -> None:
    model = randomised(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)))
    network = trace(model, torch.randn(2, 6, generator=torch.Generator().manual_seed(0)))
    images = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(images).argmax(1)
    (found,) = LFECriterion().ensembles(network, labelled(images, labels))
    assert found.r2 > 0.5
    assert found.importance.shape == (12,)


@pytest.mark.slow
def test_criteria_find_better_channels_than_chance(network: Network, images: Tensor, labels: Tensor) -> None:
    """Half the MACs of a trained network, widths uniform: the mean score over random orders of 5 seeds is no feat."""
    from prunesearch.evaluators.accuracy import AccuracyEvaluator
    from prunesearch.models.weights import InheritedWeights
    from prunesearch.search.uniform import uniform_structure

    structure = uniform_structure(Budget(macs="50%").check(network.space))

    def score(criterion: str, seed: int = 0) -> float:
        ranking = make_criterion(criterion, seed=seed).rank(network, labelled(images, labels))
        return AccuracyEvaluator(InheritedWeights(network, ranking), labelled(images, labels)).score([structure])[0]

    chance = np.mean([score("random", seed) for seed in range(5)])
    assert all(score(name) > chance for name in ("cap", "genetic", "lasso", "lfe", "taylor"))
