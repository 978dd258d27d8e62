"""The weights of products in the dtype that autocast computes those in, all cast at once.

Autocast casts each where it is used, and its gradient back: 120 kernels of a training step of 2,000, which take
longer to begin than to do. The numbers are the same.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from urwkv.ops.doubling import Doubling
from urwkv.steps import Steps


def lowered(network: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """By name, the weights of convolutions and linear layers in `dtype`; their gradients reach the network's own.

    Filters behind a doubling stay as they are: sums are made of them, before those are cast.
    """
    summed = {
        conv for chain in network.modules() if isinstance(chain, Steps)
        for doubling, conv in pairwise(chain) if isinstance(doubling, Doubling)
    }  # fmt: skip
    cast: dict[str, Tensor] = {}
    for learns in (True, False):  # apart: all that comes of one function learns, if one that went in does
        weights = {
            f"{name}.weight": layer.weight for name, layer in network.named_modules()
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer not in summed
            and layer.weight.requires_grad == learns
        }  # fmt: skip
        cast |= zip(weights, _Cast.apply(dtype, *weights.values()), strict=True)  # type: ignore[no-untyped-call]
    return cast


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [weight.dtype for weight in weights]
        return tuple(_copies([(weight, dtype) for weight in weights]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        copies = _copies([(g, dtype) for g, dtype in zip(grads, ctx.dtypes, strict=True) if g is not None])
        return None, *(None if g is None else next(copies) for g in grads)


def _copies(tensors: list[tuple[Tensor, torch.dtype]]) -> Iterator[Tensor]:
    """Each in the dtype beside it, which is the same for all."""
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in tensors]
    if copies:
        torch._foreach_copy_(copies, [tensor for tensor, _ in tensors])
    return iter(copies)
