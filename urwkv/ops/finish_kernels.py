"""What follows a convolution, over the rows of a channels_last map, in Triton: see `urwkv.ops.finish`.

A row is a pixel of C channels. A program takes WIDTH channels of ROWS of them; neighbouring programs take the others.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import gelu


@triton.jit
def finish(
    x_ptr, bias_ptr, scale_ptr, shift_ptr, beside_ptr, y_ptr, rows,
    C: tl.constexpr, GELU: tl.constexpr, LINE: tl.constexpr, BESIDE: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """All in float32, as bias, scale and shift are given, (C,) each."""
    across: tl.constexpr = (C + WIDTH - 1) // WIDTH
    channel = tl.program_id(0) % across * WIDTH + tl.arange(0, WIDTH)
    first = tl.program_id(0) // across * ROWS
    row = tl.arange(0, ROWS)[:, None]
    there = (first + row < rows) & (channel < C)
    begin, at = first.to(tl.int64) * C, row * C + channel
    x = tl.load(x_ptr + begin + at, mask=there, other=0.0).to(tl.float32)
    y = x + tl.load(bias_ptr + channel, mask=channel < C, other=0.0)
    if GELU:
        y = gelu(y)
    if LINE:
        scale = tl.load(scale_ptr + channel, mask=channel < C, other=0.0)
        y = y * scale + tl.load(shift_ptr + channel, mask=channel < C, other=0.0)
    if BESIDE:
        y += tl.load(beside_ptr + begin + at, mask=there, other=0.0).to(tl.float32)
    tl.store(y_ptr + begin + at, y.to(y_ptr.dtype.element_ty), mask=there)
