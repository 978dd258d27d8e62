"""Site folders written from records of public data sets: pictures as they are, masks as labels, site.csv."""

import csv
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from client.images import read_image
from client.site import COLUMNS
from protocol.seeds import seed_of
from simulation.appearance import Appearance
from simulation.records import Record, in_threads, read_lesion, save_png


@dataclass(frozen=True)
class Row:
    """One line of site.csv."""

    name: str
    split: str
    patient: str
    group: str


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write site.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in rows)


def write_site(folder: Path, cases: Sequence[tuple[Record, Row]], machine: Appearance, seed: int) -> None:
    """Write the folder of one pretend hospital.

    Pictures are copied byte for byte where `machine` changes nothing, else written as PNG; so are masks that are
    labels already.

    Raises:
        DataError: a picture or a mask cannot be read.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()

    def write(case: tuple[Record, Row]) -> None:
        record, row = case
        if machine.neutral:
            shutil.copyfile(record.image, folder / "images" / f"{row.name}{record.image.suffix.lower()}")
        else:
            pixels = np.asarray(read_image(record.image, in_channels=3))
            seen = machine.apply(pixels, seed_of(seed, folder.name, row.name, "noise"))
            save_png(seen, folder / "images" / f"{row.name}.png")
        if record.labels:
            shutil.copyfile(record.masks[0], folder / "masks" / f"{row.name}.png")
        else:
            save_png(read_lesion(record), folder / "masks" / f"{row.name}.png")

    in_threads(write, cases)
    write_csv(folder / "site.csv", [row for _, row in cases])
