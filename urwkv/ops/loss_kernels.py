"""What the loss of one class sums over the pixels of each image, in Triton: see `urwkv.ops.loss_triton`.

With z a logit, t whether the pixel is foreground, e = exp(-|z|) and p = sigmoid(z):

    p = 1 / (1 + e) of a positive z, else e / (1 + e)        entropy = max(z, 0) - z t + log(1 + e)
    dp/dz = p (1 - p)                                        d entropy/dz = p - t

A program takes `span` pixels of an image, BLOCK at a time.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import invert, widen

SUMS: tl.constexpr = tl.constexpr(4)
"""Of an image, in this order: sum(p t), sum(p), sum(t) and sum(entropy)."""


@triton.jit
def _pixels(z_at, mask_at, there):
    """z, and 1 where the pixel is foreground, 0 elsewhere."""
    z = widen(tl.load(z_at, mask=there, other=0.0))
    return z, tl.where(tl.load(mask_at, mask=there, other=0) > 0, 1.0, 0.0)


@triton.jit
def _probabilities(z):
    """e, p and 1 - p, each as exact where it is small."""
    e = tl.exp(-tl.abs(z))
    near = invert(1.0 + e)
    far = e * near
    return e, tl.where(z < 0, far, near), tl.where(z < 0, near, far)


@triton.jit
def sums(z_ptr, mask_ptr, parts, pixels, span, BLOCK: tl.constexpr):
    """Of each block of `span` pixels, (B, blocks, SUMS)."""
    n, block = tl.program_id(1).to(tl.int64), tl.program_id(0)
    place, first = tl.arange(0, BLOCK), block * span
    overlap, predicted = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    true, entropy = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for begin in range(first, tl.minimum(first + span, pixels), BLOCK):
        there = begin + place < pixels
        z, t = _pixels(z_ptr + n * pixels + begin + place, mask_ptr + n * pixels + begin + place, there)
        e, p, _ = _probabilities(z)
        overlap = tl.fma(p, t, overlap)
        predicted += tl.where(there, p, 0.0)
        true += t
        entropy += tl.where(there, tl.fma(-z, t, tl.maximum(z, 0.0, tl.PropagateNan.ALL) + tl.log(1.0 + e)), 0.0)
    at = parts + (n * tl.num_programs(0) + block) * SUMS
    tl.store(at, tl.sum(overlap, 0))
    tl.store(at + 1, tl.sum(predicted, 0))
    tl.store(at + 2, tl.sum(true, 0))
    tl.store(at + 3, tl.sum(entropy, 0))


@triton.jit
def backward(z_ptr, mask_ptr, dsums_ptr, dz_ptr, pixels, BLOCK: tl.constexpr):
    """The gradient of the logits, by that of each image's sums, (B, SUMS)."""
    n = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = place < pixels
    z, t = _pixels(z_ptr + n * pixels + place, mask_ptr + n * pixels + place, there)
    doverlap, dpredicted = tl.load(dsums_ptr + n * SUMS), tl.load(dsums_ptr + n * SUMS + 1)
    dentropy = tl.load(dsums_ptr + n * SUMS + 3)
    _, p, rest = _probabilities(z)
    wrong = tl.where(t > 0, -rest, p)  # p - t
    dz = tl.fma(tl.fma(t, doverlap, dpredicted), p * rest, dentropy * wrong)
    tl.store(dz_ptr + n * pixels + place, dz.to(dz_ptr.dtype.element_ty), mask=there)
