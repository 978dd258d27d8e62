"""Norm and GELU over the rows of a channels_last map, in Triton: see `urwkv.ops.norm_triton`, which launches them.

A map is N samples of P rows of C channels, its pixels; all pixels of a batch are one sample to BatchNorm. SHIFTED: a
number a channel is added first, the bias of the convolution that made the map. Sums are taken in float32, by blocks
of rows whose number follows from the shape alone, then over the blocks in their order: without atomics, so results
repeat. ORDER is 0: norm, 1: norm then GELU, 2: GELU then norm. With s the value that the norm is given and
away = s - mean,

    z = (rstd weight) away + bias,

and the gradient g of z reaches s, by its means over what shares the statistics, as

    ds = (rstd weight) g - rstd mean(weight g) - rstd^2 mean(weight g away rstd) away.

What stands before g and away, and beside them, is of a channel alone, and made once a program; where GELU comes last
or not at all, away = x - (mean - shift). Nothing else cancels, however far the mean is from zero.
Samples share weight and bias, or their own lie `weight_n` numbers apart. BESIDE is 0: no other map, 1: another is
added last, 2: another's channels come first in rows of 2 C, and the norm's after them.

A program takes `span` rows, DEPTH tiles of ROWS x BLOCK numbers at a time, which it reads before it computes. EVEN:
P is a multiple of DEPTH ROWS, and C of BLOCK, so that no tile reaches beyond the map.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import gelu, gelu_and_slope, gelu_slope, load, store

NORM: tl.constexpr = tl.constexpr(0)
NORM_GELU: tl.constexpr = tl.constexpr(1)
GELU_NORM: tl.constexpr = tl.constexpr(2)
ADDED: tl.constexpr = tl.constexpr(1)
FIRST: tl.constexpr = tl.constexpr(2)


@triton.jit
def _place(C, BLOCK: tl.constexpr):
    """Which block of rows, which sample, which channels: neighbouring programs take the channels of the same rows."""
    across = tl.cdiv(C, BLOCK)
    channel = (tl.program_id(0) % across) * BLOCK + tl.arange(0, BLOCK)
    return tl.program_id(0) // across, tl.program_id(1), channel


@triton.jit
def _tiles(at, row, first, last, stride, channel, inside,
           EVEN: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr):  # fmt: skip
    """The next DEPTH tiles of a map whose block begins at `at` with row `first`."""
    step = tl.arange(0, ROWS)[:, None]
    tiles = ()
    for i in tl.static_range(DEPTH):
        there = (row + i * ROWS + step < last) & inside
        tile = load(at + ((row - first + i * ROWS) * stride + step * stride + channel), there, EVEN)
        tiles = tiles + (tile,)
    return tiles


@triton.jit
def _shift(shift_ptr, channel, inside, SHIFTED: tl.constexpr, EVEN: tl.constexpr):
    """What is added to the map before all else, by channel."""
    return load(shift_ptr + channel, inside, EVEN) if SHIFTED else 0.0


@triton.jit
def _line(
    shift_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, n, C, weight_n, channel, inside,
    SHIFTED: tl.constexpr, ORDER: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """By channel: the shift, what `_away` takes off, 1 / deviation, that times weight, and bias.

    Taken off is the mean, and with it the shift where no GELU stands between them.
    """
    shift = _shift(shift_ptr, channel, inside, SHIFTED, EVEN)
    mean = load(mean_ptr + n * C + channel, inside, EVEN)
    center = mean if ORDER == GELU_NORM else mean - shift
    rstd = load(rstd_ptr + n * C + channel, inside, EVEN)
    weight = load(weight_ptr + n * weight_n + channel, inside, EVEN)
    return shift, center, rstd, rstd * weight, load(bias_ptr + n * weight_n + channel, inside, EVEN)


@triton.jit
def _away(x, shift, center, ORDER: tl.constexpr):
    """What the norm is given, less its mean."""
    if ORDER == GELU_NORM:
        x = gelu(x + shift)
    return x - center


@triton.jit
def _of_group(x, BLOCK: tl.constexpr, GROUP: tl.constexpr):
    """The sum over its group, for each channel."""
    if GROUP > 1:
        sums = tl.sum(tl.reshape(x, (BLOCK // GROUP, GROUP)), 1, keep_dims=True)
        x = tl.reshape(tl.broadcast_to(sums, (BLOCK // GROUP, GROUP)), (BLOCK,))
    return x


@triton.jit
def moments(
    x_ptr, shift_ptr, parts, P, C, span,
    SHIFTED: tl.constexpr, ORDER: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Of each block of `span` rows: its mean, and the squares about it, (N, blocks, 2, C).

    Summed about the block's first row, so that a mean far from zero does not cancel the squares.
    """
    block, n, channel = _place(C, BLOCK)
    inside = channel < C
    first = block * span
    last = tl.minimum(first + span, P)
    begin = x_ptr + (n.to(tl.int64) * P + first) * C
    shift = _shift(shift_ptr, channel, inside, SHIFTED, EVEN)
    about = _away(load(begin + channel, inside, EVEN), shift, 0.0, ORDER)
    sums, squares = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for row in range(first, last, DEPTH * ROWS):
        xs = _tiles(begin, row, first, last, C, channel, inside, EVEN, ROWS, DEPTH)
        for i in tl.static_range(DEPTH):
            away = _away(xs[i], shift, about, ORDER)
            if not EVEN:
                away = tl.where((row + i * ROWS + tl.arange(0, ROWS)[:, None] < last) & inside, away, 0.0)
            sums += away
            squares = tl.fma(away, away, squares)
    count = (last - first).to(tl.float32)
    sum_ = tl.sum(sums, 0)
    if ORDER != GELU_NORM:
        about += shift
    at = parts + (n * tl.cdiv(P, span) + block) * 2 * C + channel
    tl.store(at, about + sum_ / count, mask=inside)
    tl.store(at + C, tl.maximum(tl.sum(squares, 0) - sum_ * sum_ / count, 0.0), mask=inside)


@triton.jit
def finish_moments(
    parts, mean_ptr, rstd_ptr, running_mean, running_var, seen, P, C, span, eps, momentum,
    RUNNING: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / sqrt(variance + eps), (N, C); the running ones move as torch moves them, `seen` counts batches."""
    _, n, channel = _place(C, BLOCK)
    inside = channel < C
    blocks = tl.cdiv(P, span)
    begin = parts + n * blocks * 2 * C + channel
    about = tl.load(begin, mask=inside, other=0.0)
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for b in range(0, blocks, ROWS):
        block = b + tl.arange(0, ROWS)[:, None]
        there = (block < blocks) & inside
        part = tl.load(begin + block * 2 * C, mask=there, other=0.0)
        total += tl.where(there, (part - about) * tl.minimum(span, P - block * span).to(tl.float32), 0.0)
    own = about + tl.sum(total, 0) / P
    mean = _of_group(own, BLOCK, GROUP) / GROUP
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for b in range(0, blocks, ROWS):
        block = b + tl.arange(0, ROWS)[:, None]
        there = (block < blocks) & inside
        away = tl.where(there, tl.load(begin + block * 2 * C, mask=there, other=0.0) - mean, 0.0)
        total += tl.load(begin + block * 2 * C + C, mask=there, other=0.0)
        total += away * away * tl.minimum(span, P - block * span).to(tl.float32)
    squares = tl.sum(total, 0)
    squares = _of_group(squares, BLOCK, GROUP)
    tl.store(mean_ptr + n * C + channel, mean, mask=inside)
    tl.store(rstd_ptr + n * C + channel, 1.0 / tl.sqrt_rn(squares / (P * GROUP) + eps), mask=inside)
    if RUNNING:
        old = tl.load(running_mean + channel, mask=inside, other=0.0)
        tl.store(running_mean + channel, old + momentum * (mean - old), mask=inside)
        old = tl.load(running_var + channel, mask=inside, other=0.0)
        tl.store(running_var + channel, old + momentum * (squares / (P - 1) - old), mask=inside)
        if tl.program_id(0) == 0:
            tl.store(seen, tl.load(seen) + 1)


@triton.jit
def apply(
    x_ptr, shift_ptr, beside_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, y_ptr, P, C, weight_n, span,
    SHIFTED: tl.constexpr, BESIDE: tl.constexpr, ORDER: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Norm and GELU of the map, in the order that is asked for; and the map BESIDE, added or before it."""
    block, n, channel = _place(C, BLOCK)
    inside = channel < C
    first = block * span
    last = tl.minimum(first + span, P)
    begin = n.to(tl.int64) * P + first
    y_row = 2 * C if BESIDE == FIRST else C
    shift, center, _, scale, bias = _line(
        shift_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, n, C, weight_n, channel, inside, SHIFTED, ORDER, EVEN
    )
    step = tl.arange(0, ROWS)[:, None]
    for row in range(first, last, DEPTH * ROWS):
        xs = _tiles(x_ptr + begin * C, row, first, last, C, channel, inside, EVEN, ROWS, DEPTH)
        if BESIDE:
            others = _tiles(beside_ptr + begin * C, row, first, last, C, channel, inside, EVEN, ROWS, DEPTH)
        for i in tl.static_range(DEPTH):
            z = tl.fma(_away(xs[i], shift, center, ORDER), scale, bias)
            if ORDER == NORM_GELU:
                z = gelu(z)
            if BESIDE == ADDED:
                z += others[i]
            at = y_ptr + begin * y_row + ((row - first + i * ROWS) * y_row + step * y_row + channel)
            there = (row + i * ROWS + step < last) & inside
            if BESIDE == FIRST:
                store(at, others[i], there, EVEN)
                at += C
            store(at, z, there, EVEN)


@triton.jit
def sums(
    x_ptr, shift_ptr, dy_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, parts, P, C, weight_n, dy_row, span,
    SHIFTED: tl.constexpr, ORDER: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Of each block of `span` rows: the sums of g and of g away rstd, (N, blocks, 2, C)."""
    block, n, channel = _place(C, BLOCK)
    inside = channel < C
    first = block * span
    last = tl.minimum(first + span, P)
    begin = n.to(tl.int64) * P + first
    shift, center, rstd, scale, bias = _line(
        shift_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, n, C, weight_n, channel, inside, SHIFTED, ORDER, EVEN
    )
    g_sum, away_sum = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for row in range(first, last, DEPTH * ROWS):
        xs = _tiles(x_ptr + begin * C, row, first, last, C, channel, inside, EVEN, ROWS, DEPTH)
        gs = _tiles(dy_ptr + begin * dy_row, row, first, last, dy_row, channel, inside, EVEN, ROWS, DEPTH)
        for i in tl.static_range(DEPTH):
            away = _away(xs[i], shift, center, ORDER)
            g = gs[i]
            if ORDER == NORM_GELU:
                g = g * gelu_slope(tl.fma(away, scale, bias))
            g_sum += g
            away_sum = tl.fma(g, away, away_sum)
    at = parts + (n * tl.cdiv(P, span) + block) * 2 * C + channel
    tl.store(at, tl.sum(g_sum, 0), mask=inside)
    tl.store(at + C, tl.sum(away_sum, 0) * rstd, mask=inside)


@triton.jit
def finish_sums(
    parts, weight_ptr, dwb, means, P, C, weight_n, span,
    GROUP: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The samples' shares of dweight and dbias; the means of weight g away rstd and of weight g: (N, 2, C) each."""
    _, n, channel = _place(C, BLOCK)
    inside = channel < C
    weight = tl.load(weight_ptr + n * weight_n + channel, mask=inside, other=0.0).to(tl.float32)
    blocks = tl.cdiv(P, span)
    gs, ghs = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for b in range(0, blocks, ROWS):
        block = b + tl.arange(0, ROWS)[:, None]
        there = (block < blocks) & inside
        at = parts + (n * blocks + block) * 2 * C + channel
        gs += tl.load(at, mask=there, other=0.0)
        ghs += tl.load(at + C, mask=there, other=0.0)
    g, gh = tl.sum(gs, 0), tl.sum(ghs, 0)
    at = n * 2 * C + channel
    tl.store(dwb + at, gh, mask=inside)
    tl.store(dwb + at + C, g, mask=inside)
    tl.store(means + at, _of_group(weight * gh, BLOCK, GROUP) / (P * GROUP), mask=inside)
    tl.store(means + at + C, _of_group(weight * g, BLOCK, GROUP) / (P * GROUP), mask=inside)


@triton.jit
def apply_backward(
    x_ptr, shift_ptr, dy_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, means, dx_ptr, parts, P, C, weight_n, dy_row,
    span,
    SHIFTED: tl.constexpr, SUMMED: tl.constexpr, ORDER: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """The gradient of the map, and if SUMMED its sums over each block of `span` rows, (N, blocks, C)."""
    block, n, channel = _place(C, BLOCK)
    inside = channel < C
    first = block * span
    last = tl.minimum(first + span, P)
    begin = n.to(tl.int64) * P + first
    shift, center, rstd, scale, bias = _line(
        shift_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, n, C, weight_n, channel, inside, SHIFTED, ORDER, EVEN
    )
    # negative, for to Triton a change of sign is a subtraction from 0
    tilt = -rstd * rstd * load(means + n * 2 * C + channel, inside, EVEN)
    level = -rstd * load(means + n * 2 * C + C + channel, inside, EVEN)
    step = tl.arange(0, ROWS)[:, None]
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for row in range(first, last, DEPTH * ROWS):
        xs = _tiles(x_ptr + begin * C, row, first, last, C, channel, inside, EVEN, ROWS, DEPTH)
        gs = _tiles(dy_ptr + begin * dy_row, row, first, last, dy_row, channel, inside, EVEN, ROWS, DEPTH)
        for i in tl.static_range(DEPTH):
            g = gs[i]
            if ORDER == GELU_NORM:
                s, slope = gelu_and_slope(xs[i] + shift)
                away = s - center
            else:
                away = xs[i] - center
            if ORDER == NORM_GELU:
                g = g * gelu_slope(tl.fma(away, scale, bias))
            dx = tl.fma(g, scale, tl.fma(away, tilt, level))
            if ORDER == GELU_NORM:
                dx = dx * slope
            there = (row + i * ROWS + step < last) & inside
            store(dx_ptr + begin * C + ((row - first + i * ROWS) * C + step * C + channel), dx, there, EVEN)
            if SUMMED:
                total += dx if EVEN else tl.where(there, dx, 0.0)
    if SUMMED:
        tl.store(parts + (n * tl.cdiv(P, span) + block).to(tl.int64) * C + channel, tl.sum(total, 0), mask=inside)
