"""BUSI as published: Al-Dhabyani et al., Data in Brief 28 (2020) 104863, https://doi.org/10.1016/j.dib.2019.104863.

    Dataset_BUSI_with_GT/{benign,malignant,normal}/
      benign (1).png, benign (1)_mask.png, and for a second lesion benign (1)_mask_1.png

Patients are not recorded. The normals have no lesion; the literature segments benign and malignant alone, and so
does this reader. The archive comes without lists of splits.
"""

from pathlib import Path

from protocol.errors import DataError
from simulation.records import Record

FOLDERS = ("Dataset_BUSI_with_GT",)
GROUPS = ("benign", "malignant")


def read(root: Path) -> list[Record]:
    """The 647 pictures with lesions.

    Raises:
        DataError: a folder is empty or a picture has no mask.
    """
    records = []
    for group in GROUPS:
        folder = root / FOLDERS[0] / group
        images = sorted(path for path in folder.glob("*.png") if "_mask" not in path.stem)
        if not images:
            raise DataError(f"{folder} holds no pictures like '{group} (1).png': unpack the archive again")
        for image in images:
            masks = tuple(sorted(folder.glob(f"{image.stem}_mask*.png")))
            if not masks:
                raise DataError(f"{image} has no mask '{image.stem}_mask.png': unpack the archive again")
            records.append(Record(image.stem, image, masks, "busi", group=group))
    return records
