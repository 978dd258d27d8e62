"""The readers: each original layout in small, the packed layout, and what is said when something is missing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from protocol.errors import DataError, SettingsError
from simulation.datasets import DATASETS, found, read_datasets
from simulation.datasets.cvc_clinicdb import LAST_FRAMES
from simulation.records import Record, read_lesion
from tests.simulation import archives
from tests.simulation.public_data import ROOT, public


def read(root: Path, words: str) -> dict[str, Record]:
    return {record.name: record for record in read_datasets(root, words)}


def test_busi(tmp_path: Path) -> None:
    archives.busi(tmp_path)
    folder = tmp_path / "Dataset_BUSI_with_GT/benign"
    second = np.zeros((archives.SIDE, archives.SIDE), np.uint8)
    second[:3, :3] = 255
    Image.fromarray(second).save(folder / "benign (2)_mask_1.png")
    records = read(tmp_path, "busi")
    assert len(records) == 20
    assert {record.group for record in records.values()} == {"benign", "malignant"}
    assert records["benign (1)"].masks == (folder / "benign (1)_mask.png",)
    both = records["benign (2)"]
    assert len(both.masks) == 2
    with Image.open(both.masks[0]) as first:
        expected = np.maximum(np.asarray(first), second) > 127
    assert np.array_equal(read_lesion(both), expected)


def test_kvasir(tmp_path: Path) -> None:
    archives.kvasir(tmp_path)
    records = read(tmp_path, "kvasir")
    assert len(records) == 10
    lesion = read_lesion(records["cju3"])  # from a JPEG, whose edges are grey
    assert set(np.unique(lesion)) == {0, 1}


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_cvc_clinicdb_makes_a_patient_of_each_video(tmp_path: Path, suffix: str) -> None:
    archives.cvc_clinicdb(tmp_path, [1, 25, 26, 200, 205, 206, 592, 612], suffix)
    records = read(tmp_path, "cvc_clinicdb")
    patients = {int(name): record.patient for name, record in records.items()}
    assert patients == {
        **{1: "video01", 25: "video01", 26: "video02", 200: "video10", 205: "video10", 206: "video11"},
        **{592: "video29", 612: "video29"},
    }
    assert len(LAST_FRAMES) == 29
    assert list(LAST_FRAMES) == sorted(set(LAST_FRAMES))


def test_cvc_clinicdb_with_other_names(tmp_path: Path) -> None:
    archives.cvc_clinicdb(tmp_path, [1, 613])
    with pytest.raises(DataError, match=r"613\.tif is not named by its frame, 1 to 612"):
        read(tmp_path, "cvc_clinicdb")


def test_isic2017(tmp_path: Path) -> None:
    archives.isic2017(tmp_path, {"Training": 5, "Validation": 2, "Test_v2": 3})
    records = read(tmp_path, "isic2017")
    assert [record.published for record in records.values()] == ["train"] * 5 + ["val"] * 2 + ["test"] * 3


def test_isic2018_training_alone(tmp_path: Path) -> None:
    archives.isic2018(tmp_path, {"Training": 5})
    records = read(tmp_path, "isic2018")
    assert [record.published for record in records.values()] == ["train"] * 5
    assert {record.group for record in records.values()} == {"0000"}
    assert read_lesion(records["ISIC_0000002"]).any()


def test_packed(tmp_path: Path) -> None:
    archives.packed(tmp_path / "busi")
    records = read(tmp_path, "busi")
    assert len(records) == 20
    assert [records[name].group for name in ("p000", "p001")] == ["a", "b"]
    assert [records[name].published for name in ("p002", "p003")] == ["train", "val"]
    assert records["p000"].cluster == records["p001"].cluster != records["p002"].cluster == ""


def test_all_that_is_there_is_found(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    archives.kvasir(tmp_path, 2)
    archives.packed(tmp_path / "stu_hospital_bus", 2)
    archives.isic2018(tmp_path, {"Training": 2})
    assert found(tmp_path) == ["kvasir", "isic2018", "stu"]
    assert {record.dataset for record in read_datasets(tmp_path, "auto")} == {"kvasir", "isic2018", "stu"}
    assert {record.dataset for record in read_datasets(tmp_path, "stu, kvasir")} == {"kvasir", "stu"}


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_data_set_says_what_to_download_and_where_to_put_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as error:
        read_datasets(tmp_path, name)
    dataset = DATASETS[name]
    assert dataset.title in str(error.value)
    assert f"download it from {dataset.publisher}" in str(error.value)
    for folder in dataset.original or (dataset.packed,):
        assert str(tmp_path / folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_words(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data\.datasets = 'kvasr' is not one of: .*; did you mean 'kvasir'\?"):
        read_datasets(tmp_path, "kvasr")
    with pytest.raises(SettingsError, match="names a data set twice"):
        read_datasets(tmp_path, "busi,busi")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (
            "Dataset_BUSI_with_GT/benign/benign (3)_mask.png",
            r"benign \(3\)\.png has no mask 'benign \(3\)_mask\.png'",
        ),
        ("Kvasir-SEG/masks/cju4.jpg", r"cju4\.jpg has no mask .*masks/cju4"),
        ("busi/near_duplicates.csv", r"near_duplicates\.csv is missing"),
    ],
)
def test_a_damaged_archive_names_the_file(tmp_path: Path, broken: str, words: str) -> None:
    name = "kvasir" if "Kvasir" in broken else "busi"
    {"Data": archives.busi, "Kvas": archives.kvasir, "busi": lambda root: archives.packed(root / "busi")}[broken[:4]](
        tmp_path
    )
    (tmp_path / broken).unlink()
    with pytest.raises(DataError, match=words):
        read_datasets(tmp_path, name)


@pytest.mark.parametrize(
    ("name", "folder", "count", "groups", "lists"),
    [
        ("busi", "busi", 647, {"benign", "malignant"}, {"train": 452, "val": 195}),
        ("kvasir", "kvasir_seg", 1000, {"vestre_viken_no"}, {"train": 800, "val": 100, "test": 100}),
        ("stu", "stu_hospital_bus", 42, {"shantou_cn"}, {"": 42}),
    ],
)
def test_public_data(name: str, folder: str, count: int, groups: set[str], lists: dict[str, int]) -> None:
    public(folder)
    records = read(ROOT, name)
    assert len(records) == count
    assert {record.group for record in records.values()} == groups
    for word, size in lists.items():
        assert sum(record.published == word for record in records.values()) == size
