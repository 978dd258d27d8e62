"""The check of a site: a user's own folder with planted faults, and what is only worth a note."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from client.check import Finding, check_site
from client.site import Site
from simulation.phantoms import phantom
from tests.client.site_folders import draw, make_site

SPLIT_CSV = "name,split\n" + "".join(
    f"c{number:02},{'train' if number < 10 else 'val' if number < 12 else 'test'}\n" for number in range(14)
)


def check(folder: Path, num_classes: int = 1) -> tuple[list[Finding], Site | None]:
    return check_site(folder, seed=0, val=0.2, test=0.2, in_channels=3, num_classes=num_classes)


def faults(folder: Path, num_classes: int = 1) -> list[str]:
    return [finding.text for finding in check(folder, num_classes)[0] if finding.fault]


def notes(folder: Path) -> list[str]:
    return [finding.text for finding in check(folder)[0] if not finding.fault]


def only(texts: list[str], *words: str) -> None:
    """There is one text, and it holds all the words."""
    assert len(texts) == 1, texts
    for word in words:
        assert word in texts[0]


def test_a_sound_site(tmp_path: Path) -> None:
    findings, site = check(make_site(tmp_path / "s", cases=20))
    assert findings == []
    assert site is not None
    assert len(site.cases) == 20


def test_five_planted_faults_are_all_said_at_once(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "s", cases=14, csv=SPLIT_CSV)
    (folder / "masks/c01.png").unlink()
    Image.fromarray(draw(2)[1][:-2]).save(folder / "masks/c02.png")
    blurred = (draw(3)[1] * 255).astype(np.uint8)
    Image.fromarray(blurred).resize((60, 60)).resize((24, 24)).save(folder / "masks/c03.png")
    (folder / "images/c04.png").write_bytes(b"\x89PNG nothing")
    shutil.copy(folder / "images/c05.png", folder / "images/c12.png")
    found, site = check(folder)
    assert site is None
    texts = [finding.text for finding in found if finding.fault]
    assert len(texts) == 5
    for name, words in {
        "images/c01.png": "has no mask",
        "masks/c02.png": "is 24 x 22 pixels, but its image is 24 x 24",
        "masks/c03.png": "has grey values such as",
        "images/c04.png": "is not an image that can be read",
        "images/c05.png": f"and {folder}/images/c12.png are the same picture, one in train and one in test",
    }.items():
        only([text for text in texts if text.startswith(f"{folder}/{name}")], words)


def test_a_label_beyond_the_classes(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "s", cases=20)
    Image.fromarray(draw(6)[1] * 3).save(folder / "masks/c06.png")
    only(faults(folder), "masks/c06.png has the label 3", "model.num_classes = 1 allows 0 to 1")
    assert faults(folder, num_classes=4) == []


def test_masks_without_any_lesion(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "s", cases=20)
    for number in range(20):
        only(notes(folder), "no lesion in", f"{number} mask") if number else None
        Image.new("L", (24, 24)).save(folder / f"masks/c{number:02}.png")
    only(faults(folder), "every mask is empty")


def test_255_is_read_as_1_and_said(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "s", cases=20)
    for number in (2, 3):
        Image.fromarray(draw(number)[1] * 255).save(folder / f"masks/c{number:02}.png")
    assert faults(folder) == []
    only(notes(folder), "0 and 255 in 2 masks (c02, c03): read as 0 and 1")


def test_twins_in_two_splits_are_a_fault_and_the_cure_works(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "s", cases=30)
    site = check(folder)[1]
    assert site is not None
    train, val = site.split("train")[0], site.split("val")[0]
    image, mask = map(Image.fromarray, phantom("ultrasound", 64, np.random.default_rng(0)))
    image.save(train.image)
    mask.save(train.mask)
    # another file of the same picture: a JPEG, a little larger
    val.image.unlink()
    twin = val.image.with_suffix(".jpg")
    image.resize((80, 80)).save(twin, quality=85)
    mask.resize((80, 80), Image.Resampling.NEAREST).save(val.mask)
    only(faults(folder), str(twin), "look like the same picture", "give both the same patient in site.csv")
    rows = [f"{case.name},{'p' if case.name in (train.name, val.name) else ''}" for case in site.cases]
    (folder / "site.csv").write_text("\n".join(["name,patient", *rows]))
    assert check(folder)[0] == []


def test_twins_in_one_split_are_a_note(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "s", cases=14, csv=SPLIT_CSV)
    shutil.copy(folder / "images/c05.png", folder / "images/c06.png")
    assert faults(folder) == []
    only(notes(folder), "1 pair (c05 and c06)", "one patient")


def test_pictures_of_12_bits_in_16_are_noted(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "s", cases=20)
    values = np.random.default_rng(0).integers(0, 4096, (24, 24)).astype(np.uint16)
    Image.fromarray(values).save(folder / "images/c07.png")
    only(notes(folder), "nearly black: 1 image (c07)")


def test_few_images_are_noted(tmp_path: Path) -> None:
    only(notes(make_site(tmp_path / "s", cases=6)), "few training images: 4")


def test_no_folder_at_all(tmp_path: Path) -> None:
    only(faults(tmp_path / "nowhere"), f"{tmp_path}/nowhere is no folder", "give the path")


def test_pictures_that_fail_alike_are_three_lines_and_a_count(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "s", cases=20)
    for number in range(16):
        (folder / f"images/c{number:02}.png").unlink()
        Image.fromarray(draw(number)[0][..., 0].astype(np.int32)).save(folder / f"images/c{number:02}.tif")
    for number in range(16, 20):
        Image.new("L", (24, 24)).save(folder / f"masks/c{number:02}.png")
    found = faults(folder)
    assert len(found) == 3  # and not "every mask is empty": most are not known
    assert found[0].startswith(f"{folder}/images/c00.tif has pixels of 32 bits")
    assert found[2].startswith(f"{folder}/images/c02.tif has pixels of 32 bits")
    assert found[2].endswith(" ... and 13 more like this")


def test_faults_that_differ_in_numbers_are_alike(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "s", cases=20)
    for number in range(5):
        Image.fromarray(draw(number)[1] * (number + 2)).save(folder / f"masks/c{number:02}.png")
    found = faults(folder)
    assert len(found) == 3
    assert found[2].endswith(" ... and 2 more like this")


def test_given_splits_without_test_images_are_noted(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "s", cases=14, csv=SPLIT_CSV.replace("test", "val"))
    assert faults(folder) == []
    only(notes(folder), "no test images: this site's share of the final score is missing")
