import pytest
import torch
import torch.nn.functional as F
from torch import nn

from urwkv.blocks import DeepSASE, Fusion, ShallowSASE, Up, make_norm


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def switch_norms_off(module):
    """Norms of a module in evaluation mode become the identity: a block is then its formula without Norm."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_var.fill_(1 - norm.eps)
    return module.double().eval()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("channels", [8, 16, 256])
def test_groups_hold_eight_channels(channels):
    norm = make_norm(channels, "group")
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_channels // norm.num_groups == 8
    assert isinstance(make_norm(channels, "batch"), nn.BatchNorm2d)


@pytest.mark.parametrize(("cin", "cout"), [(8, 8), (8, 16)])
def test_shallow_expand_is_its_formula(cin, cout):
    block = switch_norms_off(ShallowSASE(cin, cout, "batch", "expand", ratio=4))
    x = torch.randn(2, cin, 5, 7, dtype=torch.float64)
    depthwise, widen, narrow = block.detail[0], block.mix[0], block.mix[3]
    assert widen.weight.shape == (4 * cin, cin, 1, 1)
    t = x + F.gelu(F.conv2d(x, depthwise.weight, depthwise.bias, padding=1, groups=cin))
    expected = F.gelu(F.conv2d(F.gelu(F.conv2d(t, widen.weight, widen.bias)), narrow.weight, narrow.bias))
    torch.testing.assert_close(block(x), expected + x if cin == cout else expected)


def test_shallow_simple_is_its_formula():
    block = switch_norms_off(ShallowSASE(8, 16, "batch", "simple", ratio=4))
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    depthwise, mix = block.detail[0], block.mix[0]
    t = x + F.gelu(F.conv2d(x, depthwise.weight, depthwise.bias, padding=1, groups=8))
    torch.testing.assert_close(block(x), F.conv2d(t, mix.weight, mix.bias))


def test_deep_is_its_formula():
    block = switch_norms_off(DeepSASE(8, 32, "batch"))
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    z = F.conv2d(x, block.squeeze[0].weight, block.squeeze[0].bias)
    even = torch.stack([z[:, 0], z[:, 2]], dim=1)
    link = torch.stack([z[:, 1], z[:, 3]], dim=1)
    parts = [even + link]
    for filter_ in block.chain:
        link = F.conv2d(link, filter_.weight, filter_.bias, padding=1, groups=2)
        parts.append(link)
    assert len(parts) == 8
    expected = F.conv2d(torch.cat(parts, 1), block.widen[0].weight, block.widen[0].bias)
    torch.testing.assert_close(block(x), expected)


def test_fusion_filters_the_halves_apart_and_activates_before_the_norm():
    block = switch_norms_off(Fusion(8, "batch", ratio=4))
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    filters, widen, narrow = block.steps[0], block.steps[3], block.steps[6]
    skip = F.conv2d(x[:, :8], filters.weight[:8], filters.bias[:8], padding=1)
    below = F.conv2d(x[:, 8:], filters.weight[8:], filters.bias[8:], padding=1)
    joined = F.gelu(F.conv2d(F.gelu(torch.cat([skip, below], 1)), widen.weight, widen.bias))
    torch.testing.assert_close(block(x), F.gelu(F.conv2d(joined, narrow.weight, narrow.bias)))
    # A norm after the activation: GELU never goes below -0.17, a normed map does.
    assert Fusion(8, "batch", ratio=4)(torch.randn(4, 16, 8, 8)).min() < -0.5


def test_a_step_up_comes_after_the_skip_and_its_hooks_are_called():
    block, fusion = Up(16, 8, "group"), Fusion(8, "group", ratio=2)
    x, skip = torch.randn(1, 16, 3, 5), torch.randn(1, 8, 6, 10)
    expected = fusion(torch.cat([skip, block(x)], dim=1))
    torch.testing.assert_close(fusion.join(skip, x, block), expected)
    seen = []
    for module in (block, fusion):
        module.register_forward_hook(lambda *_: seen.append("hook"))
    torch.testing.assert_close(fusion.join(skip, x, block), expected)
    assert seen == ["hook"] * 2


def test_up_doubles_the_side_by_the_nearest_neighbour():
    block = Up(16, 8, "group")
    x = torch.randn(1, 16, 3, 5)
    assert block(x).shape == (1, 8, 6, 10)
    larger = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(block(x), block.steps[1:](larger))


def test_parameters_by_hand():
    assert count(ShallowSASE(8, 16, "group", "expand", 4)) == 80 + 16 + (8 * 32 + 32) + 64 + (32 * 16 + 16) + 32
    assert count(DeepSASE(64, 128, "group")) == (64 * 16 + 16) + 32 + 7 * 80 + (64 * 128 + 128) + 256
