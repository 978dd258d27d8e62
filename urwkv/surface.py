"""Outlines of regions, and how far apart two of them are."""

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from scipy.spatial import KDTree
from torch import Tensor


def edges(regions: Tensor) -> Tensor:
    """The outline of boolean regions (..., H, W): their pixels with one of the four neighbours outside.

    Beyond the image is outside, so a region cut off by the image's edge is closed there.
    """
    padded = F.pad(regions, (1, 1, 1, 1))
    above, below = padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]
    left, right = padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]
    return regions & ~(above & below & left & right)


def surface_distances(
    first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distances in pixels from each pixel of one outline to the nearest of the other, and back.

    Args:
        first, second: outlines (H, W), each with a pixel at least.
    """
    a, b = np.argwhere(first), np.argwhere(second)
    return KDTree(b).query(a)[0], KDTree(a).query(b)[0]
