"""Augmentation of images with their masks, by albumentations."""

import os
import threading

# albumentations asks the network for a newer version at import unless told not to
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations
import cv2

from client.images import Pixels

ROTATE = 30.0  # degrees, either way
SCALE = 0.2  # share, larger or smaller
SHIFT = 0.1  # share of the side, either way
LIGHT = 0.2  # share of brightness and of contrast, either way

# The batches are the unit of parallel work; OpenCV's own threads would only get in their way.
cv2.setNumThreads(1)

_thread = threading.local()


def augment_in_place(images: Pixels, masks: Pixels, seed: int) -> None:
    """Flip, rotate, scale, shift and light each image (B, H, W, C) of a batch, and its mask (B, H, W) likewise.

    What an affine map uncovers is filled by reflection, in image and mask alike.

    Args:
        seed: fixes what is drawn for the batch, whichever thread does it.
    """
    if not hasattr(_thread, "transform"):
        _thread.transform = _make()
    _thread.transform.set_random_seed(seed)
    for image, mask in zip(images, masks, strict=True):
        made = _thread.transform(image=image, mask=mask)
        image[...], mask[...] = made["image"], made["mask"]


def _make() -> albumentations.Compose:
    return albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.VerticalFlip(p=0.5),
            albumentations.Affine(
                rotate=(-ROTATE, ROTATE),
                scale=(1 - SCALE, 1 + SCALE),
                translate_percent=(-SHIFT, SHIFT),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.8,
            ),
            albumentations.RandomBrightnessContrast(LIGHT, LIGHT, p=0.5),
        ]
    )
