"""The training loss: a mean of per-image terms, so that each image has a gradient of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from urwkv.labels import foreground

SMOOTHING = 1.0  # pixels, added above and below in soft Dice


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """The mean over images of `image_losses`: a scalar, float32."""
    return image_losses(logits, masks).mean()


def image_losses(logits: Tensor, masks: Tensor) -> Tensor:
    """Soft Dice loss + cross entropy, image by image; binary cross entropy when there is one class.

    Soft Dice of a class is (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) over the image's pixels, averaged over
    the foreground classes. On an empty mask it falls from 1, when nothing is predicted, as 1 / (sum(p) + 1):
    false positives cost, and the gradient stays finite. Cross entropy is averaged over pixels.

    Args:
        logits: (B, num_classes, H, W), any floating dtype; the loss is computed in float32.
        masks: (B, H, W), integer labels; with one class every label above 0 is foreground.

    Returns:
        (B,), float32.
    """
    num_classes = logits.shape[1]
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        truth = foreground(masks, num_classes).float()
        if num_classes == 1:
            entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            probability = torch.sigmoid(logits)
        else:
            entropy = F.cross_entropy(logits, masks.long(), reduction="none")
            probability = torch.softmax(logits, dim=1)[:, 1:]
        overlap = (probability * truth).sum(dim=(2, 3))
        size = probability.sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
        dice = (2 * overlap + SMOOTHING) / (size + SMOOTHING)
        return 1 - dice.mean(dim=1) + entropy.flatten(1).mean(dim=1)
