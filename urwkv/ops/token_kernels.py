"""LayerNorm of tokens, and of the squares of what is positive of them, in Triton: see `urwkv.ops.token_triton`.

Of a row x of C numbers, with s = x, or s = max(x, 0)^2 where SQUARED, and h = (s - mean) rstd:

    y = h weight + bias
    ds = rstd (g - mean(g) - h mean(g h)),  g = dy weight        dx = ds, or 2 max(x, 0) ds

A program takes `span` rows, ROWS at a time; a row lies within it, so its statistics are made of registers, again in
the backward pass. What is of a channel is read once, and its gradient summed, by each program in the order of rows.
"""

import triton
import triton.language as tl


@triton.jit
def _given(x, SQUARED: tl.constexpr):
    """What the norm is given."""
    if SQUARED:
        x = tl.maximum(x, 0.0)
        x = x * x
    return x


@triton.jit
def _standard(x, inside, eps, C: tl.constexpr, BLOCK: tl.constexpr, SQUARED: tl.constexpr):
    """h, (ROWS, BLOCK), zero beyond C; and rstd, (ROWS, 1)."""
    s = _given(x, SQUARED)
    away = s - tl.sum(s, 1, keep_dims=True) / C
    if BLOCK != C:
        away = tl.where(inside, away, 0.0)
    rstd = 1.0 / tl.sqrt_rn(tl.sum(away * away, 1, keep_dims=True) / C + eps)
    return away * rstd, rstd


@triton.jit
def forward(
    x_ptr, weight_ptr, bias_ptr, y_ptr, rows, span, eps,
    C: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, SQUARED: tl.constexpr,
):  # fmt: skip
    """y, in the dtype of its pointer."""
    channel = tl.arange(0, BLOCK)[None, :]
    inside = channel < C
    weight = tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    first = tl.program_id(0) * span
    for start in range(first, tl.minimum(first + span, rows), ROWS):
        row = start + tl.arange(0, ROWS)[:, None]
        there, at = (row < rows) & inside, row.to(tl.int64) * C + channel
        x = tl.load(x_ptr + at, mask=there, other=0.0).to(tl.float32)
        h, _ = _standard(x, inside, eps, C, BLOCK, SQUARED)
        tl.store(y_ptr + at, tl.fma(h, weight, bias).to(y_ptr.dtype.element_ty), mask=there)


@triton.jit
def backward(
    x_ptr, weight_ptr, dy_ptr, dx_ptr, parts, rows, span, eps,
    C: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, SQUARED: tl.constexpr,
):  # fmt: skip
    """dx, and each program's shares of dweight and dbias, (programs, 2, C)."""
    channel = tl.arange(0, BLOCK)[None, :]
    inside = channel < C
    weight = tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    dweight, dbias = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    first = tl.program_id(0) * span
    for start in range(first, tl.minimum(first + span, rows), ROWS):
        row = start + tl.arange(0, ROWS)[:, None]
        there, at = (row < rows) & inside, row.to(tl.int64) * C + channel
        x = tl.load(x_ptr + at, mask=there, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + at, mask=there, other=0.0).to(tl.float32)
        h, rstd = _standard(x, inside, eps, C, BLOCK, SQUARED)
        dweight, dbias = tl.fma(dy, h, dweight), dbias + dy
        g = dy * weight
        mean_g, mean_gh = tl.sum(g, 1, keep_dims=True) / C, tl.sum(g * h, 1, keep_dims=True) / C
        dx = (g - mean_g - h * mean_gh) * rstd
        if SQUARED:
            dx *= 2.0 * tl.maximum(x, 0.0)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=there)
    at = parts + tl.program_id(0) * 2 * C + tl.arange(0, BLOCK)
    inside = tl.arange(0, BLOCK) < C
    tl.store(at, tl.sum(dweight, 0), mask=inside)
    tl.store(at + C, tl.sum(dbias, 0), mask=inside)
