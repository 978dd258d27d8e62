"""The packed layout: small copies of public data sets, with the twins among their pictures already found.

NAME/images/, NAME/masks/        white on black
NAME/meta.csv                    name, and of these what is known: group or id_block, repo_split or split1
NAME/near_duplicates.csv         name, cluster: pictures that show the same again
"""

import csv
from pathlib import Path

from protocol.errors import DataError
from simulation.datasets.pairs import pairs
from simulation.records import Record

GROUPS = ("group", "id_block")
LISTS = ("repo_split", "split1")
WORDS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def read(folder: Path, dataset: str) -> list[Record]:
    """The records of one packed data set.

    Raises:
        DataError: a picture has no mask or no row in meta.csv.
    """
    meta = {row["name"]: row for row in _rows(folder / "meta.csv")}
    clusters = {row["name"]: f"{dataset} {row['cluster']}" for row in _rows(folder / "near_duplicates.csv")}
    records = []
    for name, image, mask in pairs(folder / "images", folder / "masks"):
        if name not in meta:
            raise DataError(f"{folder / 'meta.csv'} has no row for {image}: copy the data set again")
        published = _first(meta[name], LISTS)
        if published and published not in WORDS:
            raise DataError(f"{folder / 'meta.csv'}: {name} is in no known list ({published!r}): copy it again")
        records.append(
            Record(
                name=name,
                image=image,
                masks=(mask,),
                dataset=dataset,
                group=_first(meta[name], GROUPS),
                published=WORDS.get(published, ""),
                cluster=clusters.get(name, ""),
            )
        )
    return records


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(f"{path} is missing: copy the data set again")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _first(row: dict[str, str], columns: tuple[str, ...]) -> str:
    return next((row[column] for column in columns if row.get(column)), "")
