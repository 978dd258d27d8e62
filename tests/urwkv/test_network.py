import pytest
import torch
import torch.nn.functional as F
from torch import nn

from urwkv import URWKV, Architecture


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        ({}, 2_977_313),
        ({"sase": "simple"}, 2_827_297),
        ({"dual": "off"}, 2_977_313),
        ({"norm": "group"}, 2_977_313),
        ({"in_channels": 1}, 2_977_313 - 2 * 16 * 9),
        ({"num_classes": 9}, 2_977_313 + 8 * 17),
        ({"variant": "small"}, 466_865),
    ],
)
def test_parameter_counts(words, parameters):
    assert count(URWKV(**words)) == parameters


@pytest.mark.parametrize("side", [(1, 1), (15, 17), (16, 32), (40, 24), (33, 80)])
def test_any_height_and_width(side):
    model = URWKV(variant="small", norm="group", in_channels=2, num_classes=3)
    assert model(torch.randn(2, 2, *side)).shape == (2, 3, *side)


def test_the_stages_are_joined_as_in_the_table():
    model = URWKV(variant="small", norm="group")
    images = torch.randn(1, 3, 32, 48)
    skip1 = model.down[0](model.stem(images))
    skip2 = model.down[1](F.max_pool2d(skip1, 2))
    skip3 = model.down[2](F.max_pool2d(skip2, 2))
    skip4 = model.down[3](F.max_pool2d(skip3, 2))
    assert [skip.shape[1] for skip in (skip1, skip2, skip3, skip4)] == [8, 16, 32, 64]
    x = model.darm(model.deep(F.max_pool2d(skip4, 2)))
    assert x.shape == (1, 128, 2, 3)
    for i, skip in enumerate((skip4, skip3, skip2, skip1)):
        x = model.fuse[i](torch.cat([skip, model.up[i](x)], dim=1))
    torch.testing.assert_close(model(images), model.head(x))


def test_padding_repeats_the_edge_and_is_cropped():
    model = URWKV(variant="small", norm="group").eval()
    x = torch.randn(1, 3, 30, 20)
    padded = torch.cat([x, x[:, :, -1:].expand(-1, -1, 2, -1)], dim=2)
    padded = torch.cat([padded, padded[..., -1:].expand(-1, -1, -1, 12)], dim=3)
    torch.testing.assert_close(model(x), model(padded)[..., :30, :20])


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("variant", ["base", "small"])
@pytest.mark.parametrize("sase", ["expand", "simple"])
def test_every_parameter_gets_a_gradient(variant, sase, norm):
    model = URWKV(variant=variant, sase=sase, norm=norm)
    model(torch.randn(2, 3, 32, 48)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("words", [{"dual": "aligned"}, {"dual": "off"}, {"shift": "paper"}, {"shift": "none"}])
def test_switches_that_keep_the_parameters_change_the_function(words):
    model, other = URWKV(variant="small", norm="group"), URWKV(variant="small", norm="group", **words)
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(model(x), other(x))


def test_group_norm_leaves_no_buffers_and_keeps_images_apart():
    model = URWKV(variant="small", norm="group")
    assert not list(model.buffers())
    images = torch.randn(3, 3, 32, 32)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone, rtol=1e-4, atol=1e-5)


def test_bare_parameters_live_in_leaves_called_once_with_one_tensor():
    model = URWKV(variant="small", norm="group")
    calls = dict.fromkeys(model.modules(), 0)

    def look(module, arguments):
        calls[module] += 1
        assert len(arguments) == 1
        assert arguments[0].shape[0] == 2  # the batch, never batch times scans

    for module in model.modules():
        module.register_forward_pre_hook(look)
    model(torch.randn(2, 3, 32, 32))
    for module, times in calls.items():
        if list(module.parameters(recurse=False)):
            assert not list(module.children())
            assert times == 1


def test_autocast_and_channels_last():
    model = URWKV(variant="small", norm="group")
    images = torch.randn(2, 3, 32, 48)
    plain = model(images)
    last = model.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(images), plain, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = last(images)
    narrow.float().square().mean().backward()
    assert (narrow.float() - plain).abs().mean() < 0.1 * plain.abs().mean()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_network_asks_the_device_for_no_value():
    with torch.device("meta"):
        model = URWKV(variant="small", norm="group")
        model(torch.empty(2, 3, 40, 24)).sum().backward()


def test_the_architecture_is_kept_and_rebuilds_the_network():
    words = Architecture("small", "simple", "off", "none", "group", in_channels=1, num_classes=4)
    model = URWKV.from_architecture(words)
    assert model.architecture == words
    assert URWKV().architecture == Architecture() == Architecture("base", "expand", "paper", "quad", "batch", 3, 1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("variant", "large", "variant = 'large' is not one of: base, small"),
        ("sase", "", "sase = '' is not one of: expand, simple"),
        ("dual", "on", "dual = 'on' is not one of: paper, aligned, off"),
        ("shift", None, "shift = None is not one of: quad, paper, none"),
        ("norm", "layer", "norm = 'layer' is not one of: batch, group"),
        ("in_channels", 0, "in_channels = 0 must be a whole number of at least 1"),
        ("num_classes", 2.0, "num_classes = 2.0 must be a whole number of at least 1"),
        ("num_classes", True, "num_classes = True must be"),
    ],
)
def test_unknown_words_are_named(field, value, message):
    for build in (URWKV, Architecture):
        with pytest.raises(ValueError, match=f"^{message}"):
            build(**{field: value})


def test_paper_shift_says_that_it_needs_squares():
    with pytest.raises(ValueError, match="give square images"):
        URWKV(variant="small", shift="paper")(torch.zeros(2, 3, 32, 64))


def test_no_dropout_or_other_randomness():
    model = URWKV(variant="small", norm="group")
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(model(x), model(x))
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())
