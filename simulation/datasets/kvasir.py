"""Kvasir-SEG as published: Jha et al., MMM 2020, https://arxiv.org/abs/1911.07069.

    Kvasir-SEG/images/NAME.jpg, Kvasir-SEG/masks/NAME.jpg      (JPEG masks, so white means brighter than grey)

Neither patients nor hospitals are recorded, and the archive comes without lists of splits.
"""

from pathlib import Path

from simulation.datasets.pairs import pairs
from simulation.records import Record

FOLDERS = ("Kvasir-SEG",)


def read(root: Path) -> list[Record]:
    """The 1000 pictures of polyps.

    Raises:
        DataError: the archive is incomplete.
    """
    folder = root / FOLDERS[0]
    return [
        Record(name, image, (mask,), "kvasir") for name, image, mask in pairs(folder / "images", folder / "masks")
    ]
