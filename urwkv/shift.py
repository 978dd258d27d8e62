"""What a token is mixed with before it is projected: the three readings of the token shift."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Shift = Literal["quad", "paper", "none"]


def shift_tokens(grid: Tensor, shift: Shift) -> Tensor:
    """The other token of each token.

    "quad": a quarter of the channels each from the left, right, upper and lower neighbour, zero beyond the
    edge (Vision-RWKV, arXiv 2403.02308). "paper": the fixed permutation in the authors' code, square grids
    only. "none": the token itself.

    Args:
        grid: (..., H, W, C), C a multiple of 4 for "quad".

    Raises:
        ValueError: "paper" on a grid that is not square, or an unknown word.
    """
    if shift == "none":
        return grid
    if shift == "quad":
        return _quad(grid)
    if shift == "paper":
        return _paper(grid)
    raise ValueError(f"shift = {shift!r} is not one of: {', '.join(get_args(Shift))}")


def _quad(grid: Tensor) -> Tensor:
    left, right, upper, lower = grid.chunk(4, dim=-1)
    moved = [
        F.pad(left[..., :-1, :], (0, 0, 1, 0)),
        F.pad(right[..., 1:, :], (0, 0, 0, 1)),
        F.pad(upper[..., :-1, :, :], (0, 0, 0, 0, 1, 0)),
        F.pad(lower[..., 1:, :, :], (0, 0, 0, 0, 0, 1)),
    ]
    return torch.cat(moved, dim=-1)


def _paper(grid: Tensor) -> Tensor:
    """Token (r, c) gets token (f(c), r): f counts up to half the side, then back down from the last."""
    side, width = grid.shape[-3:-1]
    if side != width:
        raise ValueError(
            f"shift = 'paper' is defined on square grids only, not {side} x {width}:"
            " give square images, or set shift to 'quad'"
        )
    half = side // 2
    forward = torch.arange(half, device=grid.device)
    backward = side - 1 - torch.arange(side - half, device=grid.device)
    return grid.index_select(-3, torch.cat([forward, backward])).transpose(-3, -2)
