"""Chains of layers and networks of them, computed as on a GPU, in Triton's interpreter, for `triton_alone`."""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch import nn

from client.privacy.hooks import per_sample_gradients
from tests.client.privacy.test_samplers import by_hooks, worst
from tests.urwkv.ops.norms_alone import full_of_nan
from tests.urwkv.ops.scans_alone import scans_counted
from tests.urwkv.test_steps import nodes_of
from urwkv import URWKV, steps
from urwkv.blocks import make_norm
from urwkv.mixing import Mixing
from urwkv.ops.doubling import Doubling, doubled_convolution
from urwkv.steps import Steps


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
