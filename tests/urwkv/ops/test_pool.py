"""Max pooling of 2 x 2 on a GPU; `triton_alone.py` has its numbers without one."""

import pytest
import torch
from torch import nn

from urwkv.steps import Steps


def chain_of(backend):
    steps = Steps(nn.MaxPool2d(2))
    steps.backend = backend
    return steps


def value_and_gradient(pool, x, dy):
    leaf = x.detach().requires_grad_()
    y = pool(leaf)
    return [y.detach(), *torch.autograd.grad(y, leaf, dy)]


def example(shape=(3, 16, 64, 48), dtype=torch.bfloat16):
    torch.manual_seed(0)
    b, c, h, w = shape
    x, dy = torch.randn(shape), torch.randn(b, c, h // 2, w // 2)
    return [part.to("cuda", dtype).to(memory_format=torch.channels_last) for part in ((2 * x).round() / 2, dy)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_torchs_rule_is_the_first_of_equals_and_the_last_that_is_no_number(dtype):
    nan, low = float("nan"), -float("inf")
    windows = [[1, 1, 0, 1], [0, 2, 2, 1], [low] * 4, [nan, 1, 0, 2], [nan, 1, nan, 2], [1, nan, 2, nan], [nan] * 4]
    x = torch.tensor(windows, dtype=dtype).view(len(windows), 1, 2, 2).requires_grad_()
    (dx,) = torch.autograd.grad(nn.MaxPool2d(2)(x).sum(), x)
    assert dx.flatten(1).nonzero()[:, 1].tolist() == [0, 1, 0, 0, 2, 3, 3]


def test_where_pooling_is_as_written_its_map_is_handed_on_as_it_is():
    chain = chain_of("auto")
    x = torch.randn(2, 8, 4, 6, requires_grad=True)
    skip, pooled = chain.fork(x)
    assert skip is x
    assert torch.equal(pooled, nn.MaxPool2d(2)(x))
    seen = []
    chain.register_forward_hook(lambda layer, inputs, out: seen.append(out))
    assert chain.fork(x)[1] is seen[0]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(4, 16, 256, 256), (3, 160, 33, 32), (2, 7, 5, 9), (2, 32, 2, 129)])
def test_values_and_gradients_are_torchs(shape, dtype):
    x, dy = example(shape, dtype)
    x[0, :, :2, :2] = float("nan")
    found, again = (value_and_gradient(chain_of("triton"), x, dy) for _ in range(2))
    expected = value_and_gradient(chain_of("torch"), x, dy)
    for mine, repeated, theirs in zip(found, again, expected, strict=True):
        assert (mine.dtype, mine.stride()) == (theirs.dtype, theirs.stride())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(mine, repeated, rtol=0, atol=0, equal_nan=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 16, 256, 256), (1, 8, 7, 5), (3, 160, 33, 32)])
def test_a_pool_takes_the_gradient_of_its_map_along(shape, dtype):
    x, dy = example(shape, dtype)
    wide = torch.cat([x, x.flip(0)], dim=1).to(memory_format=torch.channels_last)
    part = wide[:, : shape[1]]  # as a concatenation hands it back
    leaf, chain = x.clone().requires_grad_(), chain_of("triton")
    for dskip, dpooled in ((part, dy), (part, None), (None, dy)):
        found = []
        for fork in (chain.fork, lambda x: (x, nn.MaxPool2d(2)(x))):
            ends = fork(leaf * 1)
            pairs = [(end, d) for end, d in zip(ends, (dskip, dpooled), strict=True) if d is not None]
            outs, gradients = zip(*pairs, strict=True)
            found.append([*ends, *torch.autograd.grad(outs, leaf, gradients)])
        for mine, theirs in zip(*found, strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.gpu
def test_the_operator_is_known_to_torch():
    torch.library.opcheck(torch.ops.fedurwkv.max_pool.default, (example((2, 8, 5, 4))[0].float().requires_grad_(),))


@pytest.mark.gpu
def test_compiled_whole_under_autocast():
    x, dy = example(dtype=torch.float32)
    expected = value_and_gradient(chain_of("torch"), x, dy)
    with torch.autocast("cuda", torch.bfloat16):
        found = value_and_gradient(torch.compile(chain_of("triton"), fullgraph=True), x, dy)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    x, dy = example()
    expected = value_and_gradient(chain_of("torch"), x, dy)
    value_and_gradient(chain_of("triton"), x, dy)
    then = x.clone()
    x.zero_()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = value_and_gradient(chain_of("triton"), x, dy)
    x.copy_(then)
    graph.replay()
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
