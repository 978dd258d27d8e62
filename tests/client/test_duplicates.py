"""Twins: identical files, and pictures that look the same after another crop, size or JPEG."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.duplicates import fingerprint, identical_files, twins
from simulation.phantoms import KINDS, phantom
from tests.simulation.public_data import public


def picture(seed: int, kind: str = "ultrasound") -> Image.Image:
    return Image.fromarray(phantom(kind, 96, np.random.default_rng(seed))[0])


def compressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


def test_identical_files_share_a_word(tmp_path: Path) -> None:
    contents = [b"one", b"two", b"one", b"longer"]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    words = identical_files([tmp_path / str(number) for number in range(4)])
    assert words[0] == words[2]
    assert len(set(words)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_another_size_crop_or_jpeg_is_still_a_twin(kind: str) -> None:
    one = picture(0, kind)
    others = [one.resize((150, 130)), compressed(one), one.crop((1, 1, 95, 95)), one.point(lambda value: value * 0.9)]
    prints = [fingerprint(image) for image in (one, *others)]
    assert {(0, j) for j in range(1, 5)} <= set(twins(prints))


@pytest.mark.parametrize("kind", KINDS)
def test_other_pictures_of_a_kind_are_no_twins(kind: str) -> None:
    assert twins([fingerprint(picture(seed, kind)) for seed in range(40)]) == []


def test_pictures_of_one_colour_are_no_twins() -> None:
    assert twins([fingerprint(Image.new("L", (9, 9), value)) for value in (0, 0, 255)]) == []


@pytest.mark.parametrize(("folder", "unlisted"), [("busi", 5), ("kvasir_seg", 0)])
def test_every_listed_twin_of_public_data_is_found_and_hardly_another(folder: str, unlisted: int) -> None:
    root = public(folder)
    names = [path.stem for path in sorted((root / "images").iterdir())]
    prints = []
    for name in names:
        with Image.open(root / "images" / f"{name}.jpg") as image:
            prints.append(fingerprint(image))
    found = {(names[i], names[j]) for i, j in twins(prints)}
    with (root / "near_duplicates.csv").open() as file:
        cluster = {row["name"]: row["cluster"] for row in csv.DictReader(file)}
    listed = sorted(cluster)
    known = {(a, b) for a in listed for b in listed if a < b and cluster[a] == cluster[b]}
    assert known <= found
    assert len(found - known) == unlisted
