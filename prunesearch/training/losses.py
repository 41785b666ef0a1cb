"""The loss on labels, of a network's logits and of those of its auxiliary heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from prunesearch.models.logits import main_and_auxiliary

_OF_ONE, _OF_SEVERAL = 0.4, 0.3


def loss_on_labels(returned: Any, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of what a network returned (`models.logits`) with (n,) labels; that of auxiliary heads is added.

    Raises:
        ValueError: It returned something else than logits.
    """
    main, auxiliary = main_and_auxiliary(returned)
    loss = F.cross_entropy(main, labels, label_smoothing=label_smoothing)
    return loss + auxiliary_loss(auxiliary, labels, label_smoothing)


def auxiliary_loss(auxiliary: Sequence[Tensor], labels: Tensor, label_smoothing: float = 0.0) -> Tensor | float:
    """What auxiliary heads add to the loss: 0.4 of the cross-entropy of a single one, 0.3 of each of several.

    Source: 0.3 is that of GoogLeNet, which has two (Szegedy et al., CVPR 2015, arXiv:1409.4842, section 5); 0.4 that of
    torchvision's Inception v3, which has one, in PyTorch's tutorial "Finetuning torchvision models".
    """
    share = _OF_ONE if len(auxiliary) == 1 else _OF_SEVERAL
    losses = [F.cross_entropy(logits, labels, label_smoothing=label_smoothing) for logits in auxiliary]
    return share * sum(losses)
