"""Max pooling of 2 x 2 pixels of a channels_last map, in Triton: see `urwkv.ops.pool_triton`, which launches it.

A program takes BLOCK numbers of a row of windows: place 0 to W / 2 of a window, times the C channels. Window j of
channel c lies at j C + c in that row, and its first pixel at 2 j C + c in the map's.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import widen
from urwkv.ops.triton_sums import now

NAN = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def _place(H, W, C: tl.constexpr, BLOCK: tl.constexpr):
    """Which image, which row of windows and where in it; and where in the map the windows' first pixels lie."""
    n, i = tl.program_id(2).to(tl.int64), tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    return n, i, at, (n * H + 2 * i) * W * C, at + at // C * C


@triton.jit
def forward(x_ptr, y_ptr, H, W, C: tl.constexpr, BLOCK: tl.constexpr):
    """The largest of each window; what is not a number is larger than all that is."""
    n, i, at, begin, first = _place(H, W, C, BLOCK)
    there = at < W // 2 * C
    above, below = x_ptr + begin, x_ptr + begin + W * C
    a = tl.load(above + first, mask=there)
    b = tl.load(above + C + first, mask=there)
    c = tl.load(below + first, mask=there)
    d = tl.load(below + C + first, mask=there)
    y = tl.maximum(tl.maximum(a, b, NAN), tl.maximum(c, d, NAN), NAN)
    tl.store(y_ptr + (n * (H // 2) + i) * (W // 2) * C + at, y.to(y_ptr.dtype.element_ty), mask=there)


@triton.jit
def _beats(x, y):
    """Whether torch takes x, which comes after y."""
    x = x.to(tl.float32)
    return (x > y.to(tl.float32)) | (x != x)


@triton.jit
def _other(beside_ptr, there, BESIDE: tl.constexpr):
    """The other gradient that a pixel has, if there is one."""
    return widen(tl.load(beside_ptr, mask=there, other=0.0)) if BESIDE else 0.0


@triton.jit
def _give(dx_ptr, g, other, there, BESIDE: tl.constexpr):
    if BESIDE:
        g = widen(g) + other
    tl.store(dx_ptr, g.to(dx_ptr.dtype.element_ty), mask=there)


@triton.jit
def backward(
    x_ptr, dy_ptr, beside_ptr, dx_ptr, H, W, beside_row, BESIDE: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr
):
    """The gradient of each window to the pixel that was its largest; 0 to the others, and beside whole windows.

    BESIDE: with it another gradient of the map, whose pixels lie `beside_row` numbers apart; the sum is rounded once.
    """
    n, i, at, begin, first = _place(H, W, C, BLOCK)
    down = 2 * i + 1 < H
    whole = (at < W // 2 * C) & down
    above, below = x_ptr + begin, x_ptr + begin + W * C
    a = tl.load(above + first, mask=whole, other=0.0)
    b = tl.load(above + C + first, mask=whole, other=0.0)
    c = tl.load(below + first, mask=whole, other=0.0)
    d = tl.load(below + C + first, mask=whole, other=0.0)
    g = tl.load(dy_ptr + (n * (H // 2) + i) * (W // 2) * C + at, mask=whole, other=0.0)
    beside = beside_ptr + (n * H + 2 * i) * W * beside_row + (at + at // C * (2 * beside_row - C))
    under = beside + W * beside_row
    there, right = at < (W + 1) // 2 * C, at < W // 2 * C
    e = _other(beside, there, BESIDE)  # all read before anything is written, for nobody says that the maps are apart
    f = _other(beside + beside_row, right, BESIDE)
    u = _other(under, there & down, BESIDE)
    v = _other(under + beside_row, whole, BESIDE)
    taken = _beats(b, a)
    best, which = tl.where(taken, b, a), tl.where(taken, 1.0, 0.0)
    taken = _beats(c, best)
    best, which = tl.where(taken, c, best), tl.where(taken, 2.0, which)
    which = now(tl.where(_beats(d, best), 3.0, which))
    nothing = tl.zeros_like(g)
    above, below = dx_ptr + begin + first, dx_ptr + begin + W * C + first
    _give(above, tl.where(which == 0, g, nothing), e, there, BESIDE)
    _give(above + C, tl.where(which == 1, g, nothing), f, right, BESIDE)
    _give(below, tl.where(which == 2, g, nothing), u, there & down, BESIDE)
    _give(below + C, tl.where(which == 3, g, nothing), v, whole, BESIDE)
