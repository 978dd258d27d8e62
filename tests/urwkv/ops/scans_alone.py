"""The operators of the scans in Triton's interpreter, for `triton_alone`: their numbers, and DARM with them."""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch

from tests.urwkv.ops.test_triton_scan import poisoned
from tests.urwkv.test_mixing import (
    assert_bf16_is_as_exact_as_written,
    assert_gating_is_exact,
    assert_mixing_is_exact,
    assert_mixing_is_exact_by_sample,
    assert_norm_is_exact,
    assert_norm_is_exact_by_sample,
)
from urwkv import URWKV, mixing
from urwkv.darm import DARM, ChannelMix
from urwkv.leaves import Scale
from urwkv.mixing import Mixing
from urwkv.ops import scans_triton, token_triton
from urwkv.ops.scans_triton import Cut, gated_average_triton, mixed_scans_triton
from urwkv.ops.token_triton import token_norm_triton
from urwkv.scans import one_order, quad_scan, two_orders, undo_quad_scan


def interpret_scans() -> None:
    """On maps of all kinds of sides and channels."""
    with pytest.MonkeyPatch.context() as patch:
        poisoned(patch)
        for shape in ((2, 3, 5, 12), (2, 1, 4, 32), (2, 7, 1, 4), (2, 1, 1, 16), (2, 6, 6, 32)):
            for order in (quad_scan, two_orders, one_order):
                assert_mixing_is_exact(order, shape)
                assert_mixing_is_exact_by_sample(order, shape)
            assert_gating_is_exact(*shape)
        patch.setattr(scans_triton, "PROGRAMS", 16)  # two blocks of sums, of two tiles and of a part of one
        assert Cut.of(1, 9, 5, 260) == Cut(1, 9, 5, quarter=65, channels=64, pixels=16, span=32)
        assert_mixing_is_exact(quad_scan, (1, 9, 5, 260))
        assert_mixing_is_exact_by_sample(quad_scan, (2, 9, 5, 260))
    interpret_norms_of_tokens()
    assert_network_learns_the_same("paper", "auto")
    assert_network_learns_the_same("off", "triton")
    assert_leaves_with_hooks_are_called()
    assert_bf16_is_as_exact_as_written("paper", 32, "cpu")
    assert_scans_are_in_autocasts_dtype()
    assert_scans_are_known_to_torch()


def interpret_norms_of_tokens() -> None:
    """Of several rows a program and one, which fill their programs or not, and channels that are no power of two."""
    with pytest.MonkeyPatch.context() as patch:
        poisoned(patch)
        patch.setattr(token_triton, "PROGRAMS", 3)
        for shape, squared in itertools.product(
            ((2, 4, 5, 24), (3, 2, 3, 64), (7, 1, 1024), (1, 1, 3000), (3, 1, 8)), (False, True)
        ):
            assert_norm_is_exact(shape, squared)
            assert_norm_is_exact_by_sample(shape, squared)
    x, weight = torch.randn(2, 5, 8), torch.ones(8)
    norm = torch.nn.LayerNorm(8)
    layer = Mixing("quad", quad_scan)
    layer.backend = "triton"
    with torch.autocast("cpu", torch.float16):
        assert [layer.normed(norm, x.half()).dtype, layer.squared(norm, x).dtype] == [torch.float32, torch.float16]
    assert layer.normed(norm, x.half()).dtype == torch.float16
    empty = torch.empty(0, 8, requires_grad=True)
    y = token_norm_triton(empty, weight.requires_grad_(), weight, eps=1e-5, squared=True, dtype=torch.float32)
    assert torch.autograd.grad(y.sum(), weight)[0].eq(0).all()


def assert_network_learns_the_same(dual: str, backend: str) -> None:
    """A small network that is told to compute DARM so, beside itself as written in float64."""
    torch.manual_seed(0)
    model = URWKV(variant="small", dual=dual)
    exact = copy.deepcopy(model).double()
    model.darm.spatial.backend = model.darm.channel.backend = backend
    images = torch.randn(2, 3, 48, 80)
    with scans_counted() as found:
        logits = model(images)
    assert found == ["normed", "mixed", "normed", "gated", "normed", "mixed", "normed"]
    expected = exact(images.double())
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    logits.square().mean().backward()
    expected.square().mean().backward()
    whole = sum(w.grad.square().sum() for w in exact.parameters()).sqrt()
    for (name, weight), one in zip(exact.named_parameters(), model.parameters(), strict=True):
        off = (one.grad - weight.grad).norm()
        assert off < 1e-5 * whole, name
        assert not name.startswith("darm") or off < 1e-3 * weight.grad.norm(), name


def assert_leaves_with_hooks_are_called() -> None:
    darm = DARM(16, "paper", "quad")
    darm.spatial.backend = darm.channel.backend = "auto"
    x, seen = torch.randn(2, 16, 3, 5), []
    expected = darm(x)
    handle = darm.spatial.mu_v.register_forward_hook(lambda *_: seen.append("mu_v"))
    with scans_counted() as found:
        torch.testing.assert_close(darm(x), expected)
    assert (found, seen) == (["normed", "normed", "gated", "normed", "mixed", "normed"], ["mu_v"])
    darm.spatial.backend = "triton"
    with pytest.raises(ValueError, match="backend = 'triton' calls no hooks of layers; use auto or torch"):
        darm(x)
    handle.remove()
    for shift in ("none", "paper"):
        other = DARM(16, "paper", shift)
        other.spatial.backend = other.channel.backend = "auto"
        with scans_counted() as found:
            other(torch.randn(2, 16, 4, 4))
        assert found == ["normed", "normed", "gated", "normed", "normed"]


def assert_scans_are_in_autocasts_dtype() -> None:
    """Rounded once, where as written the linear layers round: to the same bit where no product is rounded before."""
    torch.manual_seed(0)
    mixing = Mixing("quad", quad_scan)
    z, y = torch.randn(2, 3, 5, 8), torch.randn(2, 4, 15, 8)
    r, mus = torch.randn(2, 4, 15, 8).bfloat16(), [Scale(torch.tensor([0.0, 1.0] * 4)) for _ in "kv"]
    with torch.autocast("cpu", torch.bfloat16):
        written = mixing.mixed(z, *mus), mixing.gated(r, y, 3, 5)
        mixing.backend = "triton"
        (x_k, x_v), map_ = mixing.mixed(z, *mus), mixing.gated(r, y, 3, 5)
    assert {x_k.dtype, x_v.dtype, map_.dtype} == {torch.bfloat16}
    assert torch.equal(x_k, written[0][0].bfloat16())
    assert torch.equal(x_v, written[0][1].bfloat16())
    exact = undo_quad_scan(torch.sigmoid(r.double()) * y, 3, 5)
    assert (map_ - exact).abs().max() <= 1.5 * (written[1].bfloat16() - exact).abs().max()
    assert mixing.mixed(z, *mus)[0].dtype == torch.float32


def assert_scans_are_known_to_torch() -> None:
    z, mus = torch.randn(2, 3, 5, 8, requires_grad=True), [torch.randn(8, requires_grad=True) for _ in "kvr"]
    torch.library.opcheck(torch.ops.fedurwkv.mixed_scans.default, (z, mus, 4, torch.float32))
    r, y = (torch.randn(2, 4, 15, 8, requires_grad=True) for _ in "ry")
    torch.library.opcheck(torch.ops.fedurwkv.gated_average.default, (r, y, 3, 5, torch.float32))
    x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((3, 40), (40,), (40,)))
    torch.library.opcheck(torch.ops.fedurwkv.token_norm.default, (x, weight, bias, 1e-5, True, torch.float32))
    channel = ChannelMix(8, "quad", both_orders=True)
    channel.backend = "auto"
    written = copy.deepcopy(channel)

    def both(z: torch.Tensor) -> torch.Tensor:
        return channel(z).sum() + channel.gated(r, y, 3, 5).sum()

    with scans_counted() as found:
        torch.compile(both, fullgraph=True, backend="aot_eager")(z).backward()
    assert found == ["mixed", "normed", "gated"]  # at once, not in the pieces of a broken graph
    (written(z).sum() + written.gated(r, y, 3, 5).sum()).backward()
    for (name, one), other in zip(channel.named_parameters(), written.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    only = mixed_scans_triton(z, mus, 4, torch.float32)[1]  # and no gradient comes for the others
    dz, dk, dv = torch.autograd.grad(only.sum(), [z, *mus[:2]])
    assert not dk.any()
    assert dz.any()
    assert dv.any()
    for empty in ((0, 3, 5, 8), (2, 0, 5, 8)):
        nothing = torch.empty(empty, requires_grad=True)
        mixed = mixed_scans_triton(nothing, mus, 4, torch.float32)
        assert torch.autograd.grad(sum(x.sum() for x in mixed), mus)[0].eq(0).all()


@contextmanager
def scans_counted() -> Iterator[list[str]]:
    """Which of the scans' operators are called meanwhile."""
    found: list[str] = []

    def noting(word: str, operator):
        return lambda *tensors, **words: found.append(word) or operator(*tensors, **words)

    with (
        mock.patch.object(mixing, "mixed_scans_triton", noting("mixed", mixed_scans_triton)),
        mock.patch.object(mixing, "gated_average_triton", noting("gated", gated_average_triton)),
        mock.patch.object(mixing, "token_norm_triton", noting("normed", token_norm_triton)),
    ):
        yield found
