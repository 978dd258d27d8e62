"""Pools, and what prediction computes, in Triton's interpreter, for `triton_alone`."""

import itertools
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.urwkv.ops.norms_alone import full_of_nan
from tests.urwkv.test_lean import stirred
from urwkv import steps
from urwkv.lean import lean
from urwkv.ops import finish as finish_module
from urwkv.ops import (
    finish_triton,
    gpu,
    pair_triton,
    pool_triton,
)
from urwkv.ops.finish import finish
from urwkv.ops.pair import pair
from urwkv.steps import Steps


def interpret_pairs() -> None:
    """Both forms of the operator for prediction, rows that fill no program among them, against float64.

    In float16: Triton's interpreter takes a bfloat16's bits for a whole number in a product of matrices.
    """
    torch.manual_seed(0)
    for fusion, residual in ((False, False), (False, True), (True, False)):
        channels, hidden, out = 16, 64, 16 if residual else 32
        a, b = (torch.randn(1, channels, 13, 11).half().to(memory_format=torch.channels_last) for _ in "ab")
        first = torch.randn(hidden, channels * (1 + fusion)) / 4, torch.randn(hidden)
        second = torch.randn(out, hidden) / 8, torch.randn(out)
        line = [torch.randn(out if fusion else channels) for _ in "ab"]
        bias = torch.randn(channels * (1 + fusion))
        assert pair_triton.fits(a, first[0], second[0])
        words = [(first[0].half(), first[1]), (second[0].half(), second[1]), line]
        found = pair(a, b, bias, *words, residual=residual)
        assert found.dtype == torch.float16
        wide = [tuple(part.double() for part in parts) for parts in words]
        expected = pair(a.double(), b.double(), bias.double(), *wide, residual=residual)
        assert (found - expected).abs().max() < 2e-3 * expected.abs().max(), (fusion, residual)


def interpret_pools() -> None:
    """Values and gradients are torch's to the bit, in every dtype, at odd sides and any number of channels."""
    torch.manual_seed(0)
    sides, dtypes = ((2, 3), (5, 8), (4, 70)), (torch.float32, torch.bfloat16, torch.float16)
    for channels, side, dtype in itertools.product((1, 16, 40), sides, dtypes):
        map_ = torch.randn(2, channels, *side).to(dtype)
        assert_pool_is_exact(map_)
        assert_pool_is_exact((map_ * 2).round())  # of several largest the first has the gradient
        several = (map_ * 2).round()
        several[map_.abs() > 1] = float("nan")
        several[map_.abs() < 0.2] = -float("inf")
        assert_pool_is_exact(several)
        assert_fork_is_exact(several)
    for left_to_torch in (torch.randn(1, 16, 300, 4)[:, :, ::3],):
        assert_pool_is_exact(left_to_torch)
        assert_fork_is_exact(left_to_torch)
    chain = Steps(nn.MaxPool2d(2))
    chain.backend = "auto"
    seen = []
    chain[0].register_forward_hook(lambda layer, inputs, out: seen.append(out))
    assert chain(torch.randn(1, 16, 4, 4).to(memory_format=torch.channels_last)) is seen[0]
    with pytest.raises(RuntimeError, match="Output size is too small"):
        chain(torch.randn(1, 16, 1, 4).to(memory_format=torch.channels_last))
    torch.library.opcheck(
        torch.ops.fedurwkv.max_pool.default,
        (torch.randn(2, 8, 5, 4).to(memory_format=torch.channels_last).requires_grad_(),),
    )


def assert_pool_is_exact(map_: torch.Tensor) -> None:
    """A chain that pools, beside torch in float64; what of a gradient is not written is not a number."""
    chain = Steps(nn.MaxPool2d(2))
    chain.backend = "auto"
    fits = map_.is_contiguous()
    x = (map_.to(memory_format=torch.channels_last) if fits else map_).requires_grad_()
    wide = map_.detach().double().contiguous().requires_grad_()
    ours = mock.patch.object(steps, "max_pool_triton", wraps=steps.max_pool_triton)
    with ours as called, full_of_nan():
        y = chain(x)
        dy = torch.randn(y.shape).to(y.dtype)
        (dx,) = torch.autograd.grad(y, x, dy)
    assert called.call_count == fits
    exact = F.max_pool2d(wide, 2)
    (expected,) = torch.autograd.grad(exact, wide, dy.double())
    assert (y.dtype, dx.dtype) == (map_.dtype, map_.dtype)
    assert y.is_contiguous(memory_format=torch.channels_last) or not fits
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(dx.double(), expected), map_.shape


def assert_fork_is_exact(map_: torch.Tensor) -> None:
    """A map and its pool, of whichever there is a gradient: that of the map a part of a larger one, or by itself."""
    chain = Steps(nn.MaxPool2d(2))
    chain.backend = "auto"
    fits = map_.is_contiguous()
    dy = torch.randn(F.max_pool2d(map_, 2).shape).to(map_.dtype)
    x = (map_.to(memory_format=torch.channels_last) if fits else map_).requires_grad_()
    wide = torch.randn(len(x), 2 * x.shape[1], *x.shape[2:]).to(x.dtype).to(memory_format=torch.channels_last)
    part = wide[:, x.shape[1] :]
    for dskip, dpooled in ((part, dy), (part.contiguous(), dy), (wide[:, : x.shape[1]], None), (None, dy)):
        results = []
        for fork in (chain.fork, lambda x: (x, F.max_pool2d(x, 2))):
            with mock.patch.object(steps, "fork_triton", wraps=steps.fork_triton) as forked, full_of_nan():
                outs = fork(x)
                assert forked.call_count == (fits and fork == chain.fork)
                given = [(out, d) for out, d in zip(outs, (dskip, dpooled), strict=True) if d is not None]
                ends, gradients = zip(*given, strict=True)
                results.append([*outs, *torch.autograd.grad(ends, x, gradients)])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def interpret_finish() -> None:
    """What follows a convolution, in all its forms, against float64; maps that fill no program among them."""
    torch.manual_seed(0)
    dtypes = (torch.float32, torch.bfloat16)
    forms = itertools.product((True, False), repeat=3)
    for (gelu, lined, aside), channels, dtype in itertools.product(forms, (1, 16, 40, 320), dtypes):
        x, beside = (torch.randn(2, channels, 9, 13).to(dtype) for _ in "ab")
        bias, *line = torch.randn(3, channels)
        words = {"gelu": gelu, "line": line if lined else None, "beside": beside if aside else None}
        expected = finish(x.double(), bias.double(), **words)
        map_ = x.to(memory_format=torch.channels_last)
        with mock.patch.object(torch, "empty_like", lambda like, **_: like * float("nan")):
            found = finish(map_, bias, **words)
        assert not gpu.obstacle_of_map(map_)
        assert (found.dtype, found.stride()) == (dtype, map_.stride())
        rounding = 2e-6 if dtype == torch.float32 else 2**-8
        assert ((found - expected).abs() <= rounding * (1 + expected.abs())).all(), (words, channels, dtype)


def interpret_lean() -> None:
    """The network for prediction by kernels, but for convolutions and DARM: as exact as the network is as written."""
    for sase, passes in (("expand", 31), ("simple", 27)):
        torch.manual_seed(0)
        model, images = stirred(variant="small", sase=sase), torch.randn(2, 3, 32, 48)
        finished = mock.patch.object(finish_module, "finish_triton", wraps=finish_triton.finish_triton)
        pooled = mock.patch.object(steps, "max_pool_triton", wraps=pool_triton.max_pool_triton)
        with torch.no_grad(), finished as finishes, pooled as pools:
            written = model(images)
            found = lean(model).to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
            assert (finishes.call_count, pools.call_count) == (passes, 4), sase
            exact = model.double()(images.double())
        assert (found - exact).abs().max() < 2 * (written - exact).abs().max(), sase
