from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.training.data import Data
from prunesearch.training.finetune import finetune
from prunesearch.training.fitting import laid_out
from prunesearch.training.recipe import Recipe


class Functional(nn.Module):
    """A shortcut that is called as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 5, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight, stride=2)


@pytest.mark.parametrize(
    ("network", "kept"),
    [
        (nn.Conv2d(5, 8, 1, stride=2), True),
        (nn.Conv2d(5, 8, 1, stride=(1, 2)), True),
        (Functional(), True),
        (nn.Conv2d(5, 8, 1), False),
        (nn.Conv2d(5, 8, 3, stride=2), False),
    ],
)
def test_channels_are_not_last_where_a_cpu_would_compute_wrong_gradients(network: nn.Module, kept: bool) -> None:
    wanted = torch.contiguous_format if kept else torch.channels_last
    layout, outputs = laid_out(network, torch.rand(2, 5, 8, 8), torch.device("cpu"))
    assert layout is wanted
    assert outputs.is_contiguous(memory_format=wanted)
    wide = nn.Sequential(nn.Conv2d(5, 16, 3), nn.Conv2d(16, 8, 1, stride=2))
    assert laid_out(wide, torch.rand(2, 5, 8, 8), torch.device("cpu"))[0] is torch.channels_last


def test_a_narrow_shortcut_is_trained_as_plain_steps_would() -> None:
    """With channels last, the gradient of the shortcut's weights is wrong on a CPU, or kills the process."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    images, labels = torch.randn(32, 4, 32, 32), torch.arange(32) % 2
    recipe = Recipe(epochs=1, batch_size=32, lr=0.1, momentum=0.0, weight_decay=0.0, label_smoothing=0.0, warmup=0.0)
    tuned = finetune(model.to(memory_format=torch.channels_last), Data(train=(images, labels)), recipe=recipe)
    model.double()
    F.cross_entropy(model(images.double()), labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        stepped = parameter.detach() - 0.1 * parameter.grad
        torch.testing.assert_close(tuned.get_parameter(name).double(), stepped, rtol=1e-4, atol=1e-6)
