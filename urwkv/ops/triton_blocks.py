"""Bi-WKV for GPUs: its sums from program to program. All float32.

Where a sequence is longer than a block, the blocks' own sums are stored, and a block's program makes what reaches it
of all the others'. Either a kernel has stored them before, or programs that run beside this one do, and it waits for
them: then nothing is read twice. And a sample's dw and du are sums over its scans and blocks.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_chunks import largest_of, sum_of
from urwkv.ops.triton_math import INTERPRETED, floats
from urwkv.ops.triton_sums import LOG2E, NOTHING

PARTS = tl.constexpr(4)
"""Numbers that stand for sums on one side: base, m, a and b, side by side, so that a thread moves all at once."""


@triton.jit
def _other(i: tl.constexpr, CHUNKS: tl.constexpr):
    """The i-th CHUNKS blocks of a sequence, (CHUNKS, 1)."""
    return i * CHUNKS + tl.arange(0, CHUNKS)[:, None]


@triton.jit
def _sides(i: tl.constexpr, me, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr):
    """Which of them lie before block `me`, and which after it."""
    other = _other(i, CHUNKS)
    return other < me, (other > me) & (other < BLOCKS)


@triton.jit
def _at(blocks, n, me, i: tl.constexpr, channel, C: tl.constexpr, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr):
    """Where those sums of theirs lie that reach block `me`."""
    other = _other(i, CHUNKS)
    return blocks + (((n * BLOCKS + other) * 2 + (other > me)) * C + channel) * PARTS


@triton.jit
def others_sums(
    blocks, n, me, channel, inside, C: tl.constexpr, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr, WAIT: tl.constexpr
):
    """Of each other block base, m, a and b: of the sums before its end if it lies before `me`, else after its start.

    Tensors are (CHUNKS, channels), a block a row, which lie in threads as those of chunks do; after CHUNKS blocks
    come the next. Where there is no other block, all are -0.

    Args:
        blocks: the blocks' own sums, (sequences, blocks, 2 sides, channels, 4), float32.
        WAIT: they are +0 until their programs, which run meanwhile, store them. Each number is known by itself, so
            the order in which stores are seen does not matter; a thread asks for all of its own before it waits.
    """
    rows: tl.constexpr = (BLOCKS + CHUNKS - 1) // CHUNKS
    loaded, known = (), ()
    for i in tl.static_range(rows):
        before, after = _sides(i, me, BLOCKS, CHUNKS)
        at = _at(blocks, n, me, i, channel, C, BLOCKS, CHUNKS)
        loaded = loaded + _load(at, inside & (before | after), PARTS)
    if not WAIT:
        return loaded
    for i in tl.static_range(rows):
        at = _at(blocks, n, me, i, channel, C, BLOCKS, CHUNKS)
        known = known + _awaited(at, loaded[i * PARTS : (i + 1) * PARTS], PARTS)
    return known


@triton.jit
def carry_of(others, base, me, step, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr, ONE_BASE: tl.constexpr):
    """The largest base of a sequence, and relative to it what reaches block `me` from the others: (m, a, b) before
    its start and (m, a, b) after its end. (chunks, channels), in each row the same.

    To one base, since differences of two that lie far from it would be rounded by more than weights may be off.

    Args:
        base: the block's own, of x a key, of g minus a key. ONE_BASE: it is the other blocks', too, so the largest.
        step: (1, channels), the binary logarithm of the decay over a block.
    """
    rows: tl.constexpr = (BLOCKS + CHUNKS - 1) // CHUNKS
    largest, exponents = base, ()
    if not ONE_BASE:
        for i in tl.static_range(rows):
            before, after = _sides(i, me, BLOCKS, CHUNKS)
            largest = tl.maximum(largest, tl.where(before | after, others[i * PARTS], NOTHING))
        (largest,) = largest_of((largest,))
    mb = tl.full((CHUNKS, base.shape[1]), NOTHING, tl.float32)
    ma = mb
    for i in tl.static_range(rows):
        before, after = _sides(i, me, BLOCKS, CHUNKS)
        m = others[i * PARTS + 1] - (tl.abs(me - _other(i, CHUNKS)) - 1) * step
        if not ONE_BASE:
            m += (others[i * PARTS] - largest) * LOG2E
        mb = tl.maximum(mb, tl.where(before, m, NOTHING))
        ma = tl.maximum(ma, tl.where(after, m, NOTHING))
        exponents = exponents + (m,)
    mb, ma = largest_of((mb, ma))
    zero = tl.zeros(mb.shape, tl.float32)
    ab, bb, aa, ba = zero, zero, zero, zero
    for i in tl.static_range(rows):
        before, after = _sides(i, me, BLOCKS, CHUNKS)
        _, _, a, b = others[i * PARTS : (i + 1) * PARTS]
        f = tl.exp2(exponents[i] - tl.where(before, mb, ma))
        fb, fa = tl.where(before, f, 0.0), tl.where(after, f, 0.0)
        ab, bb, aa, ba = tl.fma(a, fb, ab), tl.fma(b, fb, bb), tl.fma(a, fa, aa), tl.fma(b, fa, ba)
    ab, bb, aa, ba = sum_of((ab, bb, aa, ba))
    return largest, (mb, ab, bb), (ma, aa, ba)


@triton.jit
def store_carry(
    carries, n, me, channel, inside, C: tl.constexpr, base, before, after, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr
):
    """What reaches block `me` from the others, as from `carry_of`, for `load_carry`; carries are as blocks."""
    there = inside & (tl.arange(0, CHUNKS)[:, None] == 0)
    at = carries + ((n * BLOCKS + me) * 2 * C + channel) * PARTS
    _store(at, there, (base,) + before, PARTS)
    _store(at + C * PARTS, there, (base,) + after, PARTS)


@triton.jit
def load_carry(carries, n, me, channel, inside, C: tl.constexpr, BLOCKS: tl.constexpr):
    """What `store_carry` has stored."""
    at = carries + ((n * BLOCKS + me) * 2 * C + channel) * PARTS
    base, mb, ab, bb = _load(at, inside, PARTS)
    _, ma, aa, ba = _load(at + C * PARTS, inside, PARTS)
    return base, (mb, ab, bb), (ma, aa, ba)


@triton.jit
def store_block(
    blocks, base, n, me, channel, inside, C: tl.constexpr, before, after, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr
):
    """The block's own sums, before its end and after its start: base, and (m, a, b) relative to it.

    Args:
        before, after: as from `passing`, of all chunks: the last one's, and the first one's, are the block's.
    """
    chunk = tl.arange(0, CHUNKS)[:, None]
    at = blocks + ((n * BLOCKS + me) * 2 * C + channel) * PARTS
    _store(at, inside & (chunk == CHUNKS - 1), (base,) + before, PARTS)
    _store(at + C * PARTS, inside & (chunk == 0), (base,) + after, PARTS)


@triton.jit
def add_up(
    shares, b, s, me, channel, inside, C: tl.constexpr, dw, du, dwu_ptr, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr
):
    """A sample's dw and du, (2, samples, channels), of its scans' and blocks' shares of both, as from `sum_of`.

    The last of its programs to start, that of the first scan's first block, waits for the others' shares and adds
    them in their order. It may wait for any number: what they wait for it has stored before.

    Args:
        shares: (samples, scans, blocks, channels, 2), float32, all +0 before the kernel.
    """
    number, chunk = tl.num_programs(1) * BLOCKS, tl.arange(0, CHUNKS)[:, None]
    at = shares + (b * number * C + channel) * 2
    _store(at + (s * BLOCKS + me) * C * 2, inside & (chunk == 0), (dw, du), 2)
    if (s == 0) & (me == 0):
        dws = tl.zeros((CHUNKS, channel.shape[1]), tl.float32)
        dus = dws
        for i in range(0, number, CHUNKS):
            its, there = at + (i + chunk) * C * 2, inside & (i + chunk < number)
            its_dw, its_du = _awaited(its, _load(its, there, 2), 2)
            dws, dus = dws + its_dw, dus + its_du
        dws, dus = sum_of((dws, dus))
        store_dwu(dwu_ptr, b, channel, inside, C, dws, dus)


@triton.jit
def store_dwu(dwu_ptr, b, channel, inside, C: tl.constexpr, dw, du):
    """A sample's dw and du, as from `sum_of`, in (2, samples, channels)."""
    at = dwu_ptr + b * C + channel
    there = inside & (tl.arange(0, dw.shape[0])[:, None] == 0)
    tl.store(tl.broadcast_to(at, dw.shape), dw, mask=there)
    tl.store(tl.broadcast_to(at + tl.num_programs(2) * C, dw.shape), du, mask=there)


@triton.jit
def _load(at, there, NUMBER: tl.constexpr):
    """The numbers from `at` on, two or four; -0 where there are none."""
    if INTERPRETED:
        numbers = ()
        for i in tl.static_range(NUMBER):
            numbers = numbers + (tl.load(at + i, mask=there, other=-0.0),)
        return numbers
    asm: tl.constexpr = _loading(NUMBER)
    arguments = (at.to(tl.int64), there.to(tl.int32))
    return tl.inline_asm_elementwise(asm, "=&r," * NUMBER + "l,r", arguments, floats(NUMBER), False, 1)


@triton.jit
def _awaited(at, its, NUMBER: tl.constexpr):
    """The numbers from `at` on, any of which may be +0 yet in `its`: a thread waits for its own."""
    if INTERPRETED:
        return its
    asm: tl.constexpr = _awaiting(NUMBER)
    constraints: tl.constexpr = "=&r," * NUMBER + "l" + (",0,1" if NUMBER == 2 else ",0,1,2,3")
    return tl.inline_asm_elementwise(asm, constraints, (at.to(tl.int64),) + its, floats(NUMBER), False, 1)


@triton.jit
def _store(at, there, numbers, NUMBER: tl.constexpr):
    """The numbers from `at` on, where they are there; +0 as -0, which is not what no program has stored yet."""
    known, at = (), tl.broadcast_to(at, there.shape)
    for i in tl.static_range(NUMBER):
        bits = tl.broadcast_to(numbers[i], there.shape).to(tl.int32, bitcast=True)
        known = known + (tl.where(bits == 0, -(2**31), bits).to(tl.float32, bitcast=True),)
    if INTERPRETED:
        for i in tl.static_range(NUMBER):
            tl.store(at + i, known[i], mask=there)
    else:
        asm: tl.constexpr = _storing(NUMBER)
        constraints: tl.constexpr = "=r,l,r" + ",r" * NUMBER
        arguments = (at.to(tl.int64), there.to(tl.int32)) + known
        tl.inline_asm_elementwise(asm, constraints, arguments, tl.int32, False, 1)


@triton.constexpr_function
def _loading(number):
    zeros = "\n".join([f"mov.b32 ${i}, 0x80000000;" for i in range(number)])
    return f"""{{
        .reg .pred there;
        setp.ne.u32 there, ${number + 1}, 0;
        {zeros}
        @there {_load_to_outputs(number)}
    }}"""


@triton.constexpr_function
def _awaiting(number):
    unknown = "\n".join([f"setp.eq.or.s32 waits, ${i}, 0, waits;" for i in range(1, number)])
    return f"""{{
        .reg .pred waits;
    again:
        setp.eq.s32 waits, $0, 0;
        {unknown}
        @!waits bra known;
        {_load_to_outputs(number)}
        bra again;
    known:
    }}"""


@triton.constexpr_function
def _load_to_outputs(number):
    outputs = ", ".join([f"${i}" for i in range(number)])
    return f"ld.relaxed.gpu.global.v{number}.b32 {{{outputs}}}, [${number}];"


@triton.constexpr_function
def _storing(number):
    inputs = ", ".join([f"${i + 3}" for i in range(number)])
    return f"""{{
        .reg .pred there;
        setp.ne.u32 there, $2, 0;
        @there st.relaxed.gpu.global.v{number}.b32 [$1], {{{inputs}}};
        mov.b32 $0, 0;
    }}"""
