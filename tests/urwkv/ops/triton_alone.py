"""The Triton kernels without a GPU, in a process of their own: `interpret` their numbers, or `compile` them."""

import copy
import itertools
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import nn
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import interpreter

from client.privacy.hooks import per_sample_gradients
from tests.client.privacy.test_samplers import by_hooks, worst
from tests.urwkv.ops.head_alone import interpret_heads
from tests.urwkv.ops.loss_alone import interpret_losses
from tests.urwkv.ops.scans_alone import interpret_scans, scans_counted
from tests.urwkv.ops.test_triton_scan import assert_near_reference, inputs, poisoned
from tests.urwkv.test_lean import stirred
from tests.urwkv.test_steps import nodes_of
from urwkv import URWKV, steps
from urwkv.blocks import make_norm
from urwkv.lean import lean
from urwkv.mixing import Mixing
from urwkv.ops import finish as finish_module
from urwkv.ops import (
    finish_kernels,
    finish_triton,
    gpu,
    head_kernels,
    head_triton,
    loss_kernels,
    loss_triton,
    norm_kernels,
    norm_triton,
    pair_kernels,
    pair_triton,
    pool_kernels,
    pool_triton,
    scan_kernels,
    token_kernels,
    token_triton,
)
from urwkv.ops import triton_kernels as kernels
from urwkv.ops.doubling import Doubling, doubled_convolution
from urwkv.ops.finish import finish
from urwkv.ops.norm_triton import norm_gelu_triton
from urwkv.ops.pair import pair
from urwkv.ops.scans_triton import Cut as ScansCut
from urwkv.ops.triton_math import normal
from urwkv.ops.triton_scan import Tiles, biwkv_triton
from urwkv.steps import Steps

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


def mend_interpreter() -> None:
    """Triton 3.6 takes an array of one number for a number, as numpy 2.4 does not; and cuts bfloat16 off, where a GPU
    rounds to the nearest."""
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


def interpret_chains() -> None:
    """Chains of layers, and each sample's gradients of a network, computed as on a GPU."""
    forms = (lambda norm: (norm, nn.GELU()), lambda norm: (nn.GELU(), norm), lambda norm: (norm,))
    for form, norm, before in itertools.product(forms, ("batch", "group"), ((), (Doubling(),))):
        for frozen in ((), ("weight",), ("bias",)):
            chain = Steps(*before, nn.Conv2d(8, 16, 3, padding=1), *form(make_norm(16, norm)), nn.Conv2d(16, 4, 1))
            for name in frozen:
                chain[len(before)].get_parameter(name).requires_grad_(False)
            assert_chain_is_exact(chain, [True])
    tanh = Steps(nn.Conv2d(8, 16, 1), make_norm(16, "batch"), nn.GELU(approximate="tanh"))
    assert_chain_is_exact(tanh, [])  # as it is written, with the bias that the convolution left
    assert_another_map_is_taken_along()
    assert_samples_are_exact(("",))
    assert_samples_are_exact(("fuse", "head"))
    assert_samples_of_a_chain_are_exact()
    assert_a_layer_is_used_once()


def assert_chain_is_exact(chain: Steps, shifted: list[bool]) -> None:
    """Against the layers as they are written, in float64; `shifted`: of each joined norm whether it adds a bias."""
    exact = nn.Sequential(*copy.deepcopy(chain)).double()
    chain.to(memory_format=torch.channels_last).backend = "auto"
    x = torch.randn(3, 8, 5, 6).to(memory_format=torch.channels_last)
    doublings = sum(isinstance(layer, Doubling) for layer in chain)
    with counted() as found, mock.patch.object(steps, "doubled_convolution", wraps=doubled_convolution) as doubled:
        y = chain(x)
    assert found == shifted
    assert doubled.call_count == doublings
    z = exact(x.double())
    torch.testing.assert_close(y.double(), z, rtol=1e-4, atol=1e-4)
    y.square().sum().backward()
    z.square().sum().backward()
    whole = sum(w.grad.square().sum() for w in exact.parameters() if w.grad is not None).sqrt()
    for (name, one), other in zip(chain.named_parameters(), exact.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        assert one.grad is None or (one.grad - other.grad).norm() < 1e-5 * whole, name
    for (name, one), other in zip(chain.named_buffers(), exact.buffers(), strict=True):
        torch.testing.assert_close(one, other.to(one.dtype), msg=name)


def assert_another_map_is_taken_along() -> None:
    """By the norm that comes last, where the map is like its own; else by torch, and to the same numbers."""
    x, other = (torch.randn(3, 16, 5, 6).to(memory_format=torch.channels_last).requires_grad_() for _ in "ab")
    ends = ((nn.GELU(), make_norm(16, "batch")), (make_norm(16, "group"), nn.GELU()), (nn.GELU(),))
    besides = other, other.detach().contiguous(), other.detach().double()
    for end, beside, concat in itertools.product(ends, besides, (False, True)):
        chain = Steps(nn.Conv2d(16, 16, 3, padding=1), *end)
        exact = nn.Sequential(*copy.deepcopy(chain)).double()
        chain.to(memory_format=torch.channels_last).backend = "auto"
        with mock.patch.object(steps, "norm_gelu_triton", wraps=steps.norm_gelu_triton) as joined:
            y = chain.after(x, beside) if concat else chain.plus(x, beside)
        taken = [(call.kwargs["beside"] is beside, call.kwargs["concat"]) for call in joined.call_args_list]
        assert taken == [(True, concat) if beside is other else (False, False)] * (len(end) - 1)
        z = exact(x.double())
        z = torch.cat([beside, z], dim=1) if concat else z + beside
        torch.testing.assert_close(y.double(), z, rtol=1e-4, atol=1e-4)
        leaves = [leaf for leaf in (x, beside) if leaf.requires_grad]
        found, expected = (torch.autograd.grad(out.square().sum(), leaves) for out in (y, z))
        for one, true in zip(found, expected, strict=True):
            torch.testing.assert_close(one, true, rtol=1e-4, atol=1e-3)


def interpret_network() -> None:
    """It learns the same joined, and its skips are written, and their gradients read, where they lie."""
    for norm, frozen, size in (("batch", (), (2, 3, 32, 16)), ("group", ("stem", "down"), (1, 3, 16, 32))):
        torch.manual_seed(0)
        written = URWKV(variant="small", norm=norm).to(memory_format=torch.channels_last)
        for name, weight in written.named_parameters():
            weight.requires_grad_(not name.startswith(frozen))
        exact = copy.deepcopy(written).double()
        for chain in (module for module in written.modules() if isinstance(module, Steps)):
            chain.backend = "auto"
        images = torch.randn(size).to(memory_format=torch.channels_last)
        with mock.patch.object(steps, "norm_gelu_triton", wraps=steps.norm_gelu_triton) as joined, full_of_nan():
            loss = written(images).square().mean()
            assert nodes_of(loss)["_ForkBackward"] == (0 if frozen else 4)
            loss.backward()
        assert [call.kwargs["concat"] for call in joined.call_args_list].count(True) == 4
        expected = exact(images.double()).square().mean()
        expected.backward()
        torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=0)
        learning = list(zip(written.parameters(), exact.parameters(), strict=True))
        whole = sum(other.grad.square().sum() for _, other in learning if other.requires_grad).sqrt()
        for one, other in learning:
            assert (one.grad is None) == (other.grad is None) == (not other.requires_grad)
            assert one.grad is None or (one.grad - other.grad).norm() < 1e-5 * whole


def assert_samples_are_exact(trainable: tuple[str, ...]) -> None:
    """Each sample's gradients as a GPU computes them, against those of layers as they are written, in float64."""
    torch.manual_seed(0)
    model = URWKV(variant="small", norm="group").to(memory_format=torch.channels_last)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(trainable))
    images = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    masks = torch.randint(2, (2, 32, 32), dtype=torch.uint8)
    with counted() as found, scans_counted() as scans:
        ours = by_hooks(model, images, masks)
    assert found == [True] * sum(isinstance(layer, nn.GroupNorm) for layer in model.modules())
    assert scans == ["normed", "mixed", "normed", "gated", "normed", "mixed", "normed"]
    joined = (m for chain in model.modules() if isinstance(chain, Steps) for m in chain)
    assert all(weight.grad is None for layer in joined for weight in layer.parameters())  # nobody sums them
    joined = (module for module in model.modules() if isinstance(module, (Steps, Mixing)))
    assert {(module.backend, module.keep) for module in joined} == {("torch", None)}
    nobody = by_hooks(model, images[:0], masks[:0])
    assert {name: grads.shape for name, grads in nobody.items()} == {
        name: (0, *g.shape[1:]) for name, g in ours.items()
    }
    exact = copy.deepcopy(model).double().to(memory_format=torch.contiguous_format)
    assert worst(ours, by_hooks(exact, images.double().contiguous(), masks)) < 1e-4


def assert_samples_of_a_chain_are_exact() -> None:
    """Whatever of a convolution learns, and where its bias is left for a norm that then is computed as written."""
    for doubling, frozen, gelu in itertools.product((False, True), ("", "weight", "bias"), ("none", "tanh")):
        layers = (
            nn.Conv2d(8, 16, 3, padding=1),
            make_norm(16, "group"),
            nn.GELU(approximate=gelu),
            nn.Conv2d(16, 4, 1),
        )
        chain = Steps(*[Doubling()] * doubling, *layers).to(memory_format=torch.channels_last)
        if frozen:
            layers[0].get_parameter(frozen).requires_grad_(False)
        x, dy = torch.randn(3, 8, 5, 6), torch.randn(3, 4, 5 + 5 * doubling, 6 + 6 * doubling)
        with per_sample_gradients(chain), counted() as found:
            chain(x.to(memory_format=torch.channels_last)).backward(dy)
            ours = {name: w.grad_sample for name, w in chain.named_parameters() if w.requires_grad}
        assert found == ([True] if gelu == "none" else [])
        exact = nn.Sequential(*copy.deepcopy(chain)).double()
        leaves = {name: exact.get_parameter(name) for name in ours}
        for row in range(3):
            y = exact(x[row : row + 1].double())
            wanted = torch.autograd.grad(y, list(leaves.values()), dy[row : row + 1].double())
            for name, want in zip(leaves, wanted, strict=True):
                assert (ours[name][row] - want).norm() < 1e-4 * (1 + want.norm()), (name, doubling, frozen, gelu)


def assert_a_layer_is_used_once() -> None:
    norm = make_norm(16, "group")
    x = torch.randn(2, 16, 3, 3).to(memory_format=torch.channels_last)
    chain = Steps(norm, nn.GELU(), norm)
    with pytest.raises(RuntimeError, match="use it once a pass"), per_sample_gradients(chain):
        chain(x).sum().backward()
    assert (chain.backend, chain.keep) == ("torch", None)


@contextmanager
def counted() -> Iterator[list[bool]]:
    """Of each norm that is joined meanwhile, whether it adds a bias."""
    joined, found = steps.norm_gelu_triton, []

    def norm_gelu(*maps, shift, **words) -> torch.Tensor:
        found.append(shift is not None)
        return joined(*maps, shift=shift, **words)

    steps.norm_gelu_triton = norm_gelu
    try:
        yield found
    finally:
        steps.norm_gelu_triton = joined


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


def compile_pools() -> None:
    """Pooling at the base network's widths, and at one that is no power of two."""
    forms = (pool_kernels.forward, {}), *((pool_kernels.backward, {"BESIDE": beside}) for beside in (False, True))
    for (kernel, form), channels, dtype in itertools.product(forms, (3, 16, 32, 128, 160), ("fp32", "bf16")):
        words = {**form, "C": channels, "BLOCK": pool_triton.BLOCK, "num_warps": 4, "maxnreg": None}
        compiled(kernel, words, dtype, {"x_ptr", "y_ptr", "dy_ptr", "beside_ptr", "dx_ptr"})


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


def compile_finish() -> None:
    """What follows a convolution, in all its forms."""
    for gelu, line, beside in itertools.product((True, False), repeat=3):
        words = {"GELU": gelu, "LINE": line, "BESIDE": beside, "C": 160}
        words |= {**finish_triton.cut(160), "maxnreg": None}
        for dtype in ("fp32", "bf16"):
            compiled(finish_kernels.finish, words, dtype, {"x_ptr", "beside_ptr", "y_ptr"})


def compile_heads() -> None:
    """Of both networks' maps, of one whose channels are no power of two, and of rows that fill programs or do not.

    Of the base network's in bf16 no sum changes threads: forward one does, to be written, backward one at the end.
    """
    rows = 8 * 256 * 256
    for classes, channels, dtype, more in itertools.product((1, 4), (8, 16, 24), ("fp32", "bf16"), (0, 5)):
        *_, words = head_triton.cut(rows + more, channels)
        assert words["EVEN"] == (more == 0 and channels != 24)
        for kernel in (head_kernels.forward, head_kernels.backward):
            tiles = head_triton.tiles(words["BLOCK"], forward=kernel is head_kernels.forward)
            form = {**words, **tiles, "CLASSES": classes, "maxnreg": None}
            made = compiled(kernel, form, dtype, {"x_ptr", "y_ptr", "dy_ptr", "dx_ptr"}, divisible=True)
            if (channels, dtype) == (16, "bf16"):
                assert made.count("ttg.convert_layout") == classes, (kernel, classes)


def compile_losses() -> None:
    """The sums over pixels."""
    for kernel, dtype in itertools.product((loss_kernels.sums, loss_kernels.backward), ("fp32", "bf16")):
        words = {"BLOCK": loss_triton.BLOCK, "num_warps": 4, "maxnreg": None}
        compiled(kernel, words, dtype, {"z_ptr", "dz_ptr"}, divisible=True)


def compile_scans() -> None:
    """The scans' operators at the base network's and the small one's widths, for maps of float32 and scans of bf16.

    As launches have it numbers are divisible by 16 where they are, or threads would read one number at a time; and
    they are constants where they are 1, as sides may be.
    """
    forms = [(channels, {}, form) for channels in (256, 128) for form in ((3, 4), (2, 2), (2, 1))]
    forms += [(4, {"Q": 1, **sides}, (3, 4)) for sides in ({}, {"H": 1}, {"W": 1}, {"H": 1, "W": 1})]
    mixed = {f"{x}_{i}_ptr" for x in ("x", "dx") for i in range(3)}
    for channels, ones, (number, scans) in forms:
        words = {**ScansCut.of(8, 16, 16, channels).words(), **ones, "maxnreg": None}
        for kernel in (scan_kernels.mix, scan_kernels.mix_backward):
            compiled(kernel, {**words, "NUMBER": number, "SCANS": scans}, "bf16", mixed, divisible=True)
        for kernel in (scan_kernels.gate, scan_kernels.gate_backward):
            compiled(kernel, words, "bf16", {"r_ptr", "dr_ptr", "out_ptr", "dout_ptr"}, divisible=True)


def compile_norms_of_tokens() -> None:
    """Of scans and of the wide tokens of channel mixing, at the base network's widths."""
    for (channels, squared), dtype in itertools.product(
        ((256, False), (1024, True), (3000, False)), ("fp32", "bf16")
    ):
        *_, words = token_triton.cut(65536, channels)
        words = {**words, "SQUARED": squared, "maxnreg": None}
        for kernel in (token_kernels.forward, token_kernels.backward):
            compiled(kernel, words, dtype, {"x_ptr", "y_ptr", "dy_ptr", "dx_ptr"}, divisible=True)


def compile_pairs() -> None:
    """The operator for prediction at the base network's widths."""
    for channels, out, fusion in ((16, 16, False), (16, 32, False), (128, 128, True)):
        hidden = 4 * channels
        words = {"CIN": channels, "HIDDEN": hidden, "COUT": out, "FUSION": fusion, "RESIDUAL": channels == out}
        words |= {**pair_triton.cut(channels, hidden, out), "maxnreg": None}
        compiled(pair_kernels.pair, words, "bf16", {"a_ptr", "b_ptr", "w1_ptr", "w2_ptr", "y_ptr"})


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


def compile_norms() -> None:
    """The kernels of norm and GELU, in all their forms."""
    orders, numbers, forms = (0, 1, 2), ("fp32", "bf16"), ((True, 4), (False, 1))
    kernels_of_maps = (norm_kernels.moments, norm_kernels.apply, norm_kernels.sums, norm_kernels.apply_backward)
    for order, shifted, dtype, (even, depth) in itertools.product(orders, (False, True), numbers, forms):
        words = {"BLOCK": 16, "ROWS": 64, "DEPTH": depth, "EVEN": even, "ORDER": order, "SHIFTED": shifted}
        for kernel in kernels_of_maps:
            own = {norm_kernels.apply: ("BESIDE", (0, 1, 2)), norm_kernels.apply_backward: ("SUMMED", (False, True))}
            name, values = own.get(kernel, ("ORDER", (order,)))
            maps = {"x_ptr", "beside_ptr", "y_ptr", "dy_ptr", "dx_ptr"}
            for value in values:
                form = {**words, name: value, "num_warps": 4, "maxnreg": None}
                compiled(kernel, form, dtype, maps)


def check(kernel, words: dict, channels: int, dtype: str) -> None:
    words = {
        **words,
        **{f"{x}_t": channels for x in ("k", "v", "dy", "y")},
        **{f"{x}_c": 1 for x in ("k", "v", "dy")},
    }
    maps = {"k_ptr", "v_ptr", "y_ptr", "dy_ptr", "dk_ptr", "dv_ptr"}
    layouts = set(re.findall(r"ttg\.convert_layout", compiled(kernel, words, dtype, maps)))
    assert not layouts, f"{kernel}: tokens change threads, which costs barriers"


def compiled(kernel, words: dict, dtype: str, maps: set[str], *, divisible: bool = False) -> str:
    """What Triton makes of a kernel, its pointers to `maps` being of that dtype and all others of float32.

    `divisible`: all numbers and addresses that it is given are divisible by 16.
    """
    types = {}
    for name in kernel.arg_names:
        if name in words:
            types[name] = "constexpr"
        elif name.endswith(("_ptr", "blocks")) or name in ("parts", "means"):
            types[name] = f"*{dtype}" if name in maps else "*fp32"
        else:
            types[name] = "fp32" if name == "eps" else "i32"
    constants = {(i,): words[name] for i, name in enumerate(kernel.arg_names) if name in words}
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if divisible and types[name] not in ("constexpr", "fp32")
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=attributes)
    made = triton.compile(
        source, target=HOPPER, options={name: words[name] for name in ("num_warps", "maxnreg") if words[name]}
    )
    return made.asm["ttgir"]


if __name__ == "__main__":
    jobs = {
        "interpret": (
            mend_interpreter,
            interpret,
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
