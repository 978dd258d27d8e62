"""Bi-WKV for GPUs: what the chunks of a block see of each other, through the memory that a program's threads share.

By machine instructions: numbers change threads at one barrier, where Triton takes two or three for each exchange and
sum of its own. A thread holds just one number of a tensor (chunks, channels), float32. An exchange may be there
several times, for several layouts of threads; each has memory of its own, which is written once.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import INTERPRETED, floats


@triton.jit
def show(before, after, nothing):
    """Shows each chunk's sums to the others; for `exponents_of` and `pair_of`.

    Args:
        before, after: what later chunks, and what earlier ones are to see: (m, a, b) each.
        nothing: the exponent of chunks that are not there, whose a and b are 0.
    """
    shape: tl.constexpr = before[0].shape
    if INTERPRETED:
        return before + after + (tl.full(shape, nothing, tl.float32),)
    asm: tl.constexpr = _showing(shape[0] * shape[1])
    arguments = (_thread(shape),) + before + after + (tl.full(shape, nothing, tl.float32),)
    return tl.inline_asm_elementwise(asm, "=&r,=&r" + ",r" * 8, arguments, (tl.int32, tl.int32), False, 1)


@triton.jit
def exponents_of(shown, AFTER: tl.constexpr):
    """m of the chunks before (or AFTER) each: a tuple, one less than chunks, the nearest first."""
    shape: tl.constexpr = shown[0].shape
    exponents = ()
    if INTERPRETED:
        for i in tl.static_range(shape[0] - 1):
            exponents = exponents + (_from_another(shown[3 * AFTER], shown[6], i, AFTER),)
    else:
        asm: tl.constexpr = _seeing_exponents(shape[0], shape[1], AFTER)
        constraints: tl.constexpr = "=&r," * (shape[0] - 1) + "r"
        exponents = tl.inline_asm_elementwise(asm, constraints, (shown[0],), floats(shape[0] - 1), False, 1)
    return exponents


@triton.jit
def pair_of(shown, i: tl.constexpr, AFTER: tl.constexpr):
    """a and b of the chunk before (or AFTER) each from which i others part it."""
    if INTERPRETED:
        a = _from_another(shown[3 * AFTER + 1], tl.zeros_like(shown[6]), i, AFTER)
        return a, _from_another(shown[3 * AFTER + 2], tl.zeros_like(shown[6]), i, AFTER)
    asm: tl.constexpr = _seeing_pair(i, shown[0].shape[0], shown[0].shape[1], AFTER)
    return tl.inline_asm_elementwise(asm, "=r,=r,r", (shown[1],), floats(2), False, 1)


@triton.jit
def largest_of(numbers):
    """The largest of all chunks, of each of one, two or four tensors; a tuple."""
    return _over_all(numbers, True)


@triton.jit
def sum_of(numbers):
    """The sum of all chunks, in their order, of each of one, two or four tensors; a tuple."""
    return _over_all(numbers, False)


@triton.jit
def _over_all(numbers, LARGEST: tl.constexpr):
    seen, results = _of_all(numbers), ()
    for j in tl.static_range(len(numbers)):
        x = seen[j]
        for i in tl.static_range(1, numbers[0].shape[0]):
            its = seen[i * len(numbers) + j]
            x = tl.maximum(x, its) if LARGEST else x + its
        results = results + (x,)
    return results


@triton.jit
def _of_all(numbers):
    """The first chunk's numbers as every chunk sees them, then the second's, and so on."""
    number: tl.constexpr = len(numbers)
    shape: tl.constexpr = numbers[0].shape
    seen = ()
    if INTERPRETED:
        for i in tl.static_range(shape[0]):
            for j in tl.static_range(number):
                seen = seen + (tl.gather(numbers[j], tl.full(shape, i, tl.int32), 0),)
    else:
        asm: tl.constexpr = _telling_all(number, shape[0], shape[1])
        constraints: tl.constexpr = "=&r," * (number * shape[0]) + "r,r" + ",r" * number
        channel = tl.broadcast_to(tl.arange(0, shape[1])[None, :], shape)
        seen = tl.inline_asm_elementwise(
            asm, constraints, (_thread(shape), channel) + numbers, floats(number * shape[0]), False, 1
        )
    return seen


@triton.jit
def _thread(shape: tl.constexpr):
    """The place of a number in a tensor, row by row."""
    return tl.arange(0, shape[0])[:, None] * shape[1] + tl.arange(0, shape[1])[None, :]


@triton.jit
def _from_another(x, nothing, i: tl.constexpr, AFTER: tl.constexpr):
    its = tl.broadcast_to(tl.arange(0, x.shape[0])[:, None], x.shape) + (i + 1 if AFTER else -i - 1)
    there = (its >= 0) & (its < x.shape[0])
    return tl.where(there, tl.gather(x, tl.where(there, its, 0), 0), nothing)


# What is shown lies there in three parts, each a row of channels a chunk: what earlier chunks see; the chunks that
# are not there; and what later chunks see. So whoever looks beyond an end, either end, looks into the middle part.


@triton.constexpr_function
def _showing(numbers):
    """$0, $1: where m and (a, b) lie in the middle part, by the thread's place, $2. $3 on: its numbers."""
    return f"""{{
        .shared .align 16 .b8 shown[{36 * numbers}];
        .reg .b32 zero;
        mov.b32 zero, 0;
        mov.u32 $1, shown;
        mad.lo.u32 $0, $2, 4, $1;
        mad.lo.u32 $1, $2, 8, $1;
        add.u32 $0, $0, {4 * numbers};
        add.u32 $1, $1, {20 * numbers};
        st.shared.b32 [$0 + {4 * numbers}], $3;
        st.shared.v2.b32 [$1 + {8 * numbers}], {{$4, $5}};
        st.shared.b32 [$0 + {-4 * numbers}], $6;
        st.shared.v2.b32 [$1 + {-8 * numbers}], {{$7, $8}};
        st.shared.b32 [$0], $9;
        st.shared.v2.b32 [$1], {{zero, zero}};
        bar.sync 0;
    }}"""


@triton.constexpr_function
def _rows_away(i, chunks, after):
    """From the thread's row of the middle part."""
    return i + 1 - chunks if after else chunks - 1 - i


@triton.constexpr_function
def _seeing_exponents(chunks, channels, after):
    lines = []
    for i in range(chunks - 1):
        lines.append(f"ld.shared.b32 ${i}, [${chunks - 1} + {4 * channels * _rows_away(i, chunks, after)}];")
    return "\n".join(lines)


@triton.constexpr_function
def _seeing_pair(i, chunks, channels, after):
    return f"ld.shared.v2.b32 {{$0, $1}}, [$2 + {8 * channels * _rows_away(i, chunks, after)}];"


@triton.constexpr_function
def _telling_all(number, chunks, channels):
    """$0 on: what is seen. Then the thread's place, its channel, and its numbers."""
    place, vector = number * chunks, ".b32" if number == 1 else f".v{number}.b32"
    lines = [f"st.shared{vector} [own], {_operand(place + 2, number)};", "bar.sync 0;"]
    for i in range(chunks):
        lines.append(f"ld.shared{vector} {_operand(i * number, number)}, [first + {4 * number * channels * i}];")
    moves = "\n".join(lines)
    return f"""{{
        .shared .align 16 .b8 numbers[{4 * number * chunks * channels}];
        .reg .b32 first, own;
        mov.u32 own, numbers;
        mad.lo.u32 first, ${place + 1}, {4 * number}, own;
        mad.lo.u32 own, ${place}, {4 * number}, own;
        {moves}
    }}"""


@triton.constexpr_function
def _operand(first, number):
    names = ", ".join([f"${first + i}" for i in range(number)])
    return names if number == 1 else f"{{{names}}}"
