"""All pictures of the data sets that a study names, ready to be dealt to sites."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.duplicates import fingerprint, twins
from client.images import open_picture
from client.splits import units
from protocol.errors import DataError, SettingsError
from simulation.datasets import DATASETS, folder, found, read_datasets
from simulation.records import Record, in_threads


def read_pool(root: Path, datasets: str) -> list[Record]:
    """The records under `root`, with names unique over all data sets and every twin found.

    Args:
        datasets: the words of `data.datasets`.

    Raises:
        SettingsError: a word is no data set, or data sets are named and `root` is a plain folder of pictures.
        DataError: nothing that can be read lies under `root`, or something is missing or damaged.
    """
    if folder.is_folder(root):
        if datasets != "auto":
            raise SettingsError(
                f"data.datasets = {datasets!r}, but data.root = {root} holds plain images/ and masks/: set it to auto"
            )
        records = folder.read(root)
    elif datasets == "auto" and not found(root):
        raise DataError(
            f"data.root = {root} holds no sites, no images/ and masks/, and no public data set"
            f" ({', '.join(DATASETS)}): name one in data.datasets to read where to get it"
        )
    else:
        records = read_datasets(root, datasets)
    return _with_twins(_with_unique_names(records))


def _with_unique_names(records: list[Record]) -> list[Record]:
    count = Counter(record.name for record in records)
    if max(count.values()) == 1:
        return records
    return [replace(record, name=f"{record.dataset}_{record.name}") for record in records]


def _with_twins(records: list[Record]) -> list[Record]:
    """The records with all clusters of twins: those that a data set knows of, joined with those found here."""
    seen: list[set[str]] = [{record.name} | ({record.cluster} if record.cluster else set()) for record in records]
    for one, other in twins(in_threads(_fingerprint, records)):
        seen[one].add(records[other].name)
    of = units(seen)
    size = Counter(of)
    return [
        replace(record, cluster=f"twins {unit}" if size[unit] > 1 else "")
        for record, unit in zip(records, of, strict=True)
    ]


def _fingerprint(record: Record) -> npt.NDArray[np.float32]:
    return fingerprint(open_picture(record.image))
