"""A chain of layers, and the one choice of how its norms and GELUs are computed: as written, or fused on a GPU."""

import torch
from torch import Tensor, nn

from urwkv.ops.biwkv import HAS_TRITON

if HAS_TRITON:
    from urwkv.ops.norm_triton import fits, norm_gelu_triton

BACKENDS = ("torch", "auto", "triton")


class Steps(nn.Sequential):
    """nn.Sequential whose norms, with a GELU before or after, are one operator where `backend` lets them be.

    Attributes:
        backend: "torch": every layer as it is written. "auto": fused where that is possible: norms by the statistics
            of the map itself, on channels_last maps on a GPU, on layers without hooks (per-sample gradients have
            them). "triton": likewise, and an error where it is not.
    """

    backend = "torch"

    def forward(self, x: Tensor) -> Tensor:
        if self.backend == "torch":
            out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return out
        layers = list(self)
        while layers:
            norm, order, taken = _next(layers)
            obstacle = "" if norm is None else _obstacle(norm, layers[:taken], x)
            if obstacle and self.backend == "triton":
                raise ValueError(f"norm and GELU: backend = 'triton' {obstacle}; use auto or torch")
            if norm is None or obstacle:
                for layer in layers[:taken]:
                    x = layer(x)
            else:
                x = _fused(norm, order, x)
            layers = layers[taken:]
        return x


def choose(network: nn.Module, backend: str) -> None:
    """Have all chains of a network compute by `backend`; its state and its numbers stay as they are.

    Raises:
        ValueError: there is no such backend, or it needs Triton and that is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r} is not one of: {', '.join(BACKENDS)}")
    if backend == "triton" and not HAS_TRITON:
        raise ValueError("backend = 'triton' needs the package triton, which is not installed; use auto or torch")
    for module in network.modules():
        if isinstance(module, Steps):
            module.backend = backend


def _next(layers: list[nn.Module]) -> tuple[nn.BatchNorm2d | nn.GroupNorm | None, int, int]:
    """The norm that comes next, its order (see `urwkv.ops.norm_kernels`), and how many layers it is with its GELU."""
    first, second = layers[0], layers[1] if len(layers) > 1 else None
    if isinstance(first, nn.GELU) and isinstance(second, (nn.BatchNorm2d, nn.GroupNorm)):
        return second, 2, 2
    if isinstance(first, (nn.BatchNorm2d, nn.GroupNorm)):
        return (first, 1, 2) if isinstance(second, nn.GELU) else (first, 0, 1)
    return None, 0, 1


def _obstacle(norm: nn.BatchNorm2d | nn.GroupNorm, layers: list[nn.Module], x: Tensor) -> str:
    """Why these layers cannot be fused; empty where they can."""
    if not HAS_TRITON:
        return "needs the package triton, which is not installed"
    if x.device.type != "cuda" or x.dtype == torch.float64:
        return f"computes in float32 on a GPU, not {x.dtype} on {x.device}"
    if not x.is_contiguous(memory_format=torch.channels_last):
        return "needs channels_last maps"
    if any(isinstance(layer, nn.GELU) and layer.approximate != "none" for layer in layers):
        return "computes the exact GELU"
    if any(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks for layer in layers):
        return "calls no hooks of layers"
    if isinstance(norm, nn.GroupNorm):
        return "" if norm.affine and fits(norm.num_channels, norm.num_groups) else "does not know these groups"
    if not norm.training:
        return "takes a batch's own statistics, which evaluation does not"
    if x.numel() == x.shape[1]:
        return "needs more than one pixel a channel"
    plain = norm.affine and norm.track_running_stats and norm.momentum is not None
    return "" if plain else "needs weights, running statistics and a momentum"


def _fused(norm: nn.BatchNorm2d | nn.GroupNorm, order: int, x: Tensor) -> Tensor:
    if isinstance(norm, nn.GroupNorm):
        return norm_gelu_triton(x, norm.weight, norm.bias, order=order, eps=norm.eps, groups=norm.num_groups)
    assert norm.num_batches_tracked is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.num_batches_tracked.add_(1)
    running = norm.running_mean, norm.running_var
    return norm_gelu_triton(
        x, norm.weight, norm.bias, order=order, eps=norm.eps, running=running, momentum=norm.momentum or 0.0
    )
