import copy
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from urwkv import URWKV
from urwkv.blocks import make_norm
from urwkv.steps import Steps, choose

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ORDERS = {
    "norm": lambda norm: [norm],
    "norm, GELU": lambda norm: [norm, nn.GELU()],
    "GELU, norm": lambda norm: [nn.GELU(), norm],
}


def chain_of(order, norm, channels):
    steps = Steps(*ORDERS[order](make_norm(channels, norm)))
    for parameter in steps.parameters():
        nn.init.normal_(parameter)
    return steps


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_where_nothing_can_be_fused_the_layers_are_computed_as_they_are_written(norm):
    torch.manual_seed(0)
    written = URWKV(variant="small", norm=norm)
    chosen = copy.deepcopy(written)
    choose(chosen, "auto")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(chosen(images), written(images))
    for name, tensor in written.state_dict().items():
        assert torch.equal(chosen.state_dict()[name], tensor), name


def test_what_cannot_be_chosen_is_an_error():
    with pytest.raises(ValueError, match=r"backend = 'fast' is not one of: torch, auto, triton"):
        choose(URWKV(variant="small"), "fast")
    if find_spec("triton") is None:
        with pytest.raises(ValueError, match="needs the package triton"):
            choose(URWKV(variant="small"), "triton")
    steps = chain_of("norm", "batch", 8)
    steps.backend = "triton"
    with pytest.raises(ValueError, match="use auto or torch"):
        steps(torch.randn(2, 8, 4, 4))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 16, 33, 47), (3, 160, 32, 32), (4, 640, 8, 8), (8, 64, 128, 128)])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("order", ORDERS)
def test_fused_outputs_gradients_and_statistics(order, norm, shape, dtype):
    torch.manual_seed(0)
    steps = chain_of(order, norm, shape[1]).cuda()
    exact = copy.deepcopy(steps).double()
    steps.backend = "triton"
    map_ = (2 * torch.randn(shape, device="cuda") + 1).to(dtype).to(memory_format=torch.channels_last)
    both = torch.randn(shape[0], 2 * shape[1], *shape[2:], device="cuda").to(dtype)
    dy = both.to(memory_format=torch.channels_last)[:, shape[1] :]  # as a concatenation hands it back
    results = []
    for chain, x in ((steps, map_), (exact, map_.double())):
        x = x.clone(memory_format=torch.channels_last).requires_grad_()
        y = chain(x)
        grads = torch.autograd.grad(y, [x, *chain.parameters()], dy.to(y.dtype))
        results.append([y, *grads, *chain.buffers()])
    for found, expected in zip(*results, strict=True):
        error = (found.double() - expected.double()).abs().max() / expected.double().abs().max()
        assert error < (1e-5 if dtype == torch.float32 else 1e-2)
    again = steps(map_)
    assert torch.equal(again, results[0][0])


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_network_learns_the_same_fused(norm, compiled, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    written = URWKV(variant="small", norm=norm).cuda().to(memory_format=torch.channels_last)
    fused = copy.deepcopy(written)
    choose(fused, "auto")
    images = torch.randn(4, 3, 64, 64, device="cuda").to(memory_format=torch.channels_last)
    run = torch.compile(fused, fullgraph=True) if compiled else fused
    a, b = written(images), run(images)
    torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-3)
    a.square().mean().backward()
    b.square().mean().backward()
    for (name, x), y in zip(written.named_parameters(), fused.parameters(), strict=True):
        assert (x.grad - y.grad).norm() <= 1e-2 * x.grad.norm() + 1e-5, name


@pytest.mark.gpu
@needs_gpu
def test_fused_steps_replay_in_a_graph():
    torch.manual_seed(0)
    steps = chain_of("GELU, norm", "batch", 32).cuda()
    alone = copy.deepcopy(steps)
    steps.backend = alone.backend = "triton"
    x = torch.randn(4, 32, 24, 24, device="cuda").to(memory_format=torch.channels_last)
    steps(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = steps(x)
    graph.replay()
    alone(x)
    assert torch.equal(y, alone(x))
    assert torch.equal(steps[1].running_var, alone[1].running_var)
    assert steps[1].num_batches_tracked == 2
