"""A convolution in groups, computed as a dense one with zeros where cuDNN's kernels for groups are slow.

In a training step on an H200 groups of 16 and of 160 channels took nine and four times what their bytes and products
ask for, with passes of their own that cut a map in pieces; those of 32 and 128 channels did not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NARROWEST = 32
"""Channels of a group that cuDNN does well, as it does other powers of two above."""

MOST = 2
"""Groups; a dense convolution has as many times their products."""


def convolution(
    x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: str | tuple[int, ...],
    dilation: tuple[int, ...], groups: int,
) -> Tensor:  # fmt: skip
    """`torch.nn.functional.conv2d` without a bias; the same sums, and the same gradients.

    Args:
        x: (B, cin, H, W).
        weight: (cout, cin / groups, kh, kw).
    """
    if is_slow(weight.shape[1], groups):
        weight, groups = dense(weight, groups), 1
    return F.conv2d(x, weight, None, stride, padding, dilation, groups)


def is_slow(width: int, groups: int) -> bool:
    """Whether groups of so many channels are better computed as one."""
    return 1 < groups <= MOST and width > 1 and (width < NARROWEST or width & (width - 1) != 0)


def dense(weight: Tensor, groups: int) -> Tensor:
    """(cout, cin / groups, kh, kw) to (cout, cin, kh, kw), zero where output and input are of different groups."""
    width = weight.shape[1]
    parts = weight.chunk(groups)
    return torch.cat([F.pad(part, (0, 0, 0, 0, i * width, (groups - 1 - i) * width)) for i, part in enumerate(parts)])
