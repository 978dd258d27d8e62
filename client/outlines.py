"""A picture with the outlines of what was predicted, small enough to leaf through."""

import cv2
import numpy as np
from PIL import Image

from client.images import Pixels

LARGEST, SMALLEST = 768, 256
"""Pixels of the longer side: larger pictures are reduced, smaller ones enlarged by a whole number."""

COLOURS = ((255, 176, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))
"""Of class 1, 2, ..., and again from the first: orange, sky blue, green, yellow, vermilion, purple."""

HALO = (0, 0, 0)
SHIFT = 4
"""Binary digits after the point in the coordinates of lines."""


def thumbnail(picture: Image.Image) -> Pixels:
    """The picture in RGB, (h, w, 3), at the size of an overlay."""
    longest = max(picture.size)
    scale = LARGEST / longest if longest > LARGEST else max(1, -(-SMALLEST // longest))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return np.array(picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def draw_outlines(small: Pixels, labels: Pixels) -> Pixels:
    """A copy of a `thumbnail` with the outline of each class of `labels` (H, W), the picture's own size."""
    canvas = small.copy()
    scale = np.array([small.shape[1] / labels.shape[1], small.shape[0] / labels.shape[0]])
    for label in np.unique(labels[labels > 0]).tolist():
        region = (labels == label).astype(np.uint8)
        contours, _ = cv2.findContours(region, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        lines = [np.rint(((line + 0.5) * scale - 0.5) * 2**SHIFT).astype(np.int32) for line in contours]
        colour = COLOURS[(label - 1) % len(COLOURS)]
        cv2.polylines(canvas, lines, True, HALO, 4, cv2.LINE_AA, SHIFT)
        cv2.polylines(canvas, lines, True, colour, 2, cv2.LINE_AA, SHIFT)
    return canvas
