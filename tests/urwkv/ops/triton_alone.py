"""The Triton kernels without a GPU, in a process of their own: `interpret` their numbers, or `compile` them."""

import re
import sys

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tests.urwkv.ops.test_triton_scan import assert_near_reference, inputs, poisoned
from urwkv.ops import triton_kernels as kernels
from urwkv.ops.triton_scan import Tiles, biwkv_triton

HOPPER = GPUTarget("cuda", 90, 32)


def operator(w, u, k, v):
    return biwkv_triton(w[:, None, None], u[:, None, None], k, v)


def interpret() -> None:
    with pytest.MonkeyPatch.context() as patch:
        poisoned(patch)
        for tokens in (1, 2, 3, 7, 64, 255):
            assert_near_reference(operator, inputs(tokens, 10.0, 3.0), 1e-5)
        for tokens in (33, 256, 257):
            assert_near_reference(operator, inputs(tokens, 80.0, 50.0, scans=2, batch=1, channels=3), 1e-4)
        w, u, k, v, dy = inputs(40, 80.0, 50.0, scans=2, channels=9)
        k[0, :, 20] += 2000
        k, v, dy = (tensor.transpose(1, 3).contiguous().transpose(1, 3) for tensor in (k + 1e4, v, dy))
        assert_near_reference(operator, [w, u, k, v, dy], 1e-4)


def compile_all() -> None:
    """Every kernel as it is launched for one token, for maps of 64 and 256 pixels a side, and for long sequences."""
    for tokens, channels in ((1, 7), (16, 256), (256, 256), (300, 256)):
        ways = (Tiles.forward, Tiles.backward)
        forward, backward = (way(tokens, channels).words(tokens, channels) for way in ways)
        assert forward["BLOCKS"] == backward["BLOCKS"]
        for dtype in ("fp32", "bf16"):
            check(kernels.forward, forward, channels, dtype)
            for last in {True, tokens <= 256}:
                check(kernels.backward, {**backward, "LAST": last}, channels, dtype)
            if tokens > 256:
                check(kernels.summarise, forward, channels, dtype)


def check(kernel, words: dict, channels: int, dtype: str) -> None:
    words = {
        **words,
        **{f"{x}_t": channels for x in ("k", "v", "dy", "y")},
        **{f"{x}_c": 1 for x in ("k", "v", "dy")},
    }
    types = {}
    for name in kernel.arg_names:
        if name in words:
            types[name] = "constexpr"
        elif name.endswith("_ptr") or name.endswith("blocks"):
            types[name] = (
                f"*{dtype}" if name in ("k_ptr", "v_ptr", "y_ptr", "dy_ptr", "dk_ptr", "dv_ptr") else "*fp32"
            )
        else:
            types[name] = "i32"
    constants = {(i,): words[name] for i, name in enumerate(kernel.arg_names) if name in words}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants)
    made = triton.compile(
        source, target=HOPPER, options={name: words[name] for name in ("num_warps", "maxnreg") if words[name]}
    )
    layouts = set(re.findall(r"ttg\.convert_layout", made.asm["ttgir"]))
    assert not layouts, f"{kernel}: tokens change threads, which costs barriers"


if __name__ == "__main__":
    {"interpret": interpret, "compile": compile_all}[sys.argv[1]]()
