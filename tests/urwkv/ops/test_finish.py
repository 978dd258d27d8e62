"""What follows a convolution, on a GPU; `triton_alone.py` has its numbers without one."""

import itertools

import pytest
import torch

from urwkv.ops.finish import finish


def example(channels, dtype):
    torch.manual_seed(0)
    x, beside = (torch.randn(3, channels, 37, 52) for _ in "ab")
    x, beside = (part.to("cuda", dtype).to(memory_format=torch.channels_last) for part in (x, beside))
    bias, *line = torch.randn(3, channels, device="cuda")
    return x, bias, line, beside


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [3, 16, 160, 640])
def test_all_forms_are_within_rounding(channels, dtype):
    x, bias, line, beside = example(channels, dtype)
    for gelu, lined, aside in itertools.product((True, False), repeat=3):
        words = {"gelu": gelu, "line": line if lined else None, "beside": beside if aside else None}
        found = finish(x, bias, **words)
        expected = finish(x.double(), bias.double(), **words)
        assert (found.dtype, found.stride()) == (dtype, x.stride())
        assert ((found - expected).abs() <= (torch.finfo(dtype).eps + 2e-6) * (1 + expected.abs())).all(), words


@pytest.mark.gpu
def test_the_operator_is_known_to_torch():
    x, bias, line, beside = example(16, torch.float32)
    torch.library.opcheck(torch.ops.fedurwkv.finish.default, (x, bias, *line, beside, True))
    torch.library.opcheck(torch.ops.fedurwkv.finish.default, (x, bias, None, None, None, False))
