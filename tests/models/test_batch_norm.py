"""BatchNorm by rows against the definition, in double precision and as torch has it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prunesearch.models.batch_norm import batch_norm, channel_statistics

SHAPES = [(64, 5), (16, 5, 7), (16, 5, 7, 7), (300, 3, 40, 40), (8, 40, 31, 2), (4, 3, 2, 5, 5), (9, 2500, 2, 2)]


def of_shape(shape: tuple[int, ...]) -> list[Tensor]:
    """The same numbers in every layout: in order, channels last, and as every second image."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2 + 1
    layouts = [x, x.repeat_interleave(2, 0)[::2]]
    return [*layouts, x.contiguous(memory_format=torch.channels_last)] if x.dim() == 4 else layouts


@pytest.mark.parametrize("offset", [0.0, 3.0, 1e4])
@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_of_channels_are_mean_and_variance_whatever_the_mean(shape: tuple[int, ...], offset: float) -> None:
    for x in of_shape(shape):
        shifted = x + offset
        exact = shifted.double().transpose(0, 1).flatten(1)
        mean, variance = channel_statistics(shifted)
        torch.testing.assert_close(mean.double(), exact.mean(1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(variance.double(), exact.var(1, correction=0), rtol=1e-3, atol=0)


def test_a_blank_first_image_and_dead_channels_cost_no_digits() -> None:
    x = torch.randn(64, 5, 60, 60, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    x += 100.0
    x[0] = 0.0
    x[:, 1] = 7.3
    exact = x.double().transpose(0, 1).flatten(1)
    mean, variance = channel_statistics(x)
    torch.testing.assert_close(mean.double(), exact.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), exact.var(1, correction=0), rtol=1e-5, atol=1e-9)
    assert bool((variance >= 0).all())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_normalises_as_torch_does_in_training_mode(shape: tuple[int, ...], affine: bool) -> None:
    weight, bias = (torch.rand(shape[1]), torch.rand(shape[1])) if affine else (None, None)
    exact = [None if values is None else values.double() for values in (weight, bias)]
    for x in of_shape(shape):
        expected = F.batch_norm(x.double(), None, None, *exact, training=True, eps=1e-3).float()
        before = x.clone()
        normal = batch_norm(x, weight, bias, 1e-3)
        torch.testing.assert_close(normal, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(x, before)
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            assert normal.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_place_it_gives_the_very_same_numbers(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight, bias = torch.rand(shape[1], dtype=dtype), torch.rand(shape[1], dtype=dtype)
    for x in (layout.to(dtype) for layout in of_shape(shape) if layout.is_contiguous() or layout.dim() == 4):
        expected = batch_norm(x, weight, bias, 1e-3)
        assert expected.dtype == dtype
        given = x.clone()
        assert batch_norm(given, weight, bias, 1e-3, in_place=True) is given
        assert torch.equal(given, expected)


@pytest.mark.parametrize("shape", [*SHAPES, (128, 24, 28, 28), (64, 61, 30, 30), (64, 7, 7, 7), (37, 13, 11, 11)])
def test_the_result_does_not_depend_on_the_number_of_threads(shape: tuple[int, ...]) -> None:
    before = torch.get_num_threads()
    try:
        for x in of_shape(shape):
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found += [batch_norm(x, None, None, 1e-5), batch_norm(x.clone(), None, None, 1e-5, in_place=True)]
            assert all(torch.equal(found[0], other) for other in found[2::2])
            assert all(torch.equal(found[1], other) for other in found[3::2])
    finally:
        torch.set_num_threads(before)


def test_double_precision_stays_double() -> None:
    x = torch.randn(64, 3, 5, 5, dtype=torch.float64)
    expected = F.batch_norm(x, None, None, training=True, eps=1e-9)
    torch.testing.assert_close(batch_norm(x, None, None, 1e-9), expected, rtol=1e-12, atol=1e-12)


def test_statistics_come_from_the_first_images_when_asked() -> None:
    x = torch.randn(12, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    variance, mean = torch.var_mean(x[:4], [0, 2, 3], correction=0)
    expected = F.batch_norm(x, mean, variance, eps=1e-5)
    torch.testing.assert_close(batch_norm(x, None, None, 1e-5, statistics=4), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(batch_norm(x.clone(), None, None, 1e-5, statistics=4, in_place=True), expected)
