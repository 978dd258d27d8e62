"""Where Triton's kernels of maps and of tokens compute, what they take, and how wide their tiles of maps are."""

import importlib.util

import torch
from torch import Tensor

HAS_TRITON = importlib.util.find_spec("triton") is not None

KIND = "cuda"
"""The kind of device; where the kernels are interpreted that is the CPU."""

WIDEST = 64
"""Channels of a tile: a line of the cache in 16 bits."""


def width_of(channels: int) -> int:
    """Channels of a tile: a power of two that divides a map's channels, where one from 8 on does, else one that holds
    them, or WIDEST of them."""
    width = min(WIDEST, channels & -channels)
    return width if width >= 8 else min(WIDEST, 1 << (channels - 1).bit_length())


def obstacle(x: Tensor) -> str:
    """Why Triton's kernels cannot compute a tensor; empty where they can."""
    if not HAS_TRITON:
        return "needs the package triton, which is not installed"
    if x.device.type != KIND or x.dtype == torch.float64:
        return f"computes in float32 on a GPU, not {x.dtype} on {x.device}"
    return ""


def obstacle_of_map(x: Tensor) -> str:
    """Why they cannot compute a map, (B, C, H, W)."""
    if found := obstacle(x):
        return found
    if not x.is_contiguous(memory_format=torch.channels_last):
        return "needs channels_last maps"
    return "" if x.numel() else "needs a pixel"


def dtype_beyond(x: Tensor) -> torch.dtype:
    """What a convolution or linear layer of torch's, given this, computes in."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def map_like(x: Tensor) -> Tensor:
    """An empty map of the shape, dtype and device of another, channels_last."""
    return torch.empty_like(x, memory_format=torch.channels_last)


def map_of(shape: tuple[int, ...], x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty map of that shape, channels_last, where another is, and in its dtype unless told."""
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device, memory_format=torch.channels_last)


def by_rows(x: Tensor) -> tuple[Tensor, int]:
    """A map whose pixels lie at one distance, and that distance: a half of a concatenated map is read where it is."""
    _, _, height, width = x.shape
    row = x.stride(3)
    if x.stride() == (height * width * row, 1, width * row, row) and row >= x.shape[1]:
        return x, row
    return x.contiguous(memory_format=torch.channels_last), x.shape[1]
