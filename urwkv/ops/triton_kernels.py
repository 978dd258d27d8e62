"""Bi-WKV for GPUs: the kernels. `urwkv.ops.triton_scan` launches them; `urwkv.ops.torch_scan` has the algebra.

A sequence is cut into blocks, a block into chunks of L consecutive tokens. One program computes a block for some
channels: a tensor here is (chunks, channels), and a tuple of L of them holds every token, so nothing is read twice.
`urwkv.ops.triton_sums` says how sums cross chunks, `urwkv.ops.triton_blocks` how they cross blocks.

With every pair of tokens counted once at each token between them, dw = -e dL/de: a sum that comes through a whole
chunk multiplies L e^(L-1), one that starts or ends in it the derivative of Horner's rule.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_blocks import awaited_sums, carry_of, load_carry, others_sums, store_block, store_carry
from urwkv.ops.triton_math import fetch, invert
from urwkv.ops.triton_sums import (
    LOG2E,
    NOTHING,
    all_now,
    around,
    carried,
    combine,
    decay_of,
    now,
    own_sums,
    powers_of,
    reaching,
    slope_of,
    weigh,
)

UNSPECIALISED = [
    *("T", "C", "N", "ahead", "w_b", "w_c", "u_b", "u_c"),
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
    """Has the cache fetch this program's share, ROWS rows, of the same scan of sample b - ahead, if there is one."""
    b, share = b - ahead, tl.num_programs(0) - 1 - tl.program_id(0)
    size: tl.constexpr = ROWS * x_t * (base.dtype.element_ty.primitive_bitwidth // 8)
    fetch(base + b * x_b + s * x_s + share * ROWS * x_t, size, b >= 0)


@triton.jit
def _load(base, first, T, inside, other, stride: tl.constexpr, L: tl.constexpr, EVEN: tl.constexpr):
    """A tuple of L tensors (chunks, channels), float32; `first` is each chunk's first token."""
    loaded = ()
    base += first * stride
    for i in tl.static_range(L):
        if EVEN:
            token = tl.load(base + i * stride)
        else:
            token = tl.load(base + i * stride, mask=inside & (first + i < T), other=other)
        loaded = loaded + (token.to(tl.float32),)
    return loaded


@triton.jit
def _store(base, first, T, inside, tokens, stride: tl.constexpr, L: tl.constexpr, EVEN: tl.constexpr):
    base += first * stride
    for i in tl.static_range(L):
        token = tokens[i].to(base.dtype.element_ty)
        if EVEN:
            tl.store(base + i * stride, token)
        else:
            tl.store(base + i * stride, token, mask=inside & (first + i < T))


@triton.jit(do_not_specialize=UNSPECIALISED)
def summarise(
    w_ptr, k_ptr, v_ptr, blocks, T, C, w_b, w_c, k_b, k_s, v_b, v_s,
    k_t: tl.constexpr, k_c: tl.constexpr, v_t: tl.constexpr, v_c: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, L: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """The sums of each block by itself, where a sequence is longer than a block."""
    n, b, s, me, channel = _place(CHANNELS, BLOCKS, False, BLOCK, False)
    inside, first = channel < C, (me * CHUNKS + tl.arange(0, CHUNKS)[:, None]) * L
    w = tl.load(w_ptr + b * w_b + channel * w_c, mask=inside, other=0.0).to(tl.float32)
    ks = _load(k_ptr + b * k_b + s * k_s + channel * k_c, first, T, inside, NOTHING, k_t, L, EVEN)
    vs = _load(v_ptr + b * v_b + s * v_s + channel * v_c, first, T, inside, 0.0, v_t, L, EVEN)
    e, zero, step = decay_of(w), tl.zeros((CHUNKS, BLOCK), tl.float32), w * (L * LOG2E)
    base, m, xs, xvs = weigh(ks, vs, L)
    before = own_sums(xvs, e, zero, L, False)[1], own_sums(xs, e, zero, L, False)[1]
    after = own_sums(xvs, e, zero, L, True)[1], own_sums(xs, e, zero, L, True)[1]
    store_block(blocks, base, n, me, channel, inside, C, m, before, after, step, BLOCKS, CHUNKS)


@triton.jit(do_not_specialize=UNSPECIALISED)
def forward(
    w_ptr, u_ptr, k_ptr, v_ptr, y_ptr, blocks, carries, T, C, ahead, w_b, w_c, u_b, u_c, k_b, k_s, v_b, v_s,
    k_t: tl.constexpr, k_c: tl.constexpr, v_t: tl.constexpr, v_c: tl.constexpr, y_t: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, L: tl.constexpr,
    EVEN: tl.constexpr, WAIT: tl.constexpr, FETCH: tl.constexpr,
):  # fmt: skip
    """y, contiguous (B, S, T, C).

    Args:
        w_ptr, u_ptr: (1 or B, C). k_ptr, v_ptr: (B, S, T, C). x_b, x_s, x_t and x_c: the strides of x;
            y is contiguous, so y_t is C.
        blocks: the blocks' own sums; carries: what reaches each block, which is stored for `backward`. Of no meaning
            where a sequence is one block.
        ahead: the samples from what this reads to what it has the cache FETCH.
        CHANNELS: programs along the channels, BLOCK channels each. BLOCKS: blocks a sequence. CHUNKS: chunks a
            block, of L tokens. EVEN: T and C are whole multiples of theirs.
        WAIT: in blocks is UNKNOWN, each program stores its block's sums there, and waits for the others'; else
            `summarise` has stored them.
    """
    # From the last program to the first: what `summarise`, if it ran, read last is still in the cache.
    n, b, s, me, channel = _place(CHANNELS, BLOCKS, WAIT, BLOCK, True)
    inside, first = channel < C, (me * CHUNKS + tl.arange(0, CHUNKS)[:, None]) * L
    w = tl.load(w_ptr + b * w_b + channel * w_c, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + b * u_b + channel * u_c, mask=inside, other=0.0).to(tl.float32)
    if BLOCKS > 1 and not WAIT:
        others = others_sums(blocks, n, me, channel, inside, C, BLOCKS, CHUNKS)
    ks = _load(k_ptr + b * k_b + s * k_s + channel * k_c, first, T, inside, NOTHING, k_t, L, EVEN)
    vs = _load(v_ptr + b * v_b + s * v_s + channel * v_c, first, T, inside, 0.0, v_t, L, EVEN)
    e, own, zero, step = decay_of(w), tl.exp(u), tl.zeros((CHUNKS, BLOCK), tl.float32), w * (L * LOG2E)
    base, m, xs, xvs = weigh(ks, vs, L)
    if FETCH:
        _fetch(k_ptr, b, s, ahead, k_b, k_s, k_t, CHUNKS * L // CHANNELS)
        _fetch(v_ptr, b, s, ahead, v_b, v_s, v_t, CHUNKS * L // CHANNELS)
    sums_v, all_before_v, all_after_v = around(xvs, own, e, zero, L)
    sums_1, all_before_1, all_after_1 = around(xs, own, e, zero, L)
    all_before, all_after = (all_before_v, all_before_1), (all_after_v, all_after_1)
    if WAIT:
        sums_v, sums_1 = all_now(sums_v, L), all_now(sums_1, L)
        store_block(blocks, base, n, me, channel, inside, C, m, all_before, all_after, step, BLOCKS, CHUNKS)
    before, after = reaching(m, all_before, all_after, step, CHUNKS)
    if WAIT:
        others = awaited_sums(blocks, n, me, channel, inside, C, BLOCKS, CHUNKS)
    if BLOCKS > 1:
        carry_before, carry_after = carry_of(others, base, me, CHUNKS * step, BLOCKS, CHUNKS)
        store_carry(carries, n, me, channel, inside, C, carry_before, carry_after, BLOCKS)
        before, after = carried(before, after, carry_before, carry_after, step, CHUNKS)
    top = tl.maximum(m, tl.maximum(before[0], after[0]))
    fx, fb, fa = tl.exp2(m - top), tl.exp2(before[0] - top), tl.exp2(after[0] - top)
    bv, b1, av, a1 = before[1] * fb, before[2] * fb, after[1] * fa, after[2] * fa
    powers, ys = powers_of(e, L), ()
    for i in tl.static_range(L):
        up, down = powers[i], powers[L - 1 - i]
        weight = combine(sums_1[i], fx, b1, up, a1, down)
        ys = ys + (combine(sums_v[i], fx, bv, up, av, down) * invert(weight),)
    _store(y_ptr + n * T * y_t + channel, first, T, inside, ys, y_t, L, EVEN)


@triton.jit(do_not_specialize=UNSPECIALISED)
def backward(
    w_ptr, u_ptr, k_ptr, v_ptr, dy_ptr, dk_ptr, dv_ptr, dwu_ptr, carries, blocks, T, C, N,
    w_b, w_c, u_b, u_c, k_b, k_s, v_b, v_s, dy_b, dy_s,
    k_t: tl.constexpr, k_c: tl.constexpr, v_t: tl.constexpr, v_c: tl.constexpr,
    dy_t: tl.constexpr, dy_c: tl.constexpr, y_t: tl.constexpr, LAST: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, L: tl.constexpr,
    EVEN: tl.constexpr, WAIT: tl.constexpr,
):  # fmt: skip
    """dk and dv, contiguous, and each block's share of dw and du, (2, N, BLOCKS, C).

    Where a sequence is longer than a block this runs twice, first (LAST false) for the blocks' sums of g and h; or
    once, and its programs WAIT for each other's.
    """
    n, b, s, me, channel = _place(CHANNELS, BLOCKS, WAIT, BLOCK, LAST)
    inside, first = channel < C, (me * CHUNKS + tl.arange(0, CHUNKS)[:, None]) * L
    w = tl.load(w_ptr + b * w_b + channel * w_c, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + b * u_b + channel * u_c, mask=inside, other=0.0).to(tl.float32)
    if BLOCKS > 1:
        carry_before, carry_after = load_carry(carries, n, me, channel, inside, C, BLOCKS)
    ks = _load(k_ptr + b * k_b + s * k_s + channel * k_c, first, T, inside, NOTHING, k_t, L, EVEN)
    vs = _load(v_ptr + b * v_b + s * v_s + channel * v_c, first, T, inside, 0.0, v_t, L, EVEN)
    dys = _load(dy_ptr + b * dy_b + s * dy_s + channel * dy_c, first, T, inside, 0.0, dy_t, L, EVEN)
    e, own, zero, step = decay_of(w), tl.exp(u), tl.zeros((CHUNKS, BLOCK), tl.float32), w * (L * LOG2E)
    base, m, xs, xvs = weigh(ks, vs, L)
    powers = powers_of(e, L)

    before_v, all_before_v = own_sums(xvs, e, zero, L, False)
    before_1, all_before_1 = own_sums(xs, e, zero, L, False)
    after_v, all_after_v = own_sums(xvs, e, zero, L, True)
    after_1, all_after_1 = own_sums(xs, e, zero, L, True)
    after_v_by_e, after_1_by_e = now(slope_of(after_v, e, zero, L)), now(slope_of(after_1, e, zero, L))
    before, after = reaching(m, (all_before_v, all_before_1), (all_after_v, all_after_1), step, CHUNKS)
    if BLOCKS > 1:
        before, after = carried(before, after, carry_before, carry_after, step, CHUNKS)
    top = tl.maximum(m, tl.maximum(before[0], after[0]))
    fx, fb, fa = tl.exp2(m - top), tl.exp2(before[0] - top), tl.exp2(after[0] - top)
    bv, b1, av, a1 = before[1] * fb, before[2] * fb, after[1] * fa, after[2] * fa
    own_fx = own * fx

    # Along the tokens: g and z = v g + h at the exponent -top (a token's own share cancels in z), their sums before
    # each token, and every product of two tokens of the chunk that dw needs; then their sums against the tokens.
    gs, zs, sums_g, sums_h, within = (), (), (), (), zero
    upto_g, upto_h = zero, zero
    before_v_by_e, before_1_by_e, before_g_by_e, before_h_by_e = zero, zero, zero, zero
    for i in tl.static_range(L):
        others_v = combine(before_v[i] + after_v[i], fx, bv, powers[i], av, powers[L - 1 - i])
        others = combine(before_1[i] + after_1[i], fx, b1, powers[i], a1, powers[L - 1 - i])
        inverse = invert(tl.fma(own_fx, xs[i], others))
        if not EVEN:
            inverse = tl.where(first + i < T, inverse, 0.0)
        g = dys[i] * inverse
        z = tl.fma(vs[i], others, -others_v) * inverse * g
        h = tl.fma(-vs[i], g, z)
        gs, zs, sums_g, sums_h = gs + (g,), zs + (z,), sums_g + (upto_g,), sums_h + (upto_h,)
        within = tl.fma(before_v_by_e, g, tl.fma(before_1_by_e, h, within))
        within = tl.fma(after_v[i], upto_g, tl.fma(after_1[i], upto_h, within))
        before_v_by_e, before_1_by_e = tl.fma(before_v_by_e, e, before_v[i]), tl.fma(before_1_by_e, e, before_1[i])
        before_g_by_e, before_h_by_e = tl.fma(before_g_by_e, e, upto_g), tl.fma(before_h_by_e, e, upto_h)
        upto_g, upto_h = tl.fma(upto_g, e, g), tl.fma(upto_h, e, h)
    onward_g, onward_h, after_g_by_e, after_h_by_e = zero, zero, zero, zero
    both_g, both_h = (), ()
    for i in tl.static_range(L - 1, -1, -1):
        both_g, both_h = (now(sums_g[i] + onward_g),) + both_g, (now(sums_h[i] + onward_h),) + both_h
        after_g_by_e, after_h_by_e = tl.fma(after_g_by_e, e, onward_g), tl.fma(after_h_by_e, e, onward_h)
        onward_g, onward_h = tl.fma(onward_g, e, gs[i]), tl.fma(onward_h, e, tl.fma(-vs[i], gs[i], zs[i]))

    before_v_by_e, before_1_by_e = now(before_v_by_e), now(before_1_by_e)
    dw = within * fx + bv * after_g_by_e + b1 * after_h_by_e + av * before_g_by_e + a1 * before_h_by_e
    dw = now(dw)

    mg = tl.where(first < T, -top, NOTHING)
    gh_before, gh_after = (upto_g, upto_h), (onward_g, onward_h)
    if WAIT or not LAST:
        store_block(blocks, -base, n, me, channel, inside, C, mg, gh_before, gh_after, step, BLOCKS, CHUNKS)
    if LAST:
        if BLOCKS > 1 and not WAIT:
            others = others_sums(blocks, n, me, channel, inside, C, BLOCKS, CHUNKS)
        g_before, g_after = reaching(mg, gh_before, gh_after, step, CHUNKS)
        if WAIT:
            others = awaited_sums(blocks, n, me, channel, inside, C, BLOCKS, CHUNKS)
        if BLOCKS > 1:
            carry_before, carry_after = carry_of(others, -base, me, CHUNKS * step, BLOCKS, CHUNKS)
            g_before, g_after = carried(g_before, g_after, carry_before, carry_after, step, CHUNKS)
        zb, za = tl.exp2(m + g_before[0]), tl.exp2(m + g_after[0])
        bg, bh, ag, ah = g_before[1] * zb, g_before[2] * zb, g_after[1] * za, g_after[2] * za

        # Pairs between which this chunk lies whole; then those of which it holds one; then both.
        through = tl.exp2(before[0] + g_after[0]) * (before[1] * g_after[1] + before[2] * g_after[2])
        through += tl.exp2(after[0] + g_before[0]) * (after[1] * g_before[1] + after[2] * g_before[2])
        dw += through * powers[L - 1] * L
        dw += ag * before_v_by_e + ah * before_1_by_e + bg * after_v_by_e + bh * after_1_by_e
        du, dks, dvs = zero, (), ()
        for i in tl.static_range(L):
            du = tl.fma(xs[i], zs[i], du)
            others_g = combine(both_g[i], fx, bg, powers[i], ag, powers[L - 1 - i])
            others_h = combine(both_h[i], fx, bh, powers[i], ah, powers[L - 1 - i])
            dvs = dvs + (xs[i] * tl.fma(own_fx, gs[i], others_g),)
            dks = dks + (xs[i] * tl.fma(own_fx, zs[i], tl.fma(vs[i], others_g, others_h)),)
        _store(dk_ptr + n * T * y_t + channel, first, T, inside, dks, y_t, L, EVEN)
        _store(dv_ptr + n * T * y_t + channel, first, T, inside, dvs, y_t, L, EVEN)
        at = dwu_ptr + (n * BLOCKS + me) * C + channel
        tl.store(at, tl.sum(dw, 0, keep_dims=True) * -e, mask=inside)
        tl.store(at + N * BLOCKS * C, tl.sum(du * own_fx, 0, keep_dims=True), mask=inside)
