"""ISIC 2017, part 1, as published: Codella et al. 2018, https://arxiv.org/abs/1710.05006.

    ISIC-2017_{Training,Validation,Test_v2}_Data/ISIC_0000000.jpg
    ISIC-2017_{Training,Validation,Test_v2}_Part1_GroundTruth/ISIC_0000000_segmentation.png

The challenge's own three parts are the published lists; validation and test may be left out. Patients and
hospitals are not recorded.
"""

from pathlib import Path

from simulation.datasets.pairs import pairs
from simulation.records import Record

FOLDERS = ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth")
PARTS = {"train": "Training", "val": "Validation", "test": "Test_v2"}


def read(root: Path) -> list[Record]:
    """Up to 2000, 150 and 600 pictures.

    Raises:
        DataError: the archive is incomplete.
    """
    records = []
    for split, part in PARTS.items():
        images, masks = root / f"ISIC-2017_{part}_Data", root / f"ISIC-2017_{part}_Part1_GroundTruth"
        if split == "train" or images.is_dir():
            found = pairs(images, masks, "_segmentation")
            records += [Record(name, image, (mask,), "isic2017", published=split) for name, image, mask in found]
    return records
