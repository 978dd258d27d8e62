import pytest
import torch
from torch import Tensor

from urwkv.ops.reference import biwkv_reference
from urwkv.ops.torch_scan import biwkv_scan

NAMES = ("y", "dw", "du", "dk", "dv")


def inputs(tokens: int, decay: float, spread: float, batch: int = 2, channels: int = 4) -> list[Tensor]:
    """w, u, k, v and dL/dy in float32; the channels' decays go evenly from -decay to decay."""
    torch.manual_seed(tokens)
    w = torch.linspace(-decay, decay, channels).expand(batch, 1, channels) / tokens
    u = torch.randn(1, 1, channels) / tokens
    k, v, dy = (torch.randn(batch, tokens, channels) for _ in range(3))
    return [w, u, k * spread, v, dy]


def value_and_gradients(operator, w, u, k, v, dy) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (w, u, k, v)]
    y = operator(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def assert_near_reference(tensors: list[Tensor], relative: float) -> None:
    found = value_and_gradients(biwkv_scan, *tensors)
    expected = value_and_gradients(biwkv_reference, *(tensor.double() for tensor in tensors))
    for name, mine, exact in zip(NAMES, found, expected, strict=True):
        assert mine.dtype == torch.float32
        assert mine.shape == exact.shape
        error = (mine - exact).abs().max().item()
        assert error <= relative * exact.abs().max().item(), f"{name}: {error}"


@pytest.mark.parametrize("tokens", [1, 2, 3, 17, 64, 255, 1024])
@pytest.mark.parametrize(("decay", "spread", "relative"), [(10.0, 1.0, 1e-5), (10.0, 3.0, 1e-5), (80.0, 50.0, 1e-4)])
def test_equals_the_reference(tokens, decay, spread, relative):
    assert_near_reference(inputs(tokens, decay, spread), relative)


@pytest.mark.parametrize(("decay", "spread", "relative"), [(10.0, 3.0, 1e-5), (80.0, 50.0, 1e-4)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_equals_the_reference_on_long_sequences(decay, spread, relative, sign):
    w, *others = inputs(4096, decay, spread, batch=1, channels=1)
    assert_near_reference([w.abs() * sign, *others], relative)


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_keys_may_be_far_from_zero_and_from_each_other(offset):
    # A key 2000 above all others makes every other weigh nothing, in float64 too.
    w, u, k, v, dy = inputs(33, 80.0, 50.0)
    k = k + offset
    k[0, 20] += 2000
    assert_near_reference([w, u, k, v, dy], 1e-4)


def test_an_empty_prefix_weighs_nothing():
    # Only the second token counts for the first, however small its key is.
    k = torch.tensor([[-500.0], [-900.0], [500.0]])
    v = torch.tensor([[1.0], [2.0], [3.0]])
    w, u = torch.tensor([[300.0]]), torch.tensor([[-2000.0]])
    y = biwkv_scan(w, u, k[:2], v[:2])
    torch.testing.assert_close(y, torch.tensor([[2.0], [1.0]]))


def test_one_token_is_its_value_and_no_gradient_reaches_the_rest():
    _, dw, du, dk, dv = value_and_gradients(biwkv_scan, *inputs(1, 10.0, 3.0))
    assert not dw.any()
    assert not du.any()
    assert not dk.any()
    assert torch.equal(dv, inputs(1, 10.0, 3.0)[4])


def test_gradcheck():
    w, u, k, v, _ = (tensor.double() for tensor in inputs(5, 3.0, 1.0, channels=3))
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (w, u, k, v)]
    assert torch.autograd.gradcheck(biwkv_scan, leaves)


def test_backward_keeps_only_the_inputs():
    kept = []
    tensors = [tensor.requires_grad_() for tensor in inputs(16, 10.0, 3.0)[:4]]
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda _: None):
        biwkv_scan(*tensors)
    assert sum(tensor.numel() for tensor in kept) == sum(tensor.numel() for tensor in tensors)


def test_no_second_derivative_rather_than_a_wrong_one():
    leaves = [tensor.requires_grad_() for tensor in inputs(4, 1.0, 1.0)[:4]]
    (dv,) = torch.autograd.grad(biwkv_scan(*leaves).square().sum(), leaves[3], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dv.sum().backward()
