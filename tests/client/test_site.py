"""The site format: what is read, how it is divided, and that every structural fault names file and cure."""

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.site import Site, read_site, survey_site
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
    "column twice": (csv("name,Name\n" + "".join(f"{n},{n}\n" for n in NAMES)), "two columns 'name'; keep one"),
    "unknown case": (csv(rows(name=["c99", *NAMES])), "line 2: there is no image named 'c99'; remove the row"),
    "suffix in name": (csv(rows(name=["c00.png", *NAMES])), "line 2: .*write the name without its suffix"),
    "case left out": (csv(rows(name=NAMES[1:])), r"has no row for .*c00\.png: add one"),
    "case twice": (csv(rows(name=["c05", *NAMES])), "a second row for 'c05'; keep one"),
    "commas": (csv("name,patient\nc00,Doe, Jane\n"), "more cells than columns; put a word with ',' into quotes"),
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


def faults(folder: Path) -> list[str]:
    return survey_site(folder)[1]


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (csv(rows(name=[f"{name}.png" for name in NAMES])), "write the name without its suffix"),
        (csv(rows(name=NAMES, split=["trian"] * 12)), "must be train, val or test"),
        (csv("name,patient,split\n" + "".join(f"{n},Doe, Jane,train\n" for n in NAMES)), "more cells than columns"),
        (csv("name,split,patient\n" + "".join(f"{n},train,Doe, Jane\n" for n in NAMES)), "more cells than columns"),
    ],
)
def test_many_faults_of_one_kind_are_three_lines_and_nothing_follows(
    tmp_path: Path, plant: Callable[[Path], None], words: str
) -> None:
    plant(make_site(tmp_path / "s"))
    found = faults(tmp_path / "s")
    assert len(found) == 3
    assert all(words in text for text in found)
    assert found[2].endswith(" ... and 9 more like this")
    with pytest.raises(DataError, match=r"line 2: .*\(11 more: "):
        read(tmp_path / "s")


def test_a_csv_of_other_cases_is_two_kinds_of_faults(tmp_path: Path) -> None:
    make_site(tmp_path / "s", csv=rows(name=[f"x{name}" for name in NAMES], split=["val"] * 12))
    found = faults(tmp_path / "s")
    assert ["no image named" in text for text in found] == [True] * 3 + [False] * 3
    assert ["has no row for" in text for text in found] == [False] * 3 + [True] * 3


def test_masks_with_a_word_behind_the_name_are_one_kind_of_fault(tmp_path: Path) -> None:
    make_site(tmp_path / "s")
    for name in NAMES:
        (tmp_path / f"s/masks/{name}.png").rename(tmp_path / f"s/masks/{name}_mask.png")
    found = faults(tmp_path / "s")
    assert len(found) == 3
    assert "masks/c00_mask.png: masks have the image's own name, without _mask; rename it" in found[0]
    assert found[2].endswith(" ... and 9 more like this")


def test_a_second_mask_of_an_image_is_not_to_be_renamed(tmp_path: Path) -> None:
    make_site(tmp_path / "s")
    shutil.copy(tmp_path / "s/masks/c00.png", tmp_path / "s/masks/c00_mask.png")
    assert len(faults(tmp_path / "s")) == 1
    assert "c00_mask.png has no image of that name" in faults(tmp_path / "s")[0]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_spaces_and_capitals_of_a_csv(tmp_path: Path, separator: str) -> None:
    split = ["Train"] * 9 + [" VAL"] + ["Test "] * 2
    lines = [("Name", " split", "PATIENT", ""), *((n, s, f"{n}, x", "") for n, s in zip(NAMES, split, strict=True))]
    text = "\r\n".join(separator.join(f'"{cell}"' for cell in line) for line in lines)
    make_site(tmp_path / "s", csv=f"{text}\r\n{separator * 3}\r\n")
    site = read(tmp_path / "s")
    assert [len(site.split(word)) for word in ("train", "val", "test")] == [9, 1, 2]
    assert site.cases[0].patient == "c00, x"


def test_an_empty_split_column_is_none(tmp_path: Path) -> None:
    make_site(tmp_path / "s", csv=rows(name=NAMES, split=[" "] * 12))
    site = read(tmp_path / "s")
    assert not site.own_split
    assert [len(site.split(word)) for word in ("train", "val", "test")] == [8, 2, 2]


def test_names_from_a_mac_match(tmp_path: Path) -> None:
    composed = "M\u00fcller"
    apart = unicodedata.normalize("NFD", composed)
    assert composed != apart
    make_site(tmp_path / "s", csv=rows(name=[composed, *NAMES[1:]], patient=[f"p{name}" for name in NAMES]))
    (tmp_path / "s/images/c00.png").rename(tmp_path / f"s/images/{apart}.png")
    (tmp_path / "s/masks/c00.png").rename(tmp_path / f"s/masks/{composed}.png")
    case = read(tmp_path / "s").cases[0]
    assert (case.name, case.patient) == (composed, "pc00")
    assert case.image.is_file()
    (tmp_path / "s/site.csv").write_text(rows(name=[apart, *NAMES[1:]]), encoding="utf-8")
    assert faults(tmp_path / "s") == []


def test_files_of_windows_are_passed_over(tmp_path: Path) -> None:
    make_site(tmp_path / "s")
    for folder in ("images", "masks"):
        for name in ("Thumbs.db", "desktop.ini", "ehthumbs.db"):
            (tmp_path / "s" / folder / name).write_bytes(b"?")
    assert len(read(tmp_path / "s").cases) == 12


def test_what_is_no_site_is_said_in_one_line(tmp_path: Path) -> None:
    def only(folder: Path) -> str:
        found = faults(folder)
        assert len(found) == 1
        return found[0]

    nowhere, file, top = tmp_path / "nowhere", tmp_path / "file", tmp_path / "top"
    file.write_text("")
    for path in (nowhere, file):
        assert only(path).startswith(f"{path} is no folder: give the path of a site")
    top.mkdir()
    assert only(top).startswith(f"{top} is empty: a site is a folder with")
    (top / "notes.txt").write_text("hello")
    assert only(top).startswith(f"{top} has neither images/ nor masks/: a site is")
    make_site(top / "north")
    assert only(top) == f"{top} holds a site: check that, like fedurwkv site check {top}/north"
    make_site(top / "east")
    assert only(top) == f"{top} holds several sites: check each, like fedurwkv site check {top}/east"
