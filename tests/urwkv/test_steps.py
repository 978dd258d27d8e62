import copy
from collections import Counter
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from urwkv import URWKV
from urwkv import steps as module
from urwkv.blocks import make_norm
from urwkv.head import Head
from urwkv.mixing import Mixing
from urwkv.ops.doubling import Doubling
from urwkv.steps import HAS_OPENMP, Steps, choose, chosen

on_openmp = pytest.mark.skipif(not HAS_OPENMP, reason="needs a torch whose threads are GNU OpenMP's")
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
    written = URWKV(variant="small", norm=norm).double()
    chosen = copy.deepcopy(written)
    choose(chosen, "auto")
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
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


def test_what_is_chosen_for_a_while_is_put_back():
    network = URWKV(variant="small")
    network.stem.backend = "auto"
    joined = [module for module in network.modules() if isinstance(module, (Steps, Mixing, Head))]
    before, keep = [module.backend for module in joined], object()
    assert set(before) == {"auto", "torch"}

    def fails_meanwhile():
        with chosen(network, "auto", keep):
            assert {module.backend for module in joined} == {"auto"}
            assert {module.keep for module in joined if not isinstance(module, Head)} == {keep}
            raise KeyError

    with pytest.raises(KeyError):
        fails_meanwhile()
    with pytest.raises(ValueError, match="backend = 'fast'"), chosen(network, "fast", keep):
        pass
    assert [module.backend for module in joined] == before
    assert {module.keep for module in joined if not isinstance(module, Head)} == {None}


def nodes_of(y):
    """How often each kind of node is in the graph of gradients behind y."""
    seen, waiting, names = set(), [y.grad_fn], Counter()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names[type(node).__name__] += 1
            waiting += [following for following, _ in node.next_functions]
    return names


JOINED = "_NormGeluBackward", "_TransposedBackward"


@on_openmp
@pytest.mark.parametrize("side", [(32, 32), (35, 49)])
def test_on_a_cpu_the_network_learns_the_same_in_other_steps(side):
    torch.manual_seed(0)
    written = URWKV(variant="small").to(memory_format=torch.channels_last)
    exact, chosen = copy.deepcopy(written).double(), copy.deepcopy(written)
    choose(chosen, "auto")
    images = torch.randn(3, 3, *side)
    losses = []
    for network in (exact, written, chosen):
        logits = network(images.to(network.head.weight.dtype).to(memory_format=torch.channels_last))
        losses.append(logits.square().mean())
        losses[-1].backward()
    nodes = nodes_of(losses[2])
    assert [nodes[name] for name in JOINED] == [29, 4]
    assert nodes["ConvolutionBackward0"] == sum(isinstance(module, nn.Conv2d) for module in written.modules()) - 4
    assert not any(nodes_of(losses[1])[name] for name in JOINED)
    for loss in losses[1:]:
        torch.testing.assert_close(loss.double(), losses[0], rtol=1e-5, atol=0)
    grads = [dict(network.named_parameters()) for network in (exact, written, chosen)]
    whole = sum(weight.grad.square().sum() for weight in grads[0].values()).sqrt()
    for name, weight in grads[0].items():
        off = [(grads[i][name].grad.double() - weight.grad).norm() for i in (1, 2)]
        assert off[1] <= 3 * off[0] + 1e-6 * whole, name
    for name, buffer in exact.named_buffers():
        torch.testing.assert_close(chosen.get_buffer(name).to(buffer.dtype), buffer, rtol=1e-4, atol=1e-5)


@on_openmp
def test_on_a_cpu_layers_are_as_written_where_something_is_in_the_way():
    torch.manual_seed(0)
    plain = Steps(Doubling(), nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU())
    plain.to(memory_format=torch.channels_last)
    plain.backend = "auto"
    x = torch.randn(2, 4, 5, 6).to(memory_format=torch.channels_last)

    def joined(steps, x):
        nodes = nodes_of(steps(x))
        return [nodes[name] for name in JOINED]

    assert joined(plain, x) == [1, 1]
    assert joined(plain, x.contiguous()) == [1, 0]  # torch's convolution turns the map
    assert joined(copy.deepcopy(plain).double(), x.double()) == [0, 0]
    assert joined(copy.deepcopy(plain).eval(), x) == [0, 1]
    with torch.autocast("cpu", torch.bfloat16):
        assert joined(plain, x) == [0, 0]
    hooked = copy.deepcopy(plain)
    for layer in hooked:
        layer.register_forward_hook(lambda *_: None)
    assert joined(hooked, x) == [0, 0]
    hooked_norm = copy.deepcopy(plain)
    hooked_norm[2].register_forward_hook(lambda *_: None)
    assert joined(hooked_norm, x) == [0, 1]
    watched = copy.deepcopy(plain)
    for layer in watched:
        layer.register_full_backward_pre_hook(lambda *_: None)
    assert joined(watched, x) == [0, 0]
    strided = copy.deepcopy(plain)
    strided[2].weight = nn.Parameter(torch.ones(16)[::2])
    assert joined(strided, x) == [0, 1]
    before = copy.deepcopy(plain.state_dict())
    assert joined(plain, x[:0]) == [0, 1]  # and the batch of nothing moves no statistics
    assert all(torch.equal(before[name], plain.state_dict()[name]) for name in ("2.running_mean", "2.running_var"))
    grouped = Steps(nn.GELU(), nn.GroupNorm(2, 4), Doubling(), nn.Conv2d(4, 4, 3, stride=2, padding=1))
    grouped.backend = "auto"
    assert joined(grouped, x) == [0, 0]
    graphs = []
    torch.compiler.reset()
    torch.compile(plain, backend=lambda graph, _: graphs.append(graph.code) or graph, fullgraph=True)(x)
    assert "conv2d" in graphs[0]
    assert "conv_transpose2d" not in graphs[0]


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_a_map_beside_is_added_or_comes_first_and_hooks_are_called(backend):
    chain = Steps(nn.Conv2d(4, 4, 1), nn.GELU(), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    chain.backend = backend
    x, beside = (torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last) for _ in "ab")
    expected = chain(x) + beside
    torch.testing.assert_close(chain.plus(x, beside), expected)
    both = torch.cat([beside, chain(x)], dim=1)
    torch.testing.assert_close(chain.after(x, beside), both)
    seen = []
    chain.register_forward_hook(lambda *_: seen.append("hook"))
    torch.testing.assert_close(chain.plus(x, beside), expected)
    torch.testing.assert_close(chain.after(x, beside), both)
    assert seen == ["hook"] * 2


@pytest.mark.gpu
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 8, 33, 47), (1, 160, 32, 32), (4, 16, 128, 128)])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_map_written_beside_a_skip_is_their_concatenation(norm, shape, dtype):
    torch.manual_seed(0)
    chain = chain_of("norm, GELU", norm, shape[1]).cuda()
    chain.backend = "triton"
    x, skip = (torch.randn(shape, device="cuda").to(dtype).to(memory_format=torch.channels_last) for _ in "xs")
    leaves = [x.requires_grad_(), skip.requires_grad_(), *chain.parameters()]
    joined, apart = chain.after(x, skip), torch.cat([skip, chain(x)], dim=1)
    assert joined.stride() == apart.stride()
    assert torch.equal(joined, apart)
    dy = torch.randn_like(joined)
    found, expected = (torch.autograd.grad(y, leaves, dy) for y in (joined, apart))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("groups", [1, 16])
def test_a_convolution_leaves_its_bias_to_the_norm_after_it(groups, order, norm, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    chain = Steps(nn.Conv2d(16, 32, 3, padding=1, groups=groups), *chain_of(order, norm, 32), nn.Conv2d(32, 8, 1))
    nn.init.normal_(chain[0].bias)
    chain = chain.cuda().to(memory_format=torch.channels_last)
    exact = copy.deepcopy(chain).double()
    chain.backend = "auto"
    shifts = []
    joined = module.norm_gelu_triton
    monkeypatch.setattr(
        module, "norm_gelu_triton", lambda *maps, **words: shifts.append(words["shift"]) or joined(*maps, **words)
    )
    images = torch.randn(3, 16, 21, 34, device="cuda").to(memory_format=torch.channels_last)
    for network in (chain, exact):
        network(images.to(network[0].weight.dtype)).square().mean().backward()
    assert len(shifts) == 1
    assert shifts[0] is chain[0].bias
    whole = sum(weight.grad.square().sum() for weight in exact.parameters()).sqrt()
    for (name, weight), found in zip(exact.named_parameters(), chain.parameters(), strict=True):
        assert (found.grad - weight.grad).norm() < 1e-5 * whole, name
    shifts.clear()
    chain.eval()(images)  # a BatchNorm is computed as it is written
    torch.testing.assert_close(chain(images), exact.eval()(images.double()).float(), rtol=1e-4, atol=1e-4)
    assert len(shifts) == (2 if norm == "group" else 0)
    watched = chain.train()[0].register_forward_hook(lambda layer, inputs, out: None)
    shifts.clear()
    chain(images)
    watched.remove()
    assert shifts == [None]


@pytest.mark.gpu
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
