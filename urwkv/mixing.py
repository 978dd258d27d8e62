"""What both mixes of DARM have in common, as it is written or on a GPU as one operation each.

The tokens of a map's scans, each mixed with its neighbour; their norm; and the end of the spatial mix.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from urwkv.leaves import Keep, Scale, for_samples, has_hooks
from urwkv.ops import gpu
from urwkv.ops.gpu import HAS_TRITON
from urwkv.scans import one_order, quad_scan, two_orders, undo_quad_scan
from urwkv.shift import Shift, shift_tokens

if HAS_TRITON:
    from urwkv.ops.scans_triton import gated_average_triton, mixed_scans_triton
    from urwkv.ops.token_triton import fits, token_norm_triton

NUMBER = {one_order: 1, two_orders: 2, quad_scan: 4}


class Mixing(nn.Module):
    """A layer that mixes tokens with their neighbours.

    Attributes:
        backend: "torch": as it is written. "auto": each as one operation on a GPU with Triton, where no leaf has
            hooks. "triton": as "auto", and an error where that cannot be. Tokens of another shift than "quad" are
            mixed as written, whatever it is.
        keep: keeps per-sample gradients of what is computed so; the hooks of its leaves are not called then.
    """

    backend = "torch"
    keep: Keep | None = None

    def __init__(self, shift: Shift, tokens: Callable[..., Tensor]) -> None:
        super().__init__()
        self.shift, self.tokens, self.scans = shift, tokens, NUMBER[tokens]

    def mixed(self, z: Tensor, *mus: Scale) -> list[Tensor]:
        """z mu + z' (1 - mu) for each mu, z' being the other token: of a map (B, H, W, C), each (B, scans, T, C)."""
        if self.shift == "quad" and self._at_once(z, *mus):
            weights = [for_samples(mu.weight, len(z), self.keep) for mu in mus]
            return mixed_scans_triton(z, weights, self.scans, gpu.dtype_beyond(z))
        other = self.tokens(z, lambda grid: shift_tokens(grid, self.shift))
        change = self.tokens(z) - other  # z mu + z' (1 - mu) = z' + (z - z') mu
        return [other + mu(change) for mu in mus]

    def normed(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """LayerNorm of tokens (..., C); float32 under autocast."""
        return self._normed(norm, x, squared=False)

    def squared(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """LayerNorm of relu(x)^2, tokens (..., C), for a linear layer."""
        return self._normed(norm, x, squared=True)

    def _normed(self, norm: nn.LayerNorm, x: Tensor, *, squared: bool) -> Tensor:
        if self._at_once(x, norm) and fits(x.shape[-1]):
            autocast = torch.is_autocast_enabled(x.device.type)
            dtype = gpu.dtype_beyond(x) if squared or not autocast else torch.float32
            weight, bias = (for_samples(vector, len(x), self.keep) for vector in (norm.weight, norm.bias))
            return token_norm_triton(x, weight, bias, eps=norm.eps, squared=squared, dtype=dtype)
        y: Tensor = norm(torch.relu(x).square() if squared else x)
        return y

    def gated(self, r: Tensor, y: Tensor, height: int, width: int) -> Tensor:
        """The average over the four scans of sigmoid(r) y, (B, 4, T, C) each, as a map (B, H, W, C)."""
        if self._at_once(y):
            return gated_average_triton(r, y, height, width, gpu.dtype_beyond(y))
        return undo_quad_scan(torch.sigmoid(r) * y, height, width)

    def _at_once(self, x: Tensor, *leaves: nn.Module) -> bool:
        if self.backend == "torch":
            return False
        hooks = self.keep is None and any(map(has_hooks, leaves))
        obstacle = gpu.obstacle(x) or ("calls no hooks of layers" if hooks else "")
        if obstacle and self.backend == "triton":
            raise ValueError(f"mixing tokens: backend = 'triton' {obstacle}; use auto or torch")
        return not obstacle
