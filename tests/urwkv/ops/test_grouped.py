"""A convolution in groups by a dense one: the same numbers, and only where it pays."""

import pytest
import torch
import torch.nn.functional as F

from urwkv.ops.grouped import convolution, dense, is_slow


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_dense_filter_does_what_groups_do(groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 12, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 12 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    expected, found = F.conv2d(x, weight, padding=1, groups=groups), F.conv2d(x, dense(weight, groups), padding=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    dy = torch.randn_like(expected)
    for mine, theirs in zip(*(torch.autograd.grad(y, (x, weight), dy) for y in (found, expected)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [32, 64, 320])
def test_a_convolution_in_two_groups(channels: int) -> None:
    """Of a width that is computed as it is written, and of two that are not."""
    torch.manual_seed(0)
    x = torch.randn(1, channels, 4, 4, dtype=torch.float64)
    weight = torch.randn(channels, channels // 2, 3, 3, dtype=torch.float64)
    found = convolution(x, weight, (1, 1), (1, 1), (1, 1), 2)
    torch.testing.assert_close(found, F.conv2d(x, weight, padding=1, groups=2), rtol=0, atol=1e-12)


def test_which_groups_are_slow() -> None:
    assert [width for width in (1, 16, 32, 48, 64, 128, 160) if is_slow(width, 2)] == [16, 32, 48, 160]
    assert not is_slow(16, 1)
    assert not is_slow(16, 4)
