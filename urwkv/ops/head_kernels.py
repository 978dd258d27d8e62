"""A 1 x 1 convolution to few classes, over the rows of a channels_last map, in Triton: see `urwkv.ops.head_triton`.

Of a row x of C numbers, a pixel, and of the gradient dy of its classes, all summed in float32:

    y_k = sum_c w_kc x_c + b_k        dx_c = sum_k dy_k w_kc        dw_kc = sum dy_k x_c        db_k = sum dy_k

the last two over all rows: by each program over its own, in their order, and without atomics, so that results repeat.

A program takes `span` rows, and reads several times 16 bytes a thread before it computes. Forward that is one tile of
ROWS x BLOCK numbers, whose sums over C change threads once, to be written. Backward it is DEPTH tiles, small ones: a
thread holds a sum for each of its places in a tile, and where a tile has fewer rows than threads, Triton has each
thread read the dy that it needs. EVEN: the rows are a multiple of those that are read at once, and C is BLOCK, so
that nothing reaches beyond the map.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import load, store


@triton.jit
def _place(rows, span):
    """The program's first row, and how many rows it has."""
    first = tl.program_id(0).to(tl.int64) * span
    return first, tl.minimum(rows - first, span).to(tl.int32)


@triton.jit
def _weights(weight_ptr, channel, C: tl.constexpr, CLASSES: tl.constexpr):
    """Of each class, (1, BLOCK), 0 beyond C."""
    weights = ()
    for k in tl.static_range(CLASSES):
        weights = weights + (tl.load(weight_ptr + k * C + channel, mask=channel < C, other=0.0).to(tl.float32),)
    return weights


@triton.jit
def _tiles(x_ptr, row, count, channel, C: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, EVEN: tl.constexpr):
    """The next DEPTH tiles, from `row` on, as float32; 0 where there is nothing."""
    tiles = ()
    for i in tl.static_range(DEPTH):
        one = row + i * ROWS + tl.arange(0, ROWS)[:, None]
        tiles = tiles + (load(x_ptr + (one * C + channel), (one < count) & (channel < C), EVEN),)
    return tiles


@triton.jit
def forward(
    x_ptr, weight_ptr, bias_ptr, y_ptr, rows, span,
    C: tl.constexpr, CLASSES: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """y, (rows, CLASSES)."""
    first, count = _place(rows, span)
    channel = tl.arange(0, BLOCK)[None, :]
    weights, biases = _weights(weight_ptr, channel, C, CLASSES), ()
    for k in tl.static_range(CLASSES):
        biases = biases + (tl.load(bias_ptr + k).to(tl.float32),)
    x_ptr, y_ptr = x_ptr + first * C, y_ptr + first * CLASSES
    for row in range(0, count, ROWS):
        (x,) = _tiles(x_ptr, row, count, channel, C, ROWS, 1, EVEN)
        at = row + tl.arange(0, ROWS)
        for k in tl.static_range(CLASSES):
            store(y_ptr + (at * CLASSES + k), tl.sum(x * weights[k], 1) + biases[k], at < count, EVEN)


@triton.jit
def backward(
    x_ptr, weight_ptr, dy_ptr, dx_ptr, parts, rows, span,
    C: tl.constexpr, CLASSES: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """dx, and each program's shares of dw, (CLASSES, C), and after them of db: (programs, CLASSES (C + 1))."""
    first, count = _place(rows, span)
    channel = tl.arange(0, BLOCK)[None, :]
    weights, dws, dbs = _weights(weight_ptr, channel, C, CLASSES), (), ()
    for _ in tl.static_range(CLASSES):
        dws = dws + (tl.zeros((ROWS, BLOCK), tl.float32),)
        dbs = dbs + (tl.zeros((ROWS, 1), tl.float32),)
    x_ptr, dy_ptr, dx_ptr = x_ptr + first * C, dy_ptr + first * CLASSES, dx_ptr + first * C
    for row in range(0, count, DEPTH * ROWS):
        xs = _tiles(x_ptr, row, count, channel, C, ROWS, DEPTH, EVEN)
        dys = ()
        for i in tl.static_range(DEPTH * CLASSES):
            one = row + i // CLASSES * ROWS + tl.arange(0, ROWS)[:, None]
            at = dy_ptr + (one * CLASSES + i % CLASSES)
            dys = dys + ((tl.load(at) if EVEN else tl.load(at, mask=one < count, other=0.0)).to(tl.float32),)
        for i in tl.static_range(DEPTH):
            one = row + i * ROWS + tl.arange(0, ROWS)[:, None]
            dx = dys[i * CLASSES] * weights[0]
            for k in tl.static_range(1, CLASSES):
                dx = tl.fma(dys[i * CLASSES + k], weights[k], dx)
            store(dx_ptr + (one * C + channel), dx, (one < count) & (channel < C), EVEN)
            dws_before, dbs_before, dws, dbs = dws, dbs, (), ()
            for k in tl.static_range(CLASSES):
                dy = dys[i * CLASSES + k]
                dws = dws + (tl.fma(dy, xs[i], dws_before[k]),)
                dbs = dbs + (dbs_before[k] + dy,)
    parts += tl.program_id(0) * (CLASSES * (C + 1))
    for k in tl.static_range(CLASSES):
        tl.store(parts + k * C + channel, tl.sum(dws[k], 0, keep_dims=True), mask=channel < C)
        tl.store(parts + CLASSES * C + k, tl.sum(dbs[k]))
