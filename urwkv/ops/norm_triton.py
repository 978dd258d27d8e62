"""Norm and GELU of a channels_last map on a GPU, as operators: `fedurwkv::moments` and `fedurwkv::norm_gelu`.

Importing this needs Triton. Of a map only itself, as it came, and two numbers a channel are kept for the backward
pass. The running statistics move in an operator of their own: autograd takes only operators that change nothing.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from urwkv.ops import norm_kernels as kernels

WIDEST = 64
ELEMENTS = 2048
PROGRAMS = 1024


@dataclass(frozen=True)
class Cut:
    """How a map is cut: N samples of P rows, channels and rows a tile, and rows a block of sums: whole tiles.

    A tile is 16 numbers a thread of four warps. Blocks are so many that 1,024 programs, eight for each processor of
    a large GPU, share a map.
    """

    samples: int
    rows: int
    channels: int
    width: int
    height: int
    span: int

    @classmethod
    def of(cls, x: Tensor, groups: int) -> "Cut":
        """The cut of a map (B, C, H, W); groups 0: the statistics are of the batch."""
        batch, channels, rows = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        samples, rows = (batch, rows) if groups else (1, batch * rows)
        width = min(WIDEST, channels & -channels)
        if width < 8:
            width = min(WIDEST, triton.next_power_of_2(channels))
        height = ELEMENTS // width
        blocks = max(1, PROGRAMS // (samples * triton.cdiv(channels, width)))
        return cls(samples, rows, channels, width, height, triton.cdiv(triton.cdiv(rows, blocks), height) * height)

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.span)

    def grid(self, blocks: int) -> tuple[int, int]:
        return (blocks * triton.cdiv(self.channels, self.width), self.samples)

    @property
    def tiles(self) -> tuple[int, int]:
        return self.grid(triton.cdiv(self.rows, self.height))

    def words(self) -> dict[str, int]:
        return {"BLOCK": self.width, "ROWS": self.height, "num_warps": 4}

    def form(self, shift: Tensor | None, order: int) -> dict[str, int]:
        """Of the kernels that read maps."""
        return {"SHIFTED": shift is not None, "ORDER": order, **self.words()}


def fits(channels: int, groups: int) -> bool:
    """Whether the groups of so many channels lie whole within a tile."""
    if not groups:
        return True
    group, width = channels // groups, min(WIDEST, channels & -channels)
    return group & (group - 1) == 0 and width >= 8 and group <= width


@torch.library.custom_op("fedurwkv::moments", mutates_args=("running_mean", "running_var"))
def _moments(
    x: Tensor,
    shift: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    groups: int,
    order: int,
) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) for each sample and channel, (N, C) float32."""
    cut = Cut.of(x, groups)
    mean, rstd = _empty_moments(x, groups)
    parts = torch.empty(cut.samples, cut.blocks, 2, cut.channels, dtype=torch.float32, device=x.device)
    running = running_mean is not None
    group = cut.channels // groups if groups else 1
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # where Triton launches
        kernels.moments[cut.grid(cut.blocks)](
            x, x if shift is None else shift, parts, cut.rows, cut.channels, cut.span,
            **cut.form(shift, order),
        )  # fmt: skip
        kernels.finish_moments[cut.grid(1)](
            parts, mean, rstd, running_mean if running else mean, running_var if running else rstd,
            cut.rows, cut.channels, cut.span, eps, momentum, RUNNING=running, GROUP=group, **cut.words(),
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
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    order: int,
) -> Tensor:
    cut, y = Cut.of(x, groups), _like(x)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernels.apply[cut.tiles](
            x, x if shift is None else shift, mean, rstd, weight, bias, y,
            cut.rows, cut.channels, _apart(weight, bias),
            **cut.form(shift, order),
        )  # fmt: skip
    return y


@_norm_gelu.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return _like(x)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


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
    """dx; the samples' shares of dweight and dbias, (N, 2, C), and the tiles' of dshift, (N, tiles, C), float32."""
    cut = Cut.of(x, groups)
    dy, dy_row = _by_rows(dy)
    dx, dwb, tiles = _empty_gradients(x, shift, cut)
    means = torch.empty_like(dwb)
    parts = torch.empty(cut.samples, cut.blocks, 2, cut.channels, dtype=torch.float32, device=x.device)
    group = cut.channels // groups if groups else 1
    sizes = cut.rows, cut.channels, _apart(weight, bias)
    map_ = x, x if shift is None else shift, dy
    form = cut.form(shift, order)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernels.sums[cut.grid(cut.blocks)](*map_, mean, rstd, weight, bias, parts, *sizes, dy_row, cut.span, **form)
        kernels.finish_sums[cut.grid(1)](parts, weight, dwb, means, *sizes, cut.span, GROUP=group, **cut.words())
        kernels.apply_backward[cut.tiles](*map_, mean, rstd, weight, bias, means, dx, tiles, *sizes, dy_row, **form)
    return dx, dwb, tiles


def _empty_gradients(x: Tensor, shift: Tensor | None, cut: Cut) -> tuple[Tensor, Tensor, Tensor]:
    tiles = 0 if shift is None else triton.cdiv(cut.rows, cut.height)
    shapes = (cut.samples, 2, cut.channels), (cut.samples, tiles, cut.channels)
    dwb, parts = (torch.empty(shape, dtype=torch.float32, device=x.device) for shape in shapes)
    return _like(x), dwb, parts


@_backward.register_fake
def _(x: Tensor, shift: Tensor | None, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    *_, groups, _ = others
    return _empty_gradients(x, shift, Cut.of(x, groups))


def _apart(weight: Tensor, bias: Tensor) -> int:
    """How far the samples' weights lie apart: 0 where they share them."""
    if weight.ndim == 1:
        return 0
    assert weight.stride() == bias.stride()
    return weight.stride(0)


def _by_rows(dy: Tensor) -> tuple[Tensor, int]:
    """A map whose pixels lie at one distance, and that distance: a half of a concatenated map is read where it is."""
    _, _, height, width = dy.shape
    row = dy.stride(3)
    if dy.stride() == (height * width * row, 1, width * row, row) and row >= dy.shape[1]:
        return dy, row
    return dy.contiguous(memory_format=torch.channels_last), dy.shape[1]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.groups, ctx.order = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, shift, mean, rstd, weight, bias = ctx.saved_tensors
    dx, dwb, tiles = _backward(x, shift, dy, mean, rstd, weight, bias, ctx.groups, ctx.order)
    dshift = None if shift is None else tiles.sum((0, 1)).to(shift.dtype)
    dweight, dbias = dwb.unbind(1) if weight.ndim == 2 else dwb.sum(0)
    return dx, dshift, None, None, dweight.to(weight.dtype), dbias.to(bias.dtype), None, None


_norm_gelu.register_autograd(_differentiate, setup_context=_keep)


def norm_gelu_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    order: int,
    eps: float,
    shift: Tensor | None = None,
    groups: int = 0,
    running: tuple[Tensor, Tensor] | None = None,
    momentum: float = 0.0,
) -> Tensor:
    """Norm and GELU by the statistics of the map itself, float32 inside; once differentiable.

    Args:
        x: (B, C, H, W), channels_last, any floating dtype but float64.
        weight, bias: (C,), or of GroupNorm (B, C), each sample's own, whose gradients then are each sample's own.
        order: 0: norm alone, 1: norm then GELU, 2: GELU then norm.
        shift: (C,), what is added to the map first.
        groups: of GroupNorm, such that `fits`; 0: BatchNorm's statistics, over the batch.
        running: mean and variance that move towards the batch's, the variance unbiased, by `momentum`; float32.

    Returns:
        (B, C, H, W), channels_last, in the dtype of `x`.
    """
    still = None if shift is None else shift.detach()
    mean, rstd = _moments(x.detach(), still, *(running or (None, None)), momentum, eps, groups, order)
    y: Tensor = _norm_gelu(x, shift, mean, rstd, weight, bias, groups, order)
    return y
