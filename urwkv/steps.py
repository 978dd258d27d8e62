"""A chain of layers, and the one choice of how they are computed: as written, or several as one operation.

Norms with a GELU beside them are one operation, and doubling with the convolution after it is another. On a GPU the
norm adds the bias of the convolution before it, too, and writes its map beside another where the two are to be one;
that convolution's groups may become one, and pooling keeps no indices and adds the gradient of a skip to its own.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from urwkv.head import Head
from urwkv.leaves import Keep, for_samples, has_hooks
from urwkv.mixing import Mixing
from urwkv.ops import gpu
from urwkv.ops.doubling import Doubling, doubled_convolution
from urwkv.ops.gpu import HAS_TRITON
from urwkv.ops.grouped import convolution

if HAS_TRITON:
    from urwkv.ops.norm_triton import fits, lies_beside, norm_gelu_triton
    from urwkv.ops.pool_triton import fork_triton, max_pool_triton

BACKENDS = ("torch", "auto", "triton")

HAS_OPENMP = hasattr(ctypes.CDLL(None), "GOMP_parallel")
"""Whether torch's threads are those of GNU OpenMP."""


class Steps(nn.Sequential):
    """nn.Sequential that computes what it can as one operation, where `backend` lets it.

    Attributes:
        backend: "torch": every layer as it is written. "auto": joined where that is possible, on channels_last maps
            and on layers without hooks. On a GPU: norms by the statistics of the map itself, with a GELU beside them
            and the bias of a convolution before them, which is joined with doubling; pooling of 2 x 2 pixels. On a
            CPU, in float32: BatchNorm by the batch's statistics with a GELU, and doubling with a 3 x 3 convolution.
            "triton": as on a GPU, and an error where a norm cannot be computed so.
        keep: keeps per-sample gradients of what is computed so; the hooks of its norms are not called then.
    """

    backend = "torch"
    keep: Keep | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.backend == "torch":
            out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return out
        return self._joined(x)

    def plus(self, x: Tensor, beside: Tensor) -> Tensor:
        """What becomes of a map, and the map `beside` added; on a GPU a norm that comes last adds it on the way."""
        return self._with(x, beside, concat=False)

    def after(self, x: Tensor, skip: Tensor) -> Tensor:
        """The channels of `skip` and, after them, of what becomes of a map, as one map; likewise on the way."""
        return self._with(x, skip, concat=True)

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A map itself, and what becomes of it; on a GPU pooling's gradient takes that of the map itself along."""
        part = _next(list(self))
        forks = self.backend != "torch" and x.requires_grad and not (has_hooks(self) or torch.compiler.is_compiling())
        if forks and part.pools and len(self) == 1 and not part.obstacle(x, self.backend, self.keep):
            skip, pooled = fork_triton(x)
            return skip, pooled
        return x, self(x)

    def _with(self, x: Tensor, beside: Tensor, *, concat: bool) -> Tensor:
        if self.backend == "torch" or has_hooks(self):
            return _both(beside, self(x), concat=concat)
        return self._joined(x, beside, concat=concat)

    def _joined(self, x: Tensor, beside: Tensor | None = None, *, concat: bool = False) -> Tensor:
        layers = list(self)
        shift: Tensor | None = None
        while layers:
            if first := _leaving_its_bias(layers, x):
                conv, layers = first[-1], layers[len(first) :]
                assert isinstance(conv, nn.Conv2d)
                assert conv.bias is not None
                shift = for_samples(conv.bias, len(x), self.keep)
                x = _without_bias(conv, x, self.keep, doubled=len(first) == 2)
            part = _next(layers)
            obstacle = part.obstacle(x, self.backend, self.keep)
            if obstacle and self.backend == "triton" and part.norm is not None:
                raise ValueError(f"norm and GELU: backend = 'triton' {obstacle}; use auto or torch")
            if obstacle:
                x = layers[0](x if shift is None else _shifted(x, shift))
            elif beside is not None and len(part.layers) == len(layers) and part.takes(x, beside):
                return part.at_once(x, shift, self.keep, beside, concat=concat)
            else:
                x = part.at_once(x, shift, self.keep)
            shift, layers = None, layers[1 if obstacle else len(part.layers) :]
        return x if beside is None else _both(beside, x, concat=concat)


def _both(beside: Tensor, x: Tensor, *, concat: bool) -> Tensor:
    return torch.cat([beside, x], dim=1) if concat else x + beside


def choose(network: nn.Module, backend: str) -> None:
    """Have a network's chains, mixings and head compute by `backend`: its state stays, its numbers but for rounding.

    Raises:
        ValueError: there is no such backend, or it needs Triton and that is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r} is not one of: {', '.join(BACKENDS)}")
    if backend == "triton" and not HAS_TRITON:
        raise ValueError("backend = 'triton' needs the package triton, which is not installed; use auto or torch")
    for module in _choosing(network):
        module.backend = backend


@contextmanager
def chosen(network: nn.Module, backend: str, keep: Keep | None = None) -> Iterator[None]:
    """Inside, `choose`; afterwards each has the backend that it had.

    Args:
        keep: of chains and mixings meanwhile.

    Raises:
        ValueError: see `choose`.
    """
    before = [(module, module.backend) for module in _choosing(network)]
    keeping = [module for module, _ in before if isinstance(module, (Steps, Mixing))]
    choose(network, backend)
    for each in keeping:
        each.keep = keep
    try:
        yield
    finally:
        for module, then in before:
            module.backend = then
        for each in keeping:
            each.keep = None


def _choosing(network: nn.Module) -> list[Steps | Mixing | Head]:
    return [module for module in network.modules() if isinstance(module, (Steps, Mixing, Head))]


@dataclass(frozen=True)
class _Part:
    """Layers that come next in a chain and might be computed as one.

    Attributes:
        norm, order: the norm among them, and its order (see `urwkv.ops.norm_kernels`).
        doubled: the convolution after a doubling.
        pools: whether they are pooling of 2 x 2 pixels.
    """

    layers: list[nn.Module]
    norm: nn.BatchNorm2d | nn.GroupNorm | None = None
    order: int = 0
    doubled: nn.Conv2d | None = None
    pools: bool = False

    def obstacle(self, x: Tensor, backend: str, keep: Keep | None) -> str:
        """Why these layers cannot be computed as one; empty where they can."""
        if any(has_hooks(layer) for layer in self.layers if keep is None or layer is not self.norm):
            return "calls no hooks of layers"
        on_gpu = backend == "triton" or x.device.type == gpu.KIND
        if self.doubled is not None:
            return "is joined with the norm after it" if on_gpu else _obstacle_on_cpu(x)
        if self.pools:
            return gpu.obstacle_of_map(x) or ("needs two rows and columns" if min(x.shape[2:]) < 2 else "")
        if self.norm is None:
            return "joins layers, and this is one alone"
        if any(isinstance(layer, nn.GELU) and layer.approximate != "none" for layer in self.layers):
            return "computes the exact GELU"
        obstacle = _obstacle_on_gpu(self.norm, x) if on_gpu else _obstacle_on_cpu(x)
        if obstacle or isinstance(self.norm, nn.GroupNorm):
            return obstacle or ("" if on_gpu else "knows no groups on a CPU")
        if not self.norm.training:
            return "takes a batch's own statistics, which evaluation does not"
        if x.numel() <= x.shape[1]:
            return "needs more than one pixel a channel"
        if not on_gpu and self.order == 0:
            return "computes a norm with a GELU"
        if keep is not None:
            return "has a batch's statistics, which are of no single sample"
        plain = self.norm.affine and self.norm.track_running_stats and self.norm.momentum is not None
        if not plain:
            return "needs weights, running statistics and a momentum"
        return "" if on_gpu or _are_vectors(self.norm) else "reads weights and statistics in float32, side by side"

    def takes(self, x: Tensor, beside: Tensor) -> bool:
        """Whether these layers, which can be computed as one, take another map along on the way."""
        return self.norm is not None and x.device.type == gpu.KIND and lies_beside(x, beside)

    def at_once(
        self,
        x: Tensor,
        shift: Tensor | None,
        keep: Keep | None,
        beside: Tensor | None = None,
        *,
        concat: bool = False,
    ) -> Tensor:
        """Of the map; where a norm is on a GPU `shift` is added first, `beside` last or by `concat` put first."""
        if self.doubled is not None:
            if keep is not None and _learns(self.doubled):
                return keep.convolution(self.doubled, x, doubled=True, biased=True)
            return doubled_convolution(x, self.doubled.weight, self.doubled.bias)
        if self.pools:
            y: Tensor = max_pool_triton(x)
            return y
        assert self.norm is not None
        return _norm_gelu(self.norm, self.order, x, keep, {"shift": shift, "beside": beside, "concat": concat})


def _next(layers: list[nn.Module]) -> _Part:
    first, second = layers[0], layers[1] if len(layers) > 1 else None
    if isinstance(first, Doubling) and isinstance(second, nn.Conv2d) and _is_plain(second):
        return _Part(layers[:2], doubled=second)
    if isinstance(first, nn.GELU) and isinstance(second, (nn.BatchNorm2d, nn.GroupNorm)):
        return _Part(layers[:2], second, 2)
    if isinstance(first, (nn.BatchNorm2d, nn.GroupNorm)):
        return _Part(layers[:2], first, 1) if isinstance(second, nn.GELU) else _Part(layers[:1], first)
    return _Part(layers[:1], pools=isinstance(first, nn.MaxPool2d) and _halves(first))


def _leaving_its_bias(layers: list[nn.Module], x: Tensor) -> list[nn.Module]:
    """The convolution that comes first, or doubling and it, if on a GPU norm and GELU after it can add its bias."""
    if not (HAS_TRITON and x.device.type == gpu.KIND):
        return []
    first = layers[: 2 if isinstance(layers[0], Doubling) else 1]
    conv, after = first[-1], layers[len(first) :]
    if not isinstance(conv, nn.Conv2d) or not after or _next(after).norm is None:
        return []
    if conv.bias is None or conv.padding_mode != "zeros" or any(map(has_hooks, first)):
        return []
    return first if len(first) == 1 or _is_plain(conv) else []


def _without_bias(conv: nn.Conv2d, x: Tensor, keep: Keep | None, *, doubled: bool) -> Tensor:
    if keep is not None and _learns(conv):
        return keep.convolution(conv, x, doubled=doubled, biased=False)
    if doubled:
        return doubled_convolution(x, conv.weight, None)
    return convolution(x, conv.weight, conv.stride, conv.padding, conv.dilation, conv.groups)


def _learns(layer: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters())


def _shifted(x: Tensor, shift: Tensor) -> Tensor:
    """Of a shift for each sample the gradient is summed in its own dtype."""
    if shift.ndim == 1:
        return x + shift.to(x.dtype)[:, None, None]
    return (x + shift[..., None, None]).to(x.dtype)


def _are_vectors(norm: nn.BatchNorm2d) -> bool:
    """Whether loops that are given addresses can read the norm's weights and statistics."""
    tensors = norm.weight, norm.bias, norm.running_mean, norm.running_var
    return all(t is not None and (t.device.type, t.dtype, t.stride()) == _VECTOR for t in tensors)


_VECTOR = ("cpu", torch.float32, (1,))


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether the convolution is 3 x 3, keeps its map's size, and is not special otherwise."""
    form = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode
    return form == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


def _halves(pool: nn.MaxPool2d) -> bool:
    """Whether the pool is of 2 x 2 pixels, and not special otherwise."""
    form = pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.return_indices, pool.ceil_mode
    return form == (2, 2, 0, 1, False, False)


def _obstacle_on_gpu(norm: nn.BatchNorm2d | nn.GroupNorm, x: Tensor) -> str:
    if obstacle := gpu.obstacle_of_map(x):
        return obstacle
    if isinstance(norm, nn.GroupNorm) and not (norm.affine and fits(norm.num_channels, norm.num_groups)):
        return "does not know these groups"
    return ""


def _obstacle_on_cpu(x: Tensor) -> str:
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return f"computes in float32 on a CPU, not {x.dtype} on {x.device}"
    if not x.is_contiguous(memory_format=torch.channels_last):
        return "needs channels_last maps"
    if torch.compiler.is_compiling():
        return "is for what is not compiled"
    return "" if HAS_OPENMP else "needs a torch whose threads are GNU OpenMP's"


def _norm_gelu(
    norm: nn.BatchNorm2d | nn.GroupNorm,
    order: int,
    x: Tensor,
    keep: Keep | None,
    on_gpu: dict[str, Any],
) -> Tensor:
    words: dict[str, Any] = {"order": order, "eps": norm.eps}
    if isinstance(norm, nn.GroupNorm):
        weight, bias = (for_samples(part, len(x), keep) for part in (norm.weight, norm.bias))
        return norm_gelu_triton(x, weight, bias, groups=norm.num_groups, **on_gpu, **words)
    assert norm.num_batches_tracked is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    running = norm.running_mean, norm.running_var
    words["momentum"] = norm.momentum or 0.0
    if x.device.type == gpu.KIND:
        words["running"] = (*running, norm.num_batches_tracked)
        return norm_gelu_triton(x, norm.weight, norm.bias, **on_gpu, **words)
    from urwkv.ops.norm_numba import norm_gelu_numba  # which compiles: who does not train does not wait for it

    norm.num_batches_tracked.add_(1)
    return norm_gelu_numba(x, norm.weight, norm.bias, running=running, **words)
