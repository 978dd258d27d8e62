"""Max pooling of 2 x 2 pixels of a channels_last map on a GPU, as an operator: `fedurwkv::max_pool`.

Importing this needs Triton. The map alone is kept for the backward pass, which looks for the largest pixels again: to
read the map costs a quarter of the indices that torch writes forward and reads back.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from urwkv.ops import gpu
from urwkv.ops import pool_kernels as kernels

BLOCK = 1024
"""Windows' numbers a program of four warps: of each of a window's pixels, 16 bytes a thread in 16 bits."""


def _launch(kernel: Any, x: Tensor, rows: int, columns: int, *maps: Tensor, **words: int) -> None:
    batch, channels, height, width = x.shape
    grid = (triton.cdiv(columns * channels, BLOCK), rows, batch)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # where Triton launches
        kernel[grid](x, *maps, height, width, C=channels, BLOCK=BLOCK, num_warps=4, **words)


@torch.library.custom_op("fedurwkv::max_pool", mutates_args=())
def max_pool_triton(x: Tensor) -> Tensor:
    """The largest of each 2 x 2 pixels, as `nn.MaxPool2d(2)`; once differentiable.

    Args:
        x: (B, C, H, W), channels_last, sides of at least 2, any floating dtype but float64.

    Returns:
        (B, C, H // 2, W // 2), channels_last. Of several that are equal the first, row by row, has the gradient, and
        of several that are not a number the last, as torch has it.
    """
    y = _empty(x)
    _launch(kernels.forward, x, *y.shape[2:], y)
    return y


@max_pool_triton.register_fake
def _(x: Tensor) -> Tensor:
    return _empty(x)


def _empty(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return gpu.map_of((batch, channels, height // 2, width // 2), x)


@torch.library.custom_op("fedurwkv::max_pool_backward", mutates_args=())
def _backward(x: Tensor, dy: Tensor, beside: Tensor | None) -> Tensor:
    """The gradient of the map, and `beside`, which it has besides, added."""
    dx = gpu.map_like(x)
    height, width = x.shape[2:]
    dy = dy.contiguous(memory_format=torch.channels_last)
    other, row = (dx, 0) if beside is None else gpu.by_rows(beside)
    words = {"beside_row": row, "BESIDE": beside is not None}
    _launch(kernels.backward, x, triton.cdiv(height, 2), triton.cdiv(width, 2), dy, other, dx, **words)
    return dx


@_backward.register_fake
def _(x: Tensor, dy: Tensor, beside: Tensor | None) -> Tensor:
    return gpu.map_like(x)


def _keep(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, dy: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    dx: Tensor = _backward(x, dy, None)
    return dx


max_pool_triton.register_autograd(_differentiate, setup_context=_keep)


def fork_triton(x: Tensor) -> tuple[Tensor, Tensor]:
    """A map itself, to be used besides, and the largest of each of its 2 x 2 pixels: see `max_pool_triton`.

    The gradients of both reach the map in the one pass that pooling takes; that of the map itself is read where it
    lies, though it be a part of a concatenation's.
    """
    forked: tuple[Tensor, Tensor] = _Fork.apply(x)  # type: ignore[no-untyped-call]
    return forked


class _Fork(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.view_as(x), max_pool_triton(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, beside: Tensor | None, dy: Tensor | None) -> Tensor | None:
        if dy is None:
            return beside
        (x,) = ctx.saved_tensors
        dx: Tensor = _backward(x, dy, beside)
        return dx
