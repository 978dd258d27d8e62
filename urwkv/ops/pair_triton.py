"""`fedurwkv::pair` on a GPU: see `urwkv.ops.pair`. Importing this needs Triton."""

from typing import Any

import torch
import triton
from torch import Tensor

from urwkv.ops import gpu
from urwkv.ops import pair_kernels as kernels

WIDEST = 128
"""Channels of a map up to which one program holds rows of it."""


def fits(a: Tensor, w1: Tensor, w2: Tensor) -> bool:
    """Whether the kernel takes maps like `a`: on a GPU, of 16 bits, channels_last.

    Channels are powers of two from 16 on, those of a map up to WIDEST.
    """
    channels = (a.shape[1], w1.shape[0], w2.shape[0])
    whole = all(n >= 16 and n & (n - 1) == 0 for n in channels)
    narrow = max(channels[0], channels[2]) <= WIDEST and a.dtype in (torch.bfloat16, torch.float16)
    return whole and narrow and not gpu.obstacle_of_map(a)


def cut(channels: int, hidden: int, out: int) -> dict[str, int]:
    """Rows a program, hidden channels at a time, and warps: 64 registers a thread for what is summed, or fewer."""
    return {"ROWS": 128, "BLOCK": min(64, hidden), "num_warps": 4 if max(channels, out) <= 32 else 8}


@torch.library.custom_op("fedurwkv::pair", mutates_args=())
def pair_triton(
    a: Tensor,
    b: Tensor,
    bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: bool,
) -> Tensor:
    """See `urwkv.ops.pair.pair`; weights in float32, taken in a's dtype."""
    y = _empty(a, w2)
    rows, (hidden, out) = y.numel() // y.shape[1], (len(w1), len(w2))
    b = b.contiguous(memory_format=torch.channels_last)
    words = cut(a.shape[1], hidden, out)
    with torch.cuda.device_of(a):  # type: ignore[no-untyped-call]  # where Triton launches
        kernels.pair[(triton.cdiv(rows, words["ROWS"]),)](
            a, b, bias, w1.to(a.dtype), b1, w2.to(a.dtype), b2, scale, shift, y, rows,
            CIN=a.shape[1], HIDDEN=hidden, COUT=out, FUSION=w1.shape[1] == 2 * a.shape[1], RESIDUAL=residual,
            **words,
        )  # fmt: skip
    return y


@pair_triton.register_fake
def _(a: Tensor, *others: Any) -> Tensor:
    w2, *_ = others[4:]
    return _empty(a, w2)


def _empty(a: Tensor, w2: Tensor) -> Tensor:
    batch, _, height, width = a.shape
    shape = (batch, len(w2), height, width)
    return torch.empty(shape, dtype=a.dtype, device=a.device, memory_format=torch.channels_last)
