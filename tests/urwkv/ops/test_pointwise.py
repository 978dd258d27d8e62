import pytest
import torch
import torch.nn.functional as F

from urwkv.ops.pointwise import pointwise_convolution


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("shape", [(2, 16, 5, 7), (1, 3, 1, 1), (3, 8, 12, 4)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_product_is_the_convolution_gradients_too(memory_format, shape, dtype, tolerance) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=memory_format)
    weight, bias = torch.randn(6, shape[1], 1, 1, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    dy = torch.randn(shape[0], 6, *shape[2:], dtype=torch.float64)
    results = []
    for convolution, kind in ((pointwise_convolution, dtype), (F.conv2d, torch.float64)):
        inputs = [tensor.to(kind).requires_grad_() for tensor in (x, weight, bias)]
        y = convolution(*inputs)
        results.append([y, *torch.autograd.grad(y, inputs, dy.to(kind))])
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_a_channels_last_map_is_neither_copied_nor_turned() -> None:
    x = torch.randn(2, 8, 3, 5).to(memory_format=torch.channels_last)
    weight = torch.eye(8)[:, :, None, None]
    y = pointwise_convolution(x, weight, None)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, x)
