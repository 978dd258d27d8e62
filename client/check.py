"""What `fedurwkv site check` finds: every case is read once, and everything that is wrong is said at once."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.duplicates import fingerprint, twins
from client.faults import Faults
from client.images import read_image, read_values, refuse_other_size, to_labels
from client.site import Case, Site, read_site, survey_site
from protocol.errors import DataError

FEW = 10
"""Training images below which a note says that they are few."""

DIM = 40
"""A picture whose brightest value is below this, of 255, was probably saved with the wrong range."""


@dataclass(frozen=True)
class Finding:
    """One line that names the file, what is wrong or strange, and the cure.

    A fault is what training would refuse, or what would make its scores untrue; a note is worth a look.
    """

    fault: bool
    text: str


@dataclass(frozen=True)
class Seen:
    """What a look at one case left: faults, the thumbnail and digest of its picture, and its mask in brief."""

    case: Case
    faults: tuple[str, ...]
    thumbnail: npt.NDArray[np.float32] | None = None
    digest: bytes = b""
    brightest: int = 255
    empty: bool = False
    white: bool = False


def check_site(
    folder: Path, *, seed: int, val: float, test: float, in_channels: int, num_classes: int
) -> tuple[list[Finding], Site | None]:
    """Look through a whole site.

    Returns:
        The findings, faults first, and the site as training would read it; None when it would not. Of many
        faults of one kind there are the first three, the third with a count of the others.
    """
    cases, structure = survey_site(folder)
    site = None if structure else read_site(folder, seed=seed, val=val, test=test)
    with ThreadPoolExecutor() as threads:
        seen = list(threads.map(lambda case: _look(case, in_channels, num_classes), site.cases if site else cases))
    faults = Faults()
    for one in seen:
        for fault in one.faults:
            faults.say_error(fault, (one.case.image, one.case.mask))
    good = [one for one in seen if not one.faults]
    if seen and len(good) == len(seen) and all(one.empty for one in good):
        faults.say("{}: every mask is empty, so there is nothing to learn; draw the lesions", folder / "masks")
    pairs = _pairs(good)
    cure = "give both one split" if site and site.own_split else "give both the same patient in site.csv"
    for a, b in pairs:
        if a.case.split != b.case.split:
            how = "are the same picture" if a.digest == b.digest else "look like the same picture"
            faults.say(
                "{} and {} {}, one in {} and one in {}: {}",
                *(a.case.image, b.case.image, how, a.case.split, b.case.split, cure),
            )
    within = [(a, b) for a, b in pairs if a.case.split == b.case.split and a.case.patient != b.case.patient]
    notes = _notes(good, within, site)
    texts = [*structure, *faults.lines()]
    return [*(Finding(True, text) for text in texts), *(Finding(False, text) for text in notes)], site


def _look(case: Case, in_channels: int, num_classes: int) -> Seen:
    faults, picture, labels, white = [], None, None, False
    try:
        picture = read_image(case.image, in_channels)
    except DataError as error:
        faults.append(str(error))
    try:
        values = read_values(case.mask)
        labels, white = to_labels(case.mask, values, num_classes), bool(values.max() == 255)
        if picture is not None:
            refuse_other_size(case, picture, labels)
    except DataError as error:
        faults.append(str(error))
    if faults or picture is None or labels is None:
        return Seen(case, tuple(faults))
    pixels = np.asarray(picture)
    return Seen(
        case,
        (),
        thumbnail=fingerprint(picture),
        digest=hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest(),
        brightest=int(pixels.max()),
        empty=not labels.any(),
        white=white,
    )


def _pairs(good: Sequence[Seen]) -> list[tuple[Seen, Seen]]:
    """Pictures that look the same, by their fingerprints."""
    thumbnails = [one.thumbnail for one in good if one.thumbnail is not None]
    return [(good[i], good[j]) for i, j in twins(thumbnails)] if thumbnails else []


def _notes(good: Sequence[Seen], within: Sequence[tuple[Seen, Seen]], site: Site | None) -> Iterator[str]:
    white = [one.case.name for one in good if one.white]
    if white:
        yield f"0 and 255 in {_some(white, 'mask')}: read as 0 and 1"
    empty = [one.case.name for one in good if one.empty]
    if empty and len(empty) < len(good):
        yield f"no lesion in {_some(empty, 'mask')}: right if the pictures show none"
    dim = [one.case.name for one in good if one.brightest < DIM]
    if dim:
        yield f"nearly black: {_some(dim, 'image')}; save 12-bit pictures so that they fill 8 or 16 bits"
    names = [f"{one.case.name} and {other.case.name}" for one, other in within]
    if names:
        yield f"the same picture twice in one split: {_some(names, 'pair')}; give them one patient in site.csv"
    if site and not site.split("test"):
        yield "no test images: this site's share of the final score is missing"
    if site and len(site.split("train")) < FEW:
        yield f"few training images: {len(site.split('train'))}; a model gains from {FEW} and more"


def _some(names: Sequence[str], what: str) -> str:
    """How many, with the first few by name."""
    rest = ", ..." if len(names) > 3 else ""
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''} ({', '.join(names[:3])}{rest})"
