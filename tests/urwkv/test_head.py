"""The head as one operation: its operator beside torch's convolution, and where it is chosen.

What has no mark computes as written: the operator's numbers without a GPU are tried in `ops.head_alone`.
"""

import copy
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.urwkv.ops.test_triton_scan import poisoned
from urwkv import URWKV
from urwkv import head as module
from urwkv.head import Head
from urwkv.lean import lean
from urwkv.steps import choose


def stirred_head(channels, classes, device):
    torch.manual_seed(0)
    layer = Head(channels, classes).to(device)
    for weight in layer.parameters():
        nn.init.normal_(weight)
    return layer


def gradient_like(y):
    """As torch's own convolution would not get it: every other of a contiguous map's columns."""
    return torch.randn(*y.shape[:3], 2 * y.shape[3], device=y.device).to(y.dtype)[..., ::2]


def results(layer, map_, dy, dtype):
    """Logits, and the gradients of map, weight and bias, of a map that is the operator's."""
    x = map_.detach().requires_grad_()
    y = module.head_triton(x, layer.weight, layer.bias, dtype)
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], dy)]


def assert_head_is_exact(shape, classes, device="cpu", dtype=torch.float32, weights=torch.float32):
    """Beside torch's convolution in float64, of the same numbers."""
    layer = stirred_head(shape[1], classes, device).to(weights)
    map_ = torch.randn(shape, device=device).to(dtype).to(memory_format=torch.channels_last)
    dy = gradient_like(torch.empty(shape[0], classes, *shape[2:], dtype=dtype, device=device))
    found = results(layer, map_, dy, dtype)
    wide = [tensor.detach().double().requires_grad_() for tensor in (map_, *layer.parameters())]
    y = F.conv2d(*wide)
    expected = [y, *torch.autograd.grad(y, wide, dy.double())]
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert found[1].is_contiguous(memory_format=torch.channels_last)
    assert [tensor.dtype for tensor in found] == [dtype, dtype, weights, weights]
    for name, one, exact in zip(("y", "dx", "dweight", "dbias"), found, expected, strict=True):
        assert one.shape == exact.shape
        rounding = 3e-6 + (0 if one.dtype == torch.float32 else torch.finfo(one.dtype).eps / 2)
        # also where it is not a number
        assert ((one - exact).abs() <= rounding * exact.abs() + 3e-6 * exact.abs().max()).all(), (
            name,
            shape,
            classes,
        )


def assert_network_learns_the_same(device, classes):
    """A small network whose head is one operation, beside itself as written, both beside float64."""
    torch.manual_seed(0)
    written = URWKV(variant="small", num_classes=classes).to(device, memory_format=torch.channels_last)
    exact, ours = copy.deepcopy(written).double(), copy.deepcopy(written)
    ours.head.backend = "triton"
    images, losses = torch.randn(2, 3, 32, 48, device=device), []
    for network in (exact, written, ours):
        with mock.patch.object(module, "head_triton", wraps=module.head_triton) as called:
            logits = network(images.to(network.head.weight.dtype).to(memory_format=torch.channels_last))
        assert called.call_count == (network is ours)
        losses.append(logits.square().mean())
        losses[-1].backward()
    for loss in losses[1:]:
        torch.testing.assert_close(loss.double(), losses[0], rtol=1e-5, atol=0)
    whole = sum(weight.grad.square().sum() for weight in exact.parameters()).sqrt()
    for (name, weight), *both in zip(exact.named_parameters(), written.parameters(), ours.parameters(), strict=True):
        off = [(one.grad - weight.grad).norm() for one in both]
        assert off[1] <= 1.5 * off[0] + 1e-6 * whole, name


def assert_hooks_see_what_they_see_of_torchs(device):
    layer, x = stirred_head(16, 2, device), torch.randn(2, 16, 3, 5, device=device)
    seen = []
    layer.register_forward_hook(lambda layer, inputs, out: seen.append((*inputs, out)))
    layer.register_full_backward_hook(lambda layer, into, out: seen.append((*into, *out)))
    for layer.backend in ("triton", "torch"):
        leaf = x.to(memory_format=torch.channels_last).requires_grad_()
        layer(leaf).square().sum().backward()
    assert [len(tensors) for tensors in seen] == [2, 2] * 2
    for one, other in zip(
        (t for part in seen[:2] for t in part), (t for part in seen[2:] for t in part), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def backends(network):
    return [layer.backend for layer in network.modules() if isinstance(layer, Head)]


def test_it_is_a_convolution_by_name_and_by_its_first_weights():
    torch.manual_seed(0)
    layer = Head(16, 3)
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 3, 1)
    assert list(layer.state_dict()) == list(plain.state_dict()) == ["weight", "bias"]
    for one, other in zip(layer.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    x = torch.randn(2, 16, 4, 5)
    assert torch.equal(layer(x), plain(x))


def test_who_chooses_it():
    network = URWKV(variant="small")
    assert backends(network) == ["torch"]
    assert backends(lean(network)) == ["auto"]
    choose(network, "auto")
    assert backends(network) == ["auto"]


def test_where_it_cannot_be_it_is_as_written_or_an_error():
    layer, x = Head(16, 2), torch.randn(2, 16, 3, 5)
    written = layer(x)
    layer.backend = "auto"
    assert torch.equal(layer(x), written)
    layer.backend = "triton"
    with pytest.raises(ValueError, match=r"head: backend = 'triton' .*; use auto or torch"):
        layer(x)


# ---- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("classes", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape",
    [
        (3, 16, 256, 256),
        (2, 8, 33, 47),
        (1, 24, 1, 1),
        (2, 24, 16, 16),
        (70, 16, 128, 100),
        (2, 160, 9, 64),
        (1, 1024, 5, 3),
    ],
)
def test_equals_torchs_convolution(monkeypatch, shape, dtype, classes):
    poisoned(monkeypatch)
    assert_head_is_exact(shape, classes, "cuda", dtype)


@pytest.mark.gpu
def test_weights_may_be_bf16():
    assert_head_is_exact((4, 16, 64, 64), 2, "cuda", torch.bfloat16, weights=torch.bfloat16)


@pytest.mark.gpu
def test_a_map_of_more_numbers_than_32_bits_count():
    layer = stirred_head(16, 1, "cuda")
    map_ = torch.randn(3, 16, 256, 256, device="cuda").bfloat16().to(memory_format=torch.channels_last)
    dy = torch.randn(3, 1, 256, 256, device="cuda").bfloat16()
    few, many = results(layer, map_, dy, torch.bfloat16), []
    large = torch.empty(2100, 16, 256, 256, device="cuda", dtype=torch.bfloat16, memory_format=torch.channels_last)
    large_dy = torch.zeros(2100, 1, 256, 256, device="cuda", dtype=torch.bfloat16)
    large.zero_()
    for some in (slice(0, 3), slice(-3, None)):
        large[some], large_dy[some] = map_, dy
        many = results(layer, large, large_dy, torch.bfloat16)
        for one, other in zip(many[:2], few[:2], strict=True):
            assert torch.equal(one[some], other)
    for one, other in zip(many[2:], few[2:], strict=True):
        torch.testing.assert_close(one, 2 * other, rtol=1e-4, atol=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("classes", [1, 3])
def test_the_network_learns_the_same(monkeypatch, classes):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert_network_learns_the_same("cuda", classes)


@pytest.mark.gpu
def test_hooks_see_the_same():
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert_hooks_see_what_they_see_of_torchs("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("classes", [1, 3])
def test_under_autocast_it_is_as_exact_as_torchs_and_in_its_dtype(classes):
    layer = stirred_head(16, classes, "cuda")
    map_ = torch.randn(8, 16, 128, 96, device="cuda").bfloat16().to(memory_format=torch.channels_last)
    dy = torch.randn(8, classes, 128, 96, device="cuda").bfloat16()
    exact = copy.deepcopy(layer).double()
    kinds = []
    for network, backend in ((exact, "torch"), (layer, "torch"), (layer, "triton")):
        network.backend = backend
        x = map_.to(network.weight.dtype if network is exact else map_.dtype).detach().requires_grad_()
        with torch.autocast("cuda", torch.bfloat16, enabled=network is not exact):
            y = network(x)
        kinds.append([y, *torch.autograd.grad(y, [x, *network.parameters()], dy.to(y.dtype))])
    for name, true, theirs, ours in zip(("y", "dx", "dweight", "dbias"), *kinds, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        off = [((found - true).norm() / true.norm()).item() for found in (theirs, ours)]
        assert off[1] <= 1.05 * off[0] + 1e-6, (name, off)
    with torch.autocast("cuda", torch.bfloat16):
        assert layer(map_.float()).dtype == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.parametrize("classes", [1, 3])
def test_the_operator_is_known_to_torch(classes):
    x = torch.randn(2, 16, 5, 4, device="cuda").to(memory_format=torch.channels_last).requires_grad_()
    layer = stirred_head(16, classes, "cuda")
    torch.library.opcheck(torch.ops.fedurwkv.head.default, (x, layer.weight, layer.bias, torch.float32))


@pytest.mark.gpu
def test_compiled_whole_under_autocast():
    layer = stirred_head(16, 1, "cuda")
    layer.backend = "triton"
    x = torch.randn(2, 16, 24, 20, device="cuda").to(memory_format=torch.channels_last)
    grads = []
    for run in (layer, torch.compile(layer, fullgraph=True)):
        with torch.autocast("cuda", torch.bfloat16):
            y = run(x)
        grads.append(torch.autograd.grad(y.float().square().sum(), list(layer.parameters())))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.gpu
def test_results_repeat_to_the_bit_and_in_a_graph():
    layer = stirred_head(16, 2, "cuda")
    map_ = torch.randn(4, 16, 200, 131, device="cuda").bfloat16().to(memory_format=torch.channels_last)
    dy = torch.randn(4, 2, 200, 131, device="cuda").bfloat16()
    expected = results(layer, map_, dy, torch.bfloat16)
    then = map_.clone()
    map_.zero_()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = results(layer, map_, dy, torch.bfloat16)
    map_.copy_(then)
    graph.replay()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
