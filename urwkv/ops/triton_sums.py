"""Bi-WKV for GPUs: its sums within a chunk and from chunk to chunk. All float32.

Sums are one-sided: "before" runs along the tokens, "after" against them; sums come in pairs, of (x v, x) or of
(g, h). Within a chunk they are Horner's rule, p <- e p + x with e = exp(-w), started from nothing: its own sums.
What comes from outside the chunk is one pair a side, times a power of e. From chunk to chunk a pair travels as
(m, a, b), which stands for 2^m a and 2^m b, and is merged at the larger m, so no sum overflows and none that
matters underflows, however unlike the keys are. The exponent m of a chunk is its largest key, shifted by the decay
to a common origin: there a merge knows no distance. All exponents of a block are relative to its largest key, its
base, so keys may lie far from zero.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import INTERPRETED, zero_behind_barrier

LOG2E = tl.constexpr(1.4426950408889634)

NOTHING = tl.constexpr(-1e30)
"""The exponent of an empty sum; finite, since the difference of two infinities is not a number."""


@triton.jit
def decay_of(w):
    """e = exp(-w) to 1 ulp, mostly to half of one: its powers up to L - 1 carry its error as often.

    By 2^n exp(r), |r| <= ln 2 / 2, and r to twice float32's precision (Cody and Waite, Software Manual for the
    Elementary Functions, chapter 6); exp(r) by Taylor, to 1e-8.
    """
    n = tl.floor(0.5 - w * LOG2E)
    r = tl.fma(n, -1.42860677e-6, tl.fma(n, -0.693145752, -w))
    q = tl.fma(r, tl.fma(r, tl.fma(r, tl.fma(r, 1 / 5040, 1 / 720), 1 / 120), 1 / 24), 1 / 6)
    return (1.0 + tl.fma(r * r, tl.fma(q, r, 0.5), r)) * tl.exp2(n)


@triton.jit
def weigh(ks, vs, L: tl.constexpr):
    """The block's largest key, each chunk's exponent beside it, m, and x = exp(k) 2^-m and x v of the tokens."""
    # Tokens beyond the end have k = NOTHING and weigh nothing even among themselves.
    # And nothing is computed before all of k and v, and dL/dy, are asked for: a barrier of the program's threads.
    largest = tl.full(ks[0].shape, NOTHING / 2, tl.float32)
    largest = (largest.to(tl.int32, bitcast=True) | zero_behind_barrier()).to(tl.float32, bitcast=True)
    for i in tl.static_range(L):
        largest = tl.maximum(largest, ks[i])
    base = tl.max(largest, 0, keep_dims=True)
    xs, xvs = (), ()
    for i in tl.static_range(L):
        x = tl.exp2((ks[i] - largest) * LOG2E)
        xs = xs + (x,)
        xvs = xvs + (x * vs[i],)
    return base, (largest - base) * LOG2E, xs, xvs


@triton.jit
def own_sums(xs, e, zero, L: tl.constexpr, AFTER: tl.constexpr):
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
def around(xs, own, e, zero, L: tl.constexpr):
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
def slope_of(after, e, zero, L: tl.constexpr):
    """The derivative by e of the sum of all, from the sums after each token."""
    d = zero
    for i in tl.static_range(L):
        d = tl.fma(d, e, after[L - 1 - i])
    return d


@triton.jit
def powers_of(e, L: tl.constexpr):
    """e^0 to e^(L-1)."""
    powers, power = (), tl.full(e.shape, 1.0, tl.float32)
    for _ in tl.static_range(L):
        powers = powers + (power,)
        power *= e
    return powers


@triton.jit
def combine(inner, f, before, power_before, after, power_after):
    """A token's sum of all others: inner f from its chunk, and what came from both sides, decayed on the way."""
    return tl.fma(inner, f, tl.fma(before, power_before, after * power_after))


@triton.jit
def now(x):
    """x, computed here: what only the last lines need, the compiler puts off, and holds what it is made of."""
    return x if INTERPRETED else tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], tl.float32, False, 1)


@triton.jit
def all_now(xs, L: tl.constexpr):
    """A tuple of L, computed here."""
    kept = ()
    for i in tl.static_range(L):
        kept = kept + (now(xs[i]),)
    return kept


@triton.jit
def merge(m1, a1, b1, m2, a2, b2):
    """The sum of two pairs (m, a, b), at the larger exponent."""
    m = tl.maximum(m1, m2)
    f1, f2 = tl.exp2(m1 - m), tl.exp2(m2 - m)
    return m, a1 * f1 + a2 * f2, b1 * f1 + b2 * f2


@triton.jit
def extend(em1, ea1, eb1, m1, a1, b1, em2, ea2, eb2, m2, a2, b2):
    """Joins two runs of chunks; each is known by the sums of all its chunks but the last, and of all."""
    em, ea, eb = merge(m1, a1, b1, em2, ea2, eb2)
    m, a, b = merge(m1, a1, b1, m2, a2, b2)
    return em, ea, eb, m, a, b


@triton.jit
def nothing_like(x):
    """The pair (m, a, b) of no tokens, in the shape of x."""
    zero = tl.zeros(x.shape, tl.float32)
    return zero + NOTHING, zero, zero


@triton.jit
def reaching(m, before, after, step, CHUNKS: tl.constexpr):
    """What reaches each chunk from the others of its block: ((m, a, b) before its start, (m, a, b) after its end).

    Args:
        m: (chunks, channels), the exponent of the chunks' own sums.
        before, after: the chunks' own sums (a, b), before their end and after their start.
        step: (1, channels), the binary logarithm of the decay over a chunk.
    """
    chunk = tl.arange(0, CHUNKS)[:, None]
    empty = nothing_like(m)
    upto, onward = (m + chunk * step, before[0], before[1]), (m - chunk * step, after[0], after[1])
    mb, ab, bb, _, _, _ = tl.associative_scan(empty + upto, 0, extend)
    ma, aa, ba, _, _, _ = tl.associative_scan(empty + onward, 0, extend, reverse=True)
    return (mb - (chunk - 1) * step, ab, bb), (ma + (chunk + 1) * step, aa, ba)


@triton.jit
def carried(before, after, carry_before, carry_after, step, CHUNKS: tl.constexpr):
    """The same with what comes from outside the block.

    Args:
        before, after: as from `reaching`.
        carry_before, carry_after: (m, a, b), (1, channels), before the block's start and after its end.
    """
    chunk = tl.arange(0, CHUNKS)[:, None]
    mb, ab, bb = carry_before
    ma, aa, ba = carry_after
    return (
        merge(before[0], before[1], before[2], mb - chunk * step, ab, bb),
        merge(after[0], after[1], after[2], ma - (CHUNKS - 1 - chunk) * step, aa, ba),
    )
