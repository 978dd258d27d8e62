"""Twice the side by nearest neighbour, and a 3 x 3 convolution of the result by 4/9 of its products."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight


class Doubling(nn.Module):
    """Each pixel of (B, C, H, W) becomes four of (B, C, 2H, 2W).

    To torch.compile it is said as a copy, whose gradient is a sum over four pixels that joins its neighbours'
    kernels; Inductor's own scatters the gradient with atomic additions. As written, torch's two kernels are faster
    than copy and sum. Both ways give the same map.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_dynamo_compiling():
            return copied(x)
        if _under_autocast(x):
            with torch.autocast(x.device.type, enabled=False):  # it would widen to float32 what this only copies
                return F.interpolate(x, scale_factor=2.0)
        return F.interpolate(x, scale_factor=2.0)


def _under_autocast(x: Tensor) -> bool:
    device = x.device.type
    known = torch.compiler.is_compiling() or torch.amp.is_autocast_available(
        device
    )  # torch 2.11 traces no such question
    return known and torch.is_autocast_enabled(device)


def copied(x: Tensor) -> Tensor:
    """As torch.compile sees it; of a channels_last map, one."""
    b, c, h, w = x.shape
    pixels = x.permute(0, 2, 3, 1)[:, :, None, :, None]
    return pixels.expand(b, h, 2, w, 2, c).reshape(b, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


def doubled_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Doubling, then a convolution 3 x 3 with padding 1, as one transposed convolution 4 x 4 with stride 2.

    Of the nine pixels under the filter at most four differ, so each output needs four products where nine are
    written. Equal up to rounding, gradients too, and twice differentiable.

    Args:
        x: (B, cin, H, W).
        weight: (cout, cin, 3, 3).
        bias: (cout,).

    Returns:
        (B, cout, 2H, 2W).
    """
    filters = doubled_filters(weight)
    if _under_autocast(x):
        dtype = torch.get_autocast_dtype(x.device.type)  # as a convolution does: here for the backward pass, too
        x, filters = x.to(dtype), filters.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    y: Tensor = _Transposed.apply(x, filters, bias)  # type: ignore[no-untyped-call]
    return y


def doubled_filters(weight: Tensor) -> Tensor:
    """The filters (cin, cout, 4, 4) of that transposed convolution, of (cout, cin, 3, 3)."""
    filters: Tensor = _Spread.apply(weight)  # type: ignore[no-untyped-call]
    return filters.transpose(0, 1)


def gathered(gradients: Tensor) -> Tensor:
    """What filters of 4 x 4 gather on their way back: gradients (..., 4, 4) of `doubled_filters` to (..., 3, 3)."""
    for dim in (-2, -1):
        gradients = gradients.narrow(dim, 0, 3) + gradients.narrow(dim, 1, 3)
    return gradients.flip(-2, -1)


class _Spread(torch.autograd.Function):
    """Filters (..., 3, 3) to (..., 4, 4). Along a side one input pixel gives to the four outputs that see it, by taps
    0 to 2: 2, 1 + 2, 0 + 1, 0. Those are the sums of two neighbours in a border of zeros, backwards: a pooling.

    Its gradient is not left to torch 2.11, whose pooling of channels_last filters on a GPU gives it a pixel aside.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return F.avg_pool2d(weight, 2, stride=1, padding=1, divisor_override=1).flip(-2, -1)

    @staticmethod
    def backward(ctx: Any, dfilters: Tensor) -> Tensor:
        return gathered(dfilters)


class _Transposed(torch.autograd.Function):
    """Transposed convolution, whose backward oneDNN does slowly where it knows of it: here it is the convolution with
    stride 2 that it is the transpose of, and the gradient of that one's filters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, filters)
        return F.conv_transpose2d(x, filters, bias, stride=2, padding=1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, filters = ctx.saved_tensors
        dx = dfilters = dbias = None
        if ctx.needs_input_grad[0]:
            dx = F.conv2d(dy, filters, stride=2, padding=1)
        if ctx.needs_input_grad[1]:
            dfilters = conv2d_weight(dy, filters.shape, x, stride=2, padding=1)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[2]:
            dbias = dy.sum((0, 2, 3))
        return dx, dfilters, dbias
