import pytest
import torch

from urwkv.ops import biwkv
from urwkv.ops.reference import biwkv_reference

B, S, T, C = 3, 4, 7, 8


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    w, u = torch.linspace(-5, 3, C) / T, torch.randn(C) / T
    return w, u, torch.randn(B, S, T, C), torch.randn(B, S, T, C)


def gradients(w, u, k, v, backend="torch"):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (w, u, k, v)]
    return torch.autograd.grad(biwkv(*leaves, backend=backend).square().sum(), leaves)


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize("shape", [(T, C), (B, T, C), (B, S, T, C), (B, 2, S, T, C)])
def test_any_axes_before_the_tokens(tensors, backend, shape):
    w, u, *_ = tensors
    k, v = torch.randn(shape), torch.randn(shape)
    expected = biwkv_reference(w.double(), u.double(), k.double(), v.double())
    torch.testing.assert_close(biwkv(w, u, k, v, backend=backend).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_decay_a_sample_gets_a_gradient_a_sample(tensors, backend):
    w, u, k, v = tensors
    whole = gradients(w, u, k, v, backend)
    each = gradients(w.expand(B, C), u.expand(B, C), k, v, backend)
    for shared, own in zip(whole[:2], each[:2], strict=True):
        assert own.shape == (B, C)
        torch.testing.assert_close(own.sum(0), shared)
    for b in range(B):
        alone = gradients(w, u, k[b : b + 1], v[b : b + 1], backend)
        torch.testing.assert_close(each[0][b], alone[0])
        torch.testing.assert_close(each[1][b], alone[1])


def test_unlike_decays_of_the_samples_stay_apart(tensors):
    _, u, k, v = tensors
    w = torch.randn(B, C)
    for b in range(B):
        torch.testing.assert_close(biwkv(w, u, k, v)[b], biwkv(w[b], u, k[b], v[b]))


def test_memory_layout_does_not_matter(tensors):
    w, u, k, v = tensors
    scattered = [torch.stack([t, t], dim=-1)[..., 0] for t in (w, u)]
    turned = [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in (k, v)]
    assert not any(tensor.is_contiguous() for tensor in (*scattered, *turned))
    assert torch.equal(biwkv(*scattered, *turned), biwkv(w, u, k, v))
    for mine, plain in zip(gradients(*scattered, *turned), gradients(w, u, k, v), strict=True):
        torch.testing.assert_close(mine, plain)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_autocast_stays_outside(tensors, backend):
    plain = biwkv(*tensors, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(biwkv(*tensors, backend=backend), plain)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_half_precision_is_widened_inside_and_returned(tensors, backend):
    w, u, k, v = tensors
    k, v = k.bfloat16(), v.bfloat16()
    y = biwkv(w, u, k, v, backend=backend)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, biwkv(w, u, k.float(), v.float(), backend=backend).bfloat16())
    assert [grad.dtype for grad in gradients(w, u, k, v, backend)] == [torch.float32] * 2 + [torch.bfloat16] * 2


def test_asks_the_device_for_no_value():
    # Tensors on the meta device have none to give: anything that reads one is an error.
    w, u = (torch.empty(C, device="meta", requires_grad=True) for _ in range(2))
    k, v = (torch.empty(B, S, T, C, device="meta", requires_grad=True) for _ in range(2))
    biwkv(w, u, k, v).sum().backward()
    assert w.grad.shape == (C,)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_on_a_gpu_as_on_the_cpu_and_without_waiting(tensors):
    there = [tensor.cuda() for tensor in tensors]
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [biwkv(*there), *gradients(*there)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for mine, expected in zip(found, [biwkv(*tensors), *gradients(*tensors)], strict=True):
        torch.testing.assert_close(mine.cpu(), expected)


@pytest.mark.parametrize("backend", ["cuda", ""])
def test_unknown_backends_are_named(tensors, backend):
    with pytest.raises(ValueError, match=f"backend = '{backend}' is not one of: auto, reference, torch, triton"):
        biwkv(*tensors, backend=backend)


def test_shapes_that_do_not_fit_are_errors(tensors):
    w, u, k, v = tensors
    with pytest.raises(ValueError, match=r"k \(3, 4, 7, 8\) and v \(3, 4, 6, 8\)"):
        biwkv(w, u, k, v[:, :, 1:])
    with pytest.raises(ValueError, match="T >= 1"):
        biwkv(w, u, k[:, :, :0], v[:, :, :0])
    with pytest.raises(ValueError, match=r"w \(2, 8\) must be \(C,\) or \(B, C\)"):
        biwkv(w.expand(2, C), u, k, v)
    with pytest.raises(ValueError, match=r"u \(7,\) must be"):
        biwkv(w, u[1:], k, v)
