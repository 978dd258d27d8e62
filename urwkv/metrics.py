"""Scores of predicted against true labels, image by image.

All take integer label maps (B, H, W) and give float32 (B,), averaged over the foreground classes. One class
means that every label above 0 is foreground; otherwise class 0 is background. Where a class is absent from
both maps the prediction is perfect; where it is absent from one, the score is the worst there is.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from urwkv.labels import foreground
from urwkv.surface import edges, surface_distances

Distances = npt.NDArray[np.float64]

NSD_TOLERANCE = 2.0  # pixels


def dice(prediction: Tensor, truth: Tensor, num_classes: int = 1) -> Tensor:
    """2 |P and T| / (|P| + |T|), in 0 to 1; 1 when both are empty. On the device, waiting for nothing."""
    overlap, predicted, true = _areas(prediction, truth, num_classes)
    return _ratio(2 * overlap, predicted + true)


def iou(prediction: Tensor, truth: Tensor, num_classes: int = 1) -> Tensor:
    """|P and T| / |P or T|, in 0 to 1; 1 when both are empty. On the device, waiting for nothing."""
    overlap, predicted, true = _areas(prediction, truth, num_classes)
    return _ratio(overlap, predicted + true - overlap)


def hd95(prediction: Tensor, truth: Tensor, num_classes: int = 1) -> Tensor:
    """95 % Hausdorff distance in pixels, smaller is better: the larger of the two directions' percentiles.

    0 when both are empty; the image's diagonal, sqrt(H^2 + W^2), when one is. On the CPU.
    """
    diagonal = math.hypot(*prediction.shape[-2:])

    def score(there: Distances, back: Distances) -> float:
        return float(max(np.percentile(there, 95), np.percentile(back, 95)))

    return _surface_score(prediction, truth, num_classes, score, perfect=0.0, worst=diagonal)


def nsd(prediction: Tensor, truth: Tensor, num_classes: int = 1, tolerance: float = NSD_TOLERANCE) -> Tensor:
    """Normalised surface Dice, in 0 to 1: the share of both outlines within `tolerance` pixels of the other.

    1 when both are empty, 0 when one is. On the CPU.
    """

    def score(there: Distances, back: Distances) -> float:
        return float(np.mean(np.concatenate([there, back]) <= tolerance))

    return _surface_score(prediction, truth, num_classes, score, perfect=1.0, worst=0.0)


def _areas(prediction: Tensor, truth: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    p, t = foreground(prediction, num_classes), foreground(truth, num_classes)
    return (p & t).sum(dim=(2, 3)), p.sum(dim=(2, 3)), t.sum(dim=(2, 3))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, 1 where whole is 0; counts (B, K) to the mean over K."""
    return torch.where(whole == 0, 1.0, part / whole.clamp(min=1)).mean(dim=1)


def _surface_score(
    prediction: Tensor,
    truth: Tensor,
    num_classes: int,
    score: Callable[[Distances, Distances], float],
    perfect: float,
    worst: float,
) -> Tensor:
    outlines = [edges(foreground(labels, num_classes)).cpu().numpy() for labels in (prediction, truth)]
    scores = torch.empty(outlines[0].shape[:2])
    for image, kind in np.ndindex(*scores.shape):
        p, t = outlines[0][image, kind], outlines[1][image, kind]
        if p.any() and t.any():
            scores[image, kind] = score(*surface_distances(p, t))
        else:
            scores[image, kind] = worst if p.any() or t.any() else perfect
    return scores.mean(dim=1)
