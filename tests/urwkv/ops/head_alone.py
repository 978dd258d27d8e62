"""The head's operator in Triton's interpreter, for `triton_alone`: its numbers, and the networks with it."""

from unittest import mock

import pytest
import torch

from tests.client.privacy.test_samplers import by_hooks, worst
from tests.urwkv.ops.test_triton_scan import poisoned
from tests.urwkv.test_head import (
    assert_head_is_exact,
    assert_hooks_see_what_they_see_of_torchs,
    assert_network_learns_the_same,
    stirred_head,
)
from tests.urwkv.test_lean import stirred
from urwkv import URWKV, head
from urwkv.head import Head
from urwkv.lean import lean
from urwkv.ops import head_triton


def interpret_heads() -> None:
    """Of maps that fill their programs or do not, to each number of classes, in one program and in several."""
    with pytest.MonkeyPatch.context() as patch:
        poisoned(patch)
        for classes in (1, 2, 3, 4):
            for shape in (
                (2, 16, 32, 24),
                (2, 16, 9, 13),
                (3, 8, 5, 7),
                (1, 24, 17, 33),
                (1, 24, 16, 8),
                (2, 16, 1, 1),
                (1, 1024, 3, 2),
            ):
                assert_head_is_exact(shape, classes)
            for dtype in (torch.bfloat16, torch.float16):
                assert_head_is_exact((2, 16, 9, 33), classes, dtype=dtype, weights=dtype)
        patch.setattr(head_triton, "PROGRAMS", 3)  # which then take several steps each, the last one fewer
        for shape, even in (((5, 16, 32, 40), True), ((5, 16, 33, 37), False), ((2, 40, 31, 29), False)):
            programs, span, words = head_triton.cut(shape[0] * shape[2] * shape[3], shape[1])
            assert (programs, words["EVEN"]) == (3, even)
            assert span > head_triton.tiles(words["BLOCK"], forward=True)["ROWS"]
            assert_head_is_exact(shape, 1)
            assert_head_is_exact(shape, 3)
    for classes in (1, 3):
        assert_network_learns_the_same("cpu", classes)
        x = torch.randn(2, 16, 5, 4).to(memory_format=torch.channels_last).requires_grad_()
        layer = stirred_head(16, classes, "cpu")
        torch.library.opcheck(torch.ops.fedurwkv.head.default, (x, layer.weight, layer.bias, torch.float32))
    assert_hooks_see_what_they_see_of_torchs("cpu")
    assert_each_samples_gradients_are_exact()
    assert_others_are_left_to_torch()
    assert_prediction_takes_it()


def assert_each_samples_gradients_are_exact() -> None:
    torch.manual_seed(0)
    model = URWKV(variant="small", norm="group").to(memory_format=torch.channels_last)
    images, masks = torch.randn(2, 3, 16, 16), torch.randint(2, (2, 16, 16), dtype=torch.uint8)
    model.head.backend = "triton"
    found = by_hooks(model, images.to(memory_format=torch.channels_last), masks)
    model.head.backend = "torch"
    assert worst(found, by_hooks(model.double(), images.double(), masks)) < 1e-4


def assert_others_are_left_to_torch() -> None:
    """Or an error; and a frozen layer's map and a frozen map's layer still learn."""
    for channels, classes, x, why in (
        (16, 5, torch.randn(2, 16, 4, 4), "knows up to 4 classes, not 5"),
        (12, 1, torch.randn(2, 12, 4, 4), "reads channels 8 at a time, up to 1,024, not 12"),
        (2048, 1, torch.randn(2, 2048, 2, 2), "reads channels 8 at a time, up to 1,024, not 2048"),
        (16, 1, torch.randn(2, 8, 4, 4), "takes maps of 16 channels, not of 8"),
        (16, 1, torch.randn(2, 16, 4, 4).double(), "computes in float32 on a GPU"),
        (16, 1, torch.randn(2, 16, 4, 8)[..., ::2], "needs channels_last maps"),
        (16, 1, torch.randn(0, 16, 4, 4), "needs a pixel"),
    ):
        layer, map_ = Head(channels, classes).to(x.dtype), x if "maps" in why and x.shape[1] == 16 else None
        map_ = x.to(memory_format=torch.channels_last) if map_ is None else map_
        if x.shape[1] == channels:
            expected, layer.backend = layer(map_), "auto"
            assert torch.equal(layer(map_), expected)
        layer.backend = "triton"
        with pytest.raises(ValueError, match=f"head: backend = 'triton' {why}.*; use auto or torch"):
            layer(map_)
    layer, x = stirred_head(16, 2, "cpu"), torch.randn(2, 16, 3, 5).to(memory_format=torch.channels_last)
    layer.backend = "triton"
    layer(x).sum().backward()
    assert layer.bias.grad.tolist() == [30, 30]
    layer.requires_grad_(False)
    layer(x.requires_grad_()).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0)[None].expand_as(x).contiguous())
    with torch.autocast("cpu", torch.bfloat16):
        assert {layer(map_).dtype for map_ in (x, x.bfloat16())} == {torch.bfloat16}


def assert_prediction_takes_it() -> None:
    model, images = stirred(variant="small"), torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.no_grad(), mock.patch.object(head, "head_triton", wraps=head.head_triton) as ours:
        found = lean(model).to(memory_format=torch.channels_last)(images)
        assert ours.call_count == 1
        torch.testing.assert_close(found, model(images), rtol=1e-3, atol=1e-4)
