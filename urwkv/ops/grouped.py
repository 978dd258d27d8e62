"""A convolution in groups, computed as a dense one with zeros where cuDNN's kernels for groups are slow.

Fusion's of 3 x 3 in two groups at batch 128 on an H200, forward and backward, in milliseconds (bench/grouped.py):

    channels a group, side    16, 256   32, 128   64, 64   128, 32   160, 32
    in groups                    8.84      1.82     0.89      0.43      3.43
    dense                        2.72      0.99     1.05      0.86      1.13
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NARROWEST = 64
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
    filters: Tensor = _Dense.apply(weight, groups)  # type: ignore[no-untyped-call]
    return filters


def _groups_of(filters: Tensor, groups: int) -> list[Tensor]:
    """The filters of each group within its own channels."""
    pairs = zip(filters.chunk(groups), range(groups), strict=True)
    return [rows.chunk(groups, 1)[group] for rows, group in pairs]


class _Dense(torch.autograd.Function):
    """In fewer kernels than padding and concatenation take, forward and backward, on filters that are small."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, groups: int) -> Tensor:
        ctx.groups = groups
        cout, width, *sides = weight.shape
        shape = (cout, groups * width, *sides)
        filters = torch.empty(
            shape, dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last
        ).zero_()
        for part, own in zip(weight.chunk(groups), _groups_of(filters, groups), strict=True):
            own.copy_(part)
        return filters

    @staticmethod
    def backward(ctx: Any, dfilters: Tensor) -> tuple[Tensor, None]:
        return torch.cat(_groups_of(dfilters, ctx.groups)), None
