"""Norm and GELU over the rows of a channels_last map, in Triton: see `urwkv.ops.norm_triton`, which launches them.

A map is N samples of P rows of C channels, its pixels; all pixels of a batch are one sample to BatchNorm. SHIFTED: a
number a channel is added first, the bias of the convolution that made the map. Sums are taken in float32, by blocks
of rows whose number follows from the shape alone, then over the blocks in their order: without atomics, so results
repeat. ORDER is 0: norm, 1: norm then GELU, 2: GELU then norm. With s the value that the norm is given,
h = (s - mean) rstd and z = h weight + bias, the gradient g of z reaches s as

    ds = rstd (weight g - mean(weight g) - h mean(weight g h)),

its means over what shares the statistics. Samples share weight and bias, or their own lie `weight_n` numbers apart.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import gelu, normal

NORM: tl.constexpr = tl.constexpr(0)
NORM_GELU: tl.constexpr = tl.constexpr(1)
GELU_NORM: tl.constexpr = tl.constexpr(2)


@triton.jit
def _slope(x):
    """The derivative of GELU."""
    share, density = normal(x)
    return share + x * density


@triton.jit
def _shift(shift_ptr, channel, inside, SHIFTED: tl.constexpr):
    """What is added to the map before all else, by channel."""
    return tl.load(shift_ptr + channel, mask=inside, other=0.0).to(tl.float32) if SHIFTED else 0.0


@triton.jit
def _given(x, ORDER: tl.constexpr):
    """What the norm is given."""
    if ORDER == GELU_NORM:
        x = gelu(x)
    return x


@triton.jit
def _place(C, BLOCK: tl.constexpr):
    """Which block of rows, which sample, which channels: neighbouring programs take the channels of the same rows."""
    across = tl.cdiv(C, BLOCK)
    channel = (tl.program_id(0) % across) * BLOCK + tl.arange(0, BLOCK)
    return tl.program_id(0) // across, tl.program_id(1), channel


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
    SHIFTED: tl.constexpr, ORDER: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Of each block of `span` rows: its mean, and the squares about it, (N, blocks, 2, C).

    Summed about the block's first row, so that a mean far from zero does not cancel the squares.
    """
    block, n, channel = _place(C, BLOCK)
    inside = channel < C
    first = block * span
    last = tl.minimum(first + span, P)
    begin = x_ptr + (n.to(tl.int64) * P + first) * C
    shift = _shift(shift_ptr, channel, inside, SHIFTED)
    about = _given(tl.load(begin + channel, mask=inside, other=0.0).to(tl.float32) + shift, ORDER)
    within = tl.arange(0, ROWS)[:, None] * C + channel
    sums, squares = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for row in range(first, last, ROWS):
        there = (row + tl.arange(0, ROWS)[:, None] < last) & inside
        x = tl.load(x_ptr + (n.to(tl.int64) * P + row) * C + within, mask=there, other=0.0).to(tl.float32)
        away = tl.where(there, _given(x + shift, ORDER) - about, 0.0)
        sums += away
        squares += away * away
    count = (last - first).to(tl.float32)
    sum_ = tl.sum(sums, 0)
    at = parts + (n * tl.cdiv(P, span) + block) * 2 * C + channel
    tl.store(at, about + sum_ / count, mask=inside)
    tl.store(at + C, tl.maximum(tl.sum(squares, 0) - sum_ * sum_ / count, 0.0), mask=inside)


@triton.jit
def finish_moments(
    parts, mean_ptr, rstd_ptr, running_mean, running_var, P, C, span, eps, momentum,
    RUNNING: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / sqrt(variance + eps), (N, C); the running ones move as torch moves them."""
    _, n, channel = _place(C, BLOCK)
    inside = channel < C
    blocks = tl.cdiv(P, span)
    total = tl.zeros((BLOCK,), tl.float32)
    for b in range(0, blocks, ROWS):
        block = b + tl.arange(0, ROWS)[:, None]
        part = tl.load(parts + (n * blocks + block) * 2 * C + channel, mask=(block < blocks) & inside, other=0.0)
        total += tl.sum(part * tl.minimum(span, P - block * span).to(tl.float32), 0)
    own = total / P
    mean = _of_group(own, BLOCK, GROUP) / GROUP
    squares = tl.zeros((BLOCK,), tl.float32)
    for b in range(0, blocks, ROWS):
        block = b + tl.arange(0, ROWS)[:, None]
        there = (block < blocks) & inside
        at = parts + (n * blocks + block) * 2 * C + channel
        away = tl.where(there, tl.load(at, mask=there, other=0.0) - mean, 0.0)
        count = tl.minimum(span, P - block * span).to(tl.float32)
        squares += tl.sum(tl.load(at + C, mask=there, other=0.0) + away * away * count, 0)
    squares = _of_group(squares, BLOCK, GROUP)
    tl.store(mean_ptr + n * C + channel, mean, mask=inside)
    tl.store(rstd_ptr + n * C + channel, 1.0 / tl.sqrt_rn(squares / (P * GROUP) + eps), mask=inside)
    if RUNNING:
        old = tl.load(running_mean + channel, mask=inside, other=0.0)
        tl.store(running_mean + channel, old + momentum * (mean - old), mask=inside)
        old = tl.load(running_var + channel, mask=inside, other=0.0)
        tl.store(running_var + channel, old + momentum * (squares / (P - 1) - old), mask=inside)


@triton.jit
def apply(
    x_ptr, shift_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, y_ptr, P, C, weight_n,
    SHIFTED: tl.constexpr, ORDER: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Norm and GELU of the map, in the order that is asked for."""
    block, n, channel = _place(C, BLOCK)
    inside = channel < C
    mean = tl.load(mean_ptr + n * C + channel, mask=inside, other=0.0)
    rstd = tl.load(rstd_ptr + n * C + channel, mask=inside, other=0.0)
    weight = tl.load(weight_ptr + n * weight_n + channel, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + n * weight_n + channel, mask=inside, other=0.0).to(tl.float32)
    row = block * ROWS + tl.arange(0, ROWS)[:, None]
    there = (row < P) & inside
    begin = (n.to(tl.int64) * P + block * ROWS) * C
    within = tl.arange(0, ROWS)[:, None] * C + channel
    x = tl.load(x_ptr + begin + within, mask=there, other=0.0).to(tl.float32)
    x += _shift(shift_ptr, channel, inside, SHIFTED)
    z = (_given(x, ORDER) - mean) * rstd * weight + bias
    if ORDER == NORM_GELU:
        z = gelu(z)
    tl.store(y_ptr + begin + within, z.to(y_ptr.dtype.element_ty), mask=there)


@triton.jit
def sums(
    x_ptr, shift_ptr, dy_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, parts, P, C, weight_n, dy_row, span,
    SHIFTED: tl.constexpr, ORDER: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Of each block of `span` rows: the sums of g and of g h, (N, blocks, 2, C)."""
    block, n, channel = _place(C, BLOCK)
    inside = channel < C
    mean = tl.load(mean_ptr + n * C + channel, mask=inside, other=0.0)
    rstd = tl.load(rstd_ptr + n * C + channel, mask=inside, other=0.0)
    weight = tl.load(weight_ptr + n * weight_n + channel, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + n * weight_n + channel, mask=inside, other=0.0).to(tl.float32)
    shift = _shift(shift_ptr, channel, inside, SHIFTED)
    first = block * span
    last = tl.minimum(first + span, P)
    step = tl.arange(0, ROWS)[:, None]
    gs, ghs = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for row in range(first, last, ROWS):
        there = (row + step < last) & inside
        begin = n.to(tl.int64) * P + row
        x = tl.load(x_ptr + begin * C + step * C + channel, mask=there, other=0.0).to(tl.float32)
        g = tl.load(dy_ptr + begin * dy_row + step * dy_row + channel, mask=there, other=0.0).to(tl.float32)
        h = (_given(x + shift, ORDER) - mean) * rstd
        if ORDER == NORM_GELU:
            g = g * _slope(h * weight + bias)
        gs += g
        ghs += g * h
    at = parts + (n * tl.cdiv(P, span) + block) * 2 * C + channel
    tl.store(at, tl.sum(gs, 0), mask=inside)
    tl.store(at + C, tl.sum(ghs, 0), mask=inside)


@triton.jit
def finish_sums(
    parts, weight_ptr, dwb, means, P, C, weight_n, span,
    GROUP: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The samples' shares of dweight and dbias, and the means of weight g h and of weight g: (N, 2, C) each."""
    _, n, channel = _place(C, BLOCK)
    inside = channel < C
    weight = tl.load(weight_ptr + n * weight_n + channel, mask=inside, other=0.0).to(tl.float32)
    blocks = tl.cdiv(P, span)
    g, gh = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for b in range(0, blocks, ROWS):
        block = b + tl.arange(0, ROWS)[:, None]
        there = (block < blocks) & inside
        at = parts + (n * blocks + block) * 2 * C + channel
        g += tl.sum(tl.load(at, mask=there, other=0.0), 0)
        gh += tl.sum(tl.load(at + C, mask=there, other=0.0), 0)
    at = n * 2 * C + channel
    tl.store(dwb + at, gh, mask=inside)
    tl.store(dwb + at + C, g, mask=inside)
    tl.store(means + at, _of_group(weight * gh, BLOCK, GROUP) / (P * GROUP), mask=inside)
    tl.store(means + at + C, _of_group(weight * g, BLOCK, GROUP) / (P * GROUP), mask=inside)


@triton.jit
def apply_backward(
    x_ptr, shift_ptr, dy_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, means, dx_ptr, tiles, P, C, weight_n, dy_row,
    SHIFTED: tl.constexpr, ORDER: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The gradient of the map, and where it is SHIFTED the sums of each tile of rows, (N, tiles, C)."""
    block, n, channel = _place(C, BLOCK)
    inside = channel < C
    mean = tl.load(mean_ptr + n * C + channel, mask=inside, other=0.0)
    rstd = tl.load(rstd_ptr + n * C + channel, mask=inside, other=0.0)
    weight = tl.load(weight_ptr + n * weight_n + channel, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + n * weight_n + channel, mask=inside, other=0.0).to(tl.float32)
    mean_gh = tl.load(means + n * 2 * C + channel, mask=inside, other=0.0)
    mean_g = tl.load(means + n * 2 * C + C + channel, mask=inside, other=0.0)
    step = tl.arange(0, ROWS)[:, None]
    there = (block * ROWS + step < P) & inside
    begin = n.to(tl.int64) * P + block * ROWS
    x = tl.load(x_ptr + begin * C + step * C + channel, mask=there, other=0.0).to(tl.float32)
    g = tl.load(dy_ptr + begin * dy_row + step * dy_row + channel, mask=there, other=0.0).to(tl.float32)
    x += _shift(shift_ptr, channel, inside, SHIFTED)
    h = (_given(x, ORDER) - mean) * rstd
    if ORDER == NORM_GELU:
        g = g * _slope(h * weight + bias)
    dx = rstd * (weight * g - mean_g - h * mean_gh)
    if ORDER == GELU_NORM:
        dx = dx * _slope(x)
    tl.store(dx_ptr + begin * C + step * C + channel, dx.to(dx_ptr.dtype.element_ty), mask=there)
    if SHIFTED:
        at = tiles + (n * tl.cdiv(P, ROWS) + block).to(tl.int64) * C + channel
        tl.store(at, tl.sum(tl.where(there, dx, 0.0), 0), mask=inside)
