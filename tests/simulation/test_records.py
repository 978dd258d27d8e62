"""Records: masks are merged, thresholded, and measured."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from protocol.errors import DataError
from simulation.records import Record, in_threads, lesion_share, read_lesion, save_png


def record(tmp_path: Path, *masks: np.ndarray, labels: bool = False) -> Record:
    paths = []
    for number, mask in enumerate(masks):
        paths.append(tmp_path / f"m{number}.png")
        Image.fromarray(mask).save(paths[-1])
    return Record("a", tmp_path / "a.png", tuple(paths), "d", labels=labels)


def test_masks_are_thresholded_and_merged(tmp_path: Path) -> None:
    one = np.array([[0, 127, 128, 255]], np.uint8)
    other = np.array([[200, 0, 0, 0]], np.uint8)
    made = record(tmp_path, one, other)
    assert read_lesion(made).tolist() == [[1, 0, 1, 1]]
    assert lesion_share(made) == 0.75


def test_labels_count_whatever_their_number(tmp_path: Path) -> None:
    assert read_lesion(record(tmp_path, np.array([[0, 1, 2, 9]], np.uint8), labels=True)).tolist() == [[0, 1, 1, 1]]


def test_masks_of_different_sizes(tmp_path: Path) -> None:
    made = record(tmp_path, np.zeros((2, 2), np.uint8), np.zeros((3, 3), np.uint8))
    with pytest.raises(DataError, match=r"m1\.png has another size than .*m0\.png"):
        read_lesion(made)


def test_png_keeps_every_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    save_png(pixels, tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)


def test_threads_keep_the_order() -> None:
    assert in_threads(lambda n: n * n, list(range(50))) == [n * n for n in range(50)]
