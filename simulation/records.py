"""What a reader of a public data set says of one picture."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from client.cores import cores
from client.images import Pixels, open_picture
from protocol.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

THRESHOLD = 127
"""Archives draw lesions in white on black, some as JPEG: brighter than this is lesion."""


@dataclass(frozen=True)
class Record:
    """One picture of a data set.

    Attributes:
        name: unique in its data set.
        masks: files to be merged, white on black; or one file of integer labels, where `labels` is true.
        patient: the patient, lesion or video that pictures have in common; empty where unknown.
        group: what the data set itself divides by, such as a diagnosis or a campaign; may be empty.
        published: train, val or test in the list that the literature compares on; empty where there is none.
        cluster: a word that pictures share which are known to show the same again; may be empty.
    """

    name: str
    image: Path
    masks: tuple[Path, ...]
    dataset: str
    patient: str = ""
    group: str = ""
    published: str = ""
    cluster: str = ""
    labels: bool = False


def read_lesion(record: Record) -> Pixels:
    """Where the lesion is: 1 in the mask (H, W), 0 elsewhere, whatever its labels; several masks are merged.

    Raises:
        DataError: a mask cannot be read, or the masks of the picture differ in size.
    """
    merged = _foreground(record.masks[0], record.labels)
    for path in record.masks[1:]:
        mask = _foreground(path, record.labels)
        if merged.shape != mask.shape:
            raise DataError(f"{path} has another size than {record.masks[0]}: fetch the data set again")
        merged = merged | mask
    return merged.astype(np.uint8)


def _foreground(path: Path, labels: bool) -> npt.NDArray[np.bool_]:
    picture = open_picture(path)
    if not labels:
        return np.asarray(picture.convert("L")) > THRESHOLD
    positive = np.atleast_3d(np.asarray(picture)) > 0
    return np.logical_or.reduce(positive, axis=2)


def lesion_share(record: Record) -> float:
    """The share of the picture that is not background."""
    return float(read_lesion(record).mean())


def save_png(pixels: Pixels, path: Path) -> None:
    """Write grey (H, W) or RGB (H, W, 3) as PNG; lightly compressed, for speed."""
    Image.fromarray(pixels).save(path, compress_level=1)


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function` of each item, in order; decoding pictures leaves Python's lock free."""
    with ThreadPoolExecutor(cores()) as threads:
        return list(threads.map(function, items))
