"""Two 1 x 1 convolutions and what stands around them, over the rows of channels_last maps, in Triton.

A row is a pixel. See `urwkv.ops.pair` for what is computed. The HIDDEN channels between the two convolutions are
never written: BLOCK of them at a time are made and used up. Products are of the maps' dtype and summed in float32, in
which all else is computed.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import gelu


@triton.jit
def pair(
    a_ptr, b_ptr, bias_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, scale_ptr, shift_ptr, y_ptr, rows,
    CIN: tl.constexpr, HIDDEN: tl.constexpr, COUT: tl.constexpr, FUSION: tl.constexpr, RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """ROWS of them a program. W1 is (HIDDEN, channels in), W2 (COUT, HIDDEN); biases, scale, shift are float32."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    there = row < rows
    c, o, j = tl.arange(0, CIN), tl.arange(0, COUT), tl.arange(0, BLOCK)
    a = tl.load(a_ptr + row * CIN + c, mask=there, other=0.0)
    b = tl.load(b_ptr + row * CIN + c, mask=there, other=0.0)
    WIDE: tl.constexpr = 2 * CIN if FUSION else CIN
    p = gelu(a.to(tl.float32) + tl.load(bias_ptr + c))
    if FUSION:
        q = gelu(b.to(tl.float32) + tl.load(bias_ptr + CIN + c)).to(a.dtype)
    else:
        p = b.to(tl.float32) + p * tl.load(scale_ptr + c) + tl.load(shift_ptr + c)
    p = p.to(a.dtype)
    sums = tl.zeros((ROWS, COUT), tl.float32)
    for start in range(0, HIDDEN, BLOCK):
        w1_at = w1_ptr + (start + j) * WIDE + c[:, None]
        h = tl.dot(p, tl.load(w1_at))
        if FUSION:
            h = tl.dot(q, tl.load(w1_at + CIN), h)
        h = gelu(h + tl.load(b1_ptr + start + j)).to(a.dtype)
        w2 = tl.load(w2_ptr + o * HIDDEN + (start + j)[:, None])
        sums = tl.dot(h, w2, sums)
    y = gelu(sums + tl.load(b2_ptr + o))
    if FUSION:
        y = y * tl.load(scale_ptr + o) + tl.load(shift_ptr + o)
    elif RESIDUAL:
        y += b.to(tl.float32)
    tl.store(y_ptr + row * COUT + o, y, mask=there)
