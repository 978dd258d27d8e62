"""What Triton's kernels share: functions of one number, as short as float32 allows; how tiles are read and stored,
and when."""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Whether Triton interprets the kernels: its interpreter knows no machine instructions."""


@triton.constexpr_function
def floats(number):
    """The dtypes of so many outputs of an instruction."""
    return (tl.float32,) * number


@triton.jit
def invert(x):
    """1 / x of a positive x in one instruction, to 1 ulp: a division cares for extremes that x stays clear of."""
    asm: tl.constexpr = "rcp.approx.ftz.f32 $0, $1;"
    return 1 / x if INTERPRETED else tl.inline_asm_elementwise(asm, "=r,r", [x], tl.float32, True, 1)


@triton.jit
def widen(x):
    """x as float32: of a pair of bfloat16, either takes one instruction."""
    if INTERPRETED or x.dtype != tl.bfloat16:
        return x.to(tl.float32)
    asm: tl.constexpr = "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;"
    return tl.inline_asm_elementwise(asm, "=&r,=&r,r", [x], tl.float32, True, 2)


@triton.jit
def load(at, there, EVEN: tl.constexpr):
    """As float32; 0 where there is nothing. EVEN: all of it is there."""
    return widen(tl.load(at) if EVEN else tl.load(at, mask=there, other=0.0))


@triton.jit
def store(at, x, there, EVEN: tl.constexpr):
    """In the dtype of the pointer; EVEN: all of it is there."""
    if EVEN:
        tl.store(at, x.to(at.dtype.element_ty))
    else:
        tl.store(at, x.to(at.dtype.element_ty), mask=there)


@triton.jit
def zero_behind_barrier():
    """An integer 0 that no thread knows before all have asked for everything that they load before this.

    What depends on it cannot be computed earlier. Else the compiler does so, puts off other loads for it, to save
    registers, and waits for memory once more.
    """
    if INTERPRETED:
        return 0
    asm: tl.constexpr = """{
        .reg .pred none;
        setp.ne.u32 none, $1, $1;
        bar.red.popc.u32 $0, 0, none;
    }"""
    return tl.inline_asm_elementwise(asm, "=r,r", [0], tl.int32, False, 1)


@triton.jit
def fetch(at, size, there):
    """Has the second-level cache fetch `size` bytes from `at` on, where they are there; both are multiples of 16."""
    if not INTERPRETED:
        asm: tl.constexpr = """{
            .reg .pred asks;
            .reg .u32 thread;
            mov.u32 thread, %tid.x;
            setp.eq.u32 asks, thread, 0;
            setp.ne.and.u32 asks, $3, 0, asks;
            @asks cp.async.bulk.prefetch.L2.global [$1], $2;
            mov.b32 $0, 0;
        }"""
        tl.inline_asm_elementwise(asm, "=r,l,r,r", [at.to(tl.int64), size, there.to(tl.int32)], tl.int32, False, 1)


@triton.jit
def exp2_of_negative(x):
    """2^x of an x <= 0 in one instruction, to 2 ulp: what is below the least normal number is 0."""
    asm: tl.constexpr = "ex2.approx.ftz.f32 $0, $1;"
    return tl.exp2(x) if INTERPRETED else tl.inline_asm_elementwise(asm, "=r,r", [x], tl.float32, True, 1)


@triton.jit
def _beyond(x):
    """exp(-x^2 / 2) and f: the normal distribution's share beyond |x| is their product.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26. With q = p / sqrt(2), its q t is made, which
    takes one addition: 1 / (1 / q + |x|); its five numbers are halved and times q^-i accordingly.
    """
    t = invert(tl.abs(x) + 4.317008499)
    f = tl.fma(t, 795.7301747, -252.3554398)
    f = tl.fma(t, f, 57.1793514)
    f = tl.fma(t, f, -2.651020583)
    return exp2_of_negative(x * x * -0.7213475204444817), t * tl.fma(t, f, 0.5500507572)


@triton.jit
def _below(x, beyond):
    """The share below x, from that beyond |x|."""
    return tl.where(x < 0, beyond, 1.0 - beyond)


@triton.jit
def normal(x):
    """The normal distribution's share below x, off by less than 4e-7, and its density at x."""
    bell, f = _beyond(x)
    return _below(x, bell * f), bell * 0.3989422804014327


@triton.jit
def gelu(x):
    """Exact GELU of a finite x, as max(x, 0) less |x| times the share beyond |x|."""
    bell, f = _beyond(x)
    return tl.fma(-(tl.abs(x) * bell), f, tl.maximum(x, 0.0))


@triton.jit
def gelu_slope(x):
    """The derivative of GELU, the share below x and x times the density, by what is beyond |x| in both."""
    bell, f = _beyond(x)
    return _below(x, bell * tl.fma(tl.abs(x), -0.3989422804014327, f))


@triton.jit
def gelu_and_slope(x):
    """GELU of x and its derivative."""
    share, density = normal(x)
    return x * share, tl.fma(x, density, share)
