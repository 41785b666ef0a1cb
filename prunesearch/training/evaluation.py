"""Accuracy and loss on images that were held out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.logits import class_logits
from prunesearch.models.nested import Batch, called, moved, taken
from prunesearch.training.accelerating import Accelerator, process_mean
from prunesearch.training.data import Data

_AT_ONCE = 512


def evaluate(accelerator: Accelerator, network: nn.Module, images: Batch, labels: Tensor) -> tuple[float, float]:
    """Accuracy and mean cross-entropy of a network, which is left in eval mode; each process takes its share."""
    network.eval()
    first, processes = accelerator.process_index, accelerator.num_processes
    images, labels = taken(images, slice(first, None, processes)), labels[first::processes]
    sums = torch.zeros(3)
    with torch.no_grad():
        for start in range(0, len(labels), _AT_ONCE):
            some, wanted = taken(images, slice(start, start + _AT_ONCE)), labels[start : start + _AT_ONCE]
            logits = class_logits(called(network, moved(some, accelerator.device))).float().cpu()
            hits, loss = (logits.argmax(1) == wanted).sum(), F.cross_entropy(logits, wanted, reduction="sum")
            sums += torch.stack([hits.float(), loss, torch.tensor(float(len(wanted)))])
    hits, loss, n = process_mean(accelerator, sums.to(accelerator.device)).cpu()
    return float(hits / n), float(loss / n)


def accuracy_on_test(network: nn.Module, data: Data) -> tuple[float, int]:
    """Share of the test images that a network classifies correctly, and how many there are; it is left in eval mode.

    Raises:
        ValueError: There are no test images.
    """
    network.eval()
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    hits = n = 0
    with torch.no_grad():
        for images, labels in data.test_batches(_AT_ONCE):
            hits += int((class_logits(called(network, moved(images, device))).argmax(1).cpu() == labels.cpu()).sum())
            n += len(labels)
    return hits / n, n
