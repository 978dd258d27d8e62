import math

import pytest
import torch

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
