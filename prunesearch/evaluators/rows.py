"""Whose rows are what layers are given: those of one image after the other, for what looks at images one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from prunesearch.evaluators.hooks import watched
from prunesearch.models.devices import fetched
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
    begins = {place: _begin_with(three[place], two[place]) for place in places}
    told = iter(fetched([flag for flags in begins.values() for flag in flags or ()]))
    for place, flags in begins.items():
        if flags is None or not all([bool(next(told)) for _ in flags]):
            shapes = ", ".join(str(tuple(x.shape)) for x in two[place])
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


def _begin_with(three: Sequence[Tensor], two: Sequence[Tensor]) -> list[Tensor] | None:
    """Of each call, whether the rows of three images begin with those of two; None if already their numbers say no."""
    if len(three) != len(two):
        return None
    flags = []
    for more, fewer in zip(three, two, strict=True):
        if more.dim() == 0 or 2 * len(more) != 3 * len(fewer) or more.shape[1:] != fewer.shape[1:]:
            return None
        if len(fewer) > 2:  # of one row for each image there is no other order to look for
            near = (more[: len(fewer)] - fewer).abs() <= _TOLERANCE * fewer.abs().max()
            flags.append((near | fewer.isnan()).all())
    return flags
