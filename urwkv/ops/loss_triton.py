"""What the loss of one class sums over pixels, on a GPU, as an operator: `fedurwkv::pixel_sums`.

Importing this needs Triton. Logits and masks are read once forward and once backward; torch's operations each read
and write maps in float32, twenty times.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from urwkv.ops import loss_kernels as kernels

BLOCK = 1024
"""Pixels of a step: of each thread of four warps 16 bytes of logits in 16 bits."""
PROGRAMS = 2048
SUMS = kernels.SUMS.value


def cut(batch: int, pixels: int) -> tuple[int, int]:
    """Programs an image, and pixels a program."""
    batch, pixels = int(batch), int(pixels)  # numbers, also where torch traces sizes as symbols
    span = triton.cdiv(pixels, max(1, min(triton.cdiv(pixels, BLOCK), PROGRAMS // max(1, batch))) * BLOCK) * BLOCK
    return triton.cdiv(pixels, span), span


@torch.library.custom_op("fedurwkv::pixel_sums", mutates_args=())
def pixel_sums_triton(logits: Tensor, masks: Tensor) -> Tensor:
    """Of each image sum(p t), sum(p), sum(t) and the sum of the cross entropies, in float32; once differentiable.

    Args:
        logits: (B, 1, H, W) with a pixel, any floating dtype but float64.
        masks: (B, H, W), integers, above 0 where the foreground is.

    Returns:
        (B, 4), float32.
    """
    logits, masks, pixels = logits.contiguous(), masks.contiguous(), logits[0].numel()
    programs, span = cut(len(logits), pixels)
    parts = torch.empty(len(logits), programs, SUMS, dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]  # where Triton launches
        kernels.sums[programs, len(logits)](logits, masks, parts, pixels, span, BLOCK=BLOCK, num_warps=4)
    return parts.sum(1)


@pixel_sums_triton.register_fake
def _(logits: Tensor, masks: Tensor) -> Tensor:
    return logits.new_empty((logits.shape[0], SUMS), dtype=torch.float32)


@torch.library.custom_op("fedurwkv::pixel_sums_backward", mutates_args=())
def _backward(logits: Tensor, masks: Tensor, dsums: Tensor) -> Tensor:
    logits, masks, dsums, pixels = logits.contiguous(), masks.contiguous(), dsums.contiguous(), logits[0].numel()
    dlogits = torch.empty_like(logits)
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        kernels.backward[triton.cdiv(pixels, BLOCK), len(logits)](
            logits, masks, dsums, dlogits, pixels, BLOCK=BLOCK, num_warps=4
        )
    return dlogits


@_backward.register_fake
def _(logits: Tensor, masks: Tensor, dsums: Tensor) -> Tensor:
    return torch.empty_like(logits.contiguous())


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, dsums: Tensor) -> tuple[Tensor, None]:
    dlogits: Tensor = _backward(*ctx.saved_tensors, dsums)
    return dlogits, None


pixel_sums_triton.register_autograd(_differentiate, setup_context=_keep)
