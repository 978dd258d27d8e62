"""A plain folder with images/ and masks/, and site.csv where there is one: a pool of the user's own."""

from pathlib import Path

from client.site import read_site
from simulation.records import Record

WORD = "folder"
"""What the pool is called where a data set is named."""


def is_folder(root: Path) -> bool:
    """Whether `root` itself holds images/ and masks/."""
    return (root / "images").is_dir() and (root / "masks").is_dir()


def read(root: Path) -> list[Record]:
    """The cases with their labels as they are, and the patients, groups and splits of site.csv where given.

    Raises:
        DataError: the folder is not as `client.site` wants it.
    """
    site = read_site(root, seed=0, val=0.5, test=0.0)  # the split is drawn again when the pool is divided
    return [
        Record(
            name=case.name,
            image=case.image,
            masks=(case.mask,),
            dataset=WORD,
            patient=case.patient,
            group=case.group,
            published=case.split if site.own_split else "",
            labels=True,
        )
        for case in site.cases
    ]
