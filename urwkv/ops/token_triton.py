"""LayerNorm of tokens on a GPU, as an operator: `fedurwkv::token_norm`. Importing this needs Triton.

It reads tokens in the dtype that they are in and writes them in the one that is asked for. torch takes float32 under
autocast and gives it, so that squaring, casting and the norm are passes of their own over twice the bytes.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor

from urwkv.ops import token_kernels as kernels

NUMBERS = 1024
"""Of a program at a time, for each of its warps: 32 a thread."""
PROGRAMS = 2048
WIDEST = 8192


def fits(channels: int) -> bool:
    """Whether a program holds tokens of so many channels."""
    return 0 < channels <= WIDEST


def cut(rows: int, channels: int, samples: int = 0) -> tuple[int, int, dict[str, int]]:
    """Programs, rows a program, and the kernels' words; of so many samples, if any, each has its own programs."""
    rows, channels = int(rows), int(channels)  # numbers, also where torch traces sizes as symbols
    block = triton.next_power_of_2(channels)
    height = max(1, NUMBERS // block)
    span = triton.cdiv(triton.cdiv(rows, PROGRAMS), height) * height
    if samples and rows:
        own = rows // samples
        height = math.gcd(height, own)
        span = next(n for n in range(min(span, own), 0, -1) if own % n == 0 and n % height == 0)
    words = {"C": channels, "BLOCK": block, "ROWS": height, "num_warps": max(1, block // NUMBERS)}
    return triton.cdiv(rows, max(1, span)), span, words


@torch.library.custom_op("fedurwkv::token_norm", mutates_args=())
def _token_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, squared: bool, dtype: torch.dtype) -> Tensor:
    x, y = x.contiguous(), _empty(x, dtype)
    channels = x.shape[-1]
    rows = x.numel() // channels
    programs, span, words = cut(rows, channels)
    if programs:
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # where Triton launches
            kernels.forward[(programs,)](x, weight, bias, y, rows, span, eps, SQUARED=squared, **words)
    return y


def _empty(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(x.shape, dtype=dtype, device=x.device)


@_token_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float, squared: bool, dtype: torch.dtype) -> Tensor:
    return _empty(x, dtype)


@torch.library.custom_op("fedurwkv::token_norm_backward", mutates_args=())
def _backward(x: Tensor, weight: Tensor, dy: Tensor, eps: float, squared: bool) -> tuple[Tensor, Tensor]:
    """dx, and the programs' shares of dweight and dbias, (programs, 2, C) float32."""
    x, dy, (dx, parts) = x.contiguous(), dy.contiguous(), _empty_gradients(x, weight)
    channels = x.shape[-1]
    rows = x.numel() // channels
    programs, span, words = cut(rows, channels, _samples(weight))
    if programs:
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            kernels.backward[(programs,)](x, weight, dy, dx, parts, rows, span, eps, SQUARED=squared, **words)
    return dx, parts


def _samples(weight: Tensor) -> int:
    return len(weight) if weight.ndim == 2 else 0


def _empty_gradients(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    channels = x.shape[-1]
    programs, *_ = cut(x.numel() // channels, channels, _samples(weight))
    return _empty(x, x.dtype), torch.empty(programs, 2, channels, dtype=torch.float32, device=x.device)


@_backward.register_fake
def _(x: Tensor, weight: Tensor, dy: Tensor, eps: float, squared: bool) -> tuple[Tensor, Tensor]:
    return _empty_gradients(x, weight)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.eps, ctx.squared, _ = inputs
    ctx.save_for_backward(x, weight, bias)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    dx, parts = _backward(x, weight, dy, ctx.eps, ctx.squared)
    if weight.ndim == 2:
        own = len(parts) // max(1, len(weight))
        dweight, dbias = parts.view(len(weight), own, *parts.shape[1:]).sum(1).unbind(1)
    else:
        dweight, dbias = parts.sum(0)
    return dx, dweight.to(weight.dtype), dbias.to(bias.dtype), None, None, None


_token_norm.register_autograd(_differentiate, setup_context=_keep)


def token_norm_triton(
    x: Tensor, weight: Tensor, bias: Tensor, *, eps: float, squared: bool, dtype: torch.dtype
) -> Tensor:
    """LayerNorm over the last axis, float32 inside; once differentiable.

    Args:
        x: (..., C), C such that `fits`, any floating dtype but float64.
        weight, bias: (C,); or (B, C) for x (B, ..., C), one row for all, whose gradients then are each sample's own.
        squared: the norm is given max(x, 0)^2.
        dtype: of what comes back.

    Returns:
        (..., C), contiguous.
    """
    y: Tensor = _token_norm(x, weight, bias, eps, squared, dtype)
    return y
