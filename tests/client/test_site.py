"""The site format: what is read, how it is divided, and that every structural fault names file and cure."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.site import Site, read_site
from protocol.errors import DataError
from tests.client.site_folders import make_site

NAMES = [f"c{number:02}" for number in range(12)]


def read(folder: Path, seed: int = 0, val: float = 0.2, test: float = 0.2) -> Site:
    return read_site(folder, seed=seed, val=val, test=test)


def rows(**columns: list[str]) -> str:
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    return "\n".join(lines) + "\n"


def test_a_site_without_csv_is_dealt_by_image(tmp_path: Path) -> None:
    site = read(make_site(tmp_path / "north"))
    assert site.name == "north"
    assert not site.own_split
    assert [case.name for case in site.cases] == NAMES
    assert [len(site.split(word)) for word in ("train", "val", "test")] == [8, 2, 2]
    case = site.cases[3]
    assert case.image == tmp_path / "north/images/c03.png"
    assert case.mask == tmp_path / "north/masks/c03.png"
    assert (case.patient, case.group) == ("c03", "")


def test_the_split_follows_from_seed_and_name_alone(tmp_path: Path) -> None:
    make_site(tmp_path / "north")
    shutil.copytree(tmp_path / "north", tmp_path / "copy/north")
    shutil.copytree(tmp_path / "north", tmp_path / "south")

    def words(folder: str, seed: int) -> list[str]:
        return [case.split for case in read(tmp_path / folder, seed).cases]

    assert words("north", 0) == words("copy/north", 0)
    assert words("north", 0) != words("north", 1)
    assert words("north", 0) != words("south", 0)


def test_patients_stay_whole(tmp_path: Path) -> None:
    patients = [f"p{number // 3}" for number in range(12)]
    make_site(tmp_path / "s", csv=rows(name=NAMES, patient=patients, group=["x"] * 12))
    for seed in range(10):
        site = read(tmp_path / "s", seed)
        split_of = {(case.patient, case.split) for case in site.cases}
        assert len(split_of) == 4
        assert {case.group for case in site.cases} == {"x"}


def test_identical_files_stay_together(tmp_path: Path) -> None:
    make_site(tmp_path / "s")
    for twin in ("c01", "c02", "c03"):
        shutil.copy(tmp_path / "s/images/c00.png", tmp_path / f"s/images/{twin}.png")
    for seed in range(10):
        assert len({case.split for case in read(tmp_path / "s", seed).cases[:4]}) == 1


def test_the_splits_of_the_csv_are_kept(tmp_path: Path) -> None:
    split = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    make_site(tmp_path / "s", csv=rows(name=NAMES[::-1], split=split))
    site = read(tmp_path / "s")
    assert site.own_split
    assert [case.split for case in site.cases] == split[::-1]


def test_a_csv_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    make_site(tmp_path / "s", cases=3)
    text = "name,patient\r\n c00 ,p1\r\nc01,\r\nc02,p1\r\n"
    (tmp_path / "s/site.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [case.patient for case in read(tmp_path / "s").cases] == ["p1", "c01", "p1"]


def test_suffixes_and_hidden_files(tmp_path: Path) -> None:
    make_site(tmp_path / "s", cases=3)
    (tmp_path / "s/images/c00.png").rename(tmp_path / "s/images/c00.PNG")
    Image.fromarray(np.zeros((24, 24), np.uint8)).save(tmp_path / "s/images/c01.tif")
    (tmp_path / "s/images/c01.png").unlink()
    (tmp_path / "s/images/.DS_Store").write_bytes(b"?")
    assert [case.image.suffix for case in read(tmp_path / "s").cases] == [".PNG", ".tif", ".png"]


def drop_mask(site: Path) -> None:
    (site / "masks/c03.png").unlink()


def drop_image(site: Path) -> None:
    (site / "images/c03.png").unlink()


def two_of_a_name(site: Path) -> None:
    shutil.copy(site / "images/c03.png", site / "images/c03.jpg")


def stray_file(site: Path) -> None:
    (site / "images/notes.txt").write_text("hello")


def jpeg_mask(site: Path) -> None:
    (site / "masks/c03.png").rename(site / "masks/c03.jpg")


def no_images(site: Path) -> None:
    shutil.rmtree(site / "images")


def empty_masks_folder(site: Path) -> None:
    shutil.rmtree(site / "masks")
    (site / "masks").mkdir()


def csv(text: str) -> Callable[[Path], None]:
    def write(site: Path) -> None:
        (site / "site.csv").write_text(text)

    return write


SPLIT = ["train"] * 10 + ["val"] * 2
FAULTS = {
    "mask missing": (drop_mask, r"images/c03\.png has no mask .*masks/c03\.png: draw one"),
    "image missing": (drop_image, r"masks/c03\.png has no image .*: add it"),
    "two images": (two_of_a_name, r"c03\.jpg and .*c03\.png have the same name: rename"),
    "stray file": (stray_file, r"notes\.txt is not one of png, .*: convert it"),
    "JPEG mask": (jpeg_mask, r"masks/c03\.jpg is not a PNG: save masks as PNG"),
    "no images": (no_images, r"images is missing: a site is a folder with"),
    "no masks": (empty_masks_folder, r"masks is empty: a site is a folder with"),
    "unknown split": (csv(rows(name=NAMES, split=["trian", *SPLIT[1:]])), "line 2: split 'trian' of 'c00' must be"),
    "empty split": (csv(rows(name=NAMES, split=["", *SPLIT[1:]])), "line 2: split '' of 'c00' must be train, val"),
    "unknown column": (csv(rows(name=NAMES, patiend=NAMES)), "unknown column 'patiend'; did you mean 'patient'"),
    "no name column": (csv(rows(patient=NAMES)), r"site\.csv has no column 'name': its first line is"),
    "semicolons": (csv("name;split\nc00;train\n"), "has no column 'name'"),
    "unknown case": (csv(rows(name=["c99", *NAMES])), "line 2: there is no image named 'c99'; remove the row"),
    "suffix in name": (csv(rows(name=["c00.png", *NAMES])), "line 2: .*write the name without its suffix"),
    "case left out": (csv(rows(name=NAMES[1:])), r"has no row for .*c00\.png: add one"),
    "case twice": (csv(rows(name=["c05", *NAMES])), "a second row for 'c05'; keep one"),
    "commas": (csv("name,patient\nc00,Doe, Jane\n"), "more cells than columns; put a word with commas into quotes"),
    "not text": (lambda site: (site / "site.csv").write_bytes(b"name\n\xff\xfe"), "not a csv file in UTF-8"),
    "patient in two": (
        csv(rows(name=NAMES, split=SPLIT, patient=["p", *NAMES[1:11], "p"])),
        "patient 'p' lies in two splits .'c00' in train, 'c11' in val.; give all images of a patient one split",
    ),
    "no train": (csv(rows(name=NAMES, split=["val"] * 12)), "has no train case"),
    "no val": (csv(rows(name=NAMES, split=["train"] * 12)), "has no val case"),
    "one patient": (csv(rows(name=NAMES, patient=["p"] * 12)), "images of one patient only"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_structural_faults_name_the_file_and_the_cure(tmp_path: Path, fault: str) -> None:
    plant, words = FAULTS[fault]
    plant(make_site(tmp_path / "s"))
    with pytest.raises(DataError, match=words) as error:
        read(tmp_path / "s")
    assert str(tmp_path / "s") in str(error.value)
    assert "\n" not in str(error.value)


def test_the_first_fault_says_how_many_more_there_are(tmp_path: Path) -> None:
    make_site(tmp_path / "s")
    drop_mask(tmp_path / "s")
    stray_file(tmp_path / "s")
    with pytest.raises(DataError, match=r"\(1 more: fedurwkv site check .*/s\)"):
        read(tmp_path / "s")
