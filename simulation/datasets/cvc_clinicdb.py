"""CVC-ClinicDB as published: Bernal et al. 2015, https://doi.org/10.1016/j.compmedimag.2015.02.007.

    CVC-ClinicDB/Original/1.tif ... 612.tif, CVC-ClinicDB/Ground Truth/1.tif ... (a PNG copy is read too)

The 612 frames come from 29 videos, one after the other. Frames of one video show one polyp, so a video is a
patient here.
"""

import bisect
from pathlib import Path

from protocol.errors import DataError
from simulation.datasets.pairs import pairs
from simulation.records import Record

FOLDERS = ("CVC-ClinicDB",)

LAST_FRAMES = (
    *(25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317),
    *(342, 363, 383, 408, 428, 447, 466, 478, 503, 528, 546, 571, 591, 612),
)
"""The last frame of each video, as three public copies of the data set agree on; its own page was not compared."""


def read(root: Path) -> list[Record]:
    """The 612 frames.

    Raises:
        DataError: the archive is incomplete, or a file is not named by its frame.
    """
    folder = root / FOLDERS[0]
    return [
        Record(name, image, (mask,), "cvc_clinicdb", patient=f"video{_video(image):02}")
        for name, image, mask in pairs(folder / "Original", folder / "Ground Truth")
    ]


def _video(image: Path) -> int:
    frame = int(image.stem) if image.stem.isdecimal() else 0
    if not 1 <= frame <= LAST_FRAMES[-1]:
        raise DataError(f"{image} is not named by its frame, 1 to {LAST_FRAMES[-1]}: keep the archive's own names")
    return bisect.bisect_left(LAST_FRAMES, frame) + 1
