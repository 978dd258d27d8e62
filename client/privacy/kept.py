"""What a chain of layers needs to leave each sample's gradients where it computes several layers as one."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from client.privacy.filters import filters, over_pixels
from urwkv.ops import gpu
from urwkv.ops.doubling import doubled_filters
from urwkv.ops.grouped import dense, is_slow


class Kept:
    """Leaves gradients at the parameters as `grad_sample`, as hooks do: see `urwkv.leaves.Keep`.

    Convolutions are computed as in plain training. Their backward pass makes gradients of single samples alone, where
    hooks would have autograd make those of the batch beside them.
    """

    def for_samples(self, vector: Tensor, samples: int) -> Tensor:
        """The vector (C,) for every sample, (B, C), so that its gradient comes one a sample, too."""
        rows: Tensor = _Rows.apply(vector, samples)  # type: ignore[no-untyped-call]
        return rows

    def convolution(self, layer: nn.Conv2d, x: Tensor, *, doubled: bool = False, biased: bool = True) -> Tensor:
        """What the layer makes of the map, or of its double; the bias may be left to others."""
        x = x.to(gpu.dtype_beyond(x))
        bias = layer.bias if biased else None
        y: Tensor = _Convolution.apply(x, layer.weight, bias, layer, doubled)  # type: ignore[no-untyped-call]
        return y


class _Rows(torch.autograd.Function):
    """A vector for every sample."""

    @staticmethod
    def forward(ctx: Any, vector: Tensor, samples: int) -> Tensor:
        ctx.vector = vector
        return vector.expand(samples, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor) -> tuple[None, None]:
        _leave(ctx.vector, grads)
        return None, None


class _Convolution(torch.autograd.Function):
    """Of a map in the dtype that it is computed in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d, doubled: bool) -> Tensor:
        ctx.layer, ctx.doubled, ctx.groups = layer, doubled, layer.groups
        if doubled:
            weight = doubled_filters(weight)
        elif x.device.type == gpu.KIND and is_slow(weight.shape[1], layer.groups):
            weight, ctx.groups = dense(weight, layer.groups), 1
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        ctx.save_for_backward(x, weight)
        if doubled:
            return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, ctx.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), layer, dx = ctx.saved_tensors, ctx.layer, None
        with torch.autocast(dy.device.type, enabled=False):
            if ctx.needs_input_grad[0] and ctx.doubled:
                dx = F.conv2d(dy, weight, stride=2, padding=1)
            elif ctx.needs_input_grad[0]:
                form = layer.stride, layer.padding, layer.dilation, False, (0, 0), ctx.groups
                dx, *_ = torch.ops.aten.convolution_backward(dy, x, weight, None, *form, (True, False, False))
            if ctx.needs_input_grad[1]:
                _leave(layer.weight, filters(layer, x, dy, doubled=ctx.doubled))
            if ctx.needs_input_grad[2]:
                _leave(layer.bias, over_pixels(dy))
        return dx, None, None, None, None


def _leave(parameter: Tensor, grads: Tensor) -> None:
    if parameter.grad_sample is not None:  # type: ignore[attr-defined]
        raise RuntimeError(
            "a layer has per-sample gradients already: use it once a pass, and take its gradients before the next"
        )
    parameter.grad_sample = grads.detach()  # type: ignore[attr-defined]
