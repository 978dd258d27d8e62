"""`fedurwkv::finish` on a GPU: see `urwkv.ops.finish`. Importing this needs Triton."""

from typing import Any

import torch
import triton
from torch import Tensor

from urwkv.ops import finish_kernels as kernels
from urwkv.ops import gpu

ELEMENTS = 2048
"""Numbers a program of four warps: twice 16 bytes a thread in 16 bits, of the same channels."""


def cut(channels: int) -> dict[str, int]:
    """Channels and rows a program."""
    width = gpu.width_of(channels)
    return {"WIDTH": width, "ROWS": ELEMENTS // width, "num_warps": 4}


@torch.library.custom_op("fedurwkv::finish", mutates_args=())
def finish_triton(
    x: Tensor, bias: Tensor, scale: Tensor | None, shift: Tensor | None, beside: Tensor | None, gelu: bool
) -> Tensor:
    """See `urwkv.ops.finish.finish`; bias, scale and shift in float32."""
    y = gpu.map_like(x)
    if beside is not None:
        beside = beside.contiguous(memory_format=torch.channels_last)
    channels = x.shape[1]
    rows, words = x.numel() // channels, cut(channels)
    programs = triton.cdiv(rows, words["ROWS"]) * triton.cdiv(channels, words["WIDTH"])
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # where Triton launches
        kernels.finish[(programs,)](
            x, bias, bias if scale is None else scale, bias if shift is None else shift,
            x if beside is None else beside, y, rows,
            C=channels, GELU=gelu, LINE=scale is not None, BESIDE=beside is not None, **words,
        )  # fmt: skip
    return y


@finish_triton.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return gpu.map_like(x)
