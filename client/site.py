"""One hospital's data on disk: the folder format, the same for real and pretend sites.

    SITE/
      images/NAME.png|jpg|jpeg|tif|tiff
      masks/NAME.png          integer labels, 0 is background
      site.csv                optional: name, split (train|val|test), patient, group

Names are compared in Unicode NFC, so that files copied from a Mac match. Reading a site lists its folders and
its csv, so it is cheap; `client.check` reads every picture.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.duplicates import identical_files
from client.faults import Faults
from client.site_csv import COLUMNS as COLUMNS
from client.site_csv import Rows, one_form, read_rows
from client.splits import share_out, units
from protocol.errors import DataError
from protocol.seeds import seed_of
from protocol.splits import SPLITS

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
BY_THE_SYSTEM = ("thumbs.db", "ehthumbs.db", "desktop.ini")
"""Files that Windows leaves in folders of pictures, in lower case."""

FORMAT = "a site is a folder with images/NAME.png and masks/NAME.png"


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


def read_site(folder: Path, *, seed: int, val: float, test: float, name: str = "") -> Site:
    """Read the structure of a site folder.

    Without a `split` column, whole patients are dealt to the splits, reproducibly by the seed and the site's
    name; files that are identical byte for byte stay together as if of one patient.

    Args:
        seed: the study's seed.
        val, test: shares of the site's patients.
        name: the site's name; empty: the folder's.

    Raises:
        DataError: the first thing that is wrong, in which file, and the cure.
    """
    cases, faults = _survey(Path(folder))
    if faults:
        more = f" ({len(faults) - 1} more: fedurwkv site check {folder})" if len(faults) > 1 else ""
        raise DataError(faults.first() + more)
    name = name or Path(folder).resolve().name
    own_split = any(case.split for case in cases)
    if not own_split:
        cases = _deal(cases, seed_of(seed, name, "split"), val, test)
    return Site(name, Path(folder), tuple(cases), own_split)


def survey_site(folder: Path) -> tuple[list[Case], list[str]]:
    """The cases that have image and mask, with the split that site.csv gives, and the faults of the structure.

    Of many faults of one kind the first three are given, and a count.
    """
    cases, faults = _survey(folder)
    return cases, faults.lines()


def _survey(folder: Path) -> tuple[list[Case], Faults]:
    faults = Faults()
    if not _is_site(folder, faults):
        return [], faults
    images, masks = _list_images(folder / "images", faults), _list_masks(folder / "masks", faults)
    if not images or not masks:
        return [], faults
    _find_single(images, masks, folder, faults)
    rows = read_rows(folder / "site.csv", images, faults)
    cases = []
    for name in sorted(images.keys() & masks.keys() & rows.keys()):
        split, patient, group = (rows[name][column] for column in COLUMNS[1:])
        cases.append(Case(name, images[name], masks[name], split, patient or name, group))
    _find_bad_splits(cases, rows, folder, faults)
    return cases, faults


def _is_site(folder: Path, faults: Faults) -> bool:
    """Whether `folder` has images/ or masks/; if not, that is the one fault."""
    if not folder.is_dir():
        faults.say("{} is no folder: give the path of a site, a folder with images/ and masks/", folder)
        return False
    if (folder / "images").is_dir() or (folder / "masks").is_dir():
        return True
    sites = sorted(path for path in folder.iterdir() if (path / "images").is_dir() and (path / "masks").is_dir())
    if sites:
        some = "several sites: check each" if len(sites) > 1 else "a site: check that"
        faults.say("{} holds {}, like fedurwkv site check {}", folder, some, sites[0])
    elif any(folder.iterdir()):
        faults.say("{} has neither images/ nor masks/: {}", folder, FORMAT)
    else:
        faults.say("{} is empty: {}", folder, FORMAT)
    return False


def _list_images(folder: Path, faults: Faults) -> dict[str, Path]:
    images: dict[str, Path] = {}
    known = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
    for path in _listed(folder, faults):
        name = one_form(path.stem)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            faults.say("{} is not one of {}: convert it, or move it away", path, known)
        elif name in images:
            faults.say("{} and {} have the same name: rename or remove one of them", images[name], path)
        else:
            images[name] = path
    return images


def _list_masks(folder: Path, faults: Faults) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for path in _listed(folder, faults):
        if path.suffix.lower() != ".png":
            faults.say("{} is not a PNG: save masks as PNG, which keeps labels exactly as they are", path)
        masks[one_form(path.stem)] = path
    return masks


def _listed(folder: Path, faults: Faults) -> list[Path]:
    """The files in a folder, sorted, without hidden ones."""
    if not folder.is_dir():
        faults.say("{} is missing: {}", folder, FORMAT)
        return []
    paths = sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in BY_THE_SYSTEM
    )
    if not paths:
        faults.say("{} is empty: {}", folder, FORMAT)
    return paths


def _find_single(images: dict[str, Path], masks: dict[str, Path], folder: Path, faults: Faults) -> None:
    """Images without a mask and masks without an image."""
    meant = set()
    for name, mask in masks.items():
        # NAME_mask, NAME-seg: one word more than the image's name
        longer = re.fullmatch(r"(.+)([_-][A-Za-z]+)", name)
        if name in images:
            continue
        if longer and longer[1] in images and longer[1] not in masks:
            meant.add(longer[1])
            faults.say("{}: masks have the image's own name, without {}; rename it", mask, longer[2])
        else:
            faults.say("{} has no image of that name in {}: add it, or move the mask away", mask, folder / "images")
    for name, image in images.items():
        if name not in masks and name not in meant:
            missing = folder / "masks" / f"{name}.png"
            faults.say("{} has no mask {}: draw one, or move the image away", image, missing)


def _find_bad_splits(cases: Sequence[Case], rows: Rows, folder: Path, faults: Faults) -> None:
    """Patients in two splits, and splits or patients that training cannot do without."""
    first: dict[str, Case] = {}
    for case in cases:
        if case.split not in SPLITS:
            continue
        other = first.setdefault(case.patient, case)
        if other.split != case.split:
            faults.say(
                "{}: patient {!r} lies in two splits ({!r} in {}, {!r} in {}); give all images of a patient one"
                " split",
                *(folder / "site.csv", case.patient, other.name, other.split, case.name, case.split),
            )
    given = {row["split"] for row in rows.values()}
    if given <= set(SPLITS):
        for word in ("train", "val"):
            if word not in given:
                faults.say("{} has no {} case: training needs at least one", folder / "site.csv", word)
    # where cases are left out by another fault, their number says nothing
    elif not faults and len(set(_units(cases))) < 2:
        faults.say("{} holds images of one patient only: training and validation need two or more", folder)


def _units(cases: Sequence[Case]) -> list[int]:
    """The unit of each case: images of one patient, and files that are identical, belong together."""
    files = identical_files([case.image for case in cases])
    return units([(("patient", case.patient), ("file", file)) for case, file in zip(cases, files, strict=True)])


def _deal(cases: Sequence[Case], seed: int, val: float, test: float) -> list[Case]:
    of = _units(cases)
    words = share_out(of, seed, val, test)
    return [replace(case, split=words[unit]) for case, unit in zip(cases, of, strict=True)]
