import math

import pytest
import torch
import torch.nn.functional as F

from urwkv.losses import image_losses, segmentation_loss


def test_binary_by_hand():
    # Probability one half on four pixels, one of them true: Dice (2 * 0.5 + 1) / (2 + 1 + 1) = 1/2.
    logits, mask = torch.zeros(1, 1, 2, 2), torch.tensor([[[0, 0], [0, 1]]])
    assert image_losses(logits, mask).tolist() == pytest.approx([0.5 + math.log(2)])


def test_classes_by_hand():
    # One third each on two pixels of classes 0 and 2. Class 1 is absent: 1 / (2/3 + 1); class 2:
    # (2/3 + 1) / (2/3 + 1 + 1).
    logits, mask = torch.zeros(1, 3, 1, 2), torch.tensor([[[0, 2]]])
    dice = (3 / 5 + 5 / 8) / 2
    assert image_losses(logits, mask).tolist() == pytest.approx([1 - dice + math.log(3)])


@pytest.mark.parametrize("classes", [1, 4])
def test_a_batch_is_the_mean_of_its_images(classes):
    torch.manual_seed(0)
    logits, masks = torch.randn(5, classes, 8, 9), torch.randint(0, max(classes, 2), (5, 8, 9))
    masks[0] = 0
    alone = torch.stack([segmentation_loss(logits[i : i + 1], masks[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(image_losses(logits, masks), alone)
    torch.testing.assert_close(segmentation_loss(logits, masks), alone.mean())


@pytest.mark.parametrize("classes", [1, 3])
def test_perfect_and_empty(classes):
    mask = torch.zeros(2, 8, 8, dtype=torch.uint8)
    mask[0, 2:5, 3:6] = classes - 1 or 1
    logits = torch.full((2, classes, 8, 8), -50.0)
    if classes == 1:
        logits[:, 0][mask > 0] = 50.0
    else:
        logits.scatter_(1, mask.long().unsqueeze(1), 50.0)
    assert image_losses(logits, mask).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_false_positives_on_an_empty_mask_cost_and_pull_back():
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    loss = segmentation_loss(logits, torch.zeros(1, 8, 8, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(1 - 1 / 33 + math.log(2))
    assert (gradient > 0).all()


@pytest.mark.parametrize("classes", [1, 3])
def test_float32_whatever_comes_in(classes):
    torch.manual_seed(0)
    logits, masks = torch.randn(2, classes, 8, 8).bfloat16(), torch.randint(0, max(classes, 2), (2, 8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = segmentation_loss(logits, masks)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, segmentation_loss(logits.float(), masks))


def test_one_class_takes_any_label_above_zero_as_foreground():
    logits, mask = torch.randn(2, 1, 4, 4), torch.randint(0, 3, (2, 4, 4), dtype=torch.uint8)
    assert torch.equal(segmentation_loss(logits, mask), segmentation_loss(logits, mask.clamp(max=1)))


def exactly(logits, masks):
    """The losses of one class in float64."""
    z, t = logits[:, 0].double().flatten(1), (masks > 0).double().flatten(1)
    p = torch.sigmoid(z)
    dice = (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)
    return 1 - dice + F.binary_cross_entropy_with_logits(z, t, reduction="none").mean(1)


def assert_sums_are_exact(shape, device, *, dtype=torch.float32, labels=torch.uint8, far=1.0):
    """The losses with their sums over pixels by one operation, and the gradients, beside float64."""
    torch.manual_seed(0)
    logits = (far * torch.randn(shape)).to(device, dtype).requires_grad_()
    masks = torch.randint(0, 3, (shape[0], *shape[2:])).to(device, labels)
    found, expected = image_losses(logits, masks, "auto"), exactly(logits, masks)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=2e-6)
    weigh = torch.randn(shape[0]).to(device)
    dx, exact = (torch.autograd.grad(y, logits, weigh.to(y.dtype))[0] for y in (found, expected))
    assert dx.dtype == dtype
    rounding = 2e-6 if dtype == torch.float32 else 2.0**-8
    size = exact.abs() + exact.abs().amax((1, 2, 3), keepdim=True)
    assert ((dx - exact).abs() <= rounding * size + 1e-12).all()  # float64 takes a p beside 1 for 1


SHAPES = [(3, 1, 5, 7), (2, 1, 64, 48), (1, 1, 1, 1), (5, 1, 32, 33)]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [*SHAPES, (128, 1, 256, 256), (2, 1, 1000, 1001)])
def test_in_one_operation_the_loss_is_the_same(shape, dtype):
    for far in (1.0, 30.0):
        assert_sums_are_exact(shape, "cuda", dtype=dtype, far=far)


@pytest.mark.gpu
def test_the_operation_is_one_that_torch_knows():
    logits, masks = (
        torch.randn(2, 1, 5, 4, device="cuda", requires_grad=True),
        torch.ones(2, 5, 4, device="cuda").byte(),
    )
    torch.library.opcheck(torch.ops.fedurwkv.pixel_sums.default, (logits, masks))
