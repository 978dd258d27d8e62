"""Readers of public data sets: the layouts of the original archives, and a packed layout with known twins.

`DATASETS` names what `data.datasets` may ask for; a reader turns a folder into `Record`s, nothing more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import DataError, SettingsError
from protocol.settings import choose
from simulation.datasets import busi, cvc_clinicdb, isic2017, isic2018, kvasir, packed
from simulation.records import Record


@dataclass(frozen=True)
class Dataset:
    """A public data set: what it is, where it is found, the folders that it may lie in, and its reader.

    Attributes:
        original: folders of the unpacked original archive, all directly under `data.root`.
        packed: its folder in the packed layout; empty where there is none.
        read: the reader of the original layout, called with `data.root`.
    """

    title: str
    publisher: str
    original: tuple[str, ...]
    packed: str
    read: Callable[[Path], list[Record]] | None


DATASETS: dict[str, Dataset] = {
    "busi": Dataset(
        "BUSI, breast ultrasound",
        "Cairo University, page 'Breast Ultrasound Images Dataset', scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        busi.FOLDERS,
        "busi",
        busi.read,
    ),
    "kvasir": Dataset(
        "Kvasir-SEG, polyps in endoscopy",
        "Simula, page 'Kvasir-SEG', datasets.simula.no/kvasir-seg",
        kvasir.FOLDERS,
        "kvasir_seg",
        kvasir.read,
    ),
    "cvc_clinicdb": Dataset(
        "CVC-ClinicDB, polyps in colonoscopy",
        "CVC Barcelona, page 'CVC-ClinicDB', polyp.grand-challenge.org/CVCClinicDB",
        cvc_clinicdb.FOLDERS,
        "",
        cvc_clinicdb.read,
    ),
    "isic2017": Dataset(
        "ISIC 2017 part 1, skin lesions in dermoscopy",
        "ISIC, page 'ISIC Challenge Datasets', section 2017, challenge.isic-archive.com/data",
        isic2017.FOLDERS,
        "",
        isic2017.read,
    ),
    "isic2018": Dataset(
        "ISIC 2018 task 1, skin lesions in dermoscopy",
        "ISIC, page 'ISIC Challenge Datasets', section 2018, challenge.isic-archive.com/data",
        isic2018.FOLDERS,
        "isic2018_task1",
        isic2018.read,
    ),
    "stu": Dataset(
        "STU-Hospital, breast ultrasound of Shantou",
        "Shantou University, repository 'STU-Hospital', github.com/xbhlk/STU-Hospital",
        (),
        "stu_hospital_bus",
        None,
    ),
}


def read_datasets(root: Path, words: str) -> list[Record]:
    """The records of the data sets that `words` names, with commas between; `auto`: all that are found.

    Raises:
        SettingsError: a word is no data set.
        DataError: a data set is missing or damaged; it says what to download and where to put it.
    """
    names = found(root) if words == "auto" else [word.strip() for word in words.split(",")]
    for name in names:
        choose("data.datasets", name, list(DATASETS))
    if len(set(names)) < len(names):
        raise SettingsError(f"data.datasets = {words!r} names a data set twice")
    return [record for name in names for record in _read(root, name)]


def found(root: Path) -> list[str]:
    """The names of the data sets that lie under `root`, in the order of `DATASETS`."""
    return [name for name in DATASETS if _is_original(root, name) or _is_packed(root, name)]


def _is_original(root: Path, name: str) -> bool:
    folders = DATASETS[name].original
    return bool(folders) and all((root / folder).is_dir() for folder in folders)


def _is_packed(root: Path, name: str) -> bool:
    folder = root / DATASETS[name].packed
    return bool(DATASETS[name].packed) and (folder / "meta.csv").is_file()


def _read(root: Path, name: str) -> list[Record]:
    dataset = DATASETS[name]
    if _is_packed(root, name):
        return packed.read(root / dataset.packed, name)
    if dataset.read and _is_original(root, name):
        return dataset.read(root)
    places = [" and ".join(str(root / folder) for folder in dataset.original)] if dataset.original else []
    if dataset.packed:
        places.append(f"packed as {root / dataset.packed} with images, masks and meta.csv")
    raise DataError(
        f"{dataset.title}, is not under data.root = {root}: download it from {dataset.publisher}, and unpack it to"
        f" {' (or '.join(places)}{')' if len(places) > 1 else ''}"
    )
