"""Two 1 x 1 convolutions with GELU, and what stands before and after them, as one operator for prediction.

Of maps a and b, both (B, C, H, W):

    y = GELU(W2 GELU(W1 p + b1) + b2)
    SASE     p = b + scale GELU(a + c) + shift         y <- y + b   where `residual`
    Fusion   p = [GELU(a + c1), GELU(b + c2)]          y <- y scale + shift

c is the bias of the convolution that made the map, which torch would add in a pass of its own. On a GPU with Triton
one kernel reads a and b and writes y (`urwkv.ops.pair_kernels`); the wide map between the two convolutions exists
nowhere. Elsewhere, and of channels that the kernel does not take, torch computes the convolutions and
`urwkv.ops.finish` all else.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from urwkv.ops.finish import Line, finish
from urwkv.ops.gpu import HAS_TRITON

if HAS_TRITON or TYPE_CHECKING:
    from urwkv.ops.pair_triton import fits, pair_triton


def pair(
    a: Tensor,
    b: Tensor,
    bias: Tensor,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    line: Line,
    *,
    residual: bool = False,
) -> Tensor:
    """The map y, (B, channels out, H, W), in a's dtype.

    Args:
        a, b: maps of one shape.
        bias: c, (C,) for SASE, or c1 and then c2, (2 C,), for Fusion, in float32.
        first: W1, (hidden, C) for SASE or (hidden, 2 C) for Fusion, and b1, in float32.
        second: W2, (channels out, hidden), and b2, in float32.
        line: scale and shift, (C,) for SASE or (channels out,) for Fusion, in float32.
        residual: of SASE: b is added to the output.
    """
    if HAS_TRITON and fits(a, first[0], second[0]):
        y: Tensor = pair_triton(a, b.to(a.dtype), bias, *first, *second, *line, residual)
        return y
    (w1, b1), (w2, b2) = first, second
    if w1.shape[1] == 2 * a.shape[1]:
        p = finish(torch.cat([a, b], 1), bias)
        return finish(_pointwise(finish(_pointwise(p, w1), b1), w2), b2, line=line)
    p = finish(a, bias, line=line, beside=b)
    return finish(_pointwise(finish(_pointwise(p, w1), b1), w2), b2, beside=b if residual else None)


def _pointwise(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight[:, :, None, None].to(x.dtype))
