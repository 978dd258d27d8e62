"""Norms' operators in Triton's interpreter, for `triton_alone`: their numbers, in all forms."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from urwkv.ops import (
    norm_triton,
)
from urwkv.ops.norm_triton import norm_gelu_triton
from urwkv.ops.triton_math import normal


def interpret_norms() -> None:
    """Norm and GELU of a map with and without a shift, by weights of all samples and by each sample's own."""
    for order, groups, shifted, own in itertools.product((0, 1, 2), (0, 2), (False, True), (False, True)):
        if not (own and groups == 0):
            assert_norm_is_exact(order, groups, shifted, own)
    assert_a_map_beside_comes_first()
    assert_many_blocks_are_exact()
    assert_a_mean_may_be_far_from_zero()
    assert_norms_are_known_to_torch()


def assert_norms_are_known_to_torch() -> None:
    """Also with sizes that are symbols; with another map, whose gradient is the one that came or a half of it."""
    for (groups, order), concat in itertools.product(((0, 1), (2, 2)), (False, True)):
        x, beside = (torch.randn(2, 16, 5, 4).to(memory_format=torch.channels_last) for _ in "xb")
        shift, weight, bias = (torch.randn(16, requires_grad=True) for _ in "swb")
        moments = torch.zeros(2 if groups else 1, 16), torch.ones(2 if groups else 1, 16)
        maps = x.requires_grad_(), shift, beside.requires_grad_()
        given = *maps, *moments, weight, bias, groups, order, concat
        torch.library.opcheck(torch.ops.fedurwkv.norm_gelu.default, given)


@contextmanager
def full_of_nan() -> Iterator[None]:
    """What is not written meanwhile is not a number."""
    made = {name: getattr(torch, name) for name in ("empty", "empty_like")}

    def filled(name, *given, **words) -> torch.Tensor:
        tensor = made[name](*given, **words)
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    with mock.patch.multiple(torch, **{name: partial(filled, name) for name in made}):
        yield


def assert_a_map_beside_comes_first() -> None:
    """To the bit what torch makes of the two, and each one's gradient a half of what came, read where it lies."""
    several = {"STEPS": 1, "WRITING": 3}  # steps a program, of several tiles
    sizes = ((1, 8, 7, 5), {"STEPS": 1024}), ((2, 160, 3, 5), {"STEPS": 1024}), ((3, 16, 33, 17), several)
    kinds = (0, torch.float32, False), (1, torch.bfloat16, True), (2, torch.bfloat16, False)
    for (size, cuts), (order, dtype, grouped) in itertools.product(sizes, kinds):
        torch.manual_seed(0)
        x, skip = (torch.randn(size).to(dtype).to(memory_format=torch.channels_last).requires_grad_() for _ in "xs")
        of = size[:2] if grouped else size[1:2]  # each sample's own weights, or all samples'
        leaves = x, *(torch.randn(of, requires_grad=True) for _ in "wb")
        words = {"order": order, "eps": 1e-5, "groups": grouped * size[1] // 8}
        with full_of_nan(), mock.patch.multiple(norm_triton, **cuts):
            y = norm_gelu_triton(*leaves, **words, beside=skip, concat=True)
            dy = torch.randn(y.shape).to(dtype).to(memory_format=torch.channels_last)
            dskip, *found = torch.autograd.grad(y, (skip, *leaves), dy)
            z = norm_gelu_triton(*leaves, **words)
            expected = torch.autograd.grad(z, leaves, dy[:, size[1] :].contiguous(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(y, torch.cat([skip, z], dim=1)), (size, dtype, order)
        assert torch.equal(dskip, dy[:, : size[1]])
        assert dskip.data_ptr() == dy.data_ptr()
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other), (size, dtype, order)


def interpret_steps() -> None:
    """Several steps of several tiles a program: of maps that they cut evenly, by rows, by channels, or not at all."""
    maps = {(2, 16, 48, 32): True, (3, 16, 33, 17): False, (2, 24, 32, 32): True, (2, 7, 40, 20): False}
    with mock.patch.multiple(norm_triton, STEPS=1, SUMMING=2, WRITING=3):
        for (size, even), order in itertools.product(maps.items(), (0, 1, 2)):
            x = torch.empty(size)
            for count in (1, 2):
                cut = norm_triton.Cut.of(x, 0, maps=count, programs=2)
                assert cut.form(None, order)["EVEN"] == even
                assert cut.depth == 4 // count
                assert cut.span > cut.depth * cut.height
            assert_norm_is_exact(order, 0, shifted=True, own=False, size=size)
            if size[1] % 8 == 0:
                assert_norm_is_exact(order, size[1] // 8, shifted=True, own=True, size=size)


def assert_many_blocks_are_exact() -> None:
    """Sums of so many blocks that few channels of them make a program."""
    for order, groups, size in ((2, 0, (5, 16, 32, 32)), (1, 1, (1, 16, 72, 64))):
        assert norm_triton.Cut.of(torch.empty(size), groups, maps=2, programs=norm_triton.SUMMING).blocks > 64
        with mock.patch.object(norm_triton, "WRITING", 8):
            assert_norm_is_exact(order, groups, shifted=True, own=False, size=size)


def assert_a_mean_may_be_far_from_zero() -> None:
    """A thousand deviations off, where float32 itself is off by 3e-5 of a deviation."""
    for order, groups in itertools.product((0, 1, 2), (0, 2)):
        assert_norm_is_exact(order, groups, shifted=True, own=False, far=1000.0, error=1e-4)


def interpret_normal() -> None:
    """The normal distribution's share and density, and what is made of them, beside float64."""
    x = torch.linspace(-12, 12, 2**14)
    share, density = torch.empty_like(x), torch.empty_like(x)
    normals[(1,)](x, share, density, len(x))
    exact = torch.special.ndtr(x.double())
    bell = torch.exp(-x.double().square() / 2) / (2 * torch.pi) ** 0.5
    assert (share - exact).abs().max() < 4e-7
    assert (density - bell).abs().max() < 1e-7
    assert ((share + x * density) - (exact + x.double() * bell)).abs().max() < 4e-7


@triton.jit
def normals(x_ptr, share_ptr, density_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    share, density = normal(tl.load(x_ptr + at))
    tl.store(share_ptr + at, share)
    tl.store(density_ptr + at, density)


def assert_norm_is_exact(
    order: int,
    groups: int,
    shifted: bool,
    own: bool,
    size: tuple[int, ...] = (3, 16, 9, 17),
    far: float = 0.0,
    error: float = 3e-5,
) -> None:
    torch.manual_seed(0)
    channels = size[1]
    x = (torch.randn(size) + far).to(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.randn(size[:2] if own else channels, requires_grad=True) for _ in range(2))
    shift = torch.randn(channels, requires_grad=True) if shifted else None
    leaves = [leaf for leaf in (x, weight, bias, shift) if leaf is not None]
    running = torch.zeros(channels), torch.ones(channels), torch.tensor(6)
    words = {"running": running, "momentum": 0.1} if groups == 0 else {}
    y = norm_gelu_triton(x, weight, bias, order=order, eps=1e-5, groups=groups, shift=shift, **words)
    dy = torch.randn_like(y)
    wide = [leaf.detach().double().contiguous().requires_grad_() for leaf in leaves]
    z = wide[0] + wide[3][:, None, None] if shifted else wide[0]
    z = F.gelu(z) if order == 2 else z
    expected = [tensor.double() for tensor in (torch.zeros(channels), torch.ones(channels))]
    z = F.group_norm(z, groups, eps=1e-5) if groups else F.batch_norm(z, *expected, training=True, eps=1e-5)
    assert running[2] == (6 if groups else 7)
    for mine, exact in zip(running, expected, strict=False):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5 * max(1, abs(far)))
    z = z * wide[1][..., None, None] + wide[2][..., None, None]
    z = F.gelu(z) if order == 1 else z
    found, expected = torch.autograd.grad(y, leaves, dy), torch.autograd.grad(z, wide, dy.double())
    if shifted and groups == 0 and order < 2:
        assert not found[3].any()  # a BatchNorm takes a shift away again
    for name, a, b in zip(("y", "x", "weight", "bias", "shift"), (y, *found), (z, *expected), strict=False):
        # the gradient of a shift is the sum of x's
        bound = error * max(1, b.abs().max()) * (x.numel() // channels if name == "shift" else 1) ** 0.5
        assert (a - b).abs().max() < bound, (name, order, groups, shifted, own, size, far)
