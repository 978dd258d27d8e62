"""Twice the side: what torch.compile is told is what is computed as written, and so is the convolution after it."""

import pytest
import torch
import torch.nn.functional as F

from urwkv.ops.doubling import Doubling, copied, doubled_convolution, doubled_filters


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_copy_is_nearest_neighbour_and_its_gradient_the_sum_of_four(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    dy = torch.randn(2, 3, 10, 8, dtype=torch.float64)
    plain, copy = Doubling()(x), copied(x)
    assert torch.equal(plain, copy)
    for mine, expected in zip(*(torch.autograd.grad(y, x, dy) for y in (copy, plain)), strict=True):
        torch.testing.assert_close(mine, expected)


def test_torch_compile_sees_the_copy() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(torch.compile(Doubling(), backend=backend, fullgraph=True)(x), Doubling()(x))
    assert "expand" in graphs[0].code
    assert "interpolate" not in graphs[0].code


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_under_autocast_a_map_stays_as_narrow_as_it_is(device: str) -> None:
    """A GPU's autocast would widen it; a CPU's leaves it alone."""
    x = torch.randn(1, 2, 3, 3, device=device).bfloat16().requires_grad_()
    with torch.autocast(device, torch.bfloat16):
        assert Doubling()(x.float()).dtype == torch.float32
        y = Doubling()(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, copied(x))
    y.backward(torch.ones_like(y))
    assert torch.equal(x.grad, torch.full_like(x, 4.0))


def written(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2.0), weight, bias, padding=1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("shape", [(2, 16, 5, 7), (1, 3, 1, 1), (3, 8, 2, 9), (1, 32, 16, 16)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_convolution_of_the_double_by_fewer_products(memory_format, shape, dtype, tolerance) -> None:
    torch.manual_seed(0)
    b, cin, h, w = shape
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=memory_format)
    weight = torch.randn(6, cin, 3, 3, dtype=torch.float64).to(memory_format=memory_format)
    bias, dy = torch.randn(6, dtype=torch.float64), torch.randn(b, 6, 2 * h, 2 * w, dtype=torch.float64)
    results = []
    for convolution, kind in ((doubled_convolution, dtype), (written, torch.float64)):
        inputs = [tensor.to(kind).requires_grad_() for tensor in (x, weight, bias)]
        y = convolution(*inputs)
        results.append([y, *torch.autograd.grad(y, inputs, dy.to(kind))])
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_its_filters_are_sums_of_neighbours_wherever_they_lie(
    memory_format: torch.memory_format, device: str
) -> None:
    """By hand: along a side, taps 0 to 2 become 2, 1 + 2, 0 + 1 and 0."""
    spread = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], device=device)
    weight = torch.randn(8, 16, 3, 3, device=device).to(memory_format=memory_format).requires_grad_()
    filters = doubled_filters(weight)
    expected = torch.einsum("ia,jb,ocab->coij", spread.double(), spread.double(), weight.double())
    torch.testing.assert_close(filters.double(), expected, rtol=1e-6, atol=1e-6)
    dfilters = torch.randn_like(filters)
    found, exact = (
        torch.autograd.grad(y, weight, dy)[0] for y, dy in ((filters, dfilters), (expected, dfilters.double()))
    )
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_under_autocast_the_doubled_convolution_is_as_narrow_as_any(device: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16, 6, 5, device=device).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(8, 16, 3, 3, device=device, requires_grad=True)
    bias = torch.randn(8, device=device, requires_grad=True)
    with torch.autocast(device, torch.bfloat16):
        y = doubled_convolution(x, weight, bias)
    assert y.dtype == torch.bfloat16
    exact = [leaf.detach().double().requires_grad_() for leaf in (x, weight, bias)]
    z = written(*exact)
    dy = torch.randn_like(z)
    found, expected = (
        torch.autograd.grad(*words) for words in ((y, (x, weight, bias), dy.bfloat16()), (z, exact, dy))
    )
    for a, b in zip((y, *found), (z, *expected), strict=True):
        assert (a - b).abs().max() < 2e-2 * b.abs().max()


def test_the_doubled_convolution_has_its_second_derivatives() -> None:
    torch.manual_seed(0)
    shapes = (1, 2, 3, 2), (2, 2, 3, 3), (2,)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(doubled_convolution, inputs)
    assert torch.autograd.gradgradcheck(doubled_convolution, inputs)


def test_no_gradient_is_made_that_nobody_asks_for() -> None:
    x, weight = torch.randn(1, 2, 3, 3, requires_grad=True), torch.randn(2, 2, 3, 3)
    doubled_convolution(x, weight, None).sum().backward()
    assert x.grad is not None
    assert weight.grad is None
