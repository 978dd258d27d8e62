"""Bi-WKV for GPUs: the kernels. `urwkv.ops.triton_scan` launches them; `urwkv.ops.torch_scan` has the algebra.

A sequence is cut into blocks, a block into chunks of L consecutive tokens. One program computes a block for some
channels: a tensor here is (chunks, channels), and a tuple of L of them holds every token, so nothing is read twice.
A chunk's own sums come first, then what reaches it from others, then all sums once more, from that on.
`urwkv.ops.triton_sums` says how sums cross chunks, by `urwkv.ops.triton_chunks`; `urwkv.ops.triton_blocks` how they
cross blocks.

With every pair of tokens counted once at each token between them, dw = -e dL/de: a sum that comes through a whole
chunk multiplies L e^(L-1), one that starts or ends in it the derivative of Horner's rule.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_blocks import (
    add_up,
    carry_of,
    load_carry,
    others_sums,
    store_block,
    store_carry,
    store_dwu,
)
from urwkv.ops.triton_chunks import sum_of
from urwkv.ops.triton_math import fetch, invert
from urwkv.ops.triton_sums import (
    LOG2E,
    NOTHING,
    around,
    carried,
    decay_of,
    now,
    passing,
    reaching,
    scaled,
    shifted,
    sums_at,
    times,
    totals,
    weigh,
)
from urwkv.ops.triton_tokens import load_tokens, store_tokens

UNSPECIALISED = [
    *("T", "ahead", "w_b", "w_c", "u_b", "u_c"),
    *("k_b", "k_s", "v_b", "v_s", "dy_b", "dy_s"),
]
"""Integers of the kernels that are no reason to compile them anew, whatever their values."""


@triton.jit
def _place(
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, WAIT: tl.constexpr, BLOCK: tl.constexpr, FROM_THE_END: tl.constexpr
):
    """Sequence, sample, scan, block and channels (1, BLOCK) of a program.

    Neighbours in the order of programs share memory lines; or, where they WAIT for each other, a sequence.
    """
    pid, s, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if FROM_THE_END:
        pid, s, b = tl.num_programs(0) - 1 - pid, tl.num_programs(1) - 1 - s, tl.num_programs(2) - 1 - b
    s, b = s.to(tl.int64), b.to(tl.int64)
    me, group = (pid % BLOCKS, pid // BLOCKS) if WAIT else (pid // CHANNELS, pid % CHANNELS)
    channel = group * BLOCK + tl.arange(0, BLOCK)[None, :]
    return b * tl.num_programs(1) + s, b, s, me, channel


@triton.jit
def _fetch(base, b, s, ahead, x_b, x_s, x_t: tl.constexpr, ROWS: tl.constexpr):
    """Has the cache fetch this program's share, ROWS rows, of the same scan of sample b - ahead, if there is one.

    As soon as the program has asked for its own numbers: once it has them, it would ask too late.
    """
    b, share = b - ahead, tl.num_programs(0) - 1 - tl.program_id(0)
    size: tl.constexpr = ROWS * x_t * (base.dtype.element_ty.primitive_bitwidth // 8)
    fetch(base + b * x_b + s * x_s + share * ROWS * x_t, size, b >= 0)


@triton.jit(do_not_specialize=UNSPECIALISED)
def summarise(
    w_ptr, k_ptr, v_ptr, blocks, T, w_b, w_c, k_b, k_s, v_b, v_s,
    k_t: tl.constexpr, k_c: tl.constexpr, v_t: tl.constexpr, v_c: tl.constexpr, C: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, L: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """The sums of each block by itself, where a sequence is longer than a block."""
    n, b, s, me, channel = _place(CHANNELS, BLOCKS, False, BLOCK, False)
    inside, first = channel < C, (me * CHUNKS + tl.arange(0, CHUNKS)[:, None]) * L
    w = tl.load(w_ptr + b * w_b + channel * w_c, mask=inside, other=0.0).to(tl.float32)
    ks = load_tokens(k_ptr + b * k_b + s * k_s + channel * k_c, first, T, inside, NOTHING, k_t, L, EVEN)
    vs = load_tokens(v_ptr + b * v_b + s * v_s + channel * v_c, first, T, inside, 0.0, v_t, L, EVEN)
    e, step = decay_of(w), w * (L * LOG2E)
    base, m, xs = weigh(ks, None, L)
    xvs = times(xs, vs, L)
    own_before, own_after = totals(xvs, xs, e, L, False)[0], totals(xvs, xs, e, L, True)[0]
    before, after = reaching(m, own_before, own_after, step, CHUNKS)
    before, after = passing(before, m, own_before, step), passing(after, m, own_after, step)
    store_block(blocks, base, n, me, channel, inside, C, before, after, BLOCKS, CHUNKS)


@triton.jit(do_not_specialize=UNSPECIALISED)
def forward(
    w_ptr, u_ptr, k_ptr, v_ptr, y_ptr, blocks, carries, T, ahead, w_b, w_c, u_b, u_c, k_b, k_s, v_b, v_s,
    k_t: tl.constexpr, k_c: tl.constexpr, v_t: tl.constexpr, v_c: tl.constexpr, C: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, L: tl.constexpr,
    EVEN: tl.constexpr, WAIT: tl.constexpr, FETCH: tl.constexpr,
):  # fmt: skip
    """y, contiguous (B, S, T, C).

    Args:
        w_ptr, u_ptr: (1 or B, C). k_ptr, v_ptr: (B, S, T, C). x_b, x_s, x_t and x_c: the strides of x;
            y is contiguous, C numbers a row.
        blocks: the blocks' own sums; carries: what reaches each block, which is stored for `backward`. Of no meaning
            where a sequence is one block.
        ahead: the samples from what this reads to what it has the cache FETCH.
        CHANNELS: programs along the channels, BLOCK channels each. BLOCKS: blocks a sequence. CHUNKS: chunks a
            block, of L tokens. EVEN: T and C are whole multiples of others.
        WAIT: blocks are 0, each program stores its block's sums there, and waits for the others'; else `summarise`
            has stored them.
    """
    # From the last program to the first: what `summarise`, if it ran, read last is still in the cache.
    n, b, s, me, channel = _place(CHANNELS, BLOCKS, WAIT, BLOCK, True)
    inside, first = channel < C, (me * CHUNKS + tl.arange(0, CHUNKS)[:, None]) * L
    w = tl.load(w_ptr + b * w_b + channel * w_c, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + b * u_b + channel * u_c, mask=inside, other=0.0).to(tl.float32)
    ks = load_tokens(k_ptr + b * k_b + s * k_s + channel * k_c, first, T, inside, NOTHING, k_t, L, EVEN)
    vs = load_tokens(v_ptr + b * v_b + s * v_s + channel * v_c, first, T, inside, 0.0, v_t, L, EVEN)
    if FETCH:
        _fetch(k_ptr, b, s, ahead, k_b, k_s, k_t, CHUNKS * L // CHANNELS)
        _fetch(v_ptr, b, s, ahead, v_b, v_s, v_t, CHUNKS * L // CHANNELS)
    e, own, step = decay_of(w), tl.exp(u), w * (L * LOG2E)
    base, m, xs = weigh(ks, None, L)
    xvs = times(xs, vs, L)
    own_before, own_after = totals(xvs, xs, e, L, False)[0], totals(xvs, xs, e, L, True)[0]
    before, after = reaching(m, own_before, own_after, step, CHUNKS)
    if WAIT:
        out_before, out_after = passing(before, m, own_before, step), passing(after, m, own_after, step)
        store_block(blocks, base, n, me, channel, inside, C, out_before, out_after, BLOCKS, CHUNKS)
    if BLOCKS > 1:
        others = others_sums(blocks, n, me, channel, inside, C, BLOCKS, CHUNKS, WAIT)
        largest, carry_before, carry_after = carry_of(others, base, me, CHUNKS * step, BLOCKS, CHUNKS, False)
        store_carry(carries, n, me, channel, inside, C, largest, carry_before, carry_after, BLOCKS, CHUNKS)
        less = (base - largest) * LOG2E
        m, before, after = m + less, shifted(before, less), shifted(after, less)
        before, after = carried(before, after, carry_before, carry_after, step, CHUNKS)
    top = tl.maximum(m, tl.maximum(before[0], after[0]))
    f, before, after, ys = tl.exp2(m - top), sums_at(top, before), sums_at(top, after), ()
    sums_1 = around(scaled(xs, f, L), own, e, before[1], after[1], L)
    sums_v = around(scaled(xvs, f, L), own, e, before[0], after[0], L)
    for i in tl.static_range(L):
        ys = ys + (sums_v[i] * invert(sums_1[i]),)
    store_tokens(y_ptr + n * T * C + channel, first, T, inside, ys, C, L, EVEN)


@triton.jit(do_not_specialize=UNSPECIALISED)
def backward(
    w_ptr, u_ptr, k_ptr, v_ptr, dy_ptr, dk_ptr, dv_ptr, dwu_ptr, carries, blocks, shares, T, ahead,
    w_b, w_c, u_b, u_c, k_b, k_s, v_b, v_s, dy_b, dy_s,
    k_t: tl.constexpr, k_c: tl.constexpr, v_t: tl.constexpr, v_c: tl.constexpr,
    dy_t: tl.constexpr, dy_c: tl.constexpr, C: tl.constexpr, LAST: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, L: tl.constexpr,
    EVEN: tl.constexpr, WAIT: tl.constexpr, ALONE: tl.constexpr, FETCH: tl.constexpr,
):  # fmt: skip
    """dk and dv, contiguous, and dw and du, (2, B, C). ALONE: a sample is one scan of one block; else shares are as
    of `add_up`. All else is as in `forward`.

    Where a sequence is longer than a block this runs twice, first (LAST false) for the blocks' sums of g and h; or
    once, and its programs WAIT for each other's.
    """
    n, b, s, me, channel = _place(CHANNELS, BLOCKS, WAIT, BLOCK, LAST)
    inside, first = channel < C, (me * CHUNKS + tl.arange(0, CHUNKS)[:, None]) * L
    w = tl.load(w_ptr + b * w_b + channel * w_c, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + b * u_b + channel * u_c, mask=inside, other=0.0).to(tl.float32)
    base = None
    if BLOCKS > 1:
        base, carry_before, carry_after = load_carry(carries, n, me, channel, inside, C, BLOCKS)
    ks = load_tokens(k_ptr + b * k_b + s * k_s + channel * k_c, first, T, inside, NOTHING, k_t, L, EVEN)
    vs = load_tokens(v_ptr + b * v_b + s * v_s + channel * v_c, first, T, inside, 0.0, v_t, L, EVEN)
    dys = load_tokens(dy_ptr + b * dy_b + s * dy_s + channel * dy_c, first, T, inside, 0.0, dy_t, L, EVEN)
    if FETCH:
        _fetch(k_ptr, b, s, ahead, k_b, k_s, k_t, CHUNKS * L // CHANNELS)
        _fetch(v_ptr, b, s, ahead, v_b, v_s, v_t, CHUNKS * L // CHANNELS)
        _fetch(dy_ptr, b, s, ahead, dy_b, dy_s, dy_t, CHUNKS * L // CHANNELS)
    e, own, zero, step = decay_of(w), tl.exp(u), tl.zeros((CHUNKS, BLOCK), tl.float32), w * (L * LOG2E)
    base, m, xs = weigh(ks, base, L)
    xvs = times(xs, vs, L)
    own_before, before_by_e = totals(xvs, xs, e, L, False)
    own_after, after_by_e = totals(xvs, xs, e, L, True)
    before_by_e, after_by_e = (now(before_by_e[0]), now(before_by_e[1])), (now(after_by_e[0]), now(after_by_e[1]))
    before, after = reaching(m, own_before, own_after, step, CHUNKS)
    if BLOCKS > 1:
        before, after = carried(before, after, carry_before, carry_after, step, CHUNKS)
    top = tl.maximum(m, tl.maximum(before[0], after[0]))
    f = tl.exp2(m - top)
    before_v, before_1 = sums_at(top, before)
    after_v, after_1 = sums_at(top, after)

    # Against the tokens, the sums after each.
    afters_v, afters_1 = (), ()
    for i in tl.static_range(L - 1, -1, -1):
        x = xs[i] * f
        afters_v, afters_1 = (after_v,) + afters_v, (after_1,) + afters_1
        after_v, after_1 = tl.fma(after_v, e, x * vs[i]), tl.fma(after_1, e, x)

    # Along them g and z = v g + h (a token's own share cancels in z), at the exponent -top; and of dw each product of
    # two tokens, the second of which, to whose y the first adds, is one of the chunk.
    gs, zs, hs, upto_g, upto_h, before_v_by_e, before_1_by_e = (), (), (), zero, zero, zero, zero
    dw, dw_back, du = zero, zero, zero
    for i in tl.static_range(L):
        x, others_v, others_1 = xs[i] * f, before_v + afters_v[i], before_1 + afters_1[i]
        inverse = invert(tl.fma(own, x, others_1))
        if not EVEN:
            inverse = tl.where(first + i < T, inverse, 0.0)
        g = dys[i] * inverse
        z = tl.fma(vs[i], others_1, -others_v) * inverse * g
        h = tl.fma(-vs[i], g, z)
        gs, zs, hs, du = gs + (g,), zs + (z,), hs + (h,), tl.fma(x, z, du)
        dw = tl.fma(before_v_by_e, g, tl.fma(before_1_by_e, h, dw))
        dw_back = tl.fma(afters_v[i], upto_g, tl.fma(afters_1[i], upto_h, dw_back))
        before_v_by_e, before_1_by_e = tl.fma(before_v_by_e, e, before_v), tl.fma(before_1_by_e, e, before_1)
        before_v, before_1 = tl.fma(before_v, e, x * vs[i]), tl.fma(before_1, e, x)
        upto_g, upto_h = tl.fma(upto_g, e, g), tl.fma(upto_h, e, h)
    dw, du = now(dw + dw_back), now(du)

    mg = tl.where(first < T, -top, NOTHING)
    own_before, own_after = (upto_g, upto_h), totals(gs, hs, e, L, True)[0]
    g_before, g_after = reaching(mg, own_before, own_after, step, CHUNKS)
    if WAIT or not LAST:
        out_before, out_after = passing(g_before, mg, own_before, step), passing(g_after, mg, own_after, step)
        store_block(blocks, -base, n, me, channel, inside, C, out_before, out_after, BLOCKS, CHUNKS)
    if LAST:
        if BLOCKS > 1:
            others = others_sums(blocks, n, me, channel, inside, C, BLOCKS, CHUNKS, WAIT)
            _, carry_before, carry_after = carry_of(others, -base, me, CHUNKS * step, BLOCKS, CHUNKS, True)
            g_before, g_after = carried(g_before, g_after, carry_before, carry_after, step, CHUNKS)

        # The products of two tokens between which the chunk lies whole; then those whose adding one it holds.
        through = tl.exp2(before[0] + g_after[0]) * (before[1] * g_after[1] + before[2] * g_after[2])
        through += tl.exp2(after[0] + g_before[0]) * (after[1] * g_before[1] + after[2] * g_before[2])
        dw = tl.fma(through, tl.exp2(w * (-(L - 1) * LOG2E)) * L, dw)
        before_g, before_h = sums_at(-m, g_before)
        after_g, after_h = sums_at(-m, g_after)
        dw = tl.fma(after_g, before_by_e[0], tl.fma(after_h, before_by_e[1], dw))
        dw = tl.fma(before_g, after_by_e[0], tl.fma(before_h, after_by_e[1], dw))

        gs, zs, hs, dks, dvs = scaled(gs, f, L), scaled(zs, f, L), (), (), ()
        for i in tl.static_range(L):
            hs = hs + (tl.fma(-vs[i], gs[i], zs[i]),)
        others_g = around(gs, None, e, before_g, after_g, L)
        others_h = around(hs, None, e, before_h, after_h, L)
        for i in tl.static_range(L):
            dvs = dvs + (xs[i] * tl.fma(own, gs[i], others_g[i]),)
            dks = dks + (xs[i] * tl.fma(own, zs[i], tl.fma(vs[i], others_g[i], others_h[i])),)
        store_tokens(dk_ptr + n * T * C + channel, first, T, inside, dks, C, L, EVEN)
        store_tokens(dv_ptr + n * T * C + channel, first, T, inside, dvs, C, L, EVEN)
        dw, du = sum_of((dw * -e, du * own))
        if ALONE:
            store_dwu(dwu_ptr, b, channel, inside, C, dw, du)
        else:
            add_up(shares, b, s, me, channel, inside, C, dw, du, dwu_ptr, BLOCKS, CHUNKS)
