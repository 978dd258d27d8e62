"""ISIC 2018, task 1, as published: Codella et al. 2019, https://arxiv.org/abs/1902.03368.

    ISIC2018_Task1-2_{Training,Validation,Test}_Input/ISIC_0000000.jpg
    ISIC2018_Task1_{Training,Validation,Test}_GroundTruth/ISIC_0000000_segmentation.png

The challenge's own three parts are the published lists; validation and test may be left out. Patients and
hospitals are not recorded; the group is the block of a thousand ISIC numbers, a proxy for the campaign in which
pictures were taken.
"""

from pathlib import Path

from simulation.datasets.pairs import pairs
from simulation.records import Record

FOLDERS = ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth")
PARTS = {"train": "Training", "val": "Validation", "test": "Test"}


def read(root: Path) -> list[Record]:
    """Up to 2594, 100 and 1000 pictures.

    Raises:
        DataError: the archive is incomplete.
    """
    records = []
    for split, part in PARTS.items():
        images, masks = root / f"ISIC2018_Task1-2_{part}_Input", root / f"ISIC2018_Task1_{part}_GroundTruth"
        if split == "train" or images.is_dir():
            for name, image, mask in pairs(images, masks, "_segmentation"):
                records.append(Record(name, image, (mask,), "isic2018", group=block(name), published=split))
    return records


def block(name: str) -> str:
    """ISIC_0012345 lies in the block 0012."""
    return name.removeprefix("ISIC_")[:4]
