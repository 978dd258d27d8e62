"""The training loss: a mean of per-image terms, so that each image has a gradient of its own."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from urwkv.labels import foreground
from urwkv.ops import gpu
from urwkv.ops.gpu import HAS_TRITON

if HAS_TRITON:
    from urwkv.ops.loss_triton import pixel_sums_triton

SMOOTHING = 1.0  # pixels, added above and below in soft Dice

Backend = Literal["torch", "auto"]


def segmentation_loss(logits: Tensor, masks: Tensor, backend: Backend = "torch") -> Tensor:
    """The mean over images of `image_losses`: a scalar, float32."""
    return image_losses(logits, masks, backend).mean()


def image_losses(logits: Tensor, masks: Tensor, backend: Backend = "torch") -> Tensor:
    """Soft Dice loss + cross entropy, image by image; binary cross entropy when there is one class.

    Soft Dice of a class is (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) over the image's pixels, averaged over
    the foreground classes. On an empty mask it falls from 1, when nothing is predicted, as 1 / (sum(p) + 1):
    false positives cost, and the gradient stays finite. Cross entropy is averaged over pixels.

    Args:
        logits: (B, num_classes, H, W), any floating dtype; the loss is computed in float32.
        masks: (B, H, W), integer labels; with one class every label above 0 is foreground.
        backend: "torch": as it is written. "auto": the sums over the pixels of one class are one operation on a GPU
            with Triton.

    Returns:
        (B,), float32.
    """
    with torch.autocast(logits.device.type, enabled=False):
        if backend == "auto" and _sums_at_once(logits, masks):
            overlap, predicted, true, entropies = pixel_sums_triton(logits, masks).split(1, dim=1)
            entropy = entropies.squeeze(1) / logits[0].numel()
        else:
            overlap, predicted, true, entropy = _sums(logits.float(), masks)
        dice = (2 * overlap + SMOOTHING) / (predicted + true + SMOOTHING)
        losses: Tensor = 1 - dice.mean(dim=1) + entropy
        return losses


def _sums_at_once(logits: Tensor, masks: Tensor) -> bool:
    """Whether a kernel may read these; masks that are not of the logits' pixels are left to torch, which says so."""
    alike = (masks.shape, masks.device) == (logits[:, 0].shape, logits.device)
    return alike and logits.shape[1] == 1 and logits.numel() > 0 and not gpu.obstacle(logits)


def _sums(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the foreground classes sum(p t), sum(p) and sum(t), (B, classes) each, and the mean cross entropy, (B,)."""
    num_classes = logits.shape[1]
    truth = foreground(masks, num_classes).float()
    if num_classes == 1:
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        probability = torch.sigmoid(logits)
    else:
        entropy = F.cross_entropy(logits, masks.long(), reduction="none")
        probability = torch.softmax(logits, dim=1)[:, 1:]
    overlap, predicted, true = (each.sum(dim=(2, 3)) for each in (probability * truth, probability, truth))
    return overlap, predicted, true, entropy.flatten(1).mean(dim=1)
