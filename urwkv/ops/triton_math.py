"""Functions of one number in Triton, in as few instructions as float32's precision needs."""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Whether Triton interprets the kernels: its interpreter knows no machine instructions."""


@triton.jit
def invert(x):
    """1 / x of a positive x in one instruction, to 1 ulp: a division cares for extremes that x stays clear of."""
    asm: tl.constexpr = "rcp.approx.ftz.f32 $0, $1;"
    return 1 / x if INTERPRETED else tl.inline_asm_elementwise(asm, "=r,r", [x], tl.float32, True, 1)


@triton.jit
def normal(x):
    """The normal distribution's share below x, off by less than 4e-7, and its density at x.

    Both are of one exponential: the share by Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """
    bell = tl.exp2(x * x * -0.7213475204444817)
    t = invert(1.0 + tl.abs(x) * 0.2316418882)
    beyond = 0.7107068705 + t * (-0.7265760135 + t * 0.5307027145)
    beyond = bell * t * (0.127414796 + t * (-0.142248368 + t * beyond))
    return tl.where(x < 0, beyond, 1.0 - beyond), bell * 0.3989422804014327


@triton.jit
def gelu(x):
    """Exact GELU, of `normal`'s share."""
    return x * normal(x)[0]
