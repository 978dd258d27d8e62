"""Maps as sequences of tokens, and back. Channels come last: maps are (B, H, W, C), T = H W.

The axis of scans is its own, (B, scans, T, C): folded into the batch, a sample would count as several.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Grid = Callable[[Tensor], Tensor]


def same(grid: Tensor) -> Tensor:
    """The grid as it is: what `quad_scan` and `two_orders` do to their grids unless told."""
    return grid


def quad_scan(maps: Tensor, each: Grid = same) -> Tensor:
    """QuadScan: rows, rows reversed, columns, columns reversed; (B, H, W, C) to (B, 4, T, C).

    Args:
        each: applied to the scans while they are grids, so that neighbours are the scan's own: once to the
            two along rows, (B, 2, H, W, C), and once to the two along columns, (B, 2, W, H, C).
    """
    columns = maps.transpose(1, 2)
    along_rows = each(torch.stack([maps, maps.flip(2)], dim=1))
    along_columns = each(torch.stack([columns, columns.flip(2)], dim=1))
    return torch.cat([along_rows.flatten(2, 3), along_columns.flatten(2, 3)], dim=1)


def undo_quad_scan(scans: Tensor, height: int, width: int) -> Tensor:
    """The average of the four maps that the scans stand for: (B, 4, T, C) to (B, H, W, C)."""
    row, row_back = torch.unflatten(scans[:, :2], 2, (height, width)).unbind(1)
    column, column_back = torch.unflatten(scans[:, 2:], 2, (width, height)).unbind(1)
    return (row + row_back.flip(2) + (column + column_back.flip(2)).transpose(1, 2)) / 4


def two_orders(maps: Tensor, each: Grid = same) -> Tensor:
    """A map and its transpose, both row-major: (B, H, W, C) to (B, 2, T, C)."""
    return torch.stack([each(maps).flatten(1, 2), each(maps.transpose(1, 2)).flatten(1, 2)], dim=1)


def one_order(maps: Tensor, each: Grid = same) -> Tensor:
    """A map, row-major: (B, H, W, C) to (B, 1, T, C)."""
    return each(maps).flatten(1, 2).unsqueeze(1)
