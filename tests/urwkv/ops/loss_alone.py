"""The loss's operator in Triton's interpreter, for `triton_alone`."""

from unittest import mock

import pytest
import torch

from tests.urwkv.ops.test_triton_scan import poisoned
from tests.urwkv.test_losses import SHAPES, assert_sums_are_exact
from urwkv import losses
from urwkv.losses import image_losses, segmentation_loss
from urwkv.ops import loss_triton


def interpret_losses() -> None:
    """Of images that fill their programs or do not, in one program and in several; certain pixels among them."""
    with pytest.MonkeyPatch.context() as patch:
        poisoned(patch)
        for shape in SHAPES:
            for far in (1.0, 30.0):
                assert_sums_are_exact(shape, "cpu", far=far)
            for dtype in (torch.bfloat16, torch.float16):
                assert_sums_are_exact(shape, "cpu", dtype=dtype)
            for labels in (torch.int64, torch.int32, torch.bool):
                assert_sums_are_exact(shape, "cpu", labels=labels)
        for programs, expected in ((1, (1, 4096)), (6, (2, 2048)), (8, (2, 2048)), (2048, (4, 1024))):
            patch.setattr(loss_triton, "PROGRAMS", programs)
            assert loss_triton.cut(3, 4000) == expected
            assert_sums_are_exact((3, 1, 50, 80), "cpu")
    logits = torch.randn(2, 1, 8, 12, requires_grad=True)
    masks = torch.randint(2, (2, 8, 12), dtype=torch.uint8)
    torch.library.opcheck(torch.ops.fedurwkv.pixel_sums.default, (logits, masks))
    assert_others_are_as_written(masks)
    cropped, flipped = logits[..., :9], masks.transpose(1, 2).contiguous().transpose(1, 2)[..., :9]
    torch.testing.assert_close(image_losses(cropped, flipped, "auto"), image_losses(cropped, flipped))
    worst = torch.tensor([float("nan"), 1e4, -1e4, 0.0]).view(4, 1, 1, 1).requires_grad_()
    found = image_losses(worst, torch.ones(4, 1, 1), "auto")
    torch.testing.assert_close(found, image_losses(worst, torch.ones(4, 1, 1)), equal_nan=True)


def assert_others_are_as_written(masks: torch.Tensor) -> None:
    """More classes, float64, masks of other pixels, and where nobody asks for it."""
    with mock.patch.object(losses, "pixel_sums_triton", side_effect=AssertionError):
        for logits in (torch.randn(2, 3, 8, 12), torch.randn(2, 1, 8, 12).double(), torch.randn(0, 1, 8, 12)):
            each = masks[: len(logits)]
            assert torch.equal(image_losses(logits, each, "auto"), image_losses(logits, each))
        segmentation_loss(torch.randn(2, 1, 8, 12), masks)
        for other in (masks[:, :4], masks[:1, :, :6]):  # a kernel would read beyond them
            with pytest.raises((ValueError, RuntimeError), match=r"size|shape"):
                image_losses(torch.randn(2, 1, 8, 12), other, "auto")
        with pytest.raises(AssertionError):
            segmentation_loss(torch.randn(2, 1, 8, 12), masks, "auto")
