import pytest
import torch
from torch import nn

from urwkv import URWKV
from urwkv.deployed import Deployed, PlainGroupNorm, traceable
from urwkv.ops.plain import FLOAT32_REACH


def model_of(**words):
    """A network whose every parameter has moved from where it began, and whose statistics fit it."""
    torch.manual_seed(0)
    model = URWKV(**words)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        model(torch.randn(4, model.architecture.in_channels, 64, 64))
    return model.eval()


@pytest.mark.parametrize("size", [(1, 1), (16, 32), (17, 31), (40, 55)])
def test_pixels_in_logits_out(size):
    model = model_of(variant="small", norm="group")
    pixels = torch.rand(2, 3, *size) * 255
    with torch.no_grad():
        expected = model((pixels - 127.5) / 63.75)
        torch.testing.assert_close(Deployed(model, 127.5, 63.75)(pixels), expected)


def test_group_norm_by_means_of_means():
    norm = nn.GroupNorm(3, 24)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 + torch.randn(2, 24, 5, 7)
    torch.testing.assert_close(PlainGroupNorm(norm)(x), norm(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay", [3.0, 1.5 * FLOAT32_REACH])
@pytest.mark.parametrize("words", [{"norm": "group"}, {"norm": "batch", "dual": "aligned"}])
def test_the_form_that_traces_computes_the_same(words, decay):
    model = model_of(variant="small", **words)
    with torch.no_grad():
        model.darm.spatial.decay.weight[0] = decay
        deployed = Deployed(model, 127.5, 63.75)
        pixels = torch.rand(2, 3, 50, 70) * 255
        expected = deployed(pixels)
        found = traceable(deployed)(pixels)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(deployed(pixels), expected)  # a copy was changed


def test_sums_are_wide_where_float32_does_not_reach():
    model = model_of(variant="small", norm="group")
    narrow = traceable(Deployed(model, 0, 1)).network.darm.spatial.biwkv
    model.darm.spatial.first.weight.data[3] = -1.5 * FLOAT32_REACH
    wide = traceable(Deployed(model, 0, 1)).network.darm.spatial.biwkv
    assert (narrow.keywords, wide.keywords) == ({"dtype": torch.float32}, {"dtype": torch.float64})
