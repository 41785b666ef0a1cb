"""What dropping channels does to the outputs of the layers that read them, in closed form from one pass over images.

A layer's output is the sum of its input channels' contributions. With G the Gram matrix of those contributions over
images and positions, dropping the channels d (a 0/1 vector) changes the output by `d' G d` on average: exactly, without
a forward.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.evaluators.layer_inputs import LayerInputs, layer_inputs
from prunesearch.models.nested import Batch
from prunesearch.models.network import Network
from prunesearch.models.slim import kept_of_group
from prunesearch.models.weights import WeightSource
from prunesearch.structure import FloatArray


def width_errors(weights: WeightSource, evaluator: Evaluator, images: Batch) -> tuple[FloatArray, ...]:
    """Per group, (its allowed widths,) error of its next layers at each, relative to the mean square of their outputs.

    The dropped channels are those that `weights` drops; 0 at full width. A group read only by layers of which nothing
    is known here (`Network.linear_maps` has those that are) has the share of its channels that is dropped instead.

    Args:
        weights: Of the traced network, and which channels stay.
        evaluator: Not used; every kind of evidence takes one.
        images: (n, ...) images, normalised like the training set; the first 256 count.
    """
    del evaluator
    network, space = weights.network, weights.network.space
    found = []
    grams = gram_matrices(network, layer_inputs(network, images))
    for index, (group, gram) in enumerate(zip(space.groups, grams, strict=True)):
        errors, is_read = [], bool(gram.any())
        for width in group.widths:
            dropped = ~kept_of_group(network, index, width, weights.ranking)
            errors.append(float(dropped @ gram @ dropped) if is_read else float(dropped.mean()))
        found.append(np.maximum(np.array(errors), 0.0))
    return tuple(found)


def gram_matrices(network: Network, readers: Iterable[LayerInputs]) -> list[FloatArray]:
    """Per group, the (u, u) Gram matrix of its units' contributions to its next layers' outputs.

    Summed over next layers, each relative to the mean square of its whole output, without its bias; zero for a group
    that no linear layer or convolution reads. Where a BatchNorm follows at once, the contributions' means are left out:
    it absorbs them once its statistics are re-estimated.

    Source: ours; it makes exact the second-order term of layer-wise pruning, Dong et al., NeurIPS 2017,
    arXiv:1705.07565.

    Args:
        network: A traced network.
        readers: Its next layers, one at a time.
    """
    grams = [np.zeros((len(units), len(units))) for units in network.units]
    of_place = {one.place: one for one in network.linear_maps}
    for reader in readers:
        between = reader.gram(centred=of_place[reader.name].normalised)
        energy = float(between.sum()) or 1.0
        for gram, units in zip(grams, network.units, strict=True):
            inside, places = reader.channels_of(units)
            np.add.at(gram, np.ix_(places, places), between[np.ix_(inside, inside)] / energy)
    return grams
