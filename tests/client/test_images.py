"""Decoding: depth, colour, orientation, labels, and an error for all else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.images import read_case, read_image, read_mask
from client.site import Case
from protocol.errors import DataError


def save(path: Path, values: np.ndarray, **options: object) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def case(image: Path, mask: Path) -> Case:
    return Case("a", image, mask, "train", "a", "")


def test_grey_is_repeated_and_colour_is_kept(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    colour = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    grey_seen = np.asarray(read_image(save(tmp_path / "g.png", grey), 3))
    assert grey_seen.shape == (8, 8, 3)
    assert (grey_seen == grey[..., None]).all()
    assert np.array_equal(np.asarray(read_image(save(tmp_path / "c.tif", colour), 3)), colour)
    assert np.asarray(read_image(tmp_path / "c.tif", 1)).shape == (8, 8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_by_their_whole_range(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", np.array([[0, 257, 32896, 65535]], np.uint16))
    assert np.asarray(read_image(path, 1)).tolist() == [[0, 1, 128, 255]]


def test_transparency_and_palettes(tmp_path: Path) -> None:
    colour = np.full((4, 4, 4), 200, np.uint8)
    assert np.asarray(read_image(save(tmp_path / "a.png", colour), 3)).tolist() == [[[200] * 3] * 4] * 4
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "p.png")
    assert np.asarray(read_image(tmp_path / "p.png", 3)).tolist() == [[[0, 0, 0], [255, 0, 0]]]
    assert read_mask(tmp_path / "p.png", 1).tolist() == [[0, 1]]


def test_the_camera_held_sideways(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    values = np.array([[10, 200]], np.uint8)
    path = save(tmp_path / "a.png", values, exif=exif)
    assert np.asarray(read_image(path, 1)).tolist() == [[10], [200]]


def test_masks_of_0_and_255_are_read_as_labels(tmp_path: Path) -> None:
    white = save(tmp_path / "m.png", np.array([[0, 255], [255, 0]], np.uint8))
    assert read_mask(white, 1).tolist() == [[0, 1], [1, 0]]
    assert read_mask(white, 2).tolist() == [[0, 1], [1, 0]]
    bits = save(tmp_path / "b.png", np.array([[False, True]]))
    assert read_mask(bits, 1).tolist() == [[0, 1]]
    grey_as_colour = save(tmp_path / "c.png", np.full((2, 2, 3), 255, np.uint8))
    assert read_mask(grey_as_colour, 1).tolist() == [[1, 1], [1, 1]]


def test_labels_of_several_classes(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.array([[0, 1, 2, 3]], np.uint8))
    assert read_mask(path, 4).tolist() == [[0, 1, 2, 3]]


BAD_MASKS = {
    "label": (np.array([[0, 2]], np.uint8), r"m\.png has the label 2, but model.num_classes = 1 allows 0 to 1"),
    "255 with 3 classes": (np.array([[0, 255]], np.uint8), None),
    "blur": (np.arange(40, dtype=np.uint8)[None], r"m\.png has grey values such as 2, 3, 4: JPEG"),
    "colour": (np.array([[[255, 0, 0]]], np.uint8), r"m\.png is a colour picture"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_masks_that_are_no_labels(tmp_path: Path, name: str) -> None:
    values, words = BAD_MASKS[name]
    path = save(tmp_path / "m.png", values)
    with pytest.raises(DataError, match=words or "has the label 255, but model.num_classes = 3 allows 0 to 2"):
        read_mask(path, 1 if words else 3)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    whole = save(tmp_path / "whole.jpg", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "half.jpg").write_bytes(whole.read_bytes()[:400])
    save(tmp_path / "float.tif", np.zeros((4, 4), np.float32))
    pages = [Image.new("L", (4, 4)), Image.new("L", (4, 4))]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    for name, words in {
        "text.png": "is not an image that can be read: export it again",
        "half.jpg": "cannot be read .*: export it again",
        "float.tif": "has pixels of 32 bits: save it with 8 or 16 bits",
        "pages.tif": "holds 2 pages: save each picture",
    }.items():
        with pytest.raises(DataError, match=f"{name} {words}"):
            read_image(tmp_path / name, 3)


def test_channels_that_no_image_has(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match=r"model\.in_channels = 2 must be 1 or 3"):
        read_image(path, 2)


def test_a_case_is_stretched_to_the_square(tmp_path: Path) -> None:
    values = np.zeros((20, 40), np.uint8)
    values[:, 20:] = 200
    labels = (values > 0).astype(np.uint8)
    made = case(save(tmp_path / "i.png", values), save(tmp_path / "m.png", labels))
    image, mask = read_case(made, 10, 3, 1)
    assert image.shape == (10, 10, 3)
    assert mask.tolist() == [[0] * 5 + [1] * 5] * 10
    assert image[:, 0].tolist() == [[0] * 3] * 10
    assert image[:, 9].tolist() == [[200] * 3] * 10
    assert read_case(made, 32, 1, 1)[0].shape == (32, 32, 1)
    save(tmp_path / "m.png", labels * 3)
    assert set(np.unique(read_case(made, 33, 1, 4)[1])) == {0, 3}


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    made = case(
        save(tmp_path / "i.png", np.zeros((20, 40), np.uint8)), save(tmp_path / "m.png", np.zeros((20, 20), np.uint8))
    )
    with pytest.raises(DataError, match=r"m\.png is 20 x 20 pixels, but its image is 40 x 20: export the mask"):
        read_case(made, 16, 3, 1)
