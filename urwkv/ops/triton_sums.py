"""Bi-WKV for GPUs: its sums within a chunk and from chunk to chunk. All float32.

Sums are one-sided: "before" runs along the tokens, "after" against them; sums come in pairs, of (x v, x) or of
(g, h). Within a chunk they are Horner's rule, p <- e p + x with e = exp(-w): first from nothing, for the chunk's own
sums, then from what comes from outside. From chunk to chunk a pair travels as (m, a, b), which stands for 2^m a and
2^m b, and sums are made at the largest m, so none overflows and none that matters underflows, however unlike the keys
are. The exponent m of a chunk is its largest key, shifted by the decay to a common origin: there a sum knows no
distance. All exponents of a block are relative to its largest key, its base, so keys may lie far from zero.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_chunks import exponents_of, largest_of, pair_of, show
from urwkv.ops.triton_math import INTERPRETED, zero_behind_barrier

LOG2E = tl.constexpr(1.4426950408889634)

NOTHING = tl.constexpr(-1e30)
"""The exponent of an empty sum; finite, since the difference of two infinities is not a number."""


@triton.jit
def decay_of(w):
    """e = exp(-w) to 1 ulp, mostly to half of one: what it multiplies L - 1 times carries its error as often.

    By 2^n exp(r), |r| <= ln 2 / 2, and r to twice float32's precision (Cody and Waite, Software Manual for the
    Elementary Functions, chapter 6); exp(r) by Taylor, to 1e-8.
    """
    n = tl.floor(0.5 - w * LOG2E)
    r = tl.fma(n, -1.42860677e-6, tl.fma(n, -0.693145752, -w))
    n = tl.minimum(n, 127.0)  # so that e, which sums of one token do not need, is finite
    q = tl.fma(r, tl.fma(r, tl.fma(r, tl.fma(r, 1 / 5040, 1 / 720), 1 / 120), 1 / 24), 1 / 6)
    return (1.0 + tl.fma(r * r, tl.fma(q, r, 0.5), r)) * tl.exp2(n)


@triton.jit
def weigh(ks, base, L: tl.constexpr):
    """The base, each chunk's exponent beside it, m, and the tokens' x.

    exp(k) = exp(base) 2^m x, and x is at most 1. Differences of keys come first, products with LOG2E after: a product
    of a key far from zero is rounded by more than a weight may be off.

    Args:
        base: (1, channels), a key; None: the block's largest.
    """
    # Tokens beyond the end have k = NOTHING and weigh nothing even among themselves.
    # And nothing is computed before all of k and v, and dL/dy, are asked for: a barrier of the program's threads.
    largest = tl.full(ks[0].shape, NOTHING / 2, tl.float32)
    largest = (largest.to(tl.int32, bitcast=True) | zero_behind_barrier()).to(tl.float32, bitcast=True)
    for i in tl.static_range(L):
        largest = tl.maximum(largest, ks[i])
    xs, base = (), largest_of((largest,))[0] if base is None else base
    for i in tl.static_range(L):
        xs = xs + (tl.exp2((ks[i] - largest) * LOG2E),)
    return base, (largest - base) * LOG2E, xs


@triton.jit
def times(xs, ys, L: tl.constexpr):
    """The products of two tuples of L."""
    products = ()
    for i in tl.static_range(L):
        products = products + (xs[i] * ys[i],)
    return products


@triton.jit
def scaled(xs, f, L: tl.constexpr):
    """A tuple of L, each times f."""
    products = ()
    for i in tl.static_range(L):
        products = products + (xs[i] * f,)
    return products


@triton.jit
def total(xs, e, L: tl.constexpr, AFTER: tl.constexpr):
    """The own sum of a chunk before its end (or after its start), and its derivative by e."""
    a, d = xs[L - 1] if AFTER else xs[0], tl.zeros(xs[0].shape, tl.float32)
    for i in tl.static_range(1, L):
        d = tl.fma(d, e, a)
        a = tl.fma(a, e, xs[L - 1 - i] if AFTER else xs[i])
    return a, d


@triton.jit
def totals(xs, ys, e, L: tl.constexpr, AFTER: tl.constexpr):
    """A chunk's own pair of sums on one side, and the pair of their derivatives by e."""
    a, a_by_e = total(xs, e, L, AFTER)
    b, b_by_e = total(ys, e, L, AFTER)
    return (a, b), (a_by_e, b_by_e)


@triton.jit
def around(xs, own, e, before, after, L: tl.constexpr):
    """At each token the sum of all others and, where `own` is not None, own x of its own.

    Args:
        before, after: the sums before the chunk's start and after its end.
    """
    upto, both = (), ()
    for i in tl.static_range(L):
        upto = upto + (before if own is None else tl.fma(own, xs[i], before),)
        before = tl.fma(before, e, xs[i])
    for i in tl.static_range(L - 1, -1, -1):
        both = (upto[i] + after,) + both
        after = tl.fma(after, e, xs[i])
    return both


@triton.jit
def now(x):
    """x, computed here: what only the last lines need, the compiler puts off, and holds what it is made of."""
    return x if INTERPRETED else tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], tl.float32, False, 1)


@triton.jit
def merge(m1, a1, b1, m2, a2, b2):
    """The sum of two pairs (m, a, b), at the larger exponent."""
    m = tl.maximum(m1, m2)
    f1, f2 = tl.exp2(m1 - m), tl.exp2(m2 - m)
    return m, a1 * f1 + a2 * f2, b1 * f1 + b2 * f2


@triton.jit
def reaching(m, before, after, step, CHUNKS: tl.constexpr):
    """What reaches each chunk from the others of its block: ((m, a, b) before its start, (m, a, b) after its end).

    Each chunk sums all others by itself: a scan, whose threads wait for each other at every step, is no faster.

    Args:
        m: (chunks, channels), the exponent of the chunks' own sums.
        before, after: the chunks' own sums (a, b), before their end and after their start.
        step: (1, channels), the binary logarithm of the decay over a chunk.
    """
    chunk = tl.arange(0, CHUNKS)[:, None]
    shown = show((m + chunk * step,) + before, (m - chunk * step,) + after, NOTHING)
    mb, ab, bb = _sum_of(shown, False)
    ma, aa, ba = _sum_of(shown, True)
    return (mb - (chunk - 1) * step, ab, bb), (ma + (chunk + 1) * step, aa, ba)


@triton.jit
def _sum_of(shown, AFTER: tl.constexpr):
    """The sum (m, a, b) of all chunks before (or AFTER) each, at their largest exponent."""
    exponents = exponents_of(shown, AFTER)
    m = exponents[0]
    for i in tl.static_range(1, len(exponents)):
        m = tl.maximum(m, exponents[i])
    a, b = tl.zeros(m.shape, tl.float32), tl.zeros(m.shape, tl.float32)
    for i in tl.static_range(len(exponents)):
        its_a, its_b = pair_of(shown, i, AFTER)
        f = tl.exp2(exponents[i] - m)
        a, b = tl.fma(its_a, f, a), tl.fma(its_b, f, b)
    return m, a, b


@triton.jit
def passing(reaches, m, own, step):
    """The pair (m, a, b) that leaves each chunk, of what reaches it and of its own sums (a, b) at the exponent m."""
    return merge(reaches[0] - step, reaches[1], reaches[2], m, own[0], own[1])


@triton.jit
def shifted(pair, by):
    """The same sums, their exponent being relative to a base lower by so much."""
    return pair[0] + by, pair[1], pair[2]


@triton.jit
def carried(before, after, carry_before, carry_after, step, CHUNKS: tl.constexpr):
    """What reaches each chunk, with what comes from outside the block.

    Args:
        before, after: as from `reaching`.
        carry_before, carry_after: (m, a, b), (1 or chunks, channels), before the block's start and after its end.
    """
    chunk = tl.arange(0, CHUNKS)[:, None]
    mb, ab, bb = carry_before
    ma, aa, ba = carry_after
    return (
        merge(before[0], before[1], before[2], mb - chunk * step, ab, bb),
        merge(after[0], after[1], after[2], ma - (CHUNKS - 1 - chunk) * step, aa, ba),
    )


@triton.jit
def sums_at(exponent, reaches):
    """The sums (a, b) of a pair (m, a, b) at another exponent."""
    f = tl.exp2(reaches[0] - exponent)
    return reaches[1] * f, reaches[2] * f
