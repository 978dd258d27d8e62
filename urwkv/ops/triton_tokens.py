"""Bi-WKV for GPUs: how a thread reads and stores its tokens.

By machine instructions: for each load and store that it makes itself, Triton's compiler searches the whole kernel for
others like it, and with one or more a token that was 98 % of the time it took.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import INTERPRETED, floats


@triton.jit
def load_tokens(base, first, T, inside, other, stride: tl.constexpr, L: tl.constexpr, EVEN: tl.constexpr):
    """A tuple of L tensors (chunks, channels), float32; `other` where no token is.

    Args:
        base: the channels' first tokens. first: each chunk's first token. inside: which channels are there.
        stride: from token to token. EVEN: all tokens and channels are there.
    """
    base += first * stride
    # The first by Triton; and the others, it believes, are made of these: what is made of its own loads it does not
    # have other threads load and make once more.
    token = tl.load(base) if EVEN else tl.load(base, mask=inside & (first < T), other=other)
    loaded = (_widened(token),)
    if INTERPRETED:
        for i in tl.static_range(1, L):
            token = tl.load(base + i * stride, mask=inside & (first + i < T), other=other)
            loaded = loaded + (token.to(tl.float32),)
    elif L > 1:
        asm: tl.constexpr = _loading(L - 1, stride, base.dtype.element_ty, EVEN)
        constraints: tl.constexpr = "=&r," * (L - 1) + ("r,l" if EVEN else "r,l,r,r")
        arguments = (loaded[0], (base + stride).to(tl.int64))
        if not EVEN:
            arguments = arguments + (tl.where(inside, T - first - 1, 0), tl.full(base.shape, other, tl.float32))
        loaded = loaded + tl.inline_asm_elementwise(asm, constraints, arguments, floats(L - 1), False, 1)
    return loaded


@triton.jit
def _widened(token):
    """As float32; by an instruction, since Triton would have other threads extend the narrow token, and load."""
    if INTERPRETED or token.dtype == tl.float32:
        return token.to(tl.float32)
    asm: tl.constexpr = "{ .reg .b16 zero; mov.b16 zero, 0; mov.b32 $0, {zero, $1}; }"
    if token.dtype == tl.float16:
        return tl.inline_asm_elementwise("cvt.f32.f16 $0, $1;", "=r,h", [token], tl.float32, True, 1)
    return tl.inline_asm_elementwise(asm, "=r,h", [token], tl.float32, True, 1)


@triton.jit
def store_tokens(base, first, T, inside, tokens, stride: tl.constexpr, L: tl.constexpr, EVEN: tl.constexpr):
    """What `load_tokens` reads, in the dtype of `base`."""
    base += first * stride
    if INTERPRETED:
        for i in tl.static_range(L):
            token = tokens[i].to(base.dtype.element_ty)
            tl.store(base + i * stride, token, mask=inside & (first + i < T))
    else:
        asm: tl.constexpr = _storing(L, stride, base.dtype.element_ty, EVEN)
        constraints: tl.constexpr = "=r," + "r," * L + ("l" if EVEN else "l,r")
        arguments = tokens + (base.to(tl.int64),)
        if not EVEN:
            arguments = arguments + (tl.where(inside, T - first, 0),)
        tl.inline_asm_elementwise(asm, constraints, arguments, tl.int32, False, 1)


@triton.constexpr_function
def _loading(L, stride, dtype, even):
    """$0 to $L-1: the tokens. $L+1: the first one's address. Unless even, $L+2: how many there are, $L+3: what for
    the others."""
    there, lines = "" if even else "@there ", []
    for i in range(L):
        if not even:
            lines += [f"setp.gt.s32 there, ${L + 2}, {i};", f"mov.b32 ${i}, ${L + 3};"]
        lines.append(f"add.s64 at, ${L + 1}, {i * stride * dtype.primitive_bitwidth // 8};")
        if dtype == tl.float32:
            lines.append(f"{there}ld.global.b32 ${i}, [at];")
        else:
            wide = f"mov.b32 ${i}, {{zero, half}};" if dtype == tl.bfloat16 else f"cvt.f32.f16 ${i}, half;"
            lines += [f"{there}ld.global.b16 half, [at];", there + wide]
    return _block(["mov.b16 zero, 0;", *lines])


@triton.constexpr_function
def _storing(L, stride, dtype, even):
    """$1 to $L: the tokens. $L+1: the first one's address. $L+2, unless even: how many there are. $0: 0."""
    there, lines = "" if even else "@there ", []
    for i in range(L):
        if not even:
            lines.append(f"setp.gt.s32 there, ${L + 2}, {i};")
        lines.append(f"add.s64 at, ${L + 1}, {i * stride * dtype.primitive_bitwidth // 8};")
        if dtype == tl.float32:
            lines.append(f"{there}st.global.b32 [at], ${i + 1};")
        else:
            narrow = "bf16" if dtype == tl.bfloat16 else "f16"
            lines += [f"cvt.rn.{narrow}.f32 half, ${i + 1};", f"{there}st.global.b16 [at], half;"]
    return _block([*lines, "mov.b32 $0, 0;"])


@triton.constexpr_function
def _block(lines):
    return "\n".join(["{", ".reg .u64 at;", ".reg .pred there;", ".reg .b16 half, zero;", *lines, "}"])
