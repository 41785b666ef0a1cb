"""PruningNet: the weights of every structure of a network, as a function of its widths.

Slices of trained weights say how good a narrow network is before it has adapted to its widths. A PruningNet is trained
on random structures, so the weights it gives to a structure are, roughly, those that the structure would have learnt.

Source: Liu et al., MetaPruning, ICCV 2019, arXiv:1903.10258, and the authors' code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from prunesearch.errors import TraceError
from prunesearch.models.devices import placed
from prunesearch.models.generators import CompactGenerator, PublishedGenerator, start_weights
from prunesearch.models.memory import require
from prunesearch.models.nested import device_of
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking, Ranking
from prunesearch.models.skeleton import Skeleton
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure

Form = Literal["published", "compact", "supernet"]
Start = Literal["trained", "scratch"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_BYTES = 4


class PruningNet(nn.Module):
    """Gives every structure of a traced network weights of its own.

    Every convolution that is narrowed, and every linear layer that loses outputs, has a generator that sees the widths,
    as shares of the full ones, of all groups that its block reads or writes, and gives the full weights, of which a
    structure takes its channels. A layer's block is the innermost module around it that is no mere container, or the
    layer itself where that is the whole network. Groups are the genes: what is coupled has one width. The classifier
    and all other parameters are ordinary ones, of which a structure takes its channels. BatchNorm statistics are always
    those of the structure on the data at hand, so none are kept; MetaPruning keeps some per width, but re-estimates
    them all the same before it scores.

    Forms: `"published"` is MetaPruning's (`PublishedGenerator`; scale and shift of normalisations do not train); it is
    `hidden + 1` times as large as the network. `"compact"` (`CompactGenerator`) is little larger than the network.
    `"supernet"` generates nothing: one set of weights, shared by all structures, as the baseline.

    The random generators of the process are not touched.

    Args:
        network: The traced network. Its model is only read.
        form: One of the three.
        hidden: Units of the generators' MLPs.
        rank: Rank of the matrix that changes the weights in the compact form.
        start: Begin with the network's `"trained"` weights, for every structure, or from `"scratch"`; what is no weight
            of a layer, nor a bias or of a normalisation, is taken over even then.
        ranking: Which channels a structure takes; by default the first ones, as published. With trained weights, a
            criterion's (`evaluators.channels`) of one order per group.
        seed: Decides the initial values.

    Raises:
        ValueError: Unknown form or start, sizes below 1, or a ranking that is not nested.
        TraceError: The network has no layer whose weights could be generated.
        NotEnoughMemory: It would not fit; nothing has been allocated.
    """

    def __init__(
        self,
        network: Network,
        *,
        form: Form = "compact",
        hidden: int = 32,
        rank: int = 8,
        start: Start = "trained",
        ranking: Ranking | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(form, start, hidden, rank)
        self.network = network
        self.settings: dict[str, Any] = {"form": form, "hidden": hidden, "rank": rank, "start": start, "seed": seed}
        self.ranking = _nested(network, ranking)
        self._slices = InheritedWeights(network, self.ranking)
        self._skeleton = Skeleton(self._slices)
        self._encoded = generated_by(network, form)
        tensors = dict(network.model.named_parameters())
        device = next(iter(tensors.values())).device
        self._generators = blank_generators(network, self._encoded, form, hidden, rank)
        others = {name: tensor for name, tensor in tensors.items() if name not in self._encoded}
        self._require(others.values(), device)
        self._shared = nn.ParameterDict(
            {
                _key(name): nn.Parameter(
                    tensor.detach().clone(memory_format=torch.contiguous_format), tensor.requires_grad
                )
                for name, tensor in others.items()
            }
        )
        self._generators.to_empty(device=device)
        self._begin(tensors, torch.Generator().manual_seed(seed))

    def __repr__(self) -> str:
        return f"PruningNet({self.settings['form']}, {self.size:,} parameters, for {self.network!r})"

    @property
    def size(self) -> int:
        """Parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, structures: Sequence[Structure], /, *inputs: Any, **by_name: Any) -> list[Any]:
        """Run the networks of some structures on the same inputs; in training mode, as BatchNorm has no statistics.

        Args:
            structures: Any of the network's space.
            *inputs: What the network takes.
            **by_name: What it takes by name.

        Returns:
            What the network returns, for each structure; gradients reach every parameter.
        """
        device = device_of((inputs, by_name))
        return [
            self._skeleton.run(
                structure, self.tensors(structure), inputs, by_name, device=device, training=self.training
            )
            for structure in structures
        ]

    def tensors(self, structure: Structure) -> dict[str, Tensor]:
        """All parameters of a structure's network, by name."""
        self.network.space.check(structure)
        ratios = self._ratios(self._encoded, structure)
        return {name: self._values(name, structure, ratios) for name, _ in self.network.model.named_parameters()}

    def values(self, tensor: str, structure: Structure) -> Tensor:
        """One of `tensors`."""
        return self._values(tensor, structure, self._ratios([tensor] if tensor in self._encoded else [], structure))

    def _values(self, tensor: str, structure: Structure, ratios: Mapping[str, Tensor]) -> Tensor:
        generated = tensor in self._encoded
        full = self._generators[_key(tensor)](ratios[tensor]) if generated else self._shared[_key(tensor)]
        return self._slices.narrowed(tensor, full, structure)

    def _ratios(self, tensors: Iterable[str], structure: Structure) -> dict[str, Tensor]:
        """What the generators of some weights see; a device is given one tensor."""
        first = {name: next(self._generators[_key(name)].parameters()) for name in tensors}
        if not first:
            return {}
        ratios = [structure[g] / self.network.space.full[g] for name in first for g in self._encoded[name]]
        some = next(iter(first.values()))
        given = placed(torch.tensor(ratios, dtype=some.dtype), some.device)
        parts = torch.split(given, [len(self._encoded[name]) for name in first])
        return {name: part.to(first[name].dtype) for name, part in zip(first, parts, strict=True)}

    def influences(self, tensor: str) -> frozenset[int]:
        """Indices of the groups on whose widths a parameter depends."""
        cuts = (self.network.group_of[cut.units].tolist() for cut in self.network.cuts_of.get(tensor, ()))
        return frozenset(self._encoded.get(tensor, ())) | {group for groups in cuts for group in groups if group >= 0}

    def _require(self, others: Any, device: torch.device) -> None:
        size = sum(p.numel() for p in self._generators.parameters()) + sum(tensor.numel() for tensor in others)
        form, model = self.settings["form"], type(self.network.model).__name__
        require(
            _BYTES * size,
            device,
            f"The {form} form for {model}, {size / 1e6:.1f} M parameters,",
            'Use form="compact", which is little larger than the network.' if form == "published" else "Free some.",
        )

    def _begin(self, tensors: Mapping[str, Tensor], generator: torch.Generator) -> None:
        """Give every parameter its first value."""
        trained = self.settings["start"] == "trained"
        for name in self._encoded:
            part: Any = self._generators[_key(name)]
            part.start(tensors[name].detach() if trained else None, generator)
        layers = dict(self.network.model.named_modules())
        for name in [name for name in tensors if name not in self._encoded]:
            owner, _, attribute = name.rpartition(".")
            parameter = self._shared[_key(name)]
            is_norm = self.network.kinds.is_norm(layers[owner])
            if is_norm and self.settings["form"] == "published":
                parameter.requires_grad_(False)
            if trained:
                continue
            if is_norm or attribute == "bias":
                parameter.data.fill_(1.0 if attribute == "weight" else 0.0)
            elif _is_map(self.network, layers[owner]):
                start_weights(parameter, generator)


def generated_by(network: Network, form: Form) -> dict[str, tuple[int, ...]]:
    """The weights that a form generates, as `encodings` has them: of a supernet none."""
    return {} if form == "supernet" else encodings(network)


def blank_generators(
    network: Network, encoded: Mapping[str, tuple[int, ...]], form: Form, hidden: int, rank: int
) -> nn.ModuleDict:
    """A generator for each weight of `generated_by`, on the meta device: of its shapes, and without memory."""
    tensors = dict(network.model.named_parameters())
    generators = nn.ModuleDict()
    with torch.device("meta"):
        for name, groups in encoded.items():
            shape = tensors[name].shape
            generators[_key(name)] = (
                PublishedGenerator(len(groups), shape, hidden)
                if form == "published"
                else CompactGenerator(len(groups), shape, hidden, rank)
            ).to(tensors[name].dtype)
    return generators


def encodings(network: Network) -> dict[str, tuple[int, ...]]:
    """The weights that a PruningNet generates: by name, the groups whose widths decide them, ascending.

    Raises:
        TraceError: There are none.
    """
    layers = {name: module for name, module in network.model.named_modules() if _is_map(network, module)}
    touched: dict[str, set[int]] = {}
    narrowed: set[str] = set()  # layers that lose outputs
    for cut in network.cuts:
        layer, _, attribute = cut.tensor.rpartition(".")
        groups = {group for group in network.group_of[cut.units].tolist() if group >= 0}
        if layer in layers and attribute == "weight" and groups:
            touched.setdefault(layer, set()).update(groups)
            narrowed.update([layer] if cut.dim == 0 else [])
    generated = [layer for layer in touched if layer in narrowed or layers[layer].weight.dim() > 2]
    if not generated:
        raise TraceError(
            f"{type(network.model).__name__} has no layer whose weights could be generated: no convolution, nor a "
            "linear layer other than classifiers, can be narrowed. See network.explain()."
        )
    blocks: dict[str, set[int]] = {}
    for layer in generated:
        blocks.setdefault(_block(network.model, layer), set()).update(touched[layer])
    return {f"{layer}.weight": tuple(sorted(blocks[_block(network.model, layer)])) for layer in generated}


def _is_map(network: Network, module: Any) -> bool:
    """Whether a layer has a weight that makes channels of channels, such as a convolution's."""
    kind = network.kinds.alike(module)
    return kind is not None and {"produces", "reads"} <= set(kind.roles.get("weight", ()))


def _block(model: nn.Module, layer: str) -> str:
    name = layer
    while name := name.rpartition(".")[0]:
        if not isinstance(model.get_submodule(name), _CONTAINERS):
            return name
    return layer


def _nested(network: Network, ranking: Ranking | None) -> NestedRanking:
    if ranking is None:
        return NestedRanking(tuple(tuple(range(len(units))) for units in network.units))
    if not isinstance(ranking, NestedRanking):
        raise ValueError(
            f"Expected a ranking with one order per group, got {type(ranking).__name__}, which chooses again for each "
            "width. Take another criterion, such as l1."
        )
    return ranking


def _key(name: str) -> str:
    """A tensor's name as torch allows it for a child: without dots, and no method's name."""
    return "/" + name.replace(".", "/")


def _check(form: str, start: str, hidden: int, rank: int) -> None:
    if form not in get_args(Form):
        raise ValueError(f"Unknown form {form!r}; there are {', '.join(get_args(Form))}.")
    if start not in get_args(Start):
        raise ValueError(f"Unknown start {start!r}; there are {', '.join(get_args(Start))}.")
    if hidden < 1 or rank < 1:
        raise ValueError(f"Expected hidden and rank of at least 1, got {hidden} and {rank}.")
