"""Per-sample gradients of the whole network against a loop over single images."""

import functools
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from client.privacy import filters
from client.privacy.hooks import check_network, per_sample_gradients
from client.privacy.kept import Kept
from client.privacy.trainable import trainable_names
from protocol.errors import SettingsError
from urwkv import URWKV
from urwkv.losses import image_losses
from urwkv.ops import grouped
from urwkv.ops.doubling import doubled_convolution
from urwkv.steps import Steps

Gradients = dict[str, torch.Tensor]


def data(count: int, side: int = 32, classes: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(count)
    images = torch.randn(count, 3, side, side, generator=made)
    return images, torch.randint(0, max(2, classes), (count, side, side), generator=made)


def by_hooks(model: nn.Module, images: torch.Tensor, masks: torch.Tensor, bf16: bool = False) -> Gradients:
    with per_sample_gradients(model):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = model(images)
        image_losses(logits, masks).sum().backward()
        return {name: w.grad_sample for name, w in model.named_parameters() if w.requires_grad}


def by_loop(model: nn.Module, images: torch.Tensor, masks: torch.Tensor, bf16: bool = False) -> Gradients:
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in learning}
    for image, mask in zip(images, masks, strict=True):
        model.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = model(image[None])
        image_losses(logits, mask[None]).sum().backward()
        for name, weight in learning.items():
            assert weight.grad is not None, f"{name} has no gradient"
            rows[name].append(weight.grad.clone())
    return {name: torch.stack(grads) for name, grads in rows.items()}


def worst(found: Gradients, wanted: Gradients) -> float:
    """The largest difference of any gradient, in units of the largest entry of that parameter's gradients."""
    assert found.keys() == wanted.keys()
    gaps = []
    for name, want in wanted.items():
        assert found[name].shape == want.shape, name
        gaps.append(((found[name] - want).abs().max() / want.abs().max().clamp(min=1e-12)).item())
    return max(gaps)


@pytest.fixture(scope="module", params=["base", "small"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return URWKV(variant=request.param, norm="group").double()


@pytest.mark.parametrize("count", [1, 7])
def test_every_gradient_of_the_network_equals_a_loop_over_single_images(network: nn.Module, count: int) -> None:
    images, masks = data(count)
    images = images.double()
    assert worst(by_hooks(network, images, masks), by_loop(network, images, masks)) < 1e-10


@pytest.fixture
def by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters' gradients by matrix products, as of a GPU's bfloat16, in whatever dtype maps have."""
    monkeypatch.setattr(filters, "_is_exact_in_bf16", lambda *maps: True)


@pytest.mark.usefixtures("by_products")
def test_every_gradient_by_products_equals_the_loop_too(network: nn.Module) -> None:
    images, masks = data(3)
    assert worst(by_hooks(network, images.double(), masks), by_loop(network, images.double(), masks)) < 1e-10


@pytest.mark.parametrize(("bf16", "products"), [(False, False), (False, True), (True, False)])
def test_no_image_changes_anothers_gradients(bf16: bool, products: bool, request: pytest.FixtureRequest) -> None:
    """Not by a bit, and not where its own are not finite."""
    if products:
        request.getfixturevalue("by_products")
    torch.manual_seed(0)
    model = URWKV(variant="small", norm="group").to(memory_format=torch.channels_last)
    images, masks = data(3)
    images = images.to(memory_format=torch.channels_last)
    before = by_hooks(model, images, masks, bf16)
    for factor in (50.0, float("nan"), float("inf")):
        changed, others = images.clone(memory_format=torch.channels_last), masks.clone()
        changed[1] *= factor
        others[1] = 1 - others[1]
        for name, grads in by_hooks(model, changed, others, bf16).items():
            assert torch.equal(grads[[0, 2]], before[name][[0, 2]]), (name, factor)
            assert not torch.equal(grads[1], before[name][1]), (name, factor)


def biases_alone(name: str) -> bool:
    return name.endswith("bias")


def no_biases(name: str) -> bool:
    return not name.endswith("bias")


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("learns", ["all", "decoder", "head_and_norms", biases_alone, no_biases])
def test_whatever_learns_has_its_gradients_alone(learns: Any, products: bool, request: pytest.FixtureRequest) -> None:
    """In float32 and channels last, where a CPU joins doubling with the convolution after it."""
    if products:
        request.getfixturevalue("by_products")
    torch.manual_seed(0)
    model = URWKV(variant="small", norm="group").to(memory_format=torch.channels_last)
    names = trainable_names(model, learns) if isinstance(learns, str) else None
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in names if names is not None else learns(name))
    images, masks = data(2)
    with mock.patch.object(filters, "doubled_products", wraps=filters.doubled_products) as doubled:
        found = by_hooks(model, images.to(memory_format=torch.channels_last), masks)
    assert doubled.call_count == (4 if products and learns in ("all", "decoder", no_biases) else 0)
    model = model.double().to(memory_format=torch.contiguous_format)
    assert worst(found, by_loop(model, images.double(), masks)) < 2e-4


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_convolution_is_computed_as_in_plain_training_to_the_bit(bf16: bool, device: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, 3, padding=1, groups=2, bias=False).to(device, memory_format=torch.channels_last)
    doubling = nn.Conv2d(16, 24, 3, padding=1).to(device, memory_format=torch.channels_last)
    x = torch.randn(2, 16, 6, 5, device=device).to(memory_format=torch.channels_last)
    dense = functools.partial(grouped.convolution, x, layer.weight, (1, 1), (1, 1), (1, 1), 2)
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        assert torch.equal(Kept().convolution(layer, x), layer(x) if device == "cpu" else dense())
        double = Kept().convolution(doubling, x, doubled=True)
        assert torch.equal(double, doubled_convolution(x, doubling.weight, doubling.bias))
    assert double.dtype == (torch.bfloat16 if bf16 else torch.float32)


def test_a_convolution_leaves_no_gradient_of_the_batch() -> None:
    model = URWKV(variant="small", norm="group")
    images, masks = data(2)
    by_hooks(model, images, masks)
    own = {f"{name}.weight" for name, module in model.named_modules() if type(module) is nn.Conv2d}
    assert len(own) > 30
    assert {name for name, weight in model.named_parameters() if weight.grad is None} >= own


def test_a_convolution_is_used_once_a_pass() -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1)
    maps = torch.randn(2, 4, 5, 5)
    with pytest.raises(RuntimeError, match="use it once a pass"), per_sample_gradients(nn.Sequential(layer)):
        layer(layer(maps)).sum().backward()
    with per_sample_gradients(nn.Sequential(layer)):
        layer(maps).sum().backward()
        with pytest.raises(RuntimeError, match="take its gradients before the next"):
            layer(maps).sum().backward()
    assert "forward" not in vars(layer)


def test_an_empty_batch_has_gradients_of_no_samples(network: nn.Module) -> None:
    images, masks = data(0)
    for name, grads in by_hooks(network, images.double(), masks).items():
        assert grads.shape == (0, *network.get_parameter(name).shape)


def test_an_empty_batch_in_float32_has_them_too() -> None:
    model = URWKV(variant="small", norm="group").to(memory_format=torch.channels_last)
    images, masks = data(0)
    for name, grads in by_hooks(model, images.to(memory_format=torch.channels_last), masks).items():
        assert grads.shape == (0, *model.get_parameter(name).shape)


@pytest.mark.parametrize("switches", [{"sase": "simple", "dual": "aligned"}, {"dual": "off", "num_classes": 3}])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_in_float32_other_forms_of_the_network_and_layouts_are_exact_too(
    switches: dict, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    model = URWKV(variant="small", norm="group", **switches).to(memory_format=layout)
    images, masks = data(3, classes=model.architecture.num_classes)
    images = images.to(memory_format=layout)
    assert worst(by_hooks(model, images, masks), by_loop(model, images, masks)) < 2e-4


ON_DEVICES = [("small", "cpu"), *(pytest.param(each, "cuda", marks=pytest.mark.gpu) for each in ("small", "base"))]


@pytest.mark.parametrize(("variant", "device"), ON_DEVICES)
def test_bf16_forward_leaves_float32_gradients_as_near_as_the_plain_backward_pass(
    variant: Any, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float32, whose convolutions would be in TF32 on a GPU; over three networks, for rounding is chance."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    images, masks = (tensor.to(device) for tensor in data(4))

    def distance(grads: Gradients, exact: Gradients) -> float:
        gap = sum((grads[name] - exact[name]).square().sum() for name in exact)
        return float((gap / sum(want.square().sum() for want in exact.values())).sqrt())

    off = {"ours": 0.0, "plain": 0.0}
    for seed in range(3):
        torch.manual_seed(seed)
        model = URWKV(variant=variant, norm="group").to(device, memory_format=torch.channels_last)
        exact = by_loop(model, images, masks)
        ours = by_hooks(model, images, masks, bf16=True)
        assert all(grads.dtype == torch.float32 for grads in ours.values())
        assert distance(by_hooks(model, images, masks), exact) < 1e-3
        off["ours"] += distance(ours, exact) / 3
        off["plain"] += distance(by_loop(model, images, masks, bf16=True), exact) / 3
    assert off["ours"] < 1.05 * off["plain"]
    assert off["ours"] < 0.1


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["base", "small"])
@pytest.mark.parametrize("trainable", [("",), ("fuse", "head"), ("up", "fuse", "head")])
def test_joined_layers_give_each_samples_gradients_too(variant: Any, trainable: tuple[str, ...]) -> None:
    """On a GPU bias, norm and GELU are one operator without a hook around it; beside all by itself, in float64."""
    torch.manual_seed(0)
    model = URWKV(variant=variant, norm="group").cuda().to(memory_format=torch.channels_last)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(trainable))
    images, masks = (tensor.cuda() for tensor in data(3))
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = by_hooks(model, images.to(memory_format=torch.channels_last), masks)
    wanted = by_hooks(model.double(), images.double(), masks)
    assert worst(found, wanted) < 2e-4
    assert all(module.keep is None for module in model.modules() if isinstance(module, Steps))


def test_frozen_weights_get_no_gradients_and_the_model_is_left_without_a_trace() -> None:
    model = URWKV(variant="small", norm="group")
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    images, masks = data(2)
    with per_sample_gradients(model):
        image_losses(model(images), masks).sum().backward()
        assert model.head.weight.grad_sample.shape == (2, *model.head.weight.shape)
        assert not hasattr(model.stem[0].weight, "grad_sample")
    assert not hasattr(model.head.weight, "grad_sample")
    traces = ("activations", "forward", "max_batch_len")
    assert not any(trace in vars(module) for module in model.modules() for trace in traces)
    assert not any(module._forward_hooks for module in model.modules())


def test_batch_norm_is_an_error_that_names_the_cure() -> None:
    with pytest.raises(SettingsError, match=r"layer stem\.1 mixes.*--set model\.norm=group"):
        check_network(URWKV(variant="small", norm="batch"))


def test_a_bare_parameter_and_an_unknown_layer_are_errors_that_name_them() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)
            self.gain = nn.Parameter(torch.ones(2))

    with pytest.raises(SettingsError, match=r"layer 0 \(Bare\).*\(gain\)"):
        check_network(nn.Sequential(Bare()))
    with pytest.raises(SettingsError, match=r"layer 1 \(ConvTranspose2d\).*weight, bias"):
        check_network(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ConvTranspose2d(3, 3, 2)))
    with pytest.raises(SettingsError, match=r"layer 0 pads by \(1, 1\) with reflect"):
        check_network(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")))
