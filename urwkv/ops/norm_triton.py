"""Norm and GELU of a channels_last map on a GPU, as operators: `fedurwkv::moments` and `fedurwkv::norm_gelu`.

Importing this needs Triton. Of a map only itself, as it came, and two numbers a channel are kept for the backward
pass. The running statistics move in an operator of their own: autograd takes only operators that change nothing.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from urwkv.ops import gpu
from urwkv.ops import norm_kernels as kernels

ELEMENTS = 1024
IN_FLIGHT = 4
STEPS = 1024
SUMMING, WRITING = 2048, 8192
GELU_NORM, ADDED, FIRST = kernels.GELU_NORM.value, kernels.ADDED.value, kernels.FIRST.value


@dataclass(frozen=True)
class Cut:
    """How a kernel cuts a map: N samples of P rows; a tile's channels and rows; tiles a step; rows a program.

    A tile is 8 numbers a thread of four warps. A step reads four tiles at once, of one map or of two; where a map is
    too small for 1,024 such steps, one tile of each, so that many programs share it. A program takes whole steps, and
    reads once what a channel needs. Where each leaves sums to be summed there are at most 2,048 of them, where maps
    are written 8,192: several rounds of a large GPU, and of the numbers tried the ones that took least on an H200.
    """

    samples: int
    rows: int
    channels: int
    width: int
    height: int
    depth: int
    span: int

    @classmethod
    def of(cls, x: Tensor, groups: int, *, maps: int, programs: int) -> "Cut":
        """The cut of a map (B, C, H, W), read alone or with another; groups 0: the statistics are of the batch."""
        batch, channels, rows = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        samples, rows = (batch, rows) if groups else (1, batch * rows)
        width = gpu.width_of(channels)
        height, depth = ELEMENTS // width, IN_FLIGHT // maps
        if samples * rows * channels < STEPS * depth * ELEMENTS:
            depth = 1
        blocks = max(1, programs // (samples * triton.cdiv(channels, width)))
        step = depth * height
        return cls(samples, rows, channels, width, height, depth, triton.cdiv(triton.cdiv(rows, blocks), step) * step)

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.span)

    @property
    def grid(self) -> tuple[int, int]:
        return (self.blocks * triton.cdiv(self.channels, self.width), self.samples)

    def form(self, shift: Tensor | None, order: int) -> dict[str, int]:
        """Of the kernels that read maps."""
        even = self.rows % (self.depth * self.height) == 0 and self.channels % self.width == 0
        tiles = {"BLOCK": self.width, "ROWS": self.height, "DEPTH": self.depth, "num_warps": 4}
        return {"SHIFTED": shift is not None, "ORDER": order, "EVEN": even, **tiles}

    def finish(self, groups: int) -> tuple[tuple[int, int], dict[str, int]]:
        """The grid and the form of a kernel that takes the blocks' sums: of many blocks, few channels a program."""
        group = self.channels // groups if groups else 1
        many = self.blocks > 64
        width = max(8, group) if many else self.width
        rows = (8192 if many else ELEMENTS) // width
        grid = (triton.cdiv(self.channels, width), self.samples)
        return grid, {"GROUP": group, "BLOCK": width, "ROWS": rows, "num_warps": 8 if many else 4}


def fits(channels: int, groups: int) -> bool:
    """Whether the groups of so many channels lie whole within a tile."""
    if not groups:
        return True
    group, width = channels // groups, gpu.width_of(channels)
    return group & (group - 1) == 0 and width >= 8 and channels % width == 0 and group <= width


def lies_beside(x: Tensor, beside: Tensor) -> bool:
    """Whether a map can be added to what becomes of `x`, or its channels come before it, on the way."""
    alike = (beside.shape, beside.dtype, beside.device) == (x.shape, x.dtype, x.device)
    return alike and beside.is_contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("fedurwkv::moments", mutates_args=("running_mean", "running_var", "seen"))
def _moments(
    x: Tensor,
    shift: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    seen: Tensor | None,
    momentum: float,
    eps: float,
    groups: int,
    order: int,
) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) for each sample and channel, (N, C) float32; `seen` counts the batches."""
    cut = Cut.of(x, groups, maps=1, programs=SUMMING)
    mean, rstd = _empty_moments(x, groups)
    parts = torch.empty(cut.samples, cut.blocks, 2, cut.channels, dtype=torch.float32, device=x.device)
    running = running_mean is not None
    finish, form = cut.finish(groups)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # where Triton launches
        kernels.moments[cut.grid](
            x, x if shift is None else shift, parts, cut.rows, cut.channels, cut.span,
            **cut.form(shift, order),
        )  # fmt: skip
        kernels.finish_moments[finish](
            parts, mean, rstd,
            running_mean if running else mean, running_var if running else rstd, seen if running else mean,
            cut.rows, cut.channels, cut.span, eps, momentum, RUNNING=running, **form,
        )  # fmt: skip
    return mean, rstd


def _empty_moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0] if groups else 1, x.shape[1])
    return (
        torch.empty(shape, dtype=torch.float32, device=x.device),
        torch.empty(shape, dtype=torch.float32, device=x.device),
    )


@_moments.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    *_, groups, _ = others
    return _empty_moments(x, groups)


@torch.library.custom_op("fedurwkv::norm_gelu", mutates_args=())
def _norm_gelu(
    x: Tensor,
    shift: Tensor | None,
    beside: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    order: int,
    concat: bool,
) -> Tensor:
    cut, y = Cut.of(x, groups, maps=1 if beside is None else 2, programs=WRITING), _empty(x, concat)
    assert beside is not None or not concat
    how = 0 if beside is None else FIRST if concat else ADDED
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernels.apply[cut.grid](
            x, x if shift is None else shift, x if beside is None else beside, mean, rstd, weight, bias, y,
            cut.rows, cut.channels, _apart(weight, bias), cut.span,
            BESIDE=how, **cut.form(shift, order),
        )  # fmt: skip
    return y


def _empty(x: Tensor, concat: bool) -> Tensor:
    if not concat:
        return gpu.map_like(x)
    batch, channels, height, width = x.shape
    return gpu.map_of((batch, 2 * channels, height, width), x)


@_norm_gelu.register_fake
def _(x: Tensor, *others: Any) -> Tensor:
    return _empty(x, others[-1])


@torch.library.custom_op("fedurwkv::norm_gelu_backward", mutates_args=())
def _backward(
    x: Tensor,
    shift: Tensor | None,
    dy: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    order: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx; the samples' shares of dweight and dbias, (N, 2, C), and the blocks' of dshift, (N, blocks, C), float32.

    A BatchNorm takes a shift that comes right before it away again: its gradient is 0, the sum of no blocks.
    """
    dy, dy_row = gpu.by_rows(dy)
    dx, dwb, shares = _empty_gradients(x, shift, groups, order)
    means = torch.empty_like(dwb)
    cut = Cut.of(x, groups, maps=2, programs=SUMMING)
    parts = torch.empty(cut.samples, cut.blocks, 2, cut.channels, dtype=torch.float32, device=x.device)
    finish, form = cut.finish(groups)
    sizes = cut.rows, cut.channels, _apart(weight, bias)
    given = x, x if shift is None else shift, dy, mean, rstd, weight, bias
    write = Cut.of(x, groups, maps=2, programs=WRITING)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernels.sums[cut.grid](*given, parts, *sizes, dy_row, cut.span, **cut.form(shift, order))
        kernels.finish_sums[finish](parts, weight, dwb, means, *sizes, cut.span, **form)
        kernels.apply_backward[write.grid](
            *given, means, dx, shares, *sizes, dy_row, write.span,
            SUMMED=shares.shape[1] > 0, **write.form(shift, order),
        )  # fmt: skip
    return dx, dwb, shares


def _empty_gradients(x: Tensor, shift: Tensor | None, groups: int, order: int) -> tuple[Tensor, Tensor, Tensor]:
    cut = Cut.of(x, groups, maps=2, programs=WRITING)
    moved = shift is not None and (groups > 0 or order == GELU_NORM)
    shapes = (cut.samples, 2, cut.channels), (cut.samples, cut.blocks if moved else 0, cut.channels)
    dwb, shares = (torch.empty(shape, dtype=torch.float32, device=x.device) for shape in shapes)
    return gpu.map_like(x), dwb, shares


@_backward.register_fake
def _(x: Tensor, shift: Tensor | None, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    *_, groups, order = others
    return _empty_gradients(x, shift, groups, order)


def _apart(weight: Tensor, bias: Tensor) -> int:
    """How far the samples' weights lie apart: 0 where they share them."""
    if weight.ndim == 1:
        return 0
    assert weight.stride() == bias.stride()
    return weight.stride(0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, shift, beside, *tensors, ctx.groups, ctx.order, ctx.concat = inputs
    ctx.save_for_backward(x, shift, *tensors)
    ctx.beside = beside is not None


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, shift, mean, rstd, weight, bias = ctx.saved_tensors
    dbeside, dy = dy.chunk(2, 1) if ctx.concat else (dy, dy)
    dx, dwb, shares = _backward(x, shift, dy, mean, rstd, weight, bias, ctx.groups, ctx.order)
    dshift = None if shift is None else shares.sum((0, 1) if shift.ndim == 1 else 1).to(shift.dtype)
    if weight.ndim == 2:
        dweight, dbias = dwb.unbind(1)
    else:
        dweight, dbias = dwb.sum(0) if ctx.groups else dwb[0]
    return (
        dx,
        dshift,
        dbeside if ctx.beside else None,
        None,
        None,
        dweight.to(weight.dtype),
        dbias.to(bias.dtype),
        None,
        None,
        None,
    )


_norm_gelu.register_autograd(_differentiate, setup_context=_keep)


def norm_gelu_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    order: int,
    eps: float,
    shift: Tensor | None = None,
    beside: Tensor | None = None,
    concat: bool = False,
    groups: int = 0,
    running: tuple[Tensor, Tensor, Tensor] | None = None,
    momentum: float = 0.0,
) -> Tensor:
    """Norm and GELU by the statistics of the map itself, float32 inside; once differentiable.

    Args:
        x: (B, C, H, W), channels_last, any floating dtype but float64.
        weight, bias: (C,), or of GroupNorm (B, C), each sample's own, whose gradients then are each sample's own.
        order: 0: norm alone, 1: norm then GELU, 2: GELU then norm.
        shift: (C,), what is added to the map first; with groups (B, C), too, one row for all, whose gradient is then
            each sample's own.
        beside: a map that is added last, such that `lies_beside`.
        concat: `beside` is not added: its channels come first, and those of the norm after them.
        groups: of GroupNorm, such that `fits`; 0: BatchNorm's statistics, over the batch.
        running: mean and variance that move towards the batch's, the variance unbiased, by `momentum`, float32; and
            the number of batches, int64.

    Returns:
        (B, C, H, W), or (B, 2 C, H, W) by `concat`, channels_last, in the dtype of `x`.
    """
    still = None if shift is None else shift.detach()
    assert still is None or still.ndim == 1 or (groups > 0 and (len(still) == 1 or still.stride(0) == 0))
    mean, rstd = _moments(x.detach(), still, *(running or (None, None, None)), momentum, eps, groups, order)
    y: Tensor = _norm_gelu(x, shift, beside, mean, rstd, weight, bias, groups, order, concat)
    return y
