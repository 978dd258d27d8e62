"""Bi-WKV for GPUs: the kernels. `urwkv.ops.triton_scan` launches them; `urwkv.ops.torch_scan` has the algebra.

A sequence is cut into blocks, a block into chunks of L consecutive tokens. One program computes a block for some
channels: a tensor here is (chunks, channels), and a tuple of L of them holds every token, so nothing is read twice.

Sums are one-sided: "before" runs along the tokens, "after" against them; sums come in pairs, of (x v, x) or of
(g, h). Within a chunk they are Horner's rule, p <- e p + x with e = exp(-w), started from nothing: its own sums.
What comes from outside the chunk is one pair a side, times a power of e. From chunk to chunk a pair travels as
(m, a, b), which stands for 2^m a and 2^m b, and is merged at the larger m, so no sum overflows and none that
matters underflows, however unlike the keys are. The exponent m of a chunk is its largest key, shifted by the decay
to a common origin: there a merge knows no distance. All exponents of a block are relative to its largest key, its
base, so keys may lie far from zero.

With every pair of tokens counted once at each token between them, dw = -e dL/de: a sum that comes through a whole
chunk multiplies L e^(L-1), one that starts or ends in it the derivative of Horner's rule.
"""

import os

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)

NOTHING = tl.constexpr(-1e30)
"""The exponent of an empty sum; finite, since the difference of two infinities is not a number."""

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")

PARTS = tl.constexpr(4)
"""Numbers that stand for a block's sums on one side: base, m, a, b."""


UNSPECIALISED = [
    *("T", "C", "N", "w_b", "w_c", "u_b", "u_c"),
    *("k_b", "k_s", "v_b", "v_s", "dy_b", "dy_s"),
]
"""Integers of the kernels that are no reason to compile them anew, whatever their values."""


@triton.jit
def _merge(m1, a1, b1, m2, a2, b2):
    m = tl.maximum(m1, m2)
    f1, f2 = tl.exp2(m1 - m), tl.exp2(m2 - m)
    return m, a1 * f1 + a2 * f2, b1 * f1 + b2 * f2


@triton.jit
def _place(BLOCKS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, FROM_THE_END: tl.constexpr):
    """Sequence, sample, scan, block and channels (1, BLOCK) of a program; neighbours share memory lines."""
    pid, s, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if FROM_THE_END:
        pid, s, b = tl.num_programs(0) - 1 - pid, tl.num_programs(1) - 1 - s, tl.num_programs(2) - 1 - b
    s, b = s.to(tl.int64), b.to(tl.int64)
    channel = (pid % CHANNELS) * BLOCK + tl.arange(0, BLOCK)[None, :]
    return b * tl.num_programs(1) + s, b, s, pid // CHANNELS, channel


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


@triton.jit
def _decay(w):
    """e = exp(-w), rounded once: its powers up to L - 1 carry its error as often."""
    return tl.exp(-w.to(tl.float64)).to(tl.float32)


@triton.jit
def _weigh(ks, vs, L: tl.constexpr):
    """The block's largest key, each chunk's exponent beside it, m, and x = exp(k) 2^-m and x v of the tokens."""
    largest = ks[0]
    for i in tl.static_range(1, L):
        largest = tl.maximum(largest, ks[i])
    # Tokens beyond the end have k = NOTHING and weigh nothing even among themselves.
    largest = tl.maximum(largest, NOTHING / 2)
    base = tl.max(largest, 0, keep_dims=True)
    xs, xvs = (), ()
    for i in tl.static_range(L):
        x = tl.exp2((ks[i] - largest) * LOG2E)
        xs = xs + (x,)
        xvs = xvs + (x * vs[i],)
    return base, (largest - base) * LOG2E, xs, xvs


@triton.jit
def _own(xs, e, zero, L: tl.constexpr, AFTER: tl.constexpr):
    """Sums over a chunk's own tokens: at each token, of those before it (or after it), and of all of them."""
    sums, a = (), zero
    for i in tl.static_range(L):
        if AFTER:
            sums = (a,) + sums
            a = tl.fma(a, e, xs[L - 1 - i])
        else:
            sums = sums + (a,)
            a = tl.fma(a, e, xs[i])
    return sums, a


@triton.jit
def _around(xs, own, e, zero, L: tl.constexpr):
    """At each token the sum of its chunk, itself by `own`; and of all before its end, after its start."""
    sums, both, before, after = (), (), zero, zero
    for i in tl.static_range(L):
        sums = sums + (tl.fma(own, xs[i], before),)
        before = tl.fma(before, e, xs[i])
    for i in tl.static_range(L - 1, -1, -1):
        both = (sums[i] + after,) + both
        after = tl.fma(after, e, xs[i])
    return both, before, after


@triton.jit
def _slope(after, e, zero, L: tl.constexpr):
    """The derivative by e of the sum of all, from the sums after each token."""
    d = zero
    for i in tl.static_range(L):
        d = tl.fma(d, e, after[L - 1 - i])
    return d


@triton.jit
def _extend(em1, ea1, eb1, m1, a1, b1, em2, ea2, eb2, m2, a2, b2):
    """Joins two runs of chunks; each is known by the sums of all its chunks but the last, and of all."""
    em, ea, eb = _merge(m1, a1, b1, em2, ea2, eb2)
    m, a, b = _merge(m1, a1, b1, m2, a2, b2)
    return em, ea, eb, m, a, b


@triton.jit
def _outside(carry, moved, m, at_end):
    """The carry, its exponent moved, for the chunk at that end of the block, and nothing for the others."""
    return (
        tl.where(at_end, carry[0] + moved, tl.full(m.shape, NOTHING, tl.float32)),
        tl.where(at_end, carry[1], tl.zeros(m.shape, tl.float32)),
        tl.where(at_end, carry[2], tl.zeros(m.shape, tl.float32)),
    )


@triton.jit
def _invert(x):
    """1 / x of a positive x in one instruction, to 1 ulp: a division cares for extremes that x stays clear of."""
    asm: tl.constexpr = "rcp.approx.ftz.f32 $0, $1;"
    return 1 / x if INTERPRETED else tl.inline_asm_elementwise(asm, "=r,r", [x], tl.float32, True, 1)


@triton.jit
def _now(x):
    """x, computed here: what only the last lines need, the compiler puts off, and holds what it is made of."""
    return x if INTERPRETED else tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], tl.float32, False, 1)


@triton.jit
def _powers(e, L: tl.constexpr):
    """e^0 to e^(L-1)."""
    powers, power = (), tl.full(e.shape, 1.0, tl.float32)
    for _ in tl.static_range(L):
        powers = powers + (power,)
        power *= e
    return powers


@triton.jit
def _combine(inner, f, before, power_before, after, power_after):
    """A token's sum of all others: inner f from its chunk, and what came from both sides, decayed on the way."""
    return tl.fma(inner, f, tl.fma(before, power_before, after * power_after))


@triton.jit
def _reaching(m, before, after, carry_before, carry_after, step, CHUNKS: tl.constexpr):
    """What reaches each chunk from outside it: ((m, a, b) before its start, (m, a, b) after its end).

    Args:
        m: (chunks, channels), the exponent of the chunks' own sums.
        before, after: the chunks' own sums (a, b), before their end and after their start.
        carry_before, carry_after: (m, a, b), (1, channels), before the block's start and after its end.
        step: (1, channels), the binary logarithm of the decay over a chunk.
    """
    chunk = tl.arange(0, CHUNKS)[:, None]
    begin = _outside(carry_before, -step, m, chunk == 0)
    end = _outside(carry_after, -CHUNKS * step, m, chunk == CHUNKS - 1)
    upto = _merge(begin[0], begin[1], begin[2], m + chunk * step, before[0], before[1])
    onward = _merge(end[0], end[1], end[2], m - chunk * step, after[0], after[1])
    mb, ab, bb, _, _, _ = tl.associative_scan(begin + upto, 0, _extend)
    ma, aa, ba, _, _, _ = tl.associative_scan(end + onward, 0, _extend, reverse=True)
    return (mb - (chunk - 1) * step, ab, bb), (ma + (chunk + 1) * step, aa, ba)


@triton.jit
def _no_carry(BLOCK: tl.constexpr):
    zero = tl.zeros((1, BLOCK), tl.float32)
    return zero + NOTHING, zero, zero


@triton.jit
def _others(blocks, n, me, channel, inside, C, BLOCKS: tl.constexpr, POW2: tl.constexpr):
    """The own sums of the blocks before `me`, then of those after it: base, m, a, b of each, (blocks, channels).

    Args:
        blocks: the blocks' own sums, (sequences, blocks, 2 sides, 4, channels), float32.
    """
    other = tl.arange(0, POW2)[:, None]
    at = blocks + (n * BLOCKS + other) * (2 * PARTS) * C + channel
    loaded = ()
    for side in tl.static_range(2):
        there = inside & ((other < me) if side == 0 else ((other > me) & (other < BLOCKS)))
        for part in tl.static_range(PARTS):
            loaded = loaded + (tl.load(at + (side * PARTS + part) * C, mask=there, other=0.0),)
    return loaded


@triton.jit
def _carry(others, base, me, step, BLOCKS: tl.constexpr, POW2: tl.constexpr):
    """What reaches block `me` from the others: ((m, a, b) before its start, (m, a, b) after its end).

    Args:
        base: (1, channels), what this block's exponents are relative to.
        step: (1, channels), the binary logarithm of the decay over a block.
    """
    other = tl.arange(0, POW2)[:, None]
    reached = ()
    for side in tl.static_range(2):
        there = (other < me) if side == 0 else ((other > me) & (other < BLOCKS))
        between = (me - 1 - other) if side == 0 else (other - me - 1)
        m = (others[side * PARTS] - base) * LOG2E + others[side * PARTS + 1] - between * step
        m = tl.where(there, m, NOTHING)
        top = tl.max(m, 0, keep_dims=True)
        f = tl.exp2(m - top)
        a = tl.sum(others[side * PARTS + 2] * f, 0, keep_dims=True)
        b = tl.sum(others[side * PARTS + 3] * f, 0, keep_dims=True)
        reached = reached + ((top, a, b),)
    return reached


@triton.jit
def _store_block(
    blocks, base, n, me, channel, inside, C, m, before, after, step, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr
):
    """The block's own sums, before its end and after its start: base, and (m, a, b) relative to it."""
    at = blocks + (n * BLOCKS + me) * (2 * PARTS) * C + channel
    chunk = tl.arange(0, CHUNKS)[:, None]
    for side in tl.static_range(2):
        sums = before if side == 0 else after
        moved = m - ((CHUNKS - 1 - chunk) if side == 0 else chunk) * step
        top = tl.max(moved, 0, keep_dims=True)
        f = tl.exp2(moved - top)
        part = at + side * PARTS * C
        tl.store(part, base, mask=inside)
        tl.store(part + C, top, mask=inside)
        tl.store(part + 2 * C, tl.sum(sums[0] * f, 0, keep_dims=True), mask=inside)
        tl.store(part + 3 * C, tl.sum(sums[1] * f, 0, keep_dims=True), mask=inside)


@triton.jit(do_not_specialize=UNSPECIALISED)
def summarise(
    w_ptr, k_ptr, v_ptr, blocks, T, C, w_b, w_c, k_b, k_s, v_b, v_s,
    k_t: tl.constexpr, k_c: tl.constexpr, v_t: tl.constexpr, v_c: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, POW2: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr,
    L: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """The sums of each block by itself, where a sequence is longer than a block."""
    n, b, s, me, channel = _place(BLOCKS, CHANNELS, BLOCK, False)
    inside, first = channel < C, (me * CHUNKS + tl.arange(0, CHUNKS)[:, None]) * L
    w = tl.load(w_ptr + b * w_b + channel * w_c, mask=inside, other=0.0).to(tl.float32)
    ks = _load(k_ptr + b * k_b + s * k_s + channel * k_c, first, T, inside, NOTHING, k_t, L, EVEN)
    vs = _load(v_ptr + b * v_b + s * v_s + channel * v_c, first, T, inside, 0.0, v_t, L, EVEN)
    e, zero, step = _decay(w), tl.zeros((CHUNKS, BLOCK), tl.float32), w * (L * LOG2E)
    base, m, xs, xvs = _weigh(ks, vs, L)
    before = _own(xvs, e, zero, L, False)[1], _own(xs, e, zero, L, False)[1]
    after = _own(xvs, e, zero, L, True)[1], _own(xs, e, zero, L, True)[1]
    _store_block(blocks, base, n, me, channel, inside, C, m, before, after, step, BLOCKS, CHUNKS)


@triton.jit(do_not_specialize=UNSPECIALISED)
def forward(
    w_ptr, u_ptr, k_ptr, v_ptr, y_ptr, blocks, T, C, w_b, w_c, u_b, u_c, k_b, k_s, v_b, v_s,
    k_t: tl.constexpr, k_c: tl.constexpr, v_t: tl.constexpr, v_c: tl.constexpr, y_t: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, POW2: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr,
    L: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """y, contiguous (B, S, T, C).

    Args:
        w_ptr, u_ptr: (1 or B, C). k_ptr, v_ptr: (B, S, T, C). x_b, x_s, x_t and x_c: the strides of x;
            y is contiguous, so y_t is C.
        blocks: the blocks' own sums, see `summarise`, of no meaning where a sequence is one block.
        CHANNELS: programs along the channels, BLOCK channels each. BLOCKS: blocks a sequence. POW2: the power of
            two from there. CHUNKS: chunks a block, of L tokens. EVEN: T and C are whole multiples of theirs.
    """
    # From the last program to the first: what `summarise` read last is still in the cache.
    n, b, s, me, channel = _place(BLOCKS, CHANNELS, BLOCK, True)
    inside, first = channel < C, (me * CHUNKS + tl.arange(0, CHUNKS)[:, None]) * L
    w = tl.load(w_ptr + b * w_b + channel * w_c, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + b * u_b + channel * u_c, mask=inside, other=0.0).to(tl.float32)
    if BLOCKS > 1:
        others = _others(blocks, n, me, channel, inside, C, BLOCKS, POW2)
    ks = _load(k_ptr + b * k_b + s * k_s + channel * k_c, first, T, inside, NOTHING, k_t, L, EVEN)
    vs = _load(v_ptr + b * v_b + s * v_s + channel * v_c, first, T, inside, 0.0, v_t, L, EVEN)
    e, own, zero, step = _decay(w), tl.exp(u), tl.zeros((CHUNKS, BLOCK), tl.float32), w * (L * LOG2E)
    base, m, xs, xvs = _weigh(ks, vs, L)
    carry_before, carry_after = _no_carry(BLOCK), _no_carry(BLOCK)
    if BLOCKS > 1:
        carry_before, carry_after = _carry(others, base, me, CHUNKS * step, BLOCKS, POW2)

    sums_v, all_before_v, all_after_v = _around(xvs, own, e, zero, L)
    sums_1, all_before_1, all_after_1 = _around(xs, own, e, zero, L)
    before, after = _reaching(
        m, (all_before_v, all_before_1), (all_after_v, all_after_1), carry_before, carry_after, step, CHUNKS
    )
    top = tl.maximum(m, tl.maximum(before[0], after[0]))
    fx, fb, fa = tl.exp2(m - top), tl.exp2(before[0] - top), tl.exp2(after[0] - top)
    bv, b1, av, a1 = before[1] * fb, before[2] * fb, after[1] * fa, after[2] * fa
    powers, ys = _powers(e, L), ()
    for i in tl.static_range(L):
        up, down = powers[i], powers[L - 1 - i]
        weight = _combine(sums_1[i], fx, b1, up, a1, down)
        ys = ys + (_combine(sums_v[i], fx, bv, up, av, down) * _invert(weight),)
    _store(y_ptr + n * T * y_t + channel, first, T, inside, ys, y_t, L, EVEN)


@triton.jit(do_not_specialize=UNSPECIALISED)
def backward(
    w_ptr, u_ptr, k_ptr, v_ptr, dy_ptr, dk_ptr, dv_ptr, dwu_ptr, blocks, gh_blocks, T, C, N,
    w_b, w_c, u_b, u_c, k_b, k_s, v_b, v_s, dy_b, dy_s,
    k_t: tl.constexpr, k_c: tl.constexpr, v_t: tl.constexpr, v_c: tl.constexpr,
    dy_t: tl.constexpr, dy_c: tl.constexpr, y_t: tl.constexpr, LAST: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, POW2: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr,
    L: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """dk and dv, contiguous, and each block's share of dw and du, (2, N, BLOCKS, C).

    Where a sequence is longer than a block this runs twice: first (LAST false) for the blocks' sums of g and h.
    """
    n, b, s, me, channel = _place(BLOCKS, CHANNELS, BLOCK, LAST)
    inside, first = channel < C, (me * CHUNKS + tl.arange(0, CHUNKS)[:, None]) * L
    w = tl.load(w_ptr + b * w_b + channel * w_c, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + b * u_b + channel * u_c, mask=inside, other=0.0).to(tl.float32)
    if BLOCKS > 1:
        others = _others(blocks, n, me, channel, inside, C, BLOCKS, POW2)
    ks = _load(k_ptr + b * k_b + s * k_s + channel * k_c, first, T, inside, NOTHING, k_t, L, EVEN)
    vs = _load(v_ptr + b * v_b + s * v_s + channel * v_c, first, T, inside, 0.0, v_t, L, EVEN)
    dys = _load(dy_ptr + b * dy_b + s * dy_s + channel * dy_c, first, T, inside, 0.0, dy_t, L, EVEN)
    e, own, zero, step = _decay(w), tl.exp(u), tl.zeros((CHUNKS, BLOCK), tl.float32), w * (L * LOG2E)
    base, m, xs, xvs = _weigh(ks, vs, L)
    carry_before, carry_after = _no_carry(BLOCK), _no_carry(BLOCK)
    if BLOCKS > 1:
        carry_before, carry_after = _carry(others, base, me, CHUNKS * step, BLOCKS, POW2)
    powers = _powers(e, L)

    before_v, all_before_v = _own(xvs, e, zero, L, False)
    before_1, all_before_1 = _own(xs, e, zero, L, False)
    after_v, all_after_v = _own(xvs, e, zero, L, True)
    after_1, all_after_1 = _own(xs, e, zero, L, True)
    after_v_by_e, after_1_by_e = _now(_slope(after_v, e, zero, L)), _now(_slope(after_1, e, zero, L))
    before, after = _reaching(
        m, (all_before_v, all_before_1), (all_after_v, all_after_1), carry_before, carry_after, step, CHUNKS
    )
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
        others_v = _combine(before_v[i] + after_v[i], fx, bv, powers[i], av, powers[L - 1 - i])
        others = _combine(before_1[i] + after_1[i], fx, b1, powers[i], a1, powers[L - 1 - i])
        inverse = _invert(tl.fma(own_fx, xs[i], others))
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
        both_g, both_h = (_now(sums_g[i] + onward_g),) + both_g, (_now(sums_h[i] + onward_h),) + both_h
        after_g_by_e, after_h_by_e = tl.fma(after_g_by_e, e, onward_g), tl.fma(after_h_by_e, e, onward_h)
        onward_g, onward_h = tl.fma(onward_g, e, gs[i]), tl.fma(onward_h, e, tl.fma(-vs[i], gs[i], zs[i]))

    before_v_by_e, before_1_by_e = _now(before_v_by_e), _now(before_1_by_e)
    dw = within * fx + bv * after_g_by_e + b1 * after_h_by_e + av * before_g_by_e + a1 * before_h_by_e
    dw = _now(dw)

    mg = tl.where(first < T, -top, NOTHING)
    gh_before, gh_after = (upto_g, upto_h), (onward_g, onward_h)
    if not LAST:
        _store_block(gh_blocks, -base, n, me, channel, inside, C, mg, gh_before, gh_after, step, BLOCKS, CHUNKS)
    else:
        carry_before, carry_after = _no_carry(BLOCK), _no_carry(BLOCK)
        if BLOCKS > 1:
            gh_others = _others(gh_blocks, n, me, channel, inside, C, BLOCKS, POW2)
            carry_before, carry_after = _carry(gh_others, -base, me, CHUNKS * step, BLOCKS, POW2)
        g_before, g_after = _reaching(mg, gh_before, gh_after, carry_before, carry_after, step, CHUNKS)
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
            others_g = _combine(both_g[i], fx, bg, powers[i], ag, powers[L - 1 - i])
            others_h = _combine(both_h[i], fx, bh, powers[i], ah, powers[L - 1 - i])
            dvs = dvs + (xs[i] * tl.fma(own_fx, gs[i], others_g),)
            dks = dks + (xs[i] * tl.fma(own_fx, zs[i], tl.fma(vs[i], others_g, others_h)),)
        _store(dk_ptr + n * T * y_t + channel, first, T, inside, dks, y_t, L, EVEN)
        _store(dv_ptr + n * T * y_t + channel, first, T, inside, dvs, y_t, L, EVEN)
        at = dwu_ptr + (n * BLOCKS + me) * C + channel
        tl.store(at, tl.sum(dw, 0, keep_dims=True) * -e, mask=inside)
        tl.store(at + N * BLOCKS * C, tl.sum(du * own_fx, 0, keep_dims=True), mask=inside)
