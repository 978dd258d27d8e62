"""The Triton kernels without a GPU, in a process of their own: `interpret` their numbers, or `compile` them."""

import sys

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from tests.urwkv.ops.chains_alone import interpret_chains, interpret_network
from tests.urwkv.ops.compile_alone import (
    compile_all,
    compile_finish,
    compile_heads,
    compile_losses,
    compile_norms,
    compile_norms_of_tokens,
    compile_pairs,
    compile_pools,
    compile_scans,
)
from tests.urwkv.ops.head_alone import interpret_heads
from tests.urwkv.ops.loss_alone import interpret_losses
from tests.urwkv.ops.maps_alone import interpret_finish, interpret_lean, interpret_pairs, interpret_pools
from tests.urwkv.ops.norms_alone import interpret_normal, interpret_norms, interpret_steps
from tests.urwkv.ops.scans_alone import interpret_scans
from tests.urwkv.ops.test_triton_scan import (
    assert_near_reference,
    inputs,
    poisoned,
    value_and_gradients,
    with_two_keys_above_all,
)
from urwkv.ops import (
    gpu,
)
from urwkv.ops.triton_blocks import store_block
from urwkv.ops.triton_scan import Tiles, biwkv_triton


def operator(w, u, k, v):
    return biwkv_triton(w[:, None, None], u[:, None, None], k, v)


def interpret() -> None:
    with pytest.MonkeyPatch.context() as patch:
        poisoned(patch)
        for tokens in (1, 2, 3, 7, 64, 255):
            assert_near_reference(operator, inputs(tokens, 10.0, 3.0), 1e-5)
        for tokens in (33, 256, 257):
            assert_near_reference(operator, inputs(tokens, 80.0, 50.0, scans=2, batch=1, channels=3), 1e-4)
        for tokens in (1, 2, 3, 9, 65, 129):
            assert_near_reference(operator, inputs(tokens, 200.0, 3.0), 1e-3)
        w, u, k, v, dy = inputs(40, 10.0, 3.0)
        for offset in (1e4, -1e6, 1e10):
            assert_near_reference(operator, [w, u, k + offset, v, dy], 1e-5)
        tensors = inputs(16, 10.0, 3.0, scans=2)
        plain = value_and_gradients(operator, *tensors)
        torch.set_default_dtype(torch.bfloat16)
        assert all(map(torch.equal, value_and_gradients(operator, *tensors), plain))
        torch.set_default_dtype(torch.float32)
        w, u, k, v, dy = inputs(40, 80.0, 50.0, scans=2, channels=9)
        k[0, :, 20] += 2000
        k, v, dy = (tensor.transpose(1, 3).contiguous().transpose(1, 3) for tensor in (k + 1e4, v, dy))
        assert_near_reference(operator, [w, u, k, v, dy], 1e-4)


def interpret_blocks() -> None:
    """More blocks of a sequence than chunks of a block, with blocks of eight tokens; no stored sum is 0; and a cut in
    which a thread of a warp would have no number is refused."""
    with pytest.MonkeyPatch.context() as patch:
        poisoned(patch)
        for way in ("forward", "backward"):
            patch.setattr(Tiles, way, staticmethod(lambda *_: Tiles(2, 4, 8)))
        for tokens in (9, 53):
            assert_near_reference(operator, inputs(tokens, 10.0, 3.0, channels=9), 1e-5)
        assert_near_reference(operator, with_two_keys_above_all(53), 1e-5)
    base, found = torch.tensor([0.0, -0.0, float("nan"), 1.0]), torch.zeros(1, 1, 2, 4, 4)
    store_one[(1,)](base, found)
    torch.testing.assert_close(found[0, 0, 0, :, 0], base, rtol=0, atol=0, equal_nan=True)
    assert found.view(torch.int32).all()
    for cut in (Tiles(4, 2, 8), Tiles(4, 6, 8)):
        with pytest.raises(ValueError, match="whole warps"):
            cut.words(9, 9)


@triton.jit
def store_one(base_ptr, blocks):
    """A block's sums, of which all but the base are zero."""
    channel, zero = tl.arange(0, 4)[None, :], tl.zeros((2, 4), tl.float32)
    base, pair = tl.load(base_ptr + channel), (zero, zero, zero)
    store_block(blocks, base, 0, 0, channel, channel < 4, 4, pair, pair, 1, 2)


def fma(_, x, y, z):
    """Of float32, whose products float64 holds exactly."""
    wide = x.data.astype(np.float64) * y.data + z.data
    return interpreter.TensorHandle(wide.astype(np.float32), z.dtype.scalar)


def mend_interpreter() -> None:
    """Triton 3.6 takes an array of one number for a number, as numpy 2.4 does not; cuts bfloat16 off, where a GPU
    rounds to the nearest; and rounds twice in fma."""
    interpreter.InterpreterBuilder.create_fma = fma
    converted = interpreter._convert_float

    def convert(numbers, kind, to, rounding):
        if (kind, to) != (tl.float32, tl.bfloat16):
            return converted(numbers, kind, to, rounding)
        wide = torch.from_numpy(numbers.view(np.float32).copy())
        return wide.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)

    interpreter._convert_float = convert
    patched = interpreter._patch_lang_tensor

    def patch(tensor, scope) -> None:
        patched(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch


if __name__ == "__main__":
    jobs = {
        "interpret": (
            mend_interpreter,
            interpret,
            interpret_blocks,
            interpret_normal,
            interpret_norms,
            interpret_steps,
            interpret_chains,
            interpret_network,
            interpret_pairs,
            interpret_pools,
            interpret_finish,
            interpret_lean,
            interpret_heads,
            interpret_losses,
            interpret_scans,
        ),
        "compile": (
            compile_all,
            compile_norms,
            compile_pairs,
            compile_pools,
            compile_finish,
            compile_heads,
            compile_losses,
            compile_scans,
            compile_norms_of_tokens,
        ),
    }
    if sys.argv[1] == "interpret":
        gpu.KIND = "cpu"
    for job in jobs[sys.argv[1]]:
        job()
