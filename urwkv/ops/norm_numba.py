"""BatchNorm and GELU of a channels_last map on a CPU, by loops of our own on the threads that torch has.

torch's threads are a team of GNU OpenMP's, which torch has loaded; the loops are started in that same team, since a
second one would compute while the first still spins. Importing this needs Numba and such a torch.
"""

import ctypes
from typing import Any

import llvmlite.binding
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_openmp = ctypes.CDLL(None)
for _name in ("omp_get_thread_num", "omp_get_num_threads", "GOMP_barrier"):  # before the loops that call them
    llvmlite.binding.add_symbol(_name, ctypes.cast(_openmp[_name], ctypes.c_void_p).value)

from urwkv.ops.norm_loops import BACKWARD, FORWARD, GELU_NORM, JOB  # noqa: E402

TILE = 512
"""Numbers in a tile of rows, about: inner loops of that length, whose sums and factors the innermost cache holds."""

TILES = 8
"""The least tiles that are worth a thread's while."""

BLOCKS = 16
"""The most blocks of rows, and so threads, that share a map."""

_start = _openmp.GOMP_parallel
_start.restype = None
_start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]


class _NormGelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        order: int,
        eps: float,
        running: tuple[Tensor, Tensor],
        momentum: float,
    ) -> Tensor:
        y = torch.empty_like(x, memory_format=torch.channels_last)
        z = torch.empty_like(y) if order == GELU_NORM else x
        mean, rstd = torch.empty_like(weight), torch.empty_like(weight)
        maps = {"x": x, "z": z, "y": y}
        sides = {"weight": weight, "bias": bias, "mean": mean, "rstd": rstd}
        moving = dict(zip(("running_mean", "running_var"), running, strict=True))
        _run(FORWARD[order], x, maps | sides | moving, eps=eps, momentum=momentum)
        ctx.order = order
        ctx.save_for_backward(x, z, weight, bias, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, z, weight, bias, mean, rstd = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, dweight, dbias = torch.empty_like(dy), torch.empty_like(weight), torch.empty_like(bias)
        maps = {"x": x, "z": z, "dy": dy, "dx": dx}
        sides = {"weight": weight, "bias": bias, "mean": mean, "rstd": rstd, "dweight": dweight, "dbias": dbias}
        _run(BACKWARD[ctx.order], x, maps | sides)
        return dx, dweight, dbias, None, None, None, None


def _run(loops: Any, x: Tensor, tensors: dict[str, Tensor], **numbers: float) -> None:
    """Run the loops on the map by torch's threads; returns when all are done."""
    channels = x.shape[1]
    tile = channels * max(1, TILE // channels)
    tiles = -(-x.numel() // tile)
    span = max(TILES, -(-tiles // BLOCKS)) * tile
    blocks = -(-x.numel() // span)
    room = torch.empty((blocks + 1) * 3 * tile)
    job = np.zeros(1, JOB)
    job["numbers"], job["channels"], job["tile"], job["span"], job["blocks"] = x.numel(), channels, tile, span, blocks
    job["room"] = room.data_ptr()
    for name, tensor in tensors.items():
        job[name] = tensor.data_ptr()
    for name, number in numbers.items():
        job[name] = number
    _start(loops.address, job.ctypes.data, min(blocks, torch.get_num_threads()), 0)


def norm_gelu_numba(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    order: int,
    eps: float,
    running: tuple[Tensor, Tensor],
    momentum: float,
) -> Tensor:
    """BatchNorm and GELU by the statistics of the batch, on a CPU; once differentiable.

    Args:
        x: (B, C, H, W), channels_last, float32, more than one pixel a channel.
        weight, bias: (C,), float32.
        order: 1: norm then GELU, 2: GELU then norm.
        running: mean and variance that move towards the batch's, the variance unbiased, by `momentum`; float32.

    Returns:
        (B, C, H, W), channels_last, float32.
    """
    y: Tensor = _NormGelu.apply(x, weight, bias, order, eps, running, momentum)  # type: ignore[no-untyped-call]
    return y
