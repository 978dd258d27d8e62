"""Augmentation: image and mask move together, by the seed, and within their ranges."""

import numpy as np
import pytest

from client.augment import augment_in_place


def pair(count: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Images whose bright square is just where the mask is."""
    masks = np.zeros((count, 48, 48), np.uint8)
    masks[:, 10:24, 14:36] = 1
    images = np.repeat((60 + 120 * masks)[..., None], channels, axis=3).astype(np.uint8)
    return images, masks


@pytest.mark.parametrize("channels", [1, 3])
def test_image_and_mask_move_together(channels: int) -> None:
    images, masks = pair(60, channels)
    augment_in_place(images, masks, seed=0)
    assert set(np.unique(masks)) == {0, 1}
    for image, mask in zip(images, masks, strict=True):
        bright = image[..., 0] > (int(image.min()) + int(image.max())) / 2
        assert (bright == mask).mean() > 0.97
    assert len({mask.tobytes() for mask in masks}) > 40


def test_the_seed_decides_whatever_was_drawn_before() -> None:
    one, again, other = pair(6), pair(6), pair(6)
    augment_in_place(*one, seed=3)
    augment_in_place(*pair(5), seed=8)
    augment_in_place(*again, seed=3)
    augment_in_place(*other, seed=4)
    assert np.array_equal(one[0], again[0])
    assert np.array_equal(one[1], again[1])
    assert not np.array_equal(one[0], other[0])


def test_lesions_keep_about_their_size() -> None:
    images, masks = pair(100)
    before = masks[0].mean()
    augment_in_place(images, masks, seed=1)
    share = masks.mean(axis=(1, 2)) / before
    assert share.min() > 0.5
    assert share.max() < 2.1
    assert share.mean() == pytest.approx(1.0, abs=0.15)
