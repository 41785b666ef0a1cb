"""Whose rows are what layers are given: those of one image after the other, for what looks at images one by one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from prunesearch.evaluators.hooks import watched
from prunesearch.models.isolation import isolated
from prunesearch.models.nested import Batch, called, size_of, taken, tensors_in
from prunesearch.models.network import Network

_TOLERANCE = 1e-3  # of the largest value: kernels for other numbers of images round otherwise


def check_image_after_image(network: Network, images: Batch, places: Iterable[str], asker: str) -> None:
    """Make sure that layers are given as many rows for each image, and those of one image together.

    As frames of clips that run as (n t, c, h, w) are; and as inputs of an LSTM that takes time first are not. Two
    images and three are run, of which the first two are the same.

    Args:
        network: A traced network; one that runs on one number of images alone is not looked at.
        images: (n, ...) images, of one size.
        places: Names of the layers.
        asker: What looks at images one by one, for the message.

    Raises:
        ValueError: A layer is given something else.
    """
    if network.way.as_given:
        return
    places = list(dict.fromkeys(places))
    two, three = (_given(network, taken(images, torch.arange(n) % size_of(images)), places) for n in (2, 3))
    for place in places:
        fewer, more = two[place], three[place]
        if len(fewer) != len(more) or not all(map(_begins_with, more, fewer)):
            shapes = ", ".join(str(tuple(x.shape)) for x in fewer)
            raise ValueError(
                f"{asker} looks at images one by one, but {place} of {type(network.model).__name__} is not given one "
                f"image after the other: of two images it gets {shapes}. Use another one."
            )


def _given(network: Network, images: Batch, places: Iterable[str]) -> dict[str, list[Tensor]]:
    """What layers are given, call by call."""
    found: dict[str, list[Tensor]] = {place: [] for place in places}
    looks = [(place, calls.append) for place, calls in found.items()]
    with watched(network.model, looks), isolated([*tensors_in(images)]):
        called(network.model, images)
    return found


def _begins_with(three: Tensor, two: Tensor) -> bool:
    """Whether the rows of three images begin with those of two of them."""
    if three.dim() == 0 or 2 * len(three) != 3 * len(two) or three.shape[1:] != two.shape[1:]:
        return False
    if len(two) == 2:  # one row for each image, and no other order to look for
        return True
    return torch.allclose(three[: len(two)], two, rtol=0, atol=_TOLERANCE * float(two.abs().max()), equal_nan=True)
