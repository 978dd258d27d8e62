import copy

import pytest
import torch
from torch import nn

from tests.urwkv.test_deployed import model_of
from urwkv.head import Head
from urwkv.lean import lean


def stirred(**words):
    model = model_of(**words)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.5)
            nn.init.normal_(module.bias)
    return model


@pytest.mark.parametrize(
    "words", [{"variant": "small"}, {"variant": "base", "sase": "simple", "num_classes": 3}, {"variant": "base"}]
)
def test_its_logits_are_the_networks_own(words):
    model, images = stirred(**words).double(), torch.randn(2, 3, 33, 47).double()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(lean(model)(images), expected, rtol=1e-9, atol=1e-9)
        found = lean(model.float())(images.float())
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    model.double()
    assert all(torch.allclose(tensor, before[name], rtol=1e-6) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("words", [{"variant": "small"}, {"variant": "small", "sase": "simple"}])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_weights_kept_in_autocasts_dtype_are_those_that_it_would_cast(words, norm):
    model, images = stirred(**words, norm=norm), torch.randn(2, 3, 32, 48)
    narrow = lean(model, torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(narrow(images), lean(model)(images))
    layers = [layer for layer in narrow.modules() if type(layer) in (nn.Conv2d, Head, nn.Linear, nn.LayerNorm)]
    kept = {(type(layer), layer.weight.dtype) for layer in layers}
    narrowed = {(kind, torch.bfloat16) for kind in (nn.Conv2d, Head, nn.Linear)}
    assert kept == narrowed | {(nn.LayerNorm, torch.float32)}


def test_a_network_of_groups_keeps_its_layers():
    model, images = model_of(variant="small", norm="group"), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(lean(model)(images), model(images), rtol=1e-4, atol=1e-5)
    assert [type(module) for module in lean(model).modules()] == [type(module) for module in model.modules()]


@pytest.mark.gpu
@pytest.mark.parametrize("sase", ["expand", "simple"])
def test_on_a_gpu_in_bf16_it_is_as_exact_as_the_network_is(sase):
    model = stirred(variant="base", sase=sase)
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(images.double())
        found = []
        for network in (model, lean(model, torch.bfloat16)):
            network = network.cuda().to(memory_format=torch.channels_last)
            with torch.autocast("cuda", torch.bfloat16):
                logits = network(images.cuda().to(memory_format=torch.channels_last))
            found.append((logits.double().cpu() - exact).norm() / exact.norm())
    assert found[1] < max(1.5 * found[0], 1e-2)
