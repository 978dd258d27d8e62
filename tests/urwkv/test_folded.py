import copy

import pytest
import torch
from torch import nn

from tests.urwkv.test_deployed import model_of
from urwkv.folded import folded


@pytest.mark.parametrize("words", [{}, {"sase": "simple", "num_classes": 3}])
def test_folded_logits_are_the_networks_own(words):
    model = model_of(variant="small", **words)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.5)
            nn.init.normal_(module.bias)
    model, images = model.double(), torch.randn(2, 3, 33, 47).double()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(folded(model)(images), expected, rtol=1e-9, atol=1e-9)
        found = folded(model.float())(images.float())
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()  # unfolded, float32 is off by up to 2e-5
    model.double()
    assert all(torch.allclose(tensor, before[name], rtol=1e-6) for name, tensor in model.state_dict().items())


def test_what_is_left_of_the_norms():
    model = folded(model_of(variant="small"))
    left = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert left == [f"down.{i}.detail.2" for i in range(4)] + [f"fuse.{i}.steps.8" for i in range(3)]


def test_group_norm_is_not_folded():
    model = model_of(variant="small", norm="group")
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(folded(model)(images), model(images))
