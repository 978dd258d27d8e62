"""The scans of a map on a GPU, as operators: `fedurwkv::mixed_scans` and `fedurwkv::gated_average`.

Importing this needs Triton. One reads a map and writes what the linear layers of its scans are given, in the dtype
that they compute in; the other reads what the scans have become and writes a map. No scan of the map itself, of its
neighbours or of what lies between exists in memory, neither for the forward pass nor for the backward one, which
keeps the operators' inputs alone. See `urwkv.ops.scan_kernels` for which token is where.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from urwkv.ops import scan_kernels as kernels

WIDEST = 64
ELEMENTS = 1024
PROGRAMS = 2048


@dataclass(frozen=True)
class Cut:
    """How maps are cut: channels and pixels a tile, and pixels a block of sums: whole tiles.

    A tile is 8 numbers a thread of four warps, 16 bytes of a bfloat16 scan, and lies within a quarter of the
    channels. Blocks are so many that 2,048 programs, 16 for each processor of a large GPU, share the maps.
    """

    batch: int
    height: int
    width: int
    quarter: int
    channels: int
    pixels: int
    span: int

    @classmethod
    def of(cls, *shape: int) -> "Cut":
        """The cut of maps (B, H, W, C)."""
        batch, height, width, channels = map(int, shape)  # numbers, also where torch traces sizes as symbols
        quarter = channels // 4
        block = min(WIDEST, triton.next_power_of_2(quarter))
        tile = ELEMENTS // block
        blocks = max(1, PROGRAMS // max(1, batch * 4 * triton.cdiv(quarter, block)))
        span = max(1, triton.cdiv(triton.cdiv(height * width, blocks), tile)) * tile
        return cls(batch, height, width, quarter, block, tile, span)

    @property
    def blocks(self) -> int:
        return -(-self.height * self.width // self.span)

    def grid(self, blocks: int) -> tuple[int, int]:
        return (blocks * 4 * triton.cdiv(self.quarter, self.channels), self.batch)

    @property
    def tiles(self) -> tuple[int, int]:
        return self.grid(triton.cdiv(self.height * self.width, self.pixels))

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.height, self.width, self.quarter

    def words(self) -> dict[str, int]:
        return {"BLOCK": self.channels, "ROWS": self.pixels, "num_warps": 4}


def _three(tensors: list[Tensor]) -> list[Tensor]:
    """Two of them or three as the three that the kernels have names for."""
    return [*tensors, *tensors[:1]][:3]


@torch.library.custom_op("fedurwkv::mixed_scans", mutates_args=())
def _mixed_scans(z: Tensor, mus: list[Tensor], scans: int, dtype: torch.dtype) -> list[Tensor]:
    cut, z, mixed = Cut.of(*z.shape), z.contiguous(), _empty_scans(z, mus, scans, dtype)
    if z.numel():
        with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]  # where Triton launches
            kernels.mix[cut.tiles](
                z, *_three(mus), *_three(mixed), *cut.sizes, NUMBER=len(mus), SCANS=scans, **cut.words()
            )
    return mixed


def _empty_scans(z: Tensor, mus: list[Tensor], scans: int, dtype: torch.dtype) -> list[Tensor]:
    batch, height, width, channels = z.shape
    shape = (batch, scans, height * width, channels)
    return [torch.empty(shape, dtype=dtype, device=z.device) for _ in mus]


@_mixed_scans.register_fake
def _(z: Tensor, mus: list[Tensor], scans: int, dtype: torch.dtype) -> list[Tensor]:
    return _empty_scans(z, mus, scans, dtype)


@torch.library.custom_op("fedurwkv::mixed_scans_backward", mutates_args=())
def _mixed_scans_backward(z: Tensor, mus: list[Tensor], gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
    """dz, and the blocks' shares of all dmu, (B, blocks, number, C) in float32."""
    cut, z, gradients = Cut.of(*z.shape), z.contiguous(), [g.contiguous() for g in gradients]
    dz, parts = _empty_map_and_sums(z, mus)
    if z.numel():
        with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
            kernels.mix_backward[cut.grid(cut.blocks)](
                z, *_three(mus), *_three(gradients), dz, parts, *cut.sizes, cut.span,
                NUMBER=len(mus), SCANS=gradients[0].shape[1], **cut.words(),
            )  # fmt: skip
    return dz, parts


def _empty_map_and_sums(z: Tensor, mus: list[Tensor]) -> tuple[Tensor, Tensor]:
    shape = (z.shape[0], Cut.of(*z.shape).blocks, len(mus), z.shape[3])
    dz = torch.empty(z.shape, dtype=z.dtype, device=z.device)
    return dz, torch.empty(shape, dtype=torch.float32, device=z.device)


@_mixed_scans_backward.register_fake
def _(z: Tensor, mus: list[Tensor], gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
    return _empty_map_and_sums(z, mus)


def _keep_map(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    z, mus, *_ = inputs
    ctx.save_for_backward(z, *mus)


def _differentiate_mixed(ctx: Any, gradients: list[Tensor]) -> tuple[Tensor, list[Tensor], None, None]:
    z, *mus = ctx.saved_tensors
    dz, parts = _mixed_scans_backward(z, mus, gradients)
    sums = parts.sum((0, 1)).unbind() if mus[0].ndim == 1 else parts.sum(1).unbind(1)
    return dz, [dmu.to(mu.dtype) for dmu, mu in zip(sums, mus, strict=True)], None, None


_mixed_scans.register_autograd(_differentiate_mixed, setup_context=_keep_map)


def mixed_scans_triton(z: Tensor, mus: list[Tensor], scans: int, dtype: torch.dtype) -> list[Tensor]:
    """Each token of a map's scans mixed with its neighbour: other + mu (z - other) for each mu; once differentiable.

    The other token is that of `urwkv.shift.shift_tokens` by "quad" on the scan's own grid.

    Args:
        z: the map, (B, H, W, C), C a multiple of 4, any floating dtype but float64.
        mus: two or three, (C,) each; or (B, C), one row for all, whose gradients then are each sample's own.
        scans: 4: those of `urwkv.scans.quad_scan`; 2 and 1: of `two_orders` and `one_order`.
        dtype: of what comes back; inside all is float32.

    Returns:
        (B, scans, T, C) for each mu.
    """
    mixed: list[Tensor] = _mixed_scans(z, mus, scans, dtype)
    return mixed


@torch.library.custom_op("fedurwkv::gated_average", mutates_args=())
def _gated_average(r: Tensor, y: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    r, y, out = r.contiguous(), y.contiguous(), _empty_map(r, height, width, dtype)
    cut = Cut.of(*out.shape)
    if out.numel():
        with torch.cuda.device_of(r):  # type: ignore[no-untyped-call]
            kernels.gate[cut.tiles](r, y, out, *cut.sizes, **cut.words())
    return out


def _empty_map(r: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.empty((r.shape[0], height, width, r.shape[3]), dtype=dtype, device=r.device)


@_gated_average.register_fake
def _(r: Tensor, y: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return _empty_map(r, height, width, dtype)


@torch.library.custom_op("fedurwkv::gated_average_backward", mutates_args=())
def _gated_average_backward(r: Tensor, y: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
    r, y, dout = r.contiguous(), y.contiguous(), dout.contiguous()
    cut, (dr, dy) = Cut.of(*dout.shape), _empty_gates(r, y)
    if dout.numel():
        with torch.cuda.device_of(r):  # type: ignore[no-untyped-call]
            kernels.gate_backward[cut.tiles](r, y, dout, dr, dy, *cut.sizes, **cut.words())
    return dr, dy


def _empty_gates(r: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.empty(r.shape, dtype=r.dtype, device=r.device),
        torch.empty(y.shape, dtype=y.dtype, device=y.device),
    )


@_gated_average_backward.register_fake
def _(r: Tensor, y: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_gates(r, y)


def _keep_scans(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    r, y, *_ = inputs
    ctx.save_for_backward(r, y)


def _differentiate_gated(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    return (*_gated_average_backward(*ctx.saved_tensors, dout), None, None, None)


_gated_average.register_autograd(_differentiate_gated, setup_context=_keep_scans)


def gated_average_triton(r: Tensor, y: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """The average of the maps that four scans of sigmoid(r) y stand for; once differentiable.

    Args:
        r, y: (B, 4, T, C) as `urwkv.scans.quad_scan` orders them, C a multiple of 4, any floating dtype but float64.
        height, width: of the map.
        dtype: of what comes back; inside all is float32.

    Returns:
        (B, H, W, C), as `urwkv.scans.undo_quad_scan` gives it.
    """
    out: Tensor = _gated_average(r, y, height, width, dtype)
    return out
