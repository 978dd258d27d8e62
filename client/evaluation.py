"""Scores of one model on one split of a site: image by image, and as the means that the site may let out."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.data import Images
from client.device import Place
from urwkv.losses import image_losses, segmentation_loss
from urwkv.metrics import dice, hd95, iou, nsd
from urwkv.predict import predict_labels

Logits = Callable[[Tensor], Tensor]
"""From uint8 images (B, H, W, C) to logits (B, K, H, W), see `client.inference`."""

BATCH = 32
"""Images evaluated at a time: enough to fill a GPU, small enough for any."""


@dataclass(frozen=True)
class Predicted:
    """What the model makes of some images: logits (B, K, H, W), labels and truth (B, H, W), on the device."""

    logits: Tensor
    labels: Tensor
    truth: Tensor


@torch.inference_mode()
def predictions(network: Logits, images: Images, place: Place) -> Iterator[Predicted]:
    """The network's predictions for the images of a split, in their order, `BATCH` at a time.

    Each is to be used before the next is asked for.
    """
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(images.images[start : start + BATCH])
        truth = place.send(torch.from_numpy(images.masks[start : start + BATCH]))
        logits = network(pixels)
        yield Predicted(logits, predict_labels(logits), truth)


@torch.inference_mode()
def evaluate(network: Logits, images: Images, num_classes: int, place: Place, *, surfaces: bool) -> dict[str, float]:
    """Means over the images of a split: loss, Dice, IoU, and the surface metrics where asked for.

    Args:
        network: uint8 images (B, H, W, C) to logits (B, num_classes, H, W), see `client.inference`.
        surfaces: also the 95th percentile Hausdorff distance (pixels) and the normalised surface Dice.

    Returns:
        `images`, and where that is not 0 the means `loss`, `dice`, `iou`, `hd95`, `nsd`.
    """
    sums: dict[str, Tensor] = {}
    for batch in predictions(network, images, place):
        labels, truth = batch.labels, batch.truth
        scores = {
            "loss": segmentation_loss(batch.logits, truth) * len(truth),
            "dice": dice(labels, truth, num_classes).sum(),
            "iou": iou(labels, truth, num_classes).sum(),
        }
        if surfaces:
            scores["hd95"] = hd95(labels, truth, num_classes).sum()
            scores["nsd"] = nsd(labels, truth, num_classes).sum()
        for name, value in scores.items():
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value
    return {"images": float(len(images))} | {name: (s / len(images)).item() for name, s in sums.items()}


@torch.inference_mode()
def image_values(
    network: Logits, images: Images, num_classes: int, place: Place, metrics: Collection[str]
) -> dict[str, npt.NDArray[np.float64]]:
    """Of each metric (dice, iou, nsd, loss) what each image of a split scores, (N,)."""
    measures: dict[str, Callable[[Predicted], Tensor]] = {
        "loss": lambda batch: image_losses(batch.logits, batch.truth),
        **{
            name: partial(lambda score, batch: score(batch.labels, batch.truth, num_classes), score)
            for name, score in (("dice", dice), ("iou", iou), ("nsd", nsd))
        },
    }
    found: dict[str, list[npt.NDArray[np.float64]]] = {name: [np.empty(0)] for name in metrics}
    for batch in predictions(network, images, place):
        for name in metrics:
            found[name].append(measures[name](batch).double().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


@torch.inference_mode()
def image_scores(network: Logits, images: Images, num_classes: int, place: Place) -> dict[str, dict[str, float]]:
    """`dice` and `iou` of each image of a split, by the image's name."""
    values = image_values(network, images, num_classes, place, ("dice", "iou"))
    both = zip(images.names, *(values[name].tolist() for name in ("dice", "iou")), strict=True)
    return {name: {"dice": one, "iou": other} for name, one, other in both}
