"""DARM against its specification, done naively: eight scans, one after the other, token by token."""

import math

import pytest
import torch
import torch.nn.functional as F

from urwkv.darm import DARM, SpatialMix
from urwkv.ops.reference import biwkv_reference

C = 16


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make_darm(dual="paper", shift="quad"):
    darm = DARM(C, dual, shift).double()
    for parameter in darm.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return darm


def naive_shift(tokens, height, width, shift):
    """(B, T, C) in the order of a grid, height x width."""
    other = torch.zeros_like(tokens)
    quarter = C // 4
    for r in range(height):
        for c in range(width):
            here = r * width + c
            if shift == "none":
                other[:, here] = tokens[:, here]
            elif shift == "paper":
                f = c if c < height / 2 else height - 1 - (c - height // 2)
                other[:, here] = tokens[:, f * width + r]
            else:
                neighbours = [(r, c - 1), (r, c + 1), (r - 1, c), (r + 1, c)]
                for part, (i, j) in enumerate(neighbours):
                    if 0 <= i < height and 0 <= j < width:
                        channels = slice(part * quarter, (part + 1) * quarter)
                        other[:, here, channels] = tokens[:, i * width + j, channels]
    return other


def naive_spatial_mix(mix, z, height, width):
    other = naive_shift(z, height, width, mix.shift)
    xk, xv, xr = (z * mu.weight + other * (1 - mu.weight) for mu in (mix.mu_k, mix.mu_v, mix.mu_r))
    k, v, r = xk @ mix.key.weight.T, xv @ mix.value.weight.T, xr @ mix.receptance.weight.T
    tokens = height * width
    y = biwkv_reference(mix.decay.weight / tokens, mix.first.weight / tokens, k, v)
    y = F.layer_norm(y, (C,), mix.norm.weight, mix.norm.bias)
    return (torch.sigmoid(r) * y) @ mix.output.weight.T


def naive_channel_mix(mix, z, height, width):
    other = naive_shift(z, height, width, mix.shift)
    xk, xr = (z * mu.weight + other * (1 - mu.weight) for mu in (mix.mu_k, mix.mu_r))
    h = torch.relu(xk @ mix.key.weight.T) ** 2
    h = F.layer_norm(h, (4 * C,), mix.norm.weight, mix.norm.bias)
    return torch.sigmoid(xr @ mix.receptance.weight.T) * (h @ mix.value.weight.T)


def scan_orders(height, width):
    """The four scans as lists of (row, column), each with the grid that its tokens form."""
    rows, columns = range(height), range(width)
    return [
        ([(r, c) for r in rows for c in columns], height, width),
        ([(r, c) for r in rows for c in reversed(columns)], height, width),
        ([(r, c) for c in columns for r in rows], width, height),
        ([(r, c) for c in columns for r in reversed(rows)], width, height),
    ]


def naive_s(darm, maps):
    """S of (B, H, W, C): each scan goes through the whole residual step, is undone, and joins the average."""
    height, width = maps.shape[1:3]
    total = torch.zeros_like(maps)
    for order, grid_height, grid_width in scan_orders(height, width):
        s = torch.stack([maps[:, r, c] for r, c in order], dim=1)
        z = F.layer_norm(s, (C,), darm.norm_spatial.weight, darm.norm_spatial.bias)
        s = s + darm.gamma_spatial.weight * naive_spatial_mix(darm.spatial, z, grid_height, grid_width)
        for t, (r, c) in enumerate(order):
            total[:, r, c] += s[:, t]
    return total / 4


def naive_f(darm, maps):
    """F of (B, H, W, C), as row-major tokens (B, T, C)."""
    height, width = maps.shape[1:3]
    s = maps.reshape(maps.shape[0], height * width, C)
    z = F.layer_norm(s, (C,), darm.norm_channel.weight, darm.norm_channel.bias)
    return s + darm.gamma_channel.weight * naive_channel_mix(darm.channel, z, height, width)


def naive_darm(darm, x):
    """Both directions from scratch: S of the map and S of the transposed map, eight scans in all."""
    batch, _, height, width = x.shape
    maps = x.permute(0, 2, 3, 1)
    out = naive_f(darm, naive_s(darm, maps))
    if darm.dual != "off":
        second = naive_f(darm, naive_s(darm, maps.transpose(1, 2)))
        if darm.dual == "aligned":
            second = second.view(batch, width, height, C).transpose(1, 2).reshape(batch, height * width, C)
        out = out + second
    return out.view(batch, height, width, C).permute(0, 3, 1, 2)


@pytest.mark.parametrize("dual", ["paper", "aligned", "off"])
@pytest.mark.parametrize(
    ("shift", "side"),
    [("quad", (4, 4)), ("quad", (3, 5)), ("quad", (1, 4)), ("paper", (4, 4)), ("none", (2, 3))],
)
def test_one_s_and_four_scans_equal_eight_scans_done_naively(dual, shift, side):
    darm, x = make_darm(dual, shift), torch.randn(2, C, *side, dtype=torch.float64)
    found, expected = darm(x), naive_darm(darm, x)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    parameters = dict(darm.named_parameters())
    gradients = torch.autograd.grad((found * weights).sum(), list(parameters.values()))
    naive = torch.autograd.grad((expected * weights).sum(), list(parameters.values()))
    for name, mine, theirs in zip(parameters, gradients, naive, strict=True):
        torch.testing.assert_close(mine, theirs, msg=lambda text, name=name: f"{name}: {text}")


def test_the_switches_of_dual_differ():
    x = torch.randn(1, C, 4, 4, dtype=torch.float64)
    darm = make_darm()
    results = []
    for dual in ("paper", "aligned", "off"):
        other = DARM(C, dual, "quad").double()
        other.load_state_dict(darm.state_dict())
        results.append(other(x))
    paper, aligned, off = results
    assert not torch.allclose(paper, aligned)
    assert not torch.allclose(paper, off)
    assert not torch.allclose(aligned, off)


def test_aligned_commutes_with_transposition_and_off_does_not():
    x = torch.randn(1, C, 3, 4, dtype=torch.float64)
    aligned, off = make_darm("aligned"), make_darm("off")
    torch.testing.assert_close(aligned(x.mT), aligned(x).mT)
    assert not torch.allclose(off(x.mT), off(x).mT)


def test_initial_values():
    mix = SpatialMix(C, "quad")
    decay = [-5 + 8 * (c / (C - 1)) ** 0.7 for c in range(C)]
    first = [math.log(0.3) + 0.5 * ((c + 1) % 3 - 1) for c in range(C)]
    torch.testing.assert_close(mix.decay.weight.tolist(), decay, rtol=0, atol=1e-6)
    torch.testing.assert_close(mix.first.weight.tolist(), first, rtol=0, atol=1e-6)
    torch.testing.assert_close(mix.mu_k.weight.tolist(), [c / C for c in range(C)])
    torch.testing.assert_close(mix.mu_v.weight.tolist(), [c / C for c in range(C)])
    torch.testing.assert_close(mix.mu_r.weight.tolist(), [(c / C) ** 0.5 for c in range(C)], rtol=0, atol=1e-6)
    darm = DARM(C, "paper", "quad")
    torch.testing.assert_close(darm.channel.mu_k.weight.tolist(), [c / C for c in range(C)])
    torch.testing.assert_close(darm.channel.mu_r.weight.tolist(), [c / C for c in range(C)])
    assert torch.all(darm.gamma_spatial.weight == 1)
    assert torch.all(darm.gamma_channel.weight == 1)
    assert all(linear.bias is None for linear in darm.modules() if isinstance(linear, torch.nn.Linear))


def test_paper_shift_needs_a_square_map():
    with pytest.raises(ValueError, match="square"):
        DARM(C, "paper", "paper")(torch.zeros(1, C, 2, 3))
