"""One hospital's data on disk: the folder format, the same for real and pretend sites.

    SITE/
      images/NAME.png|jpg|jpeg|tif|tiff
      masks/NAME.png          integer labels, 0 is background
      site.csv                optional: name, split (train|val|test), patient, group

Reading a site lists its folders and its csv, so it is cheap; `client.check` reads every picture.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.duplicates import identical_files
from client.splits import SPLITS, share_out, units
from protocol.errors import DataError
from protocol.seeds import seed_of
from protocol.settings import nearest

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
COLUMNS = ("name", "split", "patient", "group")


@dataclass(frozen=True)
class Case:
    """One picture with its mask; a picture of no known patient is its own patient."""

    name: str
    image: Path
    mask: Path
    split: str
    patient: str
    group: str


@dataclass(frozen=True)
class Site:
    """A site's cases in the order of their names; `own_split` when site.csv gives the splits."""

    name: str
    folder: Path
    cases: tuple[Case, ...]
    own_split: bool

    def split(self, word: str) -> tuple[Case, ...]:
        """The cases of one split: train, val or test."""
        return tuple(case for case in self.cases if case.split == word)


def read_site(folder: Path, *, seed: int, val: float, test: float) -> Site:
    """Read the structure of a site folder.

    Without a `split` column, whole patients are dealt to the splits, reproducibly by the seed and the site's
    name; files that are identical byte for byte stay together as if of one patient.

    Args:
        seed: the study's seed.
        val, test: shares of the site's patients.

    Raises:
        DataError: the first thing that is wrong, in which file, and the cure.
    """
    cases, faults = survey_site(Path(folder))
    if faults:
        more = f" ({len(faults) - 1} more: fedurwkv site check {folder})" if len(faults) > 1 else ""
        raise DataError(faults[0] + more)
    name = Path(folder).resolve().name
    own_split = any(case.split for case in cases)
    if not own_split:
        cases = _deal(cases, seed_of(seed, name, "split"), val, test)
    return Site(name, Path(folder), tuple(cases), own_split)


def survey_site(folder: Path) -> tuple[list[Case], list[str]]:
    """The cases that have image and mask, with the split that site.csv gives, and every fault of the structure."""
    faults: list[str] = []
    images, masks = _list_images(folder / "images", faults), _list_masks(folder / "masks", faults)
    for name, image in images.items():
        if name not in masks:
            faults.append(f"{image} has no mask {folder / 'masks' / name}.png: draw one, or move the image away")
    for name, mask in masks.items():
        if name not in images:
            faults.append(f"{mask} has no image of that name in {folder / 'images'}: add it, or move the mask away")
    rows = _read_csv(folder / "site.csv", images, faults)
    cases = []
    for name in sorted(images.keys() & masks.keys() & rows.keys()):
        split, patient, group = (rows[name][column] for column in COLUMNS[1:])
        cases.append(Case(name, images[name], masks[name], split, patient or name, group))
    if images and masks:
        _find_bad_splits(cases, folder, faults)
    return cases, faults


def _list_images(folder: Path, faults: list[str]) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in _listed(folder, faults):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            known = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
            faults.append(f"{path} is not one of {known}: convert it, or move it away")
        elif path.stem in images:
            faults.append(f"{images[path.stem]} and {path} have the same name: rename or remove one of them")
        else:
            images[path.stem] = path
    return images


def _list_masks(folder: Path, faults: list[str]) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for path in _listed(folder, faults):
        if path.suffix.lower() != ".png":
            faults.append(f"{path} is not a PNG: save masks as PNG, which keeps labels exactly as they are")
        masks[path.stem] = path
    return masks


def _listed(folder: Path, faults: list[str]) -> list[Path]:
    """The files in a folder, sorted, without hidden ones."""
    if not folder.is_dir():
        faults.append(f"{folder} is missing: a site is a folder with images/NAME.png and masks/NAME.png")
        return []
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not paths:
        faults.append(f"{folder} is empty: a site is a folder with images/NAME.png and masks/NAME.png")
    return paths


def _read_csv(path: Path, images: dict[str, Path], faults: list[str]) -> dict[str, dict[str, str]]:
    """The rows of site.csv by name, with the empty word for what is not given."""
    empty = dict.fromkeys(COLUMNS, "")
    if not path.is_file():
        return dict.fromkeys(images, empty)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            columns = list(reader.fieldnames or ())
            lines = [(reader.line_num, {key: "".join(cell).strip() for key, cell in row.items()}) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        faults.append(f"{path} is not a csv file in UTF-8 ({error}): save it as 'CSV UTF-8'")
        return dict.fromkeys(images, empty)
    if "name" not in columns:
        faults.append(f"{path} has no column 'name': its first line is name,split,patient,group (name is a must)")
        return dict.fromkeys(images, empty)
    for column in columns:
        if column not in COLUMNS:
            hint = nearest(column, COLUMNS, f"; the columns are {', '.join(COLUMNS)}")
            faults.append(f"{path}: unknown column {column!r}{hint}")
    rows: dict[str, dict[str, str]] = {}
    for line, row in lines:
        fault = _bad_row(row, rows, images)
        if fault:
            faults.append(f"{path}, line {line}: {fault}")
        rows.setdefault(row["name"], empty | row)
    for name in images:
        if name not in rows:
            faults.append(f"{path} has no row for {images[name]}: add one, or move the image away")
    return rows


def _bad_row(row: dict[str, str], rows: dict[str, dict[str, str]], images: dict[str, Path]) -> str:
    """What is wrong with a line of site.csv and its cure, or the empty word."""
    name, split = row["name"], row.get("split")
    if row.get(""):
        return f"{name!r} has more cells than columns; put a word with commas into quotes"
    if name in rows:
        return f"a second row for {name!r}; keep one"
    if name not in images:
        cure = "remove the row or add the image"
        if Path(name).suffix.lower() in IMAGE_SUFFIXES:
            cure = "write the name without its suffix"
        return f"there is no image named {name!r}; {cure}"
    if split is not None and split not in SPLITS:
        return f"split {split!r} of {name!r} must be train, val or test"
    return ""


def _find_bad_splits(cases: Sequence[Case], folder: Path, faults: list[str]) -> None:
    """Patients in two splits, and splits or patients that training cannot do without."""
    first: dict[str, Case] = {}
    for case in cases:
        other = first.setdefault(case.patient, case)
        if other.split != case.split:
            faults.append(
                f"{folder / 'site.csv'}: patient {case.patient!r} lies in two splits ({other.name!r} in"
                f" {other.split}, {case.name!r} in {case.split}); give all images of a patient one split"
            )
    given = {case.split for case in cases} - {""}
    if given:
        for word in ("train", "val"):
            if word not in given:
                faults.append(f"{folder / 'site.csv'} has no {word} case: training needs at least one")
    elif len(set(_units(cases))) < 2:
        faults.append(f"{folder} holds images of one patient only: training and validation need two or more")


def _units(cases: Sequence[Case]) -> list[int]:
    """The unit of each case: images of one patient, and files that are identical, belong together."""
    files = identical_files([case.image for case in cases])
    return units([(("patient", case.patient), ("file", file)) for case, file in zip(cases, files, strict=True)])


def _deal(cases: Sequence[Case], seed: int, val: float, test: float) -> list[Case]:
    of = _units(cases)
    words = share_out(of, seed, val, test)
    return [replace(case, split=words[unit]) for case, unit in zip(cases, of, strict=True)]
