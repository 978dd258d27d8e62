"""What follows a convolution, as one operator for prediction: y = scale GELU(x + bias) + shift + beside.

torch adds a convolution's bias in a pass of its own, and each of the others is another. On a GPU with Triton one
kernel reads the map and writes it (`urwkv.ops.finish_kernels`). Elsewhere torch computes it as it stands here.
"""

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from urwkv.ops import gpu
from urwkv.ops.gpu import HAS_TRITON

if HAS_TRITON or TYPE_CHECKING:
    from urwkv.ops.finish_triton import finish_triton

Line = tuple[Tensor, Tensor]
"""Scale and shift, (C,) each."""


def finish(
    x: Tensor, bias: Tensor, *, gelu: bool = True, line: Line | None = None, beside: Tensor | None = None
) -> Tensor:
    """The map y, (B, C, H, W), in x's dtype.

    Args:
        x: what a convolution without a bias gave.
        bias: (C,), in float32.
        gelu: whether there is a GELU; else y = scale (x + bias) + shift + beside.
        line: in float32; None: scale 1 and shift 0.
        beside: a map like x that is added, in any dtype; None: none is.
    """
    if not gpu.obstacle_of_map(x):
        scale, shift = line or (None, None)
        found: Tensor = finish_triton(x, bias, scale, shift, beside, gelu)
        return found
    y = x + _wide(bias, x)
    y = F.gelu(y) if gelu else y
    y = y if line is None else _wide(line[0], x) * y + _wide(line[1], x)
    return y if beside is None else y + beside.to(x.dtype)


def _wide(vector: Tensor, x: Tensor) -> Tensor:
    return vector[:, None, None].to(x.dtype)
