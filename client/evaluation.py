"""Scores of one model on one split of a site, as the numbers that the site may let out."""

from collections.abc import Callable

import torch
from torch import Tensor

from client.data import Images
from client.device import Place
from urwkv.losses import segmentation_loss
from urwkv.metrics import dice, hd95, iou, nsd
from urwkv.predict import predict_labels

BATCH = 32
"""Images evaluated at a time: enough to fill a GPU, small enough for any."""


@torch.inference_mode()
def evaluate(
    network: Callable[[Tensor], Tensor], images: Images, num_classes: int, place: Place, *, surfaces: bool
) -> dict[str, float]:
    """Means over the images of a split: loss, Dice, IoU, and the surface metrics where asked for.

    Args:
        network: uint8 images (B, H, W, C) to logits (B, num_classes, H, W), see `client.inference`.
        surfaces: also the 95th percentile Hausdorff distance (pixels) and the normalised surface Dice.

    Returns:
        `images`, and where that is not 0 the means `loss`, `dice`, `iou`, `hd95`, `nsd`.
    """
    sums: dict[str, torch.Tensor] = {}
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(images.images[start : start + BATCH])
        truth = place.send(torch.from_numpy(images.masks[start : start + BATCH]))
        logits = network(pixels)
        labels = predict_labels(logits)
        scores = {
            "loss": segmentation_loss(logits, truth) * len(pixels),
            "dice": dice(labels, truth, num_classes).sum(),
            "iou": iou(labels, truth, num_classes).sum(),
        }
        if surfaces:
            scores["hd95"] = hd95(labels, truth, num_classes).sum()
            scores["nsd"] = nsd(labels, truth, num_classes).sum()
        for name, value in scores.items():
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value
    return {"images": float(len(images))} | {name: (s / len(images)).item() for name, s in sums.items()}
