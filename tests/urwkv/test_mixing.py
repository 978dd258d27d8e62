"""DARM's mixing of tokens as one operation: its operators beside their definitions, and where they are chosen.

What has no mark computes as written: the operators' numbers without a GPU are tried in `ops.scans_alone`.
"""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.urwkv.ops.test_triton_scan import poisoned
from urwkv import URWKV, mixing
from urwkv.darm import DARM
from urwkv.lean import lean
from urwkv.leaves import Scale
from urwkv.mixing import NUMBER, Mixing
from urwkv.scans import one_order, quad_scan, two_orders, undo_quad_scan
from urwkv.shift import shift_tokens
from urwkv.steps import choose


def mixings(order, z, mus):
    """As they are defined, by their words: z mu + z' (1 - mu)."""
    own, other = order(z), order(z, lambda grid: shift_tokens(grid, "quad"))
    return [own * mu + other * (1 - mu) for mu in mus]


def by_sample(x, leaves, make, dy):
    """Of what is made of each sample by itself: it, its gradient, and each leaf's, (B, ...)."""
    parts = []
    for row in range(len(x)):
        own = x[row : row + 1].detach().requires_grad_()
        y = make(own, leaves)
        parts.append([*y, *torch.autograd.grad(y, [own, *leaves], [g[row : row + 1] for g in dy])])
    count = len(dy) + 1
    return [torch.stack(p) if i >= count else torch.cat(p) for i, p in enumerate(zip(*parts, strict=True))]


def assert_mixing_is_exact_by_sample(order, shape, device="cpu", relative=2e-6):
    """Of one row of mus for all samples, each sample's own gradients."""
    torch.manual_seed(0)
    z = torch.randn(shape, device=device, requires_grad=True)
    mus = [torch.randn(shape[3], device=device) for _ in range(3 if order is quad_scan else 2)]
    rows = [mu.expand(len(z), -1).requires_grad_() for mu in mus]
    found = mixing.mixed_scans_triton(z, rows, NUMBER[order], torch.float32)
    gradients = [torch.randn_like(x) for x in found]
    found += torch.autograd.grad(found, [z, *rows], gradients)
    leaves = [mu.double().requires_grad_() for mu in mus]
    expected = by_sample(
        z.double(), leaves, lambda own, mus: mixings(order, own, mus), [g.double() for g in gradients]
    )
    for one, exact in zip(found, expected, strict=True):
        assert one.shape == exact.shape
        assert (one - exact).abs().max() < relative * max(1, exact.abs().max()), (order.__name__, shape)


def assert_norm_is_exact_by_sample(shape, squared, device="cpu", relative=3e-6):
    torch.manual_seed(0)
    x = torch.randn(shape, device=device, requires_grad=True)
    vectors = [torch.randn(shape[-1], device=device) for _ in "wb"]
    rows = [vector.expand(len(x), -1).requires_grad_() for vector in vectors]
    y = mixing.token_norm_triton(x, *rows, eps=1e-5, squared=squared, dtype=torch.float32)
    dy = torch.randn_like(y)
    found = [y, *torch.autograd.grad(y, [x, *rows], dy)]

    def norm(own, leaves):
        return [F.layer_norm(torch.relu(own).square() if squared else own, shape[-1:], *leaves)]

    leaves = [vector.double().requires_grad_() for vector in vectors]
    expected = by_sample(x.double(), leaves, norm, [dy.double()])
    for one, true in zip(found, expected, strict=True):
        assert one.shape == true.shape
        assert (one - true).abs().max() < relative * max(1, true.abs().max()), (shape, squared)


def assert_mixing_is_exact(order, shape, device="cpu", relative=2e-6):
    torch.manual_seed(0)
    z = torch.randn(shape, device=device, requires_grad=True)
    mus = [torch.randn(shape[3], device=device, requires_grad=True) for _ in range(3 if order is quad_scan else 2)]
    found = mixing.mixed_scans_triton(z, mus, NUMBER[order], torch.float32)
    gradients = [torch.randn_like(x) for x in found]
    found += torch.autograd.grad(found, [z, *mus], gradients)
    wide = [leaf.detach().double().requires_grad_() for leaf in (z, *mus)]
    expected = mixings(order, wide[0], wide[1:])
    expected += torch.autograd.grad(expected, wide, [g.double() for g in gradients])
    for one, exact in zip(found, expected, strict=True):
        assert one.shape == exact.shape
        assert (one - exact).abs().max() < relative * max(1, exact.abs().max()), (order.__name__, shape)


def assert_gating_is_exact(batch, height, width, channels, device="cpu", relative=2e-6):
    torch.manual_seed(0)
    leaves = [torch.randn(batch, 4, height * width, channels, device=device) for _ in "ry"]
    leaves[0][0, :, 0, :2] = torch.tensor([-200.0, 200.0])
    r, y = (leaf.requires_grad_() for leaf in leaves)
    map_ = mixing.gated_average_triton(r, y, height, width, torch.float32)
    dout = torch.randn_like(map_)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    exact_map = undo_quad_scan(torch.sigmoid(wide[0]) * wide[1], height, width)
    found = [map_, *torch.autograd.grad(map_, leaves, dout)]
    expected = [exact_map, *torch.autograd.grad(exact_map, wide, dout.double())]
    for one, exact in zip(found, expected, strict=True):
        assert one.shape == exact.shape
        assert (one - exact).abs().max() < relative * max(1, exact.abs().max()), (height, width, channels)


def assert_norm_is_exact(shape, squared, device="cpu", relative=3e-6):
    torch.manual_seed(0)
    x = torch.randn(shape, device=device, requires_grad=True)
    norm = torch.nn.LayerNorm(shape[-1]).to(device)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    y = mixing.token_norm_triton(x, norm.weight, norm.bias, eps=norm.eps, squared=squared, dtype=torch.float32)
    dy = torch.randn_like(y)
    exact, wide = copy.deepcopy(norm).double(), x.detach().double().requires_grad_()
    exact_y = exact(torch.relu(wide).square() if squared else wide)
    found = [y, *torch.autograd.grad(y, [x, *norm.parameters()], dy)]
    expected = [exact_y, *torch.autograd.grad(exact_y, [wide, *exact.parameters()], dy.double())]
    for one, true in zip(found, expected, strict=True):
        assert one.shape == true.shape
        assert (one - true).abs().max() < relative * max(1, true.abs().max()), (shape, squared)


def assert_bf16_is_as_exact_as_written(dual, channels, device):
    """Of DARM under bf16 autocast: every gradient beside float64, and beside the layers as they are written."""
    torch.manual_seed(0)
    written = DARM(channels, dual, "quad").to(device)
    exact, chosen = copy.deepcopy(written).double(), copy.deepcopy(written)
    choose(chosen, "triton")
    x = torch.randn(4, channels, 16, 12, device=device).to(memory_format=torch.channels_last)
    weights = torch.randn_like(x)
    results = []
    for darm in (exact, written, chosen):
        leaf = x.detach().clone().to(darm.norm_spatial.weight.dtype).requires_grad_()
        with torch.autocast(device, torch.bfloat16, enabled=darm is not exact):
            y = darm(leaf)
        (y * weights).sum().backward()
        results.append([y.detach(), leaf.grad, *(weight.grad for weight in darm.parameters())])
    names = ("y", "dx", *(name for name, _ in written.named_parameters()))
    for name, true, theirs, ours in zip(names, *results, strict=True):
        off = [((found - true).norm() / true.norm()).item() for found in (theirs, ours)]
        assert off[1] <= 1.2 * off[0] + 1e-3, (name, off)


def backends(network):
    return [module.backend for module in network.modules() if isinstance(module, Mixing)]


def test_who_chooses_it():
    network = URWKV(variant="small")
    assert backends(network) == ["torch", "torch"]
    choose(network, "auto")
    assert backends(network) == ["auto", "auto"]
    choose(network, "torch")
    assert backends(lean(network)) == ["auto", "auto"]
    assert backends(lean(URWKV(variant="small", norm="group"))) == ["auto", "auto"]
    assert backends(network) == ["torch", "torch"]


def test_where_it_cannot_be_it_is_as_written_or_an_error():
    darm, x = DARM(8, "paper", "quad"), torch.randn(2, 8, 3, 5)
    written = darm(x)
    choose(darm, "auto")
    assert torch.equal(darm(x), written)
    darm.channel.backend = "triton"
    with pytest.raises(ValueError, match=r"mixing tokens: backend = 'triton' .*; use auto or torch"):
        darm(x)


# ---- on a GPU

SHAPES = [
    (2, 3, 5, 12),
    (1, 1, 4, 32),
    (3, 7, 1, 4),
    (2, 1, 1, 16),
    (2, 9, 5, 260),
    (8, 16, 16, 256),
    (1, 48, 40, 128),
]


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", [quad_scan, two_orders, one_order])
def test_equals_its_definition(monkeypatch, order, shape):
    poisoned(monkeypatch)
    assert_mixing_is_exact(order, shape, "cuda", 5e-6)
    assert_mixing_is_exact_by_sample(order, shape, "cuda", 5e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
def test_gating_equals_its_definition(monkeypatch, shape):
    poisoned(monkeypatch)
    assert_gating_is_exact(*shape, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("shape", [(2, 4, 256, 256), (2, 2, 15, 1024), (70, 1, 100, 24), (3, 1, 5), (1, 1, 1, 3000)])
def test_the_norm_of_tokens_equals_its_definition(monkeypatch, shape, squared):
    poisoned(monkeypatch)
    assert_norm_is_exact(shape, squared, "cuda", 5e-6)
    assert_norm_is_exact_by_sample(shape, squared, "cuda", 5e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("dual", ["paper", "aligned", "off"])
def test_in_bf16_it_is_as_exact_as_darm_is_as_written(dual):
    assert_bf16_is_as_exact_as_written(dual, 256, "cuda")


@pytest.mark.gpu
def test_results_repeat_to_the_bit_and_in_a_graph():
    torch.manual_seed(0)
    darm = DARM(64, "paper", "quad").cuda()
    choose(darm, "triton")
    x = torch.randn(3, 64, 9, 7, device="cuda")

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            y = darm(x)
        return y, *torch.autograd.grad(y.square().sum(), list(darm.parameters()))

    stream = torch.cuda.Stream()  # gradients wait for the one on which their leaves were used first
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        expected = step()
    then = x.clone()
    x.zero_()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        found = step()
    x.copy_(then)
    graph.replay()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
def test_the_operators_are_known_to_torch():
    z = torch.randn(2, 3, 5, 8, device="cuda", requires_grad=True)
    mus = [torch.randn(8, device="cuda", requires_grad=True) for _ in "kvr"]
    torch.library.opcheck(torch.ops.fedurwkv.mixed_scans.default, (z, mus, 4, torch.float32))
    leaves = [torch.randn(2, 4, 15, 8, device="cuda", requires_grad=True) for _ in "ry"]
    torch.library.opcheck(torch.ops.fedurwkv.gated_average.default, (*leaves, 3, 5, torch.float32))
    x, weight, bias = (torch.randn(*shape, device="cuda", requires_grad=True) for shape in ((3, 40), (40,), (40,)))
    torch.library.opcheck(torch.ops.fedurwkv.token_norm.default, (x, weight, bias, 1e-5, True, torch.float32))


@pytest.mark.gpu
def test_compiled_whole_under_autocast():
    torch.manual_seed(0)
    darm = DARM(32, "paper", "quad").cuda()
    choose(darm, "triton")
    x = torch.randn(2, 32, 6, 5, device="cuda")
    compiled = torch.compile(darm, fullgraph=True)
    with torch.autocast("cuda", torch.bfloat16):
        torch.testing.assert_close(compiled(x), darm(x), rtol=3e-2, atol=3e-2)
        compiled(x).square().sum().backward()
    found = darm.spatial.mu_k.weight.grad.clone()
    darm.zero_grad()
    with torch.autocast("cuda", torch.bfloat16):
        darm(x).square().sum().backward()
    assert (found - darm.spatial.mu_k.weight.grad).norm() < 5e-2 * found.norm()


@pytest.mark.gpu
def test_gradients_of_any_layout_are_read():
    z = torch.randn(2, 3, 5, 8, device="cuda", requires_grad=True)
    mus = [Scale(torch.rand(8)).cuda().weight for _ in "kv"]
    x_k, x_v = mixing.mixed_scans_triton(z, mus, 2, torch.float32)
    turned = torch.randn(2, 2, 8, 15, device="cuda").mT
    found = torch.autograd.grad([x_k, x_v], [z, *mus], [turned, turned], retain_graph=True)
    expected = torch.autograd.grad([x_k, x_v], [z, *mus], [turned.contiguous()] * 2)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
