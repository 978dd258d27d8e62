"""Twice the side by nearest neighbour."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Doubling(nn.Module):
    """Each pixel of (B, C, H, W) becomes four of (B, C, 2H, 2W).

    To torch.compile it is said as a copy, whose gradient is a sum over four pixels that joins its neighbours'
    kernels; Inductor's own scatters the gradient with atomic additions. As written, torch's two kernels are faster
    than copy and sum. Both ways give the same map.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_dynamo_compiling():
            return F.interpolate(x, scale_factor=2.0)
        return copied(x)


def copied(x: Tensor) -> Tensor:
    """As torch.compile sees it; of a channels_last map, one."""
    b, c, h, w = x.shape
    pixels = x.permute(0, 2, 3, 1)[:, :, None, :, None]
    return pixels.expand(b, h, 2, w, 2, c).reshape(b, 2 * h, 2 * w, c).permute(0, 3, 1, 2)
