"""PruningNets on disk: safetensors, with all that is no tensor as JSON in the metadata. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from prunesearch.errors import CheckpointError
from prunesearch.files import as_path, safetensors_path
from prunesearch.models.hypernet import PruningNet, blank_generators, generated_by
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.tensor_file import FileKind, content_of

FORMAT = "prunesearch-pruningnet-1"
_KIND = FileKind(FORMAT, "about", "is no PruningNet")
_VALUES, _MORE, _GENERATORS = "net.", "more.", "_generators."


@dataclass(frozen=True)
class Stored:
    """What a file holds.

    Attributes:
        settings: Arguments of the PruningNet.
        groups: Name and full width of each group.
        orders: Of the ranking.
        training: What the training notes about itself.
        values: The PruningNet's tensors by name.
        more: The training's.
    """

    settings: Mapping[str, Any]
    groups: list[tuple[str, int]]
    orders: tuple[tuple[int, ...], ...]
    training: Mapping[str, Any]
    values: dict[str, Tensor]
    more: dict[str, Tensor]


def save_pruningnet(
    net: PruningNet,
    path: str | Path,
    *,
    training: Mapping[str, Any] | None = None,
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a PruningNet to a safetensors file; whole or not at all.

    Args:
        net: The PruningNet.
        path: The file; an existing one is replaced. A name by which programs know another format, such as `net.pt`, is
            refused.
        training: What its training notes about itself, as JSON.
        more: The training's tensors.

    Raises:
        CheckpointError: The folder does not exist, or the file cannot be written.
        TypeError: Something else than a PruningNet or a path was given.
        ValueError: The name ends like that of another format.
    """
    path = safetensors_path(path)
    if not isinstance(net, PruningNet):
        raise TypeError(f"Expected a PruningNet, got {type(net).__name__}; prunesearch.save writes other networks.")
    tensors = {_VALUES + name: tensor for name, tensor in net.state_dict().items()}
    tensors |= {_MORE + name: tensor for name, tensor in (more or {}).items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = json.dumps(
        {
            "settings": net.settings,
            "groups": _groups(net.network),
            "orders": net.ranking.orders,
            "training": dict(training or {}),
        }
    )
    _KIND.write(tensors, about, path)


def load_pruningnet(path: str | Path, network: Network) -> PruningNet:
    """Read a PruningNet of a network; its allowed widths may be others than in training.

    Args:
        path: What `save_pruningnet` wrote.
        network: The network that it was made for, traced; its weights do not matter. Its device is used.

    Raises:
        CheckpointError: No such file, damaged, not written by `save_pruningnet`, or of another network.
        NotEnoughMemory: It would not fit.
        TypeError: Something else than a path or a traced network was given.
    """
    path = as_path(path)
    if not isinstance(network, Network):
        raise TypeError(f"Expected a network that prunesearch.trace gave, got {type(network).__name__}.")
    stored = read(path)
    mine = _groups(network)
    if stored.groups != mine:
        different = next((pair for pair in zip(stored.groups, mine, strict=False) if pair[0] != pair[1]), None)
        what = f"{len(stored.groups)} groups, the network {len(mine)}"
        if different is not None:
            (name, width), (other, other_width) = different
            what = f"group {name!r} with {width} channels where the network has {other!r} with {other_width}"
        raise CheckpointError(f"{path} is of another network: it has {what}.")
    with content_of(path):
        form, hidden, rank = (stored.settings[name] for name in ("form", "hidden", "rank"))
        encoded = generated_by(network, form)
        blank = blank_generators(
            network, encoded, form, hidden, rank
        )  # before there is memory for sizes that a damaged file may claim
        given = {name: tensor for name, tensor in stored.values.items() if name.startswith(_GENERATORS)}
        _check_shapes({_GENERATORS + name: tensor for name, tensor in blank.state_dict().items()}, given, path)
        net = PruningNet(network, **{**stored.settings, "ranking": NestedRanking(stored.orders)})
        fill(net, stored.values, path)
    return net.eval()


def read(path: str | Path) -> Stored:
    """Read what a file holds, and check that it is what was written.

    Raises:
        CheckpointError: No such file, damaged, or not a PruningNet's.
    """
    path = as_path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}. Train a PruningNet into it first.")
    about, tensors = _KIND.read(path)
    with content_of(path):
        return Stored(
            settings=about["settings"],
            groups=[(name, width) for name, width in about["groups"]],
            orders=tuple(tuple(order) for order in about["orders"]),
            training=about["training"],
            values={name.removeprefix(_VALUES): t for name, t in tensors.items() if name.startswith(_VALUES)},
            more={name.removeprefix(_MORE): t for name, t in tensors.items() if name.startswith(_MORE)},
        )


def fill(net: PruningNet, values: Mapping[str, Tensor], path: str | Path) -> None:
    """Give a PruningNet the values of a file.

    Raises:
        CheckpointError: They are of another network, by names or shapes.
    """
    _check_shapes(net.state_dict(), values, path)
    net.load_state_dict(values)


def _check_shapes(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], path: str | Path) -> None:
    shapes, theirs = ({name: tuple(tensor.shape) for name, tensor in each.items()} for each in (wanted, given))
    wrong = sorted(name for name in shapes.keys() | theirs.keys() if shapes.get(name) != theirs.get(name))
    if wrong:
        first = wrong[0]
        raise CheckpointError(
            f"{path} is of another network: {first} has shape {theirs.get(first)}, expected {shapes.get(first)}."
        )


def _groups(network: Network) -> list[tuple[str, int]]:
    return [(group.name, group.width) for group in network.space.groups]
