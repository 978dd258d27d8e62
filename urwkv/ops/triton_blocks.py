"""Bi-WKV for GPUs: its sums from block to block, where a sequence is longer than a block. All float32.

The blocks' own sums are stored, and a block's program makes what reaches it of all the others'. Either a kernel has
stored them before, or programs that run beside this one do, and it waits for them: then nothing is read twice.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_sums import LOG2E, NOTHING, merge, nothing_like

UNKNOWN = tl.constexpr(-1)
"""The bits of a sum that its program has yet to store: those of something that is not a number."""

PARTS = tl.constexpr(4)
"""Numbers that stand for a block's own sums on one side: base, m, a, b."""

CARRY = tl.constexpr(6)
"""Numbers that stand for what reaches a block: m, a and b before its start, and after its end."""


@triton.jit
def _on_side(other, me, side: tl.constexpr, BLOCKS: tl.constexpr):
    """Whether blocks lie before `me` (side 0), or after it (side 1)."""
    return (other < me) if side == 0 else ((other > me) & (other < BLOCKS))


@triton.jit
def _row(blocks, n, i: tl.constexpr, channel, C: tl.constexpr, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr):
    """The i-th CHUNKS blocks of a sequence, (CHUNKS, 1), and where their sums lie, (CHUNKS, channels)."""
    other = i * CHUNKS + tl.arange(0, CHUNKS)[:, None]
    return other, blocks + (n * BLOCKS + other) * (2 * PARTS) * C + channel


@triton.jit
def others_sums(blocks, n, me, channel, inside, C: tl.constexpr, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr):
    """The own sums of the blocks before `me`, then of those after it: base, m, a and b of each, and 0 elsewhere.

    Tensors are (CHUNKS, channels), a block a row, which lie in threads as those of chunks do; after CHUNKS blocks
    come the next.

    Args:
        blocks: the blocks' own sums, (sequences, blocks, 2 sides, 4, channels), float32.
    """
    loaded = ()
    for i in tl.static_range((BLOCKS + CHUNKS - 1) // CHUNKS):
        other, at = _row(blocks, n, i, channel, C, BLOCKS, CHUNKS)
        for side in tl.static_range(2):
            there = inside & _on_side(other, me, side, BLOCKS)
            for part in tl.static_range(PARTS):
                loaded = loaded + (tl.load(at + (side * PARTS + part) * C, mask=there, other=0.0, volatile=True),)
    return loaded


@triton.jit
def awaited_sums(blocks, n, me, channel, inside, C: tl.constexpr, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr):
    """The same as soon as their programs, which must run meanwhile, have stored them.

    All sums were UNKNOWN before the kernel. Each number is known by itself, so the order in which other programs'
    stores are seen does not matter; and a thread's own are issued before it begins to wait.
    """
    loaded, known = others_sums(blocks, n, me, channel, inside, C, BLOCKS, CHUNKS), ()
    for i in tl.static_range((BLOCKS + CHUNKS - 1) // CHUNKS):
        _, at = _row(blocks, n, i, channel, C, BLOCKS, CHUNKS)
        for side in tl.static_range(2):
            its = loaded[(2 * i + side) * PARTS : (2 * i + side + 1) * PARTS]
            known = known + _awaited(at + side * PARTS * C, C, its)
    return known


@triton.jit
def _awaited(at, C: tl.constexpr, its):
    """A block's base, m, a and b, C apart from `at` on, which may be UNKNOWN (-1) yet: a thread waits for its own."""
    asm: tl.constexpr = """{
        .reg .pred waits;
        .reg .u64 at;
    again:
        setp.eq.s32 waits, $0, -1;
        setp.eq.or.s32 waits, $1, -1, waits;
        setp.eq.or.s32 waits, $2, -1, waits;
        setp.eq.or.s32 waits, $3, -1, waits;
        @!waits bra known;
        ld.volatile.global.b32 $0, [$4];
        add.u64 at, $4, $5;
        ld.volatile.global.b32 $1, [at];
        add.u64 at, at, $5;
        ld.volatile.global.b32 $2, [at];
        add.u64 at, at, $5;
        ld.volatile.global.b32 $3, [at];
        bra again;
    known:
    }"""
    numbers = [at.to(tl.int64), tl.full(at.shape, 4 * C, tl.int64), its[0], its[1], its[2], its[3]]
    four: tl.constexpr = (tl.float32, tl.float32, tl.float32, tl.float32)
    return tl.inline_asm_elementwise(asm, "=&r,=&r,=&r,=&r,l,l,0,1,2,3", numbers, four, False, 1)


@triton.jit
def carry_of(others, base, me, step, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr):
    """What reaches block `me` from the others: ((m, a, b) before its start, (m, a, b) after its end).

    Args:
        base: (1, channels), what this block's exponents are relative to, of x a key, of g minus a key.
        step: (1, channels), the binary logarithm of the decay over a block.
    """
    reached = ()
    for side in tl.static_range(2):
        m, a, b = nothing_like(others[0])
        for i in tl.static_range((BLOCKS + CHUNKS - 1) // CHUNKS):
            other = i * CHUNKS + tl.arange(0, CHUNKS)[:, None]
            between = (me - 1 - other) if side == 0 else (other - me - 1)
            its = others[(2 * i + side) * PARTS : (2 * i + side + 1) * PARTS]
            its_m = tl.where(
                _on_side(other, me, side, BLOCKS), (its[0] - base) * LOG2E + its[1] - between * step, NOTHING
            )
            m, a, b = merge(m, a, b, its_m, its[2], its[3])
        reached = reached + (tl.reduce((m, a, b), 0, merge, keep_dims=True),)
    return reached


@triton.jit
def store_carry(carries, n, me, channel, inside, C: tl.constexpr, before, after, BLOCKS: tl.constexpr):
    """What reaches block `me` from the others, as from `carry_of`, in carries: (sequences, blocks, 6, channels)."""
    at, carry = carries + (n * BLOCKS + me) * CARRY * C + channel, before + after
    for part in tl.static_range(CARRY):
        tl.store(at + part * C, carry[part], mask=inside)


@triton.jit
def load_carry(carries, n, me, channel, inside, C: tl.constexpr, BLOCKS: tl.constexpr):
    """What `store_carry` has stored."""
    at, carry = carries + (n * BLOCKS + me) * CARRY * C + channel, ()
    for part in tl.static_range(CARRY):
        carry = carry + (tl.load(at + part * C, mask=inside, other=0.0),)
    return carry[:3], carry[3:]


@triton.jit
def store_block(
    blocks, base, n, me, channel, inside, C: tl.constexpr, before, after, BLOCKS: tl.constexpr, CHUNKS: tl.constexpr
):
    """The block's own sums, before its end and after its start: base, and (m, a, b) relative to it.

    Args:
        before, after: as from `passing`, of all chunks: the last one's, and the first one's, are the block's.
    """
    chunk = tl.arange(0, CHUNKS)[:, None]
    at = blocks + (n * BLOCKS + me) * (2 * PARTS) * C + tl.broadcast_to(channel, before[0].shape)
    for side in tl.static_range(2):
        parts = (base,) + (before if side == 0 else after)
        there = inside & (chunk == (CHUNKS - 1 if side == 0 else 0))
        for part in tl.static_range(PARTS):
            bits = parts[part].to(tl.int32, bitcast=True)
            known = tl.where(bits == UNKNOWN, UNKNOWN - 1, bits).to(tl.float32, bitcast=True)
            tl.store(at + (side * PARTS + part) * C, tl.broadcast_to(known, at.shape), mask=there)
