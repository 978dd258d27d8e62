"""A 1 x 1 convolution of a channels_last map to few classes on a GPU, as an operator: `fedurwkv::head`.

Importing this needs Triton. The map is read once forward; backward map and gradient are read once, for the map's
gradient and for the sums of weight and bias together.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from urwkv.ops import gpu
from urwkv.ops import head_kernels as kernels

MOST_CLASSES = 4
ELEMENTS = 1024
"""Numbers of a tile: of each thread of four warps 16 bytes in 16 bits. The widest row that there may be."""
IN_FLIGHT = 4
PROGRAMS = 2048


def obstacle_of_sizes(channels: int, classes: int) -> str:
    """Why the kernels cannot compute maps of so many channels to so many classes; empty where they can."""
    if channels % 8 or not 0 < channels <= ELEMENTS:
        return f"reads channels 8 at a time, up to {ELEMENTS:,}, not {channels}"
    return "" if classes <= MOST_CLASSES else f"knows up to {MOST_CLASSES} classes, not {classes}"


def cut(rows: int, channels: int) -> tuple[int, int, dict[str, int]]:
    """Programs, rows a program, and the kernels' words."""
    rows, channels = int(rows), int(channels)  # numbers, also where torch traces sizes as symbols
    block = triton.next_power_of_2(channels)
    height = ELEMENTS // block
    step = IN_FLIGHT * height
    span = triton.cdiv(triton.cdiv(rows, PROGRAMS), step) * step
    even = rows % step == 0 and channels == block
    return triton.cdiv(rows, span), span, {"C": channels, "EVEN": even, "BLOCK": block, "num_warps": 4}


def tiles(block: int, *, forward: bool) -> dict[str, int]:
    """What either kernel reads at once."""
    height = ELEMENTS // block
    return {"ROWS": IN_FLIGHT * height} if forward else {"ROWS": height, "DEPTH": IN_FLIGHT}


@torch.library.custom_op("fedurwkv::head", mutates_args=())
def head_triton(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """The convolution of a map, float32 inside; once differentiable.

    Args:
        x: (B, C, H, W), channels_last, with a pixel, any floating dtype but float64.
        weight: (classes, C, 1, 1) such that there is no `obstacle_of_sizes`, any floating dtype.
        bias: (classes,), any floating dtype.
        dtype: of what comes back.

    Returns:
        (B, classes, H, W), channels_last.
    """
    y, channels = _empty(x, weight, dtype), x.shape[1]
    rows = x.numel() // channels
    programs, span, words = cut(rows, channels)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # where Triton launches
        kernels.forward[(programs,)](
            x, weight.contiguous(), bias.contiguous(), y, rows, span,
            CLASSES=len(weight), **words, **tiles(words["BLOCK"], forward=True),
        )  # fmt: skip
    return y


def _empty(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    return gpu.map_of((x.shape[0], weight.shape[0], *x.shape[2:]), x, dtype)


@head_triton.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    return _empty(x, weight, dtype)


@torch.library.custom_op("fedurwkv::head_backward", mutates_args=())
def _backward(x: Tensor, weight: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """dx; and the programs' shares of dweight and dbias, (programs, classes C + classes) float32."""
    dx, parts = _empty_gradients(x, weight)
    dy, channels = dy.contiguous(memory_format=torch.channels_last), x.shape[1]
    rows = x.numel() // channels
    programs, span, words = cut(rows, channels)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernels.backward[(programs,)](
            x, weight.contiguous(), dy, dx, parts, rows, span,
            CLASSES=len(weight), **words, **tiles(words["BLOCK"], forward=False),
        )  # fmt: skip
    return dx, parts


def _empty_gradients(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    classes, channels = weight.shape[:2]
    programs, *_ = cut(x.numel() // x.shape[1], channels)
    parts = torch.empty(programs, classes * (channels + 1), dtype=torch.float32, device=x.device)
    return gpu.map_like(x), parts


@_backward.register_fake
def _(x: Tensor, weight: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_gradients(x, weight)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight)
    ctx.dtype = bias.dtype


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    dx, parts = _backward(x, weight, dy)
    dweight, dbias = parts.sum(0).split([weight.numel(), len(weight)])
    return dx, dweight.view(weight.shape).to(weight.dtype), dbias.to(ctx.dtype), None


head_triton.register_autograd(_differentiate, setup_context=_keep)
